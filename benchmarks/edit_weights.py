"""Int8 `.tflite` files with pruned, shared or narrow weights, to measure on the same values.

Convolution and fully connected weights are edited in place, without retraining; those of depthwise
convolutions stay as they are. A step of an edit works on each tensor by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["EDITS", "Span", "edited", "zero_order_bytes"]

I8 = NDArray[np.int8]

_ROUNDS = 8
"""Of moving the centres of shared values."""


@dataclass(frozen=True)
class Span:
    """Where an int8 weight tensor lies in a file."""

    shape: tuple[int, ...]
    start: int
    stop: int


def two_of_four(weights: I8) -> I8:
    """Return weights of which the two smallest of four along the last axis are 0.

    Of equal magnitudes the first are. A last axis of another length than a multiple of 4 is left.
    """
    if weights.shape[-1] % 4:
        return weights
    fours = weights.reshape(-1, 4).copy()
    smallest = np.abs(fours.astype(np.int16)).argsort(axis=1, kind="stable")[:, :2]
    np.put_along_axis(fours, smallest, 0, axis=1)
    return fours.reshape(weights.shape)


def pruned(weights: I8, percent: int) -> I8:
    """Return weights of which so many percent, the smallest of the tensor, are 0."""
    flat = weights.reshape(-1).copy()
    order = np.abs(flat.astype(np.int16)).argsort(kind="stable")
    flat[order[: int(flat.size * percent / 100)]] = 0
    return flat.reshape(weights.shape)


def shared(weights: I8, clusters: int) -> I8:
    """Return weights of at most so many values: k-means from evenly spaced quantiles."""
    flat = weights.reshape(-1).astype(np.float64)
    centres = np.unique(np.rint(np.quantile(flat, (np.arange(clusters) + 0.5) / clusters)))
    for _ in range(_ROUNDS):
        nearest = _nearest(flat, centres)
        count = np.bincount(nearest, minlength=len(centres))
        total = np.bincount(nearest, weights=flat, minlength=len(centres))
        means = np.rint(total / np.maximum(count, 1))
        centres = np.unique(np.where(count > 0, means, centres))
    return centres[_nearest(flat, centres)].astype(np.int8).reshape(weights.shape)


def _nearest(values: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the number of the centre that each value is nearest to."""
    return ((centres[1:] + centres[:-1]) / 2).searchsorted(values)


def narrow(weights: I8, bits: int) -> I8:
    """Return weights rounded to so many bits, symmetric about 0: multiples of 2 ** (8 - bits)."""
    step, most = 1 << (8 - bits), (1 << (bits - 1)) - 1
    codes = np.rint(weights.astype(np.float64) / step).clip(-most, most)
    return (codes * step).astype(np.int8)


EDITS: dict[str, Callable[[I8], I8]] = {
    "dense": lambda weights: weights,
    "2:4": two_of_four,
    "50 %": lambda weights: pruned(weights, 50),
    "75 %": lambda weights: pruned(weights, 75),
    "90 %": lambda weights: pruned(weights, 90),
    "32 clusters": lambda weights: shared(weights, 32),
    "16 clusters": lambda weights: shared(weights, 16),
    "5 bits": lambda weights: narrow(weights, 5),
}
"""The rows of the table."""


def weight_spans(content: bytes) -> Iterator[Span]:
    """Yield the int8 weights of a file's convolutions and fully connected layers."""
    import tflite

    editable = (tflite.BuiltinOperator.CONV_2D, tflite.BuiltinOperator.FULLY_CONNECTED)
    origin = np.frombuffer(content, np.uint8).ctypes.data
    model = tflite.Model.GetRootAsModel(content, 0)
    graph = model.Subgraphs(0)
    assert graph is not None
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        code = model.OperatorCodes(operator.OpcodeIndex())
        if max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) not in editable:
            continue
        tensor = graph.Tensors(operator.Inputs(1))
        buffer = model.Buffers(tensor.Buffer())
        if tensor.Type() == tflite.TensorType.INT8 and buffer.DataLength():
            start = buffer.DataAsNumpy().ctypes.data - origin
            shape = tuple(int(size) for size in tensor.ShapeAsNumpy())
            yield Span(shape, start, start + buffer.DataLength())


def edited(content: bytes, edit: Callable[[I8], I8]) -> tuple[bytes, list[I8]]:
    """Return a file with edited weights, and those weights."""
    made, found = bytearray(content), list[I8]()
    for span in weight_spans(content):
        weights = np.frombuffer(content[span.start : span.stop], np.int8).reshape(span.shape)
        found.append(edit(weights))
        made[span.start : span.stop] = found[-1].tobytes()
    return bytes(made), found


def zero_order_bytes(weights: I8) -> float:
    """Return the entropy of a tensor's values, in bytes."""
    counts = np.unique(weights, return_counts=True)[1]
    return float(-(counts @ np.log2(counts / weights.size))) / 8
