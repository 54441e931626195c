"""Integer arithmetic of LiteRT's reference kernels: elementwise operators of two tensors.

See `lepton.arith.tflite` for the conventions.
"""

from typing import NamedTuple

import numpy as np

from lepton.arith.fixed_point import (
    clamp,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
    wrap_int32,
)
from lepton.arith.tflite import Bounds, Int32Array, Quantization
from lepton.jit import njit

_ADD_LEFT_SHIFT = 20
_SQUARED_DIFFERENCE_LEFT_SHIFT = 7


class Adder(NamedTuple):
    """Both operands on a common scale, then to the output: add, sub, squared difference."""

    zero_point_1: int
    multiplier_1: int
    shift_1: int
    zero_point_2: int
    multiplier_2: int
    shift_2: int
    output_multiplier: int
    output_shift: int
    output_zero_point: int
    low: int
    high: int


class Multiplier(NamedTuple):
    """Product of two operands to the output scale."""

    zero_point_1: int
    zero_point_2: int
    multiplier: int
    shift: int
    output_zero_point: int
    low: int
    high: int


def _prepare_adder(
    input_1: Quantization,
    input_2: Quantization,
    output: Quantization,
    output_factor: float,
    bounds: Bounds,
) -> Adder:
    """Both inputs to twice the larger scale, then `output_factor` to the output."""
    twice_max = 2.0 * float(max(input_1.scale, input_2.scale))
    multiplier_1, shift_1 = quantize_multiplier(float(input_1.scale) / twice_max)
    multiplier_2, shift_2 = quantize_multiplier(float(input_2.scale) / twice_max)
    multiplier, shift = quantize_multiplier(output_factor)
    return Adder(
        zero_point_1=input_1.zero_point,
        multiplier_1=multiplier_1,
        shift_1=shift_1,
        zero_point_2=input_2.zero_point,
        multiplier_2=multiplier_2,
        shift_2=shift_2,
        output_multiplier=multiplier,
        output_shift=shift,
        output_zero_point=output.zero_point,
        low=bounds.low,
        high=bounds.high,
    )


def prepare_add(
    input_1: Quantization, input_2: Quantization, output: Quantization, bounds: Bounds
) -> Adder:
    """Prepare add and sub; the result is defined for `output_shift <= 0` only.

    With a factor 2 * max scale / 2**20 / output scale >= 1 LiteRT aborts in add and shifts by a
    negative amount in sub.

    Source: LiteRT tflite/kernels/add.cc and sub.cc, Prepare.
    """
    twice_max = 2.0 * float(max(input_1.scale, input_2.scale))
    factor = twice_max / (float(1 << _ADD_LEFT_SHIFT) * float(output.scale))
    return _prepare_adder(input_1, input_2, output, factor, bounds)


def prepare_squared_difference(
    input_1: Quantization, input_2: Quantization, output: Quantization, bounds: Bounds
) -> Adder:
    """Prepare squared difference (int8 only); LiteRT aborts if its output factor is >= 1.

    Source: LiteRT tflite/kernels/squared_difference.cc, Prepare.
    """
    twice_max = 2.0 * float(max(input_1.scale, input_2.scale))
    denominator = np.float32(1 << (2 * _SQUARED_DIFFERENCE_LEFT_SHIFT)) * output.scale
    factor = twice_max * twice_max / float(denominator)
    return _prepare_adder(input_1, input_2, output, factor, bounds)


@njit
def _to_common_scale(value: int, zero_point: int, left: int, multiplier: int, shift: int) -> int:
    shifted = wrap_int32((value - zero_point) << left)
    return multiply_by_quantized_multiplier(shifted, multiplier, shift)


@njit
def _from_common_scale(p: Adder, value: int) -> int:
    scaled = multiply_by_quantized_multiplier(value, p.output_multiplier, p.output_shift)
    return clamp(wrap_int32(scaled + p.output_zero_point), p.low, p.high)


