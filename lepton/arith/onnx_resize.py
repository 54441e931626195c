"""Resize (nearest, linear) of 8-bit tensors as ONNX Runtime computes it.

Source: ONNX Runtime 1.31 (MIT), the CPU Resize kernels; coordinate rules of the ONNX standard,
evaluated in float32; checked against the library (docs/onnx_golden.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lepton.arith.onnx_float import (
    Float32Array,
    Int32Array,
    Quantization,
    dequantize_value,
    quantize_value,
)
from lepton.jit import njit

_HALF = np.float32(0.5)


class ResizeAxis(NamedTuple):
    """One axis of a resize: lengths and scale (``resized / original`` in float32 if not given)."""

    original: int
    resized: int
    scale: np.float32
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"


def resize_axis(
    original: int, resized: int, coordinates: str, rounding: str = "", scale: float | None = None
) -> ResizeAxis:
    """Describe one axis; without ``scale`` the sizes give it, as when Resize has ``sizes``."""
    factor = np.float32(resized) / np.float32(original) if scale is None else np.float32(scale)
    return ResizeAxis(original, resized, np.float32(factor), coordinates, rounding)


def _half_pixel(axis: ResizeAxis, i: np.float32) -> np.float32:
    return (i + _HALF) / axis.scale - _HALF


def _pytorch_half_pixel(axis: ResizeAxis, i: np.float32) -> np.float32:
    return _half_pixel(axis, i) if axis.resized > 1 else np.float32(0)


def _asymmetric(axis: ResizeAxis, i: np.float32) -> np.float32:
    return i / axis.scale


def _align_corners(axis: ResizeAxis, i: np.float32) -> np.float32:
    if axis.resized == 1:
        return np.float32(0)
    return i * np.float32(axis.original - 1) / np.float32(axis.resized - 1)


COORDINATES: dict[str, Callable[[ResizeAxis, np.float32], np.float32]] = {
    "half_pixel": _half_pixel,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "asymmetric": _asymmetric,
    "align_corners": _align_corners,
}


def _is_tie(x: float) -> bool:
    # The golden takes coordinates this close to a half for one (observed: 9.5e-7 is, 1.4e-6 not).
    return abs(x - math.floor(x) - 0.5) < 1e-6


def _round_prefer_floor(x: float) -> int:
    return math.floor(x) if _is_tie(x) else math.floor(x + 0.5)


def _round_prefer_ceil(x: float) -> int:
    return math.ceil(x) if _is_tie(x) else math.floor(x + 0.5)


ROUNDING: dict[str, Callable[[float], int]] = {
    "round_prefer_floor": _round_prefer_floor,
    "round_prefer_ceil": _round_prefer_ceil,
    "floor": math.floor,
    "ceil": math.ceil,
}


def source_coordinate(axis: ResizeAxis, index: int) -> np.float32:
    """Return where output ``index`` lies on the input axis, in float32."""
    if axis.scale == 1:
        return np.float32(index)
    return np.float32(COORDINATES[axis.coordinates](axis, np.float32(index)))


def nearest_indices(axis: ResizeAxis) -> Int32Array:
    """Return for each output index the input index that a nearest resize copies."""
    rule = ROUNDING[axis.rounding]
    picked = [rule(float(source_coordinate(axis, i))) for i in range(axis.resized)]
    return np.clip(np.array(picked, np.int64), 0, axis.original - 1).astype(np.int32)


class LinearTaps(NamedTuple):
    """Two taps per output index: ``weight_lower * x[lower] + weight_upper * x[upper]``."""

    lower: Int32Array
    upper: Int32Array
    weight_lower: Float32Array
    weight_upper: Float32Array


def linear_taps(axis: ResizeAxis) -> LinearTaps:
    """Return the taps of a linear resize; at the far edge both weights are one half."""
    last = axis.original - 1
    places = np.array([source_coordinate(axis, i) for i in range(axis.resized)], np.float32)
    places = np.clip(places, np.float32(0), np.float32(last))
    lower = np.minimum(places.astype(np.int32), last).astype(np.int32)
    upper = np.minimum(lower + 1, last).astype(np.int32)
    weight_lower = np.abs(places - upper.astype(np.float32))
    weight_upper = np.abs(places - lower.astype(np.float32))
    edge = lower == upper
    weight_lower = np.where(edge, _HALF, weight_lower).astype(np.float32)
    weight_upper = np.where(edge, _HALF, weight_upper).astype(np.float32)
    return LinearTaps(lower, upper, weight_lower, weight_upper)


@njit
def resize_nearest(ifm: Int32Array, rows: Int32Array, columns: Int32Array) -> Int32Array:
    """Copy ``ifm[rows[y], columns[x]]`` of ``[h, w, c]`` codes."""
    ofm = np.empty((rows.size, columns.size, ifm.shape[2]), np.int32)
    for y in range(rows.size):
        for x in range(columns.size):
            ofm[y, x] = ifm[rows[y], columns[x]]
    return ofm


@njit(error_model="numpy")
def _blend(corners: Float32Array, rows: LinearTaps, columns: LinearTaps, at: tuple[int, int]):
    """Return the four-term sum of one output element, each product and sum rounded."""
    y, x = at
    value = columns.weight_lower[x] * rows.weight_lower[y] * corners[0]
    value += columns.weight_upper[x] * rows.weight_lower[y] * corners[1]
    value += columns.weight_lower[x] * rows.weight_upper[y] * corners[2]
    value += columns.weight_upper[x] * rows.weight_upper[y] * corners[3]
    return np.float32(value)


@njit(error_model="numpy")
def resize_linear(
    ifm: Int32Array,
    rows: LinearTaps,
    columns: LinearTaps,
    params: tuple[Quantization, Quantization],
) -> Int32Array:
    """Resize ``[h, w, c]`` linearly in float32 between dequantize and quantize.

    A linear Resize between a dequantize and a quantize stays in float in the golden. ``params``
    holds the quantizations of ifm and ofm.
    """
    source, target = params
    channels = ifm.shape[2]
    ofm = np.empty((rows.lower.size, columns.lower.size, channels), np.int32)
    corners = np.empty(4, np.float32)
    for y in range(rows.lower.size):
        for x in range(columns.lower.size):
            for c in range(channels):
                for k in range(4):
                    row = rows.lower[y] if k < 2 else rows.upper[y]
                    column = columns.lower[x] if k % 2 == 0 else columns.upper[x]
                    code = ifm[row, column, c]
                    corners[k] = dequantize_value(code, source.scale, source.zero_point)
                value = _blend(corners, rows, columns, (y, x))
                ofm[y, x, c] = quantize_value(value, target)
    return ofm


@njit(error_model="numpy")
def resize_linear_codes(ifm: Int32Array, rows: LinearTaps, columns: LinearTaps) -> Int32Array:
    """Resize the codes themselves, truncating toward zero.

    This is a Resize whose operands are 8-bit tensors (no dequantize around it), channels first.
    """
    channels = ifm.shape[2]
    ofm = np.empty((rows.lower.size, columns.lower.size, channels), np.int32)
    corners = np.empty(4, np.float32)
    for y in range(rows.lower.size):
        for x in range(columns.lower.size):
            for c in range(channels):
                for k in range(4):
                    row = rows.lower[y] if k < 2 else rows.upper[y]
                    column = columns.lower[x] if k % 2 == 0 else columns.upper[x]
                    corners[k] = np.float32(ifm[row, column, c])
                ofm[y, x, c] = np.int32(_blend(corners, rows, columns, (y, x)))
    return ofm
