"""Values of the vector unit: requantization and pooling over tiles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.arith.fixed_point import clamp, multiply_by_quantized_multiplier, rounding_divide
from lepton.arith.onnx_float import Quantization, dequantize_value, round_clamped
from lepton.arith.onnx_pool import average_code
from lepton.arith.records import RequantizeTable
from lepton.jit import njit

__all__ = ["AveragePair", "PoolWindow", "average_float32", "average_integer", "extreme"]
__all__ += ["requantize_float32", "requantize_float64", "requantize_q31"]

INT32_MAX = (1 << 31) - 1


class PoolWindow(NamedTuple):
    """A pooling window and the clamp of its result."""

    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    dilation_y: int
    dilation_x: int
    pad_top: int
    pad_left: int
    ofm_height: int
    ofm_width: int
    count_pad: int
    minimum: int
    maximum: int


class AveragePair(NamedTuple):
    """Quantizations of an average pool in float32."""

    ifm: Quantization
    ofm: Quantization


@njit
def requantize_q31(
    sums: NDArray[np.int32],
    table: RequantizeTable,
    bounds: tuple[int, int, int],
    out: NDArray[np.uint8],
) -> int:
    """Fill `out [pixels, channels] uint8`; return how many biased sums leave int32."""
    overflow = 0
    zero_point, low, high = bounds
    for pixel in range(sums.shape[0]):
        for c in range(sums.shape[1]):
            total = np.int64(sums[pixel, c]) + table.bias[c]
            if total > INT32_MAX or total < -INT32_MAX - 1:
                overflow += 1
            scaled = multiply_by_quantized_multiplier(
                total, int(table.multiplier[c]), int(table.shift[c])
            )
            out[pixel, c] = np.uint8(clamp(scaled + zero_point, low, high) & 255)
    return overflow


@njit(error_model="numpy")
def requantize_float32(
    sums: NDArray[np.int32],
    table: RequantizeTable,
    bounds: tuple[int, int, int],
    out: NDArray[np.uint8],
) -> int:
    """Fill `out [pixels, channels] uint8`; return how many biased sums leave int32."""
    overflow = 0
    zero_point, low, high = bounds
    for pixel in range(sums.shape[0]):
        for c in range(sums.shape[1]):
            total = np.int64(sums[pixel, c]) + table.bias[c]
            if total > INT32_MAX or total < -INT32_MAX - 1:
                overflow += 1
            value = np.float32(np.int32(total)) * table.multiplier[c]
            out[pixel, c] = np.uint8(round_clamped(value, zero_point, low, high) & 255)
    return overflow


@njit(error_model="numpy")
def requantize_float64(
    sums: NDArray[np.int32],
    table: RequantizeTable,
    bounds: tuple[int, int, int],
    out: NDArray[np.uint8],
) -> int:
    """Fill `out [pixels, channels] uint8`; return how many biased sums leave int32."""
    overflow = 0
    zero_point, low, high = bounds
    for pixel in range(sums.shape[0]):
        for c in range(sums.shape[1]):
            total = np.int64(sums[pixel, c]) + table.bias[c]
            if total > INT32_MAX or total < -INT32_MAX - 1:
                overflow += 1
            value = np.float64(total) * table.multiplier[c]
            # C's round: adding a half first would round the number just below a half up
            away = np.floor(abs(value))
            if abs(value) - away >= 0.5:
                away += 1.0
            away = min(away, np.float64(1 << 31))
            rounded = np.int64(-away if value < 0 else away)
            out[pixel, c] = np.uint8(clamp(int(rounded) + zero_point, low, high) & 255)
    return overflow


@njit
def extreme(ifm: NDArray[np.int32], w: PoolWindow, sign: int) -> NDArray[np.int32]:
    """Return the largest (sign 1) or smallest (sign -1) value of each window, clamped."""
    height, width, channels = ifm.shape
    ofm = np.empty((w.ofm_height, w.ofm_width, channels), np.int32)
    for oy in range(w.ofm_height):
        for ox in range(w.ofm_width):
            cell = ofm[oy, ox]
            cell[:] = -1024
            for ky in range(w.kernel_height):
                y = oy * w.stride_y - w.pad_top + ky * w.dilation_y
                if y < 0 or y >= height:
                    continue
                for kx in range(w.kernel_width):
                    x = ox * w.stride_x - w.pad_left + kx * w.dilation_x
                    if x < 0 or x >= width:
                        continue
                    for c in range(channels):
                        cell[c] = max(cell[c], sign * ifm[y, x, c])
            for c in range(channels):
                cell[c] = clamp(sign * cell[c], w.minimum, w.maximum)
    return ofm


@njit
def _first_tap(start: int, dilation: int) -> int:
    """Return the first tap of a window from `start` on that is not before the tile."""
    return 0 if start >= 0 else (-start + dilation - 1) // dilation


@njit
def _past_taps(start: int, dilation: int, kernel: int, extent: int) -> int:
    """Return one past the last tap of a window from `start` on that is inside the tile."""
    return max(min(kernel, (extent - start + dilation - 1) // dilation), 0)


@njit
def average_integer(ifm: NDArray[np.int32], w: PoolWindow) -> NDArray[np.int32]:
    """Return the average of the raw values, rounded half away from zero; padding counts as 0."""
    height, width, channels = ifm.shape
    ofm = np.empty((w.ofm_height, w.ofm_width, channels), np.int32)
    totals = np.empty(channels, np.int64)
    for oy in range(w.ofm_height):
        y0 = oy * w.stride_y - w.pad_top
        rows = _first_tap(y0, w.dilation_y), _past_taps(y0, w.dilation_y, w.kernel_height, height)
        for ox in range(w.ofm_width):
            x0 = ox * w.stride_x - w.pad_left
            first = _first_tap(x0, w.dilation_x)
            past = _past_taps(x0, w.dilation_x, w.kernel_width, width)
            count = max((rows[1] - rows[0]) * (past - first), 1)
            if w.count_pad:
                count = w.kernel_height * w.kernel_width
            totals[:] = 0
            for ky in range(rows[0], rows[1]):
                for kx in range(first, past):
                    cell = ifm[y0 + ky * w.dilation_y, x0 + kx * w.dilation_x]
                    for c in range(channels):
                        totals[c] += cell[c]
            for c in range(channels):
                ofm[oy, ox, c] = clamp(rounding_divide(totals[c], count), w.minimum, w.maximum)
    return ofm


@njit(error_model="numpy")
def average_float32(ifm: NDArray[np.int32], w: PoolWindow, pair: AveragePair) -> NDArray[np.int32]:
    """Return the average of the dequantized values, summed row by row in float32, requantized."""
    height, width, channels = ifm.shape
    ofm = np.empty((w.ofm_height, w.ofm_width, channels), np.int32)
    for oy in range(w.ofm_height):
        y0 = oy * w.stride_y - w.pad_top
        rows = _first_tap(y0, w.dilation_y), _past_taps(y0, w.dilation_y, w.kernel_height, height)
        for ox in range(w.ofm_width):
            x0 = ox * w.stride_x - w.pad_left
            first = _first_tap(x0, w.dilation_x)
            past = _past_taps(x0, w.dilation_x, w.kernel_width, width)
            count = max((rows[1] - rows[0]) * (past - first), 1)
            if w.count_pad:
                count = w.kernel_height * w.kernel_width
            for c in range(channels):
                total = np.float32(0.0)
                for ky in range(rows[0], rows[1]):
                    for kx in range(first, past):
                        code = ifm[y0 + ky * w.dilation_y, x0 + kx * w.dilation_x, c]
                        total += dequantize_value(code, pair.ifm.scale, pair.ifm.zero_point)
                ofm[oy, ox, c] = clamp(
                    int(average_code(total, count, pair.ofm)), w.minimum, w.maximum
                )
    return ofm
