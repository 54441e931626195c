"""Pieces of a network in the library that is their golden, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lepton.errors import InputError
from lepton.runtime.devices.protocol import Arrays
from lepton.runtime.golden import drawn, onnx_session, reason_of, tflite_interpreter
from lepton.runtime.split import Network

__all__ = ["Run", "drawn_inputs", "piece_runner"]

Run = Callable[[Arrays], Arrays]


def piece_runner(format: str, piece: bytes, threads: int) -> Run:
    """Return what runs a piece on named arrays.

    Raises:
        InputError: the library refuses the piece.
    """
    return _tflite(piece, threads) if format == "tflite" else _onnx(piece, threads)


def _onnx(piece: bytes, threads: int) -> Run:
    session = onnx_session(piece, threads)
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as error:
            raise InputError(f"ONNX Runtime fails on the CPU: {reason_of(error)}") from None

    return run


def _tflite(piece: bytes, threads: int) -> Run:
    engine = tflite_interpreter(piece, threads=threads)
    reads = [(detail["name"], detail["index"]) for detail in engine.get_input_details()]
    makes = [(detail["name"], detail["index"]) for detail in engine.get_output_details()]

    def run(inputs: Arrays) -> Arrays:
        for name, index in reads:
            engine.set_tensor(index, inputs[name])
        engine.invoke()
        return {name: engine.get_tensor(index) for name, index in makes}

    return run


def drawn_inputs(network: Network, names: tuple[str, ...], seed: int = 0) -> Arrays:
    """Return seeded random arrays for some tensors of a network."""
    rng: Any = np.random.default_rng(seed)
    tensors = [network.tensors[name] for name in names]
    return {tensor.name: drawn(rng, tensor.shape, np.dtype(tensor.dtype)) for tensor in tensors}
