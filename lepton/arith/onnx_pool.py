"""Pooling of 8-bit tensors as ONNX Runtime computes it.

Feature maps are ``[height, width, channels]`` int32 codes, one image at a time.

Source: ONNX Runtime 1.31 (MIT), QLinearAveragePool and QLinearGlobalAveragePool; checked against
the library (docs/onnx_golden.md).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lepton.arith.onnx_float import (
    Int32Array,
    Quantization,
    dequantize_value,
    round_clamped,
    round_saturated,
)
from lepton.jit import njit


class Window(NamedTuple):
    """A pooling window: kernel, stride and leading padding in elements, and the ofm's size."""

    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int
    ofm_h: int
    ofm_w: int
    dilation_h: int = 1
    dilation_w: int = 1


class AveragePoolParams(NamedTuple):
    """Parameters of ``average_pool``."""

    ifm: Quantization
    ofm: Quantization
    count_include_pad: bool


def prepare_average_pool(
    ifm: Quantization, ofm: Quantization, count_include_pad: bool
) -> AveragePoolParams:
    """Collect the parameters of an average pool; nothing is folded, the golden folds nothing.

    A window that covers the whole unpadded image is not an average pool for the golden: use
    ``global_average_pool`` for it.
    """
    return AveragePoolParams(ifm, ofm, count_include_pad)


@njit(error_model="numpy")
def average_code(total: np.float32, count: int, ofm: Quantization) -> np.int32:
    """Return ``clamp(rint((total / count) / scale + zero_point))``, all in float32."""
    mean = np.float32(total / np.float32(count))
    scaled = np.float32(mean / np.float32(ofm.scale))
    return round_saturated(scaled + np.float32(ofm.zero_point), 0, ofm.lo, ofm.hi)


@njit(error_model="numpy")
def average_pool(ifm: Int32Array, window: Window, params: AveragePoolParams) -> Int32Array:
    """Average-pool ``[h, w, c]`` (QLinearAveragePool).

    Each tap is dequantized, taps are summed in float32 row by row, and the zero point is added
    before the rounding. Padding adds nothing; it counts if count_include_pad is set.
    """
    height, width, channels = ifm.shape
    ofm = np.empty((window.ofm_h, window.ofm_w, channels), np.int32)
    for oy in range(window.ofm_h):
        y0 = oy * window.stride_h - window.pad_top
        y1 = min(y0 + window.kernel_h, height)
        y0 = max(y0, 0)
        for ox in range(window.ofm_w):
            x0 = ox * window.stride_w - window.pad_left
            x1 = min(x0 + window.kernel_w, width)
            x0 = max(x0, 0)
            count = (y1 - y0) * (x1 - x0)
            if params.count_include_pad:
                count = window.kernel_h * window.kernel_w
            for c in range(channels):
                total = np.float32(0.0)
                for y in range(y0, y1):
                    for x in range(x0, x1):
                        code = ifm[y, x, c]
                        total += dequantize_value(code, params.ifm.scale, params.ifm.zero_point)
                ofm[oy, ox, c] = average_code(total, count, params.ofm)
    return ofm


class GlobalAveragePoolParams(NamedTuple):
    """Parameters of ``global_average_pool``; ``bias`` takes the input zero points out."""

    scale: np.float32
    bias: int
    zero_point: int
    lo: int
    hi: int


def prepare_global_average_pool(
    ifm: Quantization, ofm: Quantization, positions: int
) -> GlobalAveragePoolParams:
    """Form ``ifm.scale / (ofm.scale * positions)`` in float32."""
    scale = np.float32(ifm.scale) / (np.float32(ofm.scale) * np.float32(positions))
    bias = -ifm.zero_point * positions
    return GlobalAveragePoolParams(np.float32(scale), bias, ofm.zero_point, ofm.lo, ofm.hi)


@njit(error_model="numpy")
def global_average_code(total: int, params: GlobalAveragePoolParams) -> np.int32:
    """Return ``clamp(rint(float32(total + bias) * scale)) + zero_point`` of a sum of codes."""
    value = np.float32(np.int32(total + params.bias)) * params.scale
    return round_clamped(value, params.zero_point, params.lo, params.hi)


@njit(error_model="numpy")
def global_average_pool(ifm: Int32Array, params: GlobalAveragePoolParams) -> Int32Array:
    """Average ``[positions, channels]`` codes to ``[channels]`` (QLinearGlobalAveragePool)."""
    positions, channels = ifm.shape
    totals = np.zeros(channels, np.int32)
    for i in range(positions):
        for c in range(channels):
            totals[c] += ifm[i, c]
    ofm = np.empty(channels, np.int32)
    for c in range(channels):
        ofm[c] = global_average_code(totals[c], params)
    return ofm


@njit
def max_pool(ifm: Int32Array, window: Window, lowest: int) -> Int32Array:
    """Max-pool ``[h, w, c]``; padding never wins, a window of padding only gives ``lowest``."""
    height, width, channels = ifm.shape
    ofm = np.full((window.ofm_h, window.ofm_w, channels), lowest, np.int32)
    for oy in range(window.ofm_h):
        for ox in range(window.ofm_w):
            for ky in range(window.kernel_h):
                y = oy * window.stride_h - window.pad_top + ky * window.dilation_h
                if y < 0 or y >= height:
                    continue
                for kx in range(window.kernel_w):
                    x = ox * window.stride_w - window.pad_left + kx * window.dilation_w
                    if x < 0 or x >= width:
                        continue
                    for c in range(channels):
                        ofm[oy, ox, c] = max(ofm[oy, ox, c], ifm[y, x, c])
    return ofm
