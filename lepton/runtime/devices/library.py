"""Pieces of a network in the library that is their golden, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lepton.errors import InputError
from lepton.runtime.devices.protocol import Arrays
from lepton.runtime.golden import drawn, onnx_session, reason_of, tflite_interpreter
from lepton.runtime.split import Network

__all__ = ["Engine", "Run", "drawn_inputs", "piece_runner", "session_runner"]

Run = Callable[[Arrays], Arrays]
Engine = Callable[[bytes], Run]
"""Makes what runs a piece, an ONNX file, on named arrays."""


def piece_runner(format: str, piece: bytes, threads: int) -> Run:
    """Return what runs a piece on named arrays.

    Raises:
        InputError: the library refuses the piece.
    """
    if format == "tflite":
        return _tflite(piece, threads)
    return session_runner(onnx_session(piece, threads), "the CPU")


def session_runner(session: Any, place: str) -> Run:
    """Return what runs a session of ONNX Runtime on named arrays."""
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as error:
            raise InputError(f"ONNX Runtime fails on {place}: {reason_of(error)}") from None

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
