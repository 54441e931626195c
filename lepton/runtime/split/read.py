"""Read a model file of either format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lepton.errors import InputError
from lepton.program import read_file
from lepton.runtime.split.network import Network
from lepton.runtime.split.onnx_network import onnx_network
from lepton.runtime.split.tflite_network import tflite_network

__all__ = ["read_network"]

_MAXIMUM_BYTES = 4 << 30


def read_network(path: Path, shapes: Mapping[str, Sequence[int]] | None = None) -> Network:
    """Return a model file in units.

    Args:
        path: `.onnx` or `.tflite`.
        shapes: of inputs that have unknown dimensions, by name.

    Raises:
        InputError: the file cannot be read or split.
    """
    content = read_file(path, _MAXIMUM_BYTES, "a model")
    split = tflite_network if content[4:8] == b"TFL3" else onnx_network
    try:
        return split(content, path.name, shapes or {})
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is damaged: a name in it is not UTF-8") from None
