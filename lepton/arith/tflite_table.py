"""Lookup tables of the 8-bit unary operators, as LiteRT's reference kernels compute them.

A table has 256 entries, indexed by the raw byte `q & 0xFF` of the operand for int8 and uint8 alike;
its entries are the 8-bit results as int32. Every function of one 8-bit operand is a table, so these
are exact for rescaling operators too.
"""

import math
from collections.abc import Callable

import numpy as np

from lepton.arith.fixed_point import (
    inverse_square_root,
    multiply_by_quantized_multiplier,
    quantize_multiplier,
)
from lepton.arith.tflite import (
    Bounds,
    Int32Array,
    Quantization,
    activation_range,
    round_half_away,
    type_range,
)
from lepton.arith.tflite_unary import (
    HardSwish,
    LeakyRescaler,
    Rescaler,
    abs_element,
    hard_swish_element,
    leaky_relu_element,
    prepare_hard_swish,
    prepare_leaky_relu,
    prepare_relu,
    prepare_rescale,
    rescale_element,
)
from lepton.jit import njit

FloatFunction = Callable[[np.float32], np.float32]

_RSQRT_SHIFT = 20
_SQRT_HALF = np.float32(math.sqrt(0.5))
_SQRT_TWO_OVER_PI = np.float32(math.sqrt(2.0 / math.pi))


@njit
def lookup(table: Int32Array, values: Int32Array) -> Int32Array:
    """Look up a flat array of 8-bit values."""
    result = np.empty(len(values), np.int32)
    for i in range(len(values)):
        result[i] = table[values[i] & 0xFF]
    return result


@njit
def _rescale_table(p: Rescaler, low: int) -> Int32Array:
    table = np.empty(256, np.int32)
    for q in range(low, low + 256):
        table[q & 0xFF] = rescale_element(p, q)
    return table


@njit
def _leaky_relu_table(p: LeakyRescaler) -> Int32Array:
    table = np.empty(256, np.int32)
    low = -128 if p.low < 0 else 0
    for q in range(low, low + 256):
        table[q & 0xFF] = leaky_relu_element(p, q)
    return table


@njit
def _abs_table(p: Rescaler) -> Int32Array:
    table = np.empty(256, np.int32)
    for q in range(-128, 128):
        table[q & 0xFF] = abs_element(p, q)
    return table


@njit
def _hard_swish_table(p: HardSwish) -> Int32Array:
    table = np.empty(256, np.int32)
    for q in range(p.low, p.low + 256):
        table[q & 0xFF] = hard_swish_element(p, q)
    return table


@njit
def _rsqrt_table(multiplier: int, shift: int, input_zero_point: int, zero_point: int) -> Int32Array:
    table = np.full(256, 127, np.int32)
    for q in range(input_zero_point + 1, 128):
        root, root_shift = inverse_square_root(q - input_zero_point)
        root = multiply_by_quantized_multiplier(1, root, root_shift + _RSQRT_SHIFT)
        scaled = multiply_by_quantized_multiplier(root, multiplier, shift - _RSQRT_SHIFT)
        table[q & 0xFF] = min(max(scaled + zero_point, -128), 127)
    return table


def table_float(
    function: FloatFunction, input_: Quantization, output: Quantization, dtype: str
) -> Int32Array:
    """Tabulate a float32 function: dequantize, apply, multiply by 1/scale, round half away.

    Source: LiteRT tflite/kernels/internal/common.h, LUTPopulateInt8; all steps in float32.
    """
    bounds = type_range(dtype)
    inverse_scale = np.float32(1.0) / output.scale
    table = np.empty(256, np.int32)
    for q in range(bounds.low, bounds.high + 1):
        real = input_.scale * np.float32(q - input_.zero_point)
        with np.errstate(over="ignore"):
            scaled = float(function(real) * inverse_scale)
        # An infinity or a huge value ends at the bound like any other.
        quantized = round_half_away(min(max(scaled, -1e6), 1e6)) + output.zero_point
        table[q & 0xFF] = min(max(quantized, bounds.low), bounds.high)
    return table


def _rounded(function: Callable[[float], float], x: np.float32) -> np.float32:
    """Evaluate in float64 and round once: the correctly rounded float32 function."""
    try:
        return np.float32(function(float(x)))
    except OverflowError:
        return np.float32(math.inf)


def _exp(x: np.float32) -> np.float32:
    with np.errstate(over="ignore"):
        return _rounded(math.exp, x)


def _logistic(x: np.float32) -> np.float32:
    return np.float32(1.0) / (np.float32(1.0) + _exp(-x))


def _elu(x: np.float32) -> np.float32:
    return _rounded(math.expm1, x) if x < 0 else x


def _gelu(x: np.float32) -> np.float32:
    return np.float32(0.5) * x * _rounded(math.erfc, x * -_SQRT_HALF)


