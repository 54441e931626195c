"""Exact float32 building blocks that the ONNX golden arithmetic shares.

ONNX Runtime computes in float32 between quantized tensors, with and without fused multiply-adds.
Everything here keeps float32 and rounds exactly where that library rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import ArrayLike, DTypeLike, NDArray

from lepton.jit import njit

Float32Array = NDArray[np.float32]
Int32Array = NDArray[np.int32]


class Quantization(NamedTuple):
    """How one tensor is quantized: ``real = (q - zero_point) * scale``, ``lo <= q <= hi``."""

    scale: np.float32
    zero_point: int
    lo: int
    hi: int


def quantization(scale: float, zero_point: int, dtype: DTypeLike) -> Quantization:
    """Return the quantization of a tensor whose storage type is ``dtype`` (int8 or uint8)."""
    limits = np.iinfo(np.dtype(dtype).name)
    return Quantization(np.float32(scale), int(zero_point), int(limits.min), int(limits.max))


@intrinsic
def _fmaf(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Emit one fused multiply-add of three float32."""
    del typing_context, a, b, c

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.fma(*arguments)

    single = types.float32
    return single(single, single, single), generate


# ``a * b + c`` rounded once; callable inside compiled code only.
fmaf = cast("Callable[[np.float32, np.float32, np.float32], np.float32]", _fmaf)


def fma(a: ArrayLike, b: ArrayLike, c: ArrayLike) -> Float32Array:
    """Return ``a * b + c`` elementwise in float32 with one rounding.

    The product of two float32 is exact in float64. Its sum with ``c`` is rounded to odd there, so
    that the second rounding, to float32, is the only one that counts.

    Source: Boldo and Melquiond, Emulation of a FMA and correctly rounded sums, IEEE TC 57 (2008).
    """
    product = np.asarray(a, np.float32).astype(np.float64) * np.asarray(b, np.float32)
    addend = np.asarray(c, np.float32).astype(np.float64)
    total = np.atleast_1d(product + addend)
    virtual = total - product
    error = np.atleast_1d((product - (total - virtual)) + (addend - virtual))
    even = (total.view(np.int64) & 1) == 0
    inexact = np.isfinite(total) & (error != 0) & even
    nudged = np.nextafter(total, np.where(error > 0, np.inf, -np.inf))
    with np.errstate(over="ignore"):
        rounded = np.where(inexact, nudged, total).astype(np.float32)
    return rounded.reshape(np.broadcast_shapes(product.shape, addend.shape))


@njit(error_model="numpy")
def round_clamped(value: np.float32, zero_point: int, lo: int, hi: int) -> np.int32:
    """Clamp ``value`` to the range around zero_point, round half to even, add zero_point.

    The order (clamp, round, add) and the result ``lo`` for a NaN are the golden's.
    """
    lower = np.float32(lo - zero_point)
    upper = np.float32(hi - zero_point)
    value = max(lower, value)
    value = min(upper, value)
    return np.int32(np.rint(value)) + np.int32(zero_point)


@njit(error_model="numpy")
def round_saturated(value: np.float32, zero_point: int, lo: int, hi: int) -> np.int32:
    """Round half to even, add zero_point, saturate; value must fit an int32."""
    code = np.int32(np.rint(value)) + np.int32(zero_point)
    return min(max(code, np.int32(lo)), np.int32(hi))


@njit(error_model="numpy")
def dequantize_value(q: int, scale: np.float32, zero_point: int) -> np.float32:
    """Return ``float32(q - zero_point) * scale`` (DequantizeLinear)."""
    return np.float32(np.int32(q) - np.int32(zero_point)) * np.float32(scale)


@njit(error_model="numpy")
def quantize_value(value: np.float32, params: Quantization) -> np.int32:
    """Return QuantizeLinear of one float32: a true division, then round_clamped."""
    scaled = np.float32(value) / np.float32(params.scale)
    return round_clamped(scaled, params.zero_point, params.lo, params.hi)


@njit(error_model="numpy")
def dequantize(q: Int32Array, params: Quantization) -> Float32Array:
    """Return DequantizeLinear of a flat int32 array as float32."""
    real = np.empty(q.size, np.float32)
    for i in range(q.size):
        real[i] = dequantize_value(q[i], params.scale, params.zero_point)
    return real


@njit(error_model="numpy")
def quantize(real: Float32Array, params: Quantization) -> Int32Array:
    """Return QuantizeLinear of a flat float32 array as int32 within ``[lo, hi]``."""
    q = np.empty(real.size, np.int32)
    for i in range(real.size):
        q[i] = quantize_value(real[i], params)
    return q
