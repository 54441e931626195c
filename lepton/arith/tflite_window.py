"""Integer arithmetic of LiteRT's reference kernels: pooling, reductions, softmax, resizing.

The operators that see more than one element of a tensor. See `lepton.arith.tflite` for the
conventions; images are `[n, h, w, c] int32` arrays of 8-bit values.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.arith.fixed_point import (
    clamp,
    exp_on_negative_values,
    inverse_square_root,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
    reciprocal,
    rounding_divide,
    rounding_divide_by_pot,
    saturating_rounding_doubling_high_mul,
    truncating_divide,
    wrap_int32,
)
from lepton.arith.tflite import Bounds, Int32Array, Quantization, round_half_away
from lepton.jit import njit

_SOFTMAX_INTEGER_BITS = 5
_ACCUMULATION_INTEGER_BITS = 12
_RESIZE_ONE = 1 << 10


class Pool(NamedTuple):
    """A pooling window: kernel, stride, leading padding, output size, bounds."""

    kernel_height: int
    kernel_width: int
    stride_height: int
    stride_width: int
    pad_top: int
    pad_left: int
    output_height: int
    output_width: int
    low: int
    high: int


class Reducer(NamedTuple):
    """Sum of a known number of values, to the output scale: mean and sum."""

    input_offset: int
    multiplier: int
    shift: int
    output_zero_point: int
    low: int
    high: int


class Softmax(NamedTuple):
    """Scale of the differences to Q5.26; differences below `smallest` count as exp = 0."""

    multiplier: int
    left_shift: int
    smallest: int
    low: int
    high: int


class Interpolation(NamedTuple):
    """One axis of a bilinear resize: two source indices and the second's weight per output."""

    lower: Int32Array
    upper: Int32Array
    fraction: NDArray[np.int32] | NDArray[np.float32]


@njit
def average_pool(p: Pool, ifm: Int32Array) -> Int32Array:
    """Average over the taps inside the image, rounded half away from zero on the raw values.

    Source: LiteRT reference_integer_ops::AveragePool (int8), reference_ops::AveragePool (uint8).
    """
    batches, height, width, channels = ifm.shape
    ofm = np.empty((batches, p.output_height, p.output_width, channels), np.int32)
    for n in range(batches):
        for oy in range(p.output_height):
            y0 = oy * p.stride_height - p.pad_top
            y_start, y_end = max(y0, 0), min(y0 + p.kernel_height, height)
            for ox in range(p.output_width):
                x0 = ox * p.stride_width - p.pad_left
                x_start, x_end = max(x0, 0), min(x0 + p.kernel_width, width)
                count = (y_end - y_start) * (x_end - x_start)
                for c in range(channels):
                    total = 0
                    for y in range(y_start, y_end):
                        for x in range(x_start, x_end):
                            total += ifm[n, y, x, c]
                    ofm[n, oy, ox, c] = clamp(rounding_divide(total, count), p.low, p.high)
    return ofm


@njit
def max_pool(p: Pool, ifm: Int32Array) -> Int32Array:
    """Return the largest raw value inside the image and the window, clamped.

    Source: LiteRT reference_integer_ops::MaxPool (int8), reference_ops::MaxPool (uint8).
    """
    batches, height, width, channels = ifm.shape
    ofm = np.empty((batches, p.output_height, p.output_width, channels), np.int32)
    for n in range(batches):
        for oy in range(p.output_height):
            y0 = oy * p.stride_height - p.pad_top
            y_start, y_end = max(y0, 0), min(y0 + p.kernel_height, height)
            for ox in range(p.output_width):
                x0 = ox * p.stride_width - p.pad_left
                x_start, x_end = max(x0, 0), min(x0 + p.kernel_width, width)
                for c in range(channels):
                    largest = -128
                    for y in range(y_start, y_end):
                        for x in range(x_start, x_end):
                            largest = max(largest, ifm[n, y, x, c])
                    ofm[n, oy, ox, c] = clamp(largest, p.low, p.high)
    return ofm