def _gelu_approximate(x: np.float32) -> np.float32:
    inner = x + np.float32(0.044715) * x * x * x
    tanh = _rounded(math.tanh, _SQRT_TWO_OVER_PI * inner)
    return np.float32(0.5) * x * (np.float32(1.0) + tanh)


def table_logistic(input_: Quantization, output: Quantization, dtype: str) -> Int32Array:
    """Tabulate logistic; LiteRT wants the output scale 1/256."""
    return table_float(_logistic, input_, output, dtype)


def table_tanh(input_: Quantization, output: Quantization, dtype: str) -> Int32Array:
    """Tabulate tanh."""
    return table_float(lambda x: _rounded(math.tanh, x), input_, output, dtype)


def table_exp(input_: Quantization, output: Quantization) -> Int32Array:
    """Tabulate exp (int8)."""
    return table_float(_exp, input_, output, "int8")


def table_log(input_: Quantization, output: Quantization) -> Int32Array:
    """Tabulate log (int8); operands <= 0 give the smallest result.

    Source: LiteRT tflite/kernels/elementwise.cc, LogLUTPrepare.
    """
    smallest = np.float32(-128 - output.zero_point) * output.scale

    def log(x: np.float32) -> np.float32:
        return smallest if x <= 0 else _rounded(math.log, x)

    return table_float(log, input_, output, "int8")


def table_elu(input_: Quantization, output: Quantization) -> Int32Array:
    """Tabulate elu (int8)."""
    return table_float(_elu, input_, output, "int8")


def table_gelu(
    input_: Quantization, output: Quantization, approximate: bool, dtype: str
) -> Int32Array:
    """Tabulate gelu, by erfc or by the tanh approximation.

    Source: LiteRT tflite/kernels/internal/reference/gelu.h.
    """
    return table_float(_gelu_approximate if approximate else _gelu, input_, output, dtype)


def table_rsqrt(input_: Quantization, output: Quantization) -> Int32Array:
    """Tabulate 1/sqrt (int8); zero gives 127, and so do operands below, which LiteRT refuses.

    Defined while sqrt(input scale) * output scale < 2**11; beyond, LiteRT shifts by more than 31.

    Source: LiteRT tflite/kernels/elementwise.cc, RsqrtEvalQuantizedInt8.
    """
    product = np.sqrt(input_.scale) * output.scale
    multiplier, shift = quantize_multiplier(1.0 / float(product))
    return _rsqrt_table(multiplier, shift, input_.zero_point, output.zero_point)


def table_abs(input_: Quantization, output: Quantization) -> Int32Array:
    """Tabulate abs (int8); the ratio of scales is float32."""
    return _abs_table(prepare_relu(input_, output, type_range("int8")))


def table_neg() -> Int32Array:
    """Tabulate neg (int8): LiteRT negates the raw byte, and -128 stays."""
    q = np.arange(256, dtype=np.int32)
    return ((128 - q) & 0xFF) - 128


def table_relu(
    activation: str, input_: Quantization, output: Quantization, dtype: str
) -> Int32Array:
    """Tabulate a relu operator: "RELU", "RELU6", "RELU_N1_TO_1" or "RELU_0_TO_1"."""
    bounds = activation_range(activation, output, dtype)
    return _rescale_table(prepare_relu(input_, output, bounds), type_range(dtype).low)


def table_leaky_relu(
    input_: Quantization, output: Quantization, alpha: np.float32, dtype: str
) -> Int32Array:
    """Tabulate leaky relu."""
    return _leaky_relu_table(prepare_leaky_relu(input_, output, alpha, type_range(dtype)))


def table_hard_swish(input_: Quantization, output: Quantization, dtype: str) -> Int32Array:
    """Tabulate hard-swish."""
    return _hard_swish_table(prepare_hard_swish(input_, output, type_range(dtype)))


def table_rescale(
    input_: Quantization, output: Quantization, input_dtype: str, bounds: Bounds
) -> Int32Array:
    """Tabulate the quantize operator between 8-bit types; `bounds` is the output type's range."""
    return _rescale_table(prepare_rescale(input_, output, bounds), type_range(input_dtype).low)


def table_concatenation(input_: Quantization, output: Quantization) -> Int32Array:
    """Tabulate what concatenation does to one uint8 input whose quantization differs.

    Source: LiteRT reference_ops::ConcatenationWithScaling, in float32.
    """
    if input_ == output:
        return np.arange(256, dtype=np.int32)
    scale = input_.scale * (np.float32(1.0) / output.scale)
    bias = np.float32(-input_.zero_point) * scale
    values = [round_half_away(float(np.float32(q) * scale + bias)) for q in range(256)]
    return np.clip(np.array(values) + output.zero_point, 0, 255).astype(np.int32)
