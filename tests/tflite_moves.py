"""Random TFLite operators that only move bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.tflite_builder import Tensor
from tests.tflite_writer import Maker, Writer

__all__ = ["MOVES"]


def _reshape(w: Writer, x: Tensor) -> Tensor:
    total = math.prod(x.shape)
    first = w.pick(*[n for n in range(1, total + 1) if total % n == 0])
    rest = total // first
    second = w.pick(*[n for n in range(1, rest + 1) if rest % n == 0])
    shape = w.pick([1, first, second, rest // second], [first, rest], [1, first, rest])
    return w.operator("RESHAPE", [x, w.numbers(*shape)], w.same(x, shape), new_shape=shape)


def _transpose(w: Writer, x: Tensor) -> Tensor:
    order = [int(axis) for axis in w.rng.permutation(len(x.shape))]
    y = w.same(x, [x.shape[axis] for axis in order])
    return w.operator("TRANSPOSE", [x, w.numbers(*order)], y)


def _concatenation(w: Writer, x: Tensor) -> Tensor:
    axis, count = w.between(0, len(x.shape) - 1), w.between(1, 3)
    like = x if x.dtype == "int8" or w.rng.random() < 0.5 else None
    parts = [x]
    for _ in range(count):
        shape = list(x.shape)
        shape[axis] = w.between(1, 5)
        parts.append(w.other(shape, like))
    shape = list(x.shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    y = w.same(x, shape) if like is not None else w.fresh(x, shape)
    return w.operator("CONCATENATION", parts, y, axis=axis)


def _pad(kind: str) -> Callable[[Writer, Tensor], Tensor]:
    def make(w: Writer, x: Tensor) -> Tensor:
        most = [
            1 if kind == "MIRROR_PAD" and n > 1 else 0 if kind == "MIRROR_PAD" else 3
            for n in x.shape
        ]
        widths = np.array([[w.between(0, n), w.between(0, n)] for n in most], np.int32)
        if len(x.shape) == 4:
            widths[0] = 0
        shape = [n + int(sum(pair)) for n, pair in zip(x.shape, widths, strict=True)]
        inputs: list[Tensor | None] = [x, w.builder.constant(w.name(), widths)]
        options: dict[str, Any] = {}
        if kind == "PADV2":
            value = w.values([1], x.dtype)
            inputs.append(w.builder.constant(w.name(), value, float(x.scale), x.zero_point))
        elif kind == "MIRROR_PAD":
            options["mode"] = "REFLECT"
        return w.operator(kind, inputs, w.same(x, shape), **options)

    return make


def _split(w: Writer, x: Tensor) -> Tensor:
    axis = w.between(0, len(x.shape) - 1)
    counts = [n for n in (1, 2, 3, 4) if x.shape[axis] % n == 0]
    count = w.pick(*counts)
    shape = list(x.shape)
    shape[axis] //= count
    parts = [w.same(x, shape) for _ in range(count)]
    place = w.pick(w.scalar, w.numbers)(axis)
    w.builder.operator("SPLIT", [place, x], parts, num_splits=count)
    w.made += parts[1:]
    return parts[0]


def _split_v(w: Writer, x: Tensor) -> Tensor:
    axis = w.between(0, len(x.shape) - 1)
    first = w.between(1, x.shape[axis])
    sizes = [first, x.shape[axis] - first] if first < x.shape[axis] else [first]
    parts: list[Tensor] = []
    for size in sizes:
        shape = list(x.shape)
        shape[axis] = size
        parts.append(w.same(x, shape))
    inputs = [x, w.numbers(*sizes), w.scalar(axis)]
    w.builder.operator("SPLIT_V", inputs, parts, num_splits=len(sizes))
    w.made += parts[1:]
    return parts[0]


def _slice(w: Writer, x: Tensor) -> Tensor:
    begin = [w.between(0, n - 1) for n in x.shape]
    size = [w.between(1, n - b) for n, b in zip(x.shape, begin, strict=True)]
    y = w.same(x, size)
    return w.operator("SLICE", [x, w.numbers(*begin), w.numbers(*size)], y)


def _strided_slice(w: Writer, x: Tensor) -> Tensor:
    begin = [w.between(0, n - 1) for n in x.shape]
    end = [w.between(b + 1, n) for n, b in zip(x.shape, begin, strict=True)]
    step = [w.between(1, 3) for _ in x.shape]
    shape = [-(-(e - b) // s) for b, e, s in zip(begin, end, step, strict=True)]
    corners = [w.numbers(*values) for values in (begin, end, step)]
    return w.operator("STRIDED_SLICE", [x, *corners], w.same(x, shape))


def _squeeze(w: Writer, x: Tensor) -> Tensor:
    axes = [axis for axis, n in enumerate(x.shape) if n == 1][: len(x.shape) - 1]
    shape = [n for axis, n in enumerate(x.shape) if axis not in axes]
    return w.operator("SQUEEZE", [x], w.same(x, shape), squeeze_dims=axes)


def _expand(w: Writer, x: Tensor) -> Tensor:
    axis = w.between(0, len(x.shape))
    shape = [*x.shape[:axis], 1, *x.shape[axis:]]
    return w.operator("EXPAND_DIMS", [x, w.scalar(axis)], w.same(x, shape))


def _pack(w: Writer, x: Tensor) -> Tensor:
    axis, count = w.between(0, len(x.shape)), w.between(1, 3)
    parts = [x, *(w.other(x.shape, x) for _ in range(count - 1))]
    y = w.same(x, [*x.shape[:axis], count, *x.shape[axis:]])
    return w.operator("PACK", parts, y, axis=axis, values_count=count)


def _unpack(w: Writer, x: Tensor) -> Tensor:
    axis = w.between(0, len(x.shape) - 1)
    shape = [n for at, n in enumerate(x.shape) if at != axis]
    parts = [w.same(x, shape) for _ in range(x.shape[axis])]
    w.builder.operator("UNPACK", [x], parts, axis=axis, num=x.shape[axis])
    w.made += parts[1:]
    return parts[0]


def _tile(w: Writer, x: Tensor) -> Tensor:
    times = [w.between(1, 2) for _ in x.shape]
    y = w.same(x, [n * t for n, t in zip(x.shape, times, strict=True)])
    return w.operator("TILE", [x, w.numbers(*times)], y)


def _gather(w: Writer, x: Tensor) -> Tensor:
    axis, count = w.between(0, len(x.shape) - 1), w.between(1, 4)
    index = w.rng.integers(0, x.shape[axis], count).astype(np.int32)
    shape = list(x.shape)
    shape[axis] = count
    return w.operator("GATHER", [x, w.numbers(*index.tolist())], w.same(x, shape), axis=axis)


def _reverse(w: Writer, x: Tensor) -> Tensor:
    axis = w.between(0, len(x.shape) - 1)
    return w.operator("REVERSE_V2", [x, w.numbers(axis)], w.same(x, x.shape))


def _depth_to_space(w: Writer, x: Tensor) -> Tensor:
    block = w.pick(*[n for n in (1, 2, 3) if x.shape[3] % (n * n) == 0])
    n, h, width, c = x.shape
    y = w.same(x, [n, h * block, width * block, c // (block * block)])
    return w.operator("DEPTH_TO_SPACE", [x], y, block_size=block)


def _space_to_depth(w: Writer, x: Tensor) -> Tensor:
    fitting = [n for n in (1, 2, 3) if x.shape[1] % n == 0 and x.shape[2] % n == 0]
    block = w.pick(*fitting)
    n, h, width, c = x.shape
    y = w.same(x, [n, h // block, width // block, c * block * block])
    return w.operator("SPACE_TO_DEPTH", [x], y, block_size=block)


MOVES: dict[str, Maker] = {
    "RESHAPE": _reshape,
    "TRANSPOSE": _transpose,
    "CONCATENATION": _concatenation,
    "PAD": _pad("PAD"),
    "PADV2": _pad("PADV2"),
    "MIRROR_PAD": _pad("MIRROR_PAD"),
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "SQUEEZE": _squeeze,
    "EXPAND_DIMS": _expand,
    "PACK": _pack,
    "UNPACK": _unpack,
    "TILE": _tile,
    "GATHER": _gather,
    "REVERSE_V2": _reverse,
    "DEPTH_TO_SPACE": _depth_to_space,
    "SPACE_TO_DEPTH": _space_to_depth,
}
"""Makers by the operator's builtin name."""
