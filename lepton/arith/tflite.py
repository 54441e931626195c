"""Integer arithmetic of LiteRT's reference kernels: conventions, and accumulators to 8 bits.

A `prepare_*` function turns scales (np.float32, as the file holds them), zero points and bounds
into integers; an `@njit` kernel of the same operator works on flat int32 arrays that hold 8-bit
values, signed or unsigned, and returns int32. Operands of a binary kernel are broadcast by the
caller. Functions named `*_element` are the same arithmetic on one element.

The order in which a scale is formed, and whether in float32 or float64, is part of the standard:
it decides the last bit of the multiplier.

The results are LiteRT's wherever its C++ is defined: every real factor below 2**31 (a left shift
of at most 31), and no float result beyond int32 in a table.

The other operators are in `tflite_binary`, `tflite_unary`, `tflite_window` and `tflite_table`.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.arith.fixed_point import (
    clamp,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
    wrap_int32,
)
from lepton.jit import njit

Int32Array = NDArray[np.int32]
Float64Array = NDArray[np.float64]

_TYPE_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}
_ACTIVATION_LIMITS: dict[str, tuple[float | None, float | None]] = {
    "NONE": (None, None),
    "RELU": (0.0, None),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
}


class Quantization(NamedTuple):
    """Per-tensor quantization: real value = scale * (q - zero_point)."""

    scale: np.float32
    zero_point: int


class Bounds(NamedTuple):
    """Smallest and largest quantized value of a result."""

    low: int
    high: int


class Requantizer(NamedTuple):
    """Accumulator to 8 bits: one multiplier and shift per output channel, or one for all."""

    multipliers: Int32Array
    shifts: Int32Array
    zero_point: int
    low: int
    high: int


class FloatRequantizer(NamedTuple):
    """Accumulator to 8 bits by float64 factors, one per output channel or one for all."""

    factors: Float64Array
    zero_point: int
    low: int
    high: int


def round_half_away(x: float) -> int:
    """Round to an integer, halves away from zero, as C's `round`; exact for float32 values."""
    magnitude = int(np.floor(abs(x) + 0.5))
    return -magnitude if x < 0 else magnitude


def type_range(dtype: str) -> Bounds:
    """Return the value range of "int8" or "uint8"."""
    return Bounds(*_TYPE_RANGES[dtype])


def activation_range(activation: str, output: Quantization, dtype: str) -> Bounds:
    """Return the bounds of a fused activation (or of a relu operator) on the output's scale.

    Args:
        activation: "NONE", "RELU", "RELU6", "RELU_N1_TO_1" or "RELU_0_TO_1".
        output: Quantization of the output.
        dtype: "int8" or "uint8".

    Source: LiteRT tflite/kernels/kernel_util.cc, CalculateActivationRangeQuantized: the limit is
    divided by the scale in float32.
    """
    low, high = type_range(dtype)
    lower, upper = _ACTIVATION_LIMITS[activation]
    if lower is not None:
        quantized = round_half_away(float(np.float32(lower) / output.scale))
        low = max(low, output.zero_point + quantized)
    if upper is not None:
        quantized = round_half_away(float(np.float32(upper) / output.scale))
        high = min(high, output.zero_point + quantized)
    return Bounds(low, high)


def _requantizer(scales: Iterable[float], zero_point: int, bounds: Bounds) -> Requantizer:
    pairs = [quantize_multiplier(scale) for scale in scales]
    multipliers = np.array([m for m, _ in pairs], np.int32)
    shifts = np.array([s for _, s in pairs], np.int32)
    return Requantizer(multipliers, shifts, zero_point, bounds.low, bounds.high)


def prepare_requantize_per_channel(
    input_scale: np.float32,
    weight_scales: NDArray[np.float32],
    output: Quantization,
    bounds: Bounds,
) -> Requantizer:
    """Prepare int8 conv and depthwise conv, with one scale per channel or one for all.

    The effective scale is float64: input * weight / output.

    Source: LiteRT tflite/kernels/kernel_util.cc, PopulateConvolutionQuantizationParams.
    """
    scales = [float(input_scale) * float(w) / float(output.scale) for w in weight_scales]
    return _requantizer(scales, output.zero_point, bounds)


def prepare_requantize_per_tensor(
    input_scale: np.float32, weight_scale: np.float32, output: Quantization, bounds: Bounds
) -> Requantizer:
    """Prepare uint8 conv and depthwise conv, and int8 batch matmul.

    The product input * weight is rounded to float32 before the float64 division by the output.

    Source: LiteRT tflite/kernels/kernel_util.cc, GetQuantizedConvolutionMultipler.
    """
    product = np.float32(input_scale) * np.float32(weight_scale)
    return _requantizer([float(product) / float(output.scale)], output.zero_point, bounds)


@njit
def requantize_element(acc: int, multiplier: int, shift: int, p: Requantizer) -> int:
    """Scale one int32 accumulator, add the zero point, clamp."""
    scaled = multiply_by_quantized_multiplier(acc, multiplier, shift)
    return clamp(wrap_int32(scaled + p.zero_point), p.low, p.high)


@njit
def requantize_accumulators(p: Requantizer, accumulators: Int32Array) -> Int32Array:
    """Requantize `[rows, channels] int32` accumulators (bias included) to 8-bit values.

    Source: LiteRT reference_integer_ops::ConvPerChannel and DepthwiseConvPerChannel (int8),
    reference_ops::Conv and DepthwiseConv (uint8), reference_ops::BatchMatMul (int8).
    """
    rows, channels = accumulators.shape
    result = np.empty((rows, channels), np.int32)
    step = 1 if len(p.multipliers) > 1 else 0
    for row in range(rows):
        for c in range(channels):
            multiplier, shift = p.multipliers[c * step], p.shifts[c * step]
            result[row, c] = requantize_element(accumulators[row, c], multiplier, shift, p)
    return result


def prepare_requantize_fully_connected(
    input_scale: np.float32,
    weight_scales: NDArray[np.float32],
    output: Quantization,
    bounds: Bounds,
) -> FloatRequantizer:
    """Prepare fully-connected, int8 and uint8, with one scale per channel or one for all.

    This reference kernel scales in float64, with one rounding, and not by a Q31 multiplier.

    Source: LiteRT reference_integer_ops::FullyConnected and FullyConnectedPerChannel (int8),
    reference_ops::FullyConnected (uint8), the variants with scales.
    """
    scales = [float(input_scale) * float(w) / float(output.scale) for w in weight_scales]
    return FloatRequantizer(
        np.array(scales, np.float64), output.zero_point, bounds.low, bounds.high
    )


@njit
def requantize_float_element(acc: int, factor: float, p: FloatRequantizer) -> int:
    """Scale one int32 accumulator in float64, round half away from zero, add, clamp."""
    product = np.float64(acc) * factor
    rounded = np.floor(product + 0.5) if product >= 0.0 else np.ceil(product - 0.5)
    # The reference's conversion gives the most negative integer beyond int32 (x86).
    scaled = int(rounded) if abs(rounded) < 2147483648.0 else -2147483648
    return clamp(wrap_int32(scaled + p.zero_point), p.low, p.high)


@njit
def requantize_accumulators_float(p: FloatRequantizer, accumulators: Int32Array) -> Int32Array:
    """Requantize `[rows, channels] int32` accumulators (bias included) of fully-connected."""
    rows, channels = accumulators.shape
    result = np.empty((rows, channels), np.int32)
    step = 1 if len(p.factors) > 1 else 0
    for row in range(rows):
        for c in range(channels):
            result[row, c] = requantize_float_element(accumulators[row, c], p.factors[c * step], p)
    return result
