"""ONNX forms of data movement that only host regions do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lepton.compiler.host import HostWriter

__all__ = ["MOVES"]


def _flip(w: HostWriter, call: Any) -> str:
    """Write a reversal as a slice that steps backward; its end lies before the first element."""
    rank = len(call.args[0].ty.shape.values)
    axis = int(call.attrs.axis) % rank
    parts = [np.array([number], np.int64) for number in (-1, np.iinfo(np.int64).min, axis, -1)]
    return w.node("Slice", [w.value(call.args[0]), *(w.constant(part) for part in parts)])


def _tile(w: HostWriter, call: Any) -> str:
    """Write a repetition; fewer counts than dimensions count for the last ones."""
    repeats = [int(count) for count in call.attrs.repeats]
    shape = [int(extent) for extent in call.args[0].ty.shape.values]
    source = w.value(call.args[0])
    if len(repeats) > len(shape):
        widened = [1] * (len(repeats) - len(shape)) + shape
        source = w.node("Reshape", [source, w.constant(np.array(widened, np.int64))])
    counts = [1] * (len(shape) - len(repeats)) + repeats
    return w.node("Tile", [source, w.constant(np.array(counts, np.int64))])


MOVES: dict[str, Callable[[HostWriter, Any], str | list[str]]] = {
    "flip": _flip,
    "tile": _tile,
}
"""Writers by Relax operator."""
