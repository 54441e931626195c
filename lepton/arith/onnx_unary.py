"""Float32 unary functions evaluated as ONNX Runtime does, and the lookup tables made of them.

A unary operator between two 8-bit tensors is a table of 256 codes. The functions here follow the
vector routines of the golden step by step (polynomials with fused multiply-adds), so that the
tables hold its bytes and not those of the C library.

Source: polynomials of MLAS (ONNX Runtime, MIT): logistic and tanh as in Eigen, erf and exp after
N. Juffa's published approximations; checked against the library over all codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lepton.arith.onnx_float import (
    Float32Array,
    Int32Array,
    Quantization,
    dequantize,
    fma,
    quantize,
)

UnaryFunction = Callable[[Float32Array], Float32Array]

_LOGISTIC_NUMERATOR = (
    4.37031012579801e-11,
    1.15627324459942e-07,
    6.08574864600143e-05,
    8.51377133304701e-03,
    2.48287947061529e-01,
)
_LOGISTIC_DENOMINATOR = (
    6.10247389755681e-13,
    5.76102136993427e-09,
    6.29106785017040e-06,
    1.70198817374094e-03,
    1.16817656904453e-01,
    9.93151921023180e-01,
)
_TANH_NUMERATOR = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_TANH_DENOMINATOR = (
    1.19825839466702e-06,
    1.18534705686654e-04,
    2.26843463243900e-03,
    4.89352518554385e-03,
)
_EXP_DIGITS = ("0x1.694p-10", "0x1.125edcp-7", "0x1.555b5ap-5", "0x1.55545p-3", "0x1.fffff6p-2")
_EXP = (*(float.fromhex(digits) for digits in _EXP_DIGITS), 1.0, 1.0)
_ERF_EXP = (1.38319808e-3, 8.37550033e-3, 4.16689515e-2, 1.66664466e-1, 4.99999851e-1, 1.0, 1.0)
_ERF_SMALL = (
    -5.99104969e-4,
    4.99339588e-3,
    -2.67667342e-2,
    1.12818025e-1,
    -3.76124859e-1,
    1.28379151e-1,
)
_ERF_BIG = (
    1.72948930e-5,
    -3.83208680e-4,
    3.88393435e-3,
    -2.42545605e-2,
    1.06777847e-1,
    6.34846687e-1,
    1.28717512e-1,
)
_ERF_SPLIT = np.float32(0.921875)
_ERF_RANGE = np.float32(3.925)
_ROUNDING_BIAS = np.float32(12582912.0)
_LOG2_RECIPROCAL = np.float32(1.44269504088896341)
_LOG2_HIGH = np.float32(-6.93145752e-1)
_LOG2_LOW = np.float32(-1.42860677e-6)
_EXP_LOWER = np.float32(-103.9720840454)


def _horner(coefficients: Sequence[float], x: Float32Array) -> Float32Array:
    """Evaluate a polynomial, highest power first, one fused multiply-add per step."""
    result = np.full(x.shape, coefficients[0], np.float32)
    for coefficient in coefficients[1:]:
        result = fma(result, x, np.float32(coefficient))
    return result


def sigmoid(x: Float32Array) -> Float32Array:
    """Return the logistic function as a rational polynomial on [-18, 18]."""
    clamped = np.clip(x, np.float32(-18), np.float32(18))
    square = clamped * clamped
    numerator = _horner(_LOGISTIC_NUMERATOR, square) * clamped
    ratio = numerator / _horner(_LOGISTIC_DENOMINATOR, square)
    return np.maximum(ratio + np.float32(0.5), np.float32(0))


def tanh(x: Float32Array) -> Float32Array:
    """Return the hyperbolic tangent as a rational polynomial on [-9, 9]."""
    clamped = np.clip(x, np.float32(-9), np.float32(9))
    square = clamped * clamped
    return (_horner(_TANH_NUMERATOR, square) * clamped) / _horner(_TANH_DENOMINATOR, square)


def _exp_with(coefficients: Sequence[float], x: Float32Array) -> Float32Array:
    """Return exp(x): reduce by multiples of ln 2, polynomial, scale by a power of two."""
    power = fma(x, _LOG2_RECIPROCAL, _ROUNDING_BIAS) - _ROUNDING_BIAS
    reduced = fma(power, _LOG2_LOW, fma(power, _LOG2_HIGH, x))
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(_horner(coefficients, reduced), power.astype(np.int32))


def exp(x: Float32Array) -> Float32Array:
    """Return the exponential function."""
    return _exp_with(_EXP, np.clip(x, _EXP_LOWER, np.float32(89)))


def erf(x: Float32Array) -> Float32Array:
    """Return the error function: one polynomial below 0.92, ``1 - exp(-polynomial)`` above."""
    magnitude = np.minimum(np.abs(x), _ERF_RANGE)
    small = fma(_horner(_ERF_SMALL, magnitude * magnitude), magnitude, magnitude)
    large = np.where(magnitude >= _ERF_SPLIT, magnitude, np.float32(0)).astype(np.float32)
    exponent = -fma(_horner(_ERF_BIG, large), large, large)
    result = np.where(magnitude >= _ERF_SPLIT, np.float32(1) - _exp_with(_ERF_EXP, exponent), small)
    return np.copysign(result, x).astype(np.float32)


def gelu(x: Float32Array) -> Float32Array:
    """Return ``(0.5 * x) * (erf(x * sqrt(1/2)) + 1)``."""
    inner = np.multiply(x, np.float32(math.sqrt(0.5)), dtype=np.float32)
    return np.multiply(np.float32(0.5) * x, erf(inner) + np.float32(1), dtype=np.float32)


def gelu_tanh(x: Float32Array) -> Float32Array:
    """Return ``(0.5 * x) * (tanh(x * (c1 * x * x + c0)) + 1)``, the approximation of gelu."""
    cubic = np.float32(0.035677408136300125) * x * x + np.float32(0.7978845608028654)
    inner = np.multiply(x, cubic, dtype=np.float32)
    return np.multiply(np.float32(0.5) * x, tanh(inner) + np.float32(1), dtype=np.float32)


def relu(x: Float32Array) -> Float32Array:
    """Return ``max(x, 0)``."""
    return np.maximum(x, np.float32(0))


def leaky_relu(x: Float32Array, alpha: float = 0.01) -> Float32Array:
    """Return x, or ``alpha * x`` where x is negative."""
    return np.where(x >= 0, x, np.float32(alpha) * x).astype(np.float32)


def clip(x: Float32Array, lower: float = -math.inf, upper: float = math.inf) -> Float32Array:
    """Return ``min(max(x, lower), upper)``."""
    return np.minimum(np.maximum(x, np.float32(lower)), np.float32(upper))


def hard_sigmoid(x: Float32Array, alpha: float = 0.2, beta: float = 0.5) -> Float32Array:
    """Return ``alpha * x + beta`` (two roundings) clamped to [0, 1]."""
    linear = np.float32(alpha) * x + np.float32(beta)
    return clip(linear, 0.0, 1.0)


def hard_swish(x: Float32Array) -> Float32Array:
    """Return ``x * hard_sigmoid(x, 1/6, 1/2)``, as the golden decomposes it."""
    return x * hard_sigmoid(x, 1.0 / 6.0, 0.5)


def silu(x: Float32Array) -> Float32Array:
    """Return ``x * sigmoid(x)``."""
    return x * sigmoid(x)


def elu(x: Float32Array, alpha: float = 1.0) -> Float32Array:
    """Return x, or ``alpha * (exp(x) - 1)`` where x is negative (within an ulp of the golden)."""
    below = np.minimum(x, np.float32(0))
    negative = np.float32(alpha) * (np.exp(below.astype(np.float64)).astype(np.float32) - 1)
    return np.where(x >= 0, x, negative).astype(np.float32)


def softplus(x: Float32Array) -> Float32Array:
    """Return ``log(1 + exp(x))``, correctly rounded (within an ulp of the golden)."""
    return np.logaddexp(0.0, x.astype(np.float64)).astype(np.float32)


def log(x: Float32Array) -> Float32Array:
    """Return the natural logarithm, correctly rounded (within an ulp of the golden)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(x.astype(np.float64)).astype(np.float32)


def sqrt(x: Float32Array) -> Float32Array:
    """Return the square root; NaN below zero, which quantizes to the lowest code."""
    with np.errstate(invalid="ignore"):
        return np.sqrt(x)


def reciprocal(x: Float32Array) -> Float32Array:
    """Return ``1 / x``."""
    with np.errstate(divide="ignore"):
        return np.float32(1) / x


def unary_table(function: UnaryFunction, ifm: Quantization, ofm: Quantization) -> Int32Array:
    """Return the 256 codes of dequantize, function, quantize, indexed by ``code - ifm.lo``."""
    codes = np.arange(ifm.lo, ifm.hi + 1, dtype=np.int32)
    return quantize(function(dequantize(codes, ifm)), ofm)