def prepare_sum(input_: Quantization, output: Quantization, count: int, bounds: Bounds) -> Reducer:
    """Prepare a sum of `count` values; the ratio of scales is float64.

    LiteRT 2.3.0 has a fault in the int8 sum (not in the mean): it reads and writes the bytes as
    uint8, with the int8 zero points. `sum_int8` reproduces it; its bounds are those of uint8.

    Source: LiteRT tflite/kernels/reduce.cc, PrepareMeanOrSum.
    """
    multiplier, shift = quantize_multiplier(float(input_.scale) / float(output.scale))
    offset = input_.zero_point * count
    return Reducer(offset, multiplier, shift, output.zero_point, bounds.low, bounds.high)


def prepare_mean(input_: Quantization, output: Quantization, count: int, bounds: Bounds) -> Reducer:
    """Prepare a mean of `count` values: 1 / count is folded into the multiplier, truncated.

    The same for every choice of axes, int8 and uint8.

    Source: LiteRT reference_ops::QuantizedMeanOrSum.
    """
    total = prepare_sum(input_, output, count, bounds)
    extra = min(count.bit_length() - 1, 32, 31 + total.shift)
    multiplier = (total.multiplier << extra) // count
    return total._replace(multiplier=multiplier, shift=total.shift - extra)


@njit
def reduce_element(p: Reducer, total: int) -> int:
    """Turn the raw sum of the reduced values into the mean or sum on the output scale."""
    offset = wrap_int32(total - p.input_offset)
    scaled = multiply_by_quantized_multiplier(offset, p.multiplier, p.shift)
    return clamp(wrap_int32(scaled + p.output_zero_point), p.low, p.high)


@njit
def reduce_rescaled(p: Reducer, values: Int32Array) -> Int32Array:
    """Reduce `[outputs, count] int32` along the second axis: mean or sum, as prepared."""
    outputs, count = values.shape
    result = np.empty(outputs, np.int32)
    for i in range(outputs):
        total = 0
        for j in range(count):
            total += values[i, j]
        result[i] = reduce_element(p, total)
    return result


@njit
def sum_int8(p: Reducer, values: Int32Array) -> Int32Array:
    """Sum `[outputs, count] int32` of int8 values with LiteRT 2.3.0's fault; see `prepare_sum`."""
    result = reduce_rescaled(p, values & 0xFF)
    for i in range(len(result)):
        result[i] = ((result[i] + 128) & 0xFF) - 128
    return result


@njit
def reduce_max(values: Int32Array) -> Int32Array:
    """Largest raw value of each row of `[outputs, count]`; input and output share one scale."""
    result = np.empty(len(values), np.int32)
    for i in range(len(values)):
        result[i] = values[i].max()
    return result


@njit
def reduce_min(values: Int32Array) -> Int32Array:
    """Smallest raw value of each row of `[outputs, count]`; input and output share one scale."""
    result = np.empty(len(values), np.int32)
    for i in range(len(values)):
        result[i] = values[i].min()
    return result


def prepare_softmax(input_scale: np.float32, beta: np.float32, bounds: Bounds) -> Softmax:
    """Prepare softmax; the output's scale is 1/256, its zero point the type's minimum.

    Args:
        input_scale: Scale of the input; its zero point does not matter.
        beta: The operator's factor on the input.
        bounds: `type_range` of the output.

    Source: LiteRT tflite/kernels/internal/quantization_util.cc, PreprocessSoftmaxScaling and
    CalculateInputRadius.
    """
    bits = 31 - _SOFTMAX_INTEGER_BITS
    factor = min(float(beta) * float(input_scale) * (1 << bits), float((1 << 31) - 1))
    multiplier, left_shift = quantize_multiplier(factor)
    radius = ((1 << _SOFTMAX_INTEGER_BITS) - 1) * (1 << bits) // (1 << left_shift)
    return Softmax(multiplier, left_shift, -radius, bounds.low, bounds.high)


@njit
def softmax_exp(p: Softmax, difference: int) -> int:
    """Return exp(scale * difference) in Q0.31 for a difference in [smallest, 0]."""
    shifted = wrap_int32(difference * (1 << p.left_shift))
    return exp_on_negative_values(saturating_rounding_doubling_high_mul(shifted, p.multiplier))


