"""Integer arithmetic of LiteRT's reference kernels: rescaling and piecewise linear operators.

The functions of one 8-bit operand (and prelu, with a second one). See `lepton.arith.tflite` for
the conventions; `lepton.arith.tflite_table` makes lookup tables of these and of the transcendental
ones.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.arith.fixed_point import (
    clamp,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
    wrap_int32,
)
from lepton.arith.tflite import Bounds, Int32Array, Quantization
from lepton.jit import njit

Float32Array = NDArray[np.float32]


class Rescaler(NamedTuple):
    """8 bits to 8 bits: clamp(scale(q - input_zero_point) + output_zero_point)."""

    input_zero_point: int
    multiplier: int
    shift: int
    output_zero_point: int
    low: int
    high: int


class LeakyRescaler(NamedTuple):
    """Two factors, one for values at or above the zero point and one for those below."""

    input_zero_point: int
    alpha_zero_point: int
    multiplier: int
    shift: int
    alpha_multiplier: int
    alpha_shift: int
    output_zero_point: int
    low: int
    high: int


class HardSwish(NamedTuple):
    """16-bit multipliers of hard-swish; the output exponent is <= 0."""

    input_zero_point: int
    output_multiplier: int
    output_exponent: int
    reluish_multiplier: int
    reluish_exponent: int
    output_zero_point: int
    low: int
    high: int


def _rescaler(
    factor: float, input_: Quantization, output: Quantization, bounds: Bounds
) -> Rescaler:
    multiplier, shift = quantize_multiplier(factor)
    return Rescaler(
        input_.zero_point, multiplier, shift, output.zero_point, bounds.low, bounds.high
    )


def prepare_rescale(input_: Quantization, output: Quantization, bounds: Bounds) -> Rescaler:
    """Prepare the quantize operator between 8-bit types; the ratio of scales is float64.

    Source: LiteRT tflite/kernels/quantize.cc, Prepare.
    """
    factor = float(input_.scale) / float(output.scale)
    return _rescaler(factor, input_, output, bounds)


def prepare_relu(input_: Quantization, output: Quantization, bounds: Bounds) -> Rescaler:
    """Prepare relu, relu6, relu_n1_to_1 and relu_0_to_1; the ratio of scales is float32.

    Args:
        input_: Quantization of the input.
        output: Quantization of the output.
        bounds: `activation_range` of the operator's name.

    Source: LiteRT tflite/kernels/activations.cc, ReluPrepare and QuantizedReluX.
    """
    return _rescaler(float(input_.scale / output.scale), input_, output, bounds)


@njit
def rescale_element(p: Rescaler, value: int) -> int:
    """Move one quantized value to another scale, zero point and range.

    Source: LiteRT reference_ops::Requantize, optimized_ops::ReluX.
    """
    scaled = multiply_by_quantized_multiplier(value - p.input_zero_point, p.multiplier, p.shift)
    return clamp(wrap_int32(scaled + p.output_zero_point), p.low, p.high)


@njit
def rescale(p: Rescaler, values: Int32Array) -> Int32Array:
    """Rescale a flat array: the quantize operator between 8-bit types, and the relu family."""
    result = np.empty(len(values), np.int32)
    for i in range(len(values)):
        result[i] = rescale_element(p, values[i])
    return result


@njit
def abs_element(p: Rescaler, value: int) -> int:
    """Return the magnitude of one quantized value.

    Source: LiteRT tflite/kernels/elementwise.cc, AbsEvalQuantized.
    """
    magnitude = abs(value - p.input_zero_point)
    scaled = multiply_by_quantized_multiplier(magnitude, p.multiplier, p.shift)
    return clamp(wrap_int32(scaled + p.output_zero_point), p.low, p.high)


def _leaky(
    factor: float,
    alpha_factor: float,
    zero_points: tuple[int, int, int],
    bounds: Bounds,
) -> LeakyRescaler:
    """Assemble from both factors and the zero points of input, alpha and output."""
    multiplier, shift = quantize_multiplier(factor)
    alpha_multiplier, alpha_shift = quantize_multiplier(alpha_factor)
    return LeakyRescaler(
        input_zero_point=zero_points[0],
        alpha_zero_point=zero_points[1],
        multiplier=multiplier,
        shift=shift,
        alpha_multiplier=alpha_multiplier,
        alpha_shift=alpha_shift,
        output_zero_point=zero_points[2],
        low=bounds.low,
        high=bounds.high,
    )


def prepare_leaky_relu(
    input_: Quantization, output: Quantization, alpha: np.float32, bounds: Bounds
) -> LeakyRescaler:
    """Prepare leaky relu; both factors are formed in float32.

    Source: LiteRT tflite/kernels/activations.cc, LeakyReluPrepare.
    """
    factor = float(input_.scale / output.scale)
    alpha_factor = float(input_.scale * np.float32(alpha) / output.scale)
    return _leaky(factor, alpha_factor, (input_.zero_point, 0, output.zero_point), bounds)


@njit
def leaky_relu_element(p: LeakyRescaler, value: int) -> int:
    """Apply leaky relu to one quantized value.

    Source: LiteRT reference_ops::QuantizeLeakyRelu.
    """
    offset = value - p.input_zero_point
    if offset >= 0:
        scaled = multiply_by_quantized_multiplier(offset, p.multiplier, p.shift)
    else:
        scaled = multiply_by_quantized_multiplier(offset, p.alpha_multiplier, p.alpha_shift)
    return clamp(wrap_int32(scaled + p.output_zero_point), p.low, p.high)


@njit
def leaky_relu(p: LeakyRescaler, values: Int32Array) -> Int32Array:
    """Apply leaky relu to a flat array."""
    result = np.empty(len(values), np.int32)
    for i in range(len(values)):
        result[i] = leaky_relu_element(p, values[i])
    return result


def prepare_prelu(
    input_: Quantization, alpha: Quantization, output: Quantization, bounds: Bounds
) -> LeakyRescaler:
    """Prepare prelu; both factors are formed in float32.

    Source: LiteRT tflite/kernels/activations.cc, PreluPrepare.
    """
    factor = float(input_.scale / output.scale)
    alpha_factor = float(input_.scale * alpha.scale / output.scale)
    zero_points = (input_.zero_point, alpha.zero_point, output.zero_point)
    return _leaky(factor, alpha_factor, zero_points, bounds)


@njit
def prelu_element(p: LeakyRescaler, value: int, alpha: int) -> int:
    """Apply prelu to one quantized value and its slope.

    Source: LiteRT reference_ops::Prelu.
    """
    offset = value - p.input_zero_point
    if offset >= 0:
        scaled = multiply_by_quantized_multiplier(offset, p.multiplier, p.shift)
    else:
        product = offset * (alpha - p.alpha_zero_point)
        scaled = multiply_by_quantized_multiplier(product, p.alpha_multiplier, p.alpha_shift)
    return clamp(wrap_int32(scaled + p.output_zero_point), p.low, p.high)


@njit
def prelu(p: LeakyRescaler, values: Int32Array, alphas: Int32Array) -> Int32Array:
    """Apply prelu to a flat array; `alphas` is broadcast to its length by the caller."""
    result = np.empty(len(values), np.int32)
    for i in range(len(values)):
        result[i] = prelu_element(p, values[i], alphas[i])
    return result


def _to_int16_multiplier(multiplier: int) -> int:
    """Round a Q31 multiplier to Q15, saturating."""
    return min((multiplier + (1 << 15)) >> 16, 32767)


def prepare_hard_swish(input_: Quantization, output: Quantization, bounds: Bounds) -> HardSwish:
    """Prepare hard-swish; LiteRT refuses an output exponent above 0.

    Source: LiteRT tflite/kernels/activations.cc, HardSwishPrepare: all in float32.
    """
    fine_scale = np.float32(1.0 / 128.0) * input_.scale
    reluish_scale = np.float32(3.0) / np.float32(32768.0)
    multiplier, exponent = quantize_multiplier(float(fine_scale / output.scale))
    reluish, reluish_exponent = quantize_multiplier(float(fine_scale / reluish_scale))
    return HardSwish(
        input_zero_point=input_.zero_point,
        output_multiplier=_to_int16_multiplier(multiplier),
        output_exponent=exponent,
        reluish_multiplier=_to_int16_multiplier(reluish),
        reluish_exponent=reluish_exponent,
        output_zero_point=output.zero_point,
        low=bounds.low,
        high=bounds.high,
    )


@njit
def _rounding_high_mul_int16(a: int, b: int) -> int:
    """High half of 2 * a * b of two int16, to nearest, halves up; b is never -32768."""
    return (a * b + (1 << 14)) >> 15


@njit
def _wrap_int16(x: int) -> int:
    return ((x + 32768) & 0xFFFF) - 32768


@njit
def _rounding_divide_by_pot_int16(x: int, exponent: int) -> int:
    """Divide an int16 as gemmlowp does; for exponents above 15 its int16 mask makes it no rounding.

    Source: gemmlowp fixedpoint.h, RoundingDivideByPOT<int16>.
    """
    mask = _wrap_int16((1 << exponent) - 1)
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return _wrap_int16((x >> exponent) + (1 if (x & mask) > threshold else 0))


@njit
def hard_swish_element(p: HardSwish, value: int) -> int:
    """Apply hard-swish to one quantized value, in int16 with saturating left shifts.

    Source: LiteRT tflite/kernels/internal/reference/hard_swish.h.
    """
    fine = (value - p.input_zero_point) * 128
    on_output_scale = _rounding_high_mul_int16(fine, p.output_multiplier)
    reluish = fine
    if p.reluish_exponent > 0:
        reluish = clamp(reluish << (p.reluish_exponent - 1), -32768, 32767)
    reluish = _rounding_high_mul_int16(reluish, p.reluish_multiplier)
    if p.reluish_exponent > 0:
        reluish = clamp(reluish * 2, -32768, 32767)
    elif p.reluish_exponent < 0:
        reluish = _rounding_divide_by_pot_int16(reluish, -p.reluish_exponent)
    gate = (reluish + 32768) >> 1
    product = gate * on_output_scale
    # This one product is truncated towards zero: it cancels the bias of the rounded ones.
    truncated = product >> 15 if product >= 0 else -((-product) >> 15)
    scaled = _rounding_divide_by_pot_int16(truncated, -p.output_exponent)
    return clamp(scaled + p.output_zero_point, p.low, p.high)


@njit
def hard_swish(p: HardSwish, values: Int32Array) -> Int32Array:
    """Apply hard-swish to a flat array."""
    result = np.empty(len(values), np.int32)
    for i in range(len(values)):
        result[i] = hard_swish_element(p, values[i])
    return result


@njit
def quantize_float(
    values: Float32Array, scale: np.float32, zero_point: int, low: int, high: int
) -> Int32Array:
    """Quantize float32 values: float32 division, round half away from zero, clamp.

    A ratio beyond int32 becomes the most negative integer, as x86 converts it.

    Source: LiteRT reference_ops::AffineQuantize.
    """
    result = np.empty(len(values), np.int32)
    for i in range(len(values)):
        ratio = np.float64(values[i] / np.float32(scale))
        rounded = np.floor(ratio + 0.5) if ratio >= 0.0 else np.ceil(ratio - 0.5)
        quantized = int(rounded) if abs(rounded) < 2147483648.0 else -2147483648
        result[i] = clamp(wrap_int32(quantized + zero_point), low, high)
    return result


@njit
def dequantize(values: Int32Array, scale: np.float32, zero_point: int) -> Float32Array:
    """Return float32(float64(scale) * (q - zero_point)).

    Source: LiteRT reference_ops::Dequantize.
    """
    result = np.empty(len(values), np.float32)
    for i in range(len(values)):
        result[i] = np.float32(np.float64(scale) * (values[i] - zero_point))
    return result