@njit
def add_element(p: Adder, a: int, b: int, sign: int) -> int:
    """Add (sign = 1) or subtract (sign = -1) two quantized values.

    Source: LiteRT reference_ops::AddElementwise, SubElementwise.
    """
    scaled_a = _to_common_scale(a, p.zero_point_1, _ADD_LEFT_SHIFT, p.multiplier_1, p.shift_1)
    scaled_b = _to_common_scale(b, p.zero_point_2, _ADD_LEFT_SHIFT, p.multiplier_2, p.shift_2)
    return _from_common_scale(p, wrap_int32(scaled_a + sign * scaled_b))


@njit
def squared_difference_element(p: Adder, a: int, b: int) -> int:
    """Square the difference of two quantized values.

    Source: LiteRT tflite/kernels/squared_difference.cc, SquaredDifference.
    """
    left = _SQUARED_DIFFERENCE_LEFT_SHIFT
    scaled_a = _to_common_scale(a, p.zero_point_1, left, p.multiplier_1, p.shift_1)
    scaled_b = _to_common_scale(b, p.zero_point_2, left, p.multiplier_2, p.shift_2)
    difference = scaled_a - scaled_b
    return _from_common_scale(p, wrap_int32(difference * difference))


@njit
def add(p: Adder, a: Int32Array, b: Int32Array) -> Int32Array:
    """Add two flat arrays of 8-bit values."""
    result = np.empty(len(a), np.int32)
    for i in range(len(a)):
        result[i] = add_element(p, a[i], b[i], 1)
    return result


@njit
def sub(p: Adder, a: Int32Array, b: Int32Array) -> Int32Array:
    """Subtract two flat arrays of 8-bit values."""
    result = np.empty(len(a), np.int32)
    for i in range(len(a)):
        result[i] = add_element(p, a[i], b[i], -1)
    return result


@njit
def squared_difference(p: Adder, a: Int32Array, b: Int32Array) -> Int32Array:
    """Return the squared difference of two flat arrays of int8 values."""
    result = np.empty(len(a), np.int32)
    for i in range(len(a)):
        result[i] = squared_difference_element(p, a[i], b[i])
    return result


def prepare_mul(
    input_1: Quantization, input_2: Quantization, output: Quantization, bounds: Bounds
) -> Multiplier:
    """Prepare mul; the factor input_1 * input_2 / output is formed in float32.

    Source: LiteRT tflite/kernels/mul.cc, Prepare.
    """
    multiplier, shift = quantize_multiplier(float(input_1.scale * input_2.scale / output.scale))
    return Multiplier(
        zero_point_1=input_1.zero_point,
        zero_point_2=input_2.zero_point,
        multiplier=multiplier,
        shift=shift,
        output_zero_point=output.zero_point,
        low=bounds.low,
        high=bounds.high,
    )


@njit
def mul_element(p: Multiplier, a: int, b: int) -> int:
    """Multiply two quantized values.

    Source: LiteRT reference_ops::MulElementwise.
    """
    product = (a - p.zero_point_1) * (b - p.zero_point_2)
    scaled = multiply_by_quantized_multiplier(product, p.multiplier, p.shift)
    return clamp(wrap_int32(scaled + p.output_zero_point), p.low, p.high)


@njit
def mul(p: Multiplier, a: Int32Array, b: Int32Array) -> Int32Array:
    """Multiply two flat arrays of 8-bit values."""
    result = np.empty(len(a), np.int32)
    for i in range(len(a)):
        result[i] = mul_element(p, a[i], b[i])
    return result


@njit
def maximum(a: Int32Array, b: Int32Array) -> Int32Array:
    """Return the larger raw value of two flat arrays; LiteRT ignores scales and zero points."""
    return np.maximum(a, b)


@njit
def minimum(a: Int32Array, b: Int32Array) -> Int32Array:
    """Return the smaller raw value of two flat arrays; LiteRT ignores scales and zero points."""
    return np.minimum(a, b)