@njit
def softmax(p: Softmax, values: Int32Array) -> Int32Array:
    """Apply softmax to each row of `[rows, depth] int32`; one path for int8 and uint8.

    Source: LiteRT reference_ops::Softmax (quantized).
    """
    rows, depth = values.shape
    result = np.empty((rows, depth), np.int32)
    for row in range(rows):
        largest = values[row].max()
        total = 0
        for c in range(depth):
            difference = values[row, c] - largest
            if difference >= p.smallest:
                exponential = softmax_exp(p, difference)
                total += rounding_divide_by_pot(exponential, _ACCUMULATION_INTEGER_BITS)
        inverse, bits_over_unit = reciprocal(total, _ACCUMULATION_INTEGER_BITS)
        for c in range(depth):
            difference = values[row, c] - largest
            share = 0
            if difference >= p.smallest:
                exponential = softmax_exp(p, difference)
                product = saturating_rounding_doubling_high_mul(inverse, exponential)
                share = rounding_divide_by_pot(product, bits_over_unit + 31 - 8)
            result[row, c] = clamp(share + p.low, p.low, p.high)
    return result


@njit
def l2_normalization(values: Int32Array, zero_point: int, bounds: Bounds) -> Int32Array:
    """Normalize each row of `[rows, depth] int32`; the output scale is 1/128, zero point centred.

    Source: LiteRT reference_integer_ops::L2Normalization (int8), reference_ops (uint8).
    """
    rows, depth = values.shape
    result = np.empty((rows, depth), np.int32)
    for row in range(rows):
        total = 0
        for c in range(depth):
            total += (values[row, c] - zero_point) ** 2
        multiplier, shift = inverse_square_root(total)
        for c in range(depth):
            offset = values[row, c] - zero_point
            if bounds.low < 0:
                scaled = multiply_by_quantized_multiplier(offset, multiplier, shift + 7)
            else:
                scaled = 128 + multiply_by_quantized_multiplier(128 * offset, multiplier, shift)
            result[row, c] = clamp(scaled, bounds.low, bounds.high)
    return result


def prepare_resize_bilinear(
    input_size: int, output_size: int, align_corners: bool, half_pixel_centers: bool
) -> Interpolation:
    """Prepare one axis of the int8 resize: positions in 1/1024 of a pixel.

    Source: LiteRT reference_ops::ResizeBilinearInteger and ComputeInterpolationValues.
    """
    steps = (input_size - 1, output_size - 1)
    if not (align_corners and output_size > 1):
        steps = (input_size, output_size)
    scale = (_RESIZE_ONE * steps[0] + steps[1] // 2) // steps[1]
    position = np.arange(output_size, dtype=np.int64) * scale
    if half_pixel_centers:
        position += scale // 2 - _RESIZE_ONE // 2
    lower = np.maximum(np.trunc(position / _RESIZE_ONE), 0).astype(np.int32)
    upper = np.trunc((position + _RESIZE_ONE - 1) / _RESIZE_ONE).astype(np.int32)
    upper = np.minimum(upper, input_size - 1)
    return Interpolation(lower, upper, (position - _RESIZE_ONE * lower).astype(np.int32))


@njit
def resize_bilinear(ifm: Int32Array, rows: Interpolation, columns: Interpolation) -> Int32Array:
    """Resize `[n, h, w, c]` int8 values; Q20 weights, rounded half away from zero.

    Source: LiteRT reference_ops::ResizeBilinearInteger.
    """
    batches, _, _, channels = ifm.shape
    ofm = np.empty((batches, len(rows.lower), len(columns.lower), channels), np.int32)
    for n in range(batches):
        for oy in range(len(rows.lower)):
            y0, y1, fy = rows.lower[oy], rows.upper[oy], rows.fraction[oy]
            for ox in range(len(columns.lower)):
                x0, x1, fx = columns.lower[ox], columns.upper[ox], columns.fraction[ox]
                for c in range(channels):
                    total = ifm[n, y0, x0, c] * (_RESIZE_ONE - fy) * (_RESIZE_ONE - fx)
                    total += ifm[n, y1, x0, c] * fy * (_RESIZE_ONE - fx)
                    total += ifm[n, y0, x1, c] * (_RESIZE_ONE - fy) * fx
                    total += ifm[n, y1, x1, c] * fy * fx
                    half = 1 << 19 if total > 0 else -(1 << 19)
                    ofm[n, oy, ox, c] = truncating_divide(total + half, 1 << 20)
    return ofm


def _float_steps(input_size: int, output_size: int, align_corners: bool) -> np.float32:
    if align_corners and output_size > 1:
        return np.float32(input_size - 1) / np.float32(output_size - 1)
    return np.float32(input_size) / np.float32(output_size)


def prepare_resize_bilinear_uint8(
    input_size: int, output_size: int, align_corners: bool, half_pixel_centers: bool
) -> Interpolation:
    """Prepare one axis of the uint8 resize: positions in float32.

    Source: LiteRT reference_ops::ResizeBilinear and ComputeInterpolationValues.
    """
    scale = _float_steps(input_size, output_size, align_corners)
    position = np.arange(output_size, dtype=np.float32)
    half = np.float32(0.5)
    position = (position + half) * scale - half if half_pixel_centers else position * scale
    lower = np.maximum(np.floor(position), 0).astype(np.int32)
    upper = np.minimum(np.ceil(position).astype(np.int32), input_size - 1)
    return Interpolation(lower, upper, position - lower.astype(np.float32))


@njit
def resize_bilinear_uint8(
    ifm: Int32Array, rows: Interpolation, columns: Interpolation
) -> Int32Array:
    """Resize `[n, h, w, c]` uint8 values in float32, products from the left, rounded half up.

    Source: LiteRT reference_ops::ResizeBilinear.
    """
    one = np.float32(1.0)
    batches, _, _, channels = ifm.shape
    ofm = np.empty((batches, len(rows.lower), len(columns.lower), channels), np.int32)
    for n in range(batches):
        for oy in range(len(rows.lower)):
            y0, y1, fy = rows.lower[oy], rows.upper[oy], rows.fraction[oy]
            for ox in range(len(columns.lower)):
                x0, x1, fx = columns.lower[ox], columns.upper[ox], columns.fraction[ox]
                for c in range(channels):
                    total = np.float32(ifm[n, y0, x0, c]) * (one - fy) * (one - fx)
                    total += np.float32(ifm[n, y1, x0, c]) * fy * (one - fx)
                    total += np.float32(ifm[n, y0, x1, c]) * (one - fy) * fx
                    total += np.float32(ifm[n, y1, x1, c]) * fy * fx
                    ofm[n, oy, ox, c] = np.int32(np.floor(np.float64(total) + 0.5))
    return ofm


def prepare_resize_nearest(
    input_size: int, output_size: int, align_corners: bool, half_pixel_centers: bool
) -> Int32Array:
    """Return the source index of every output index along one axis.

    Source: LiteRT reference_ops::GetNearestNeighbor.
    """
    scale = _float_steps(input_size, output_size, align_corners)
    offset = np.float32(0.5 if half_pixel_centers else 0.0)
    positions = [float((np.float32(i) + offset) * scale) for i in range(output_size)]
    if align_corners:
        indices = [round_half_away(position) for position in positions]
    else:
        indices = [int(np.floor(position)) for position in positions]
    return np.clip(indices, 0, input_size - 1).astype(np.int32)


@njit
def resize_nearest(ifm: Int32Array, rows: Int32Array, columns: Int32Array) -> Int32Array:
    """Gather `[n, h, w, c]` values at the prepared row and column indices."""
    batches, _, _, channels = ifm.shape
    ofm = np.empty((batches, len(rows), len(columns), channels), np.int32)
    for n in range(batches):
        for oy in range(len(rows)):
            for ox in range(len(columns)):
                for c in range(channels):
                    ofm[n, oy, ox, c] = ifm[n, rows[oy], columns[ox], c]
    return ofm
