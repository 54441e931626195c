"""Integer kernels of ONNX Runtime as the vector unit computes them.

Every kernel takes codes already extended to int32 and returns int32 codes inside the output
type's range. Each ``prepare_*`` forms the float32 parameters in the golden's order of operations;
the compiler calls it once per operator and stores the result as constants of the program.

Source: ONNX Runtime 1.31 (MIT), CPU kernels of the QLinear* operators and their MLAS routines
for x86-64 with FMA; formulas re-derived and checked against the library (docs/onnx_golden.md).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton.arith.onnx_float import (
    Float32Array,
    Int32Array,
    Quantization,
    dequantize_value,
    fma,
    fmaf,
    quantize_value,
    round_clamped,
    round_saturated,
)
from lepton.jit import njit


class RequantizeParams(NamedTuple):
    """Parameters of ``requantize``: scale ``[channels]`` or ``[1]`` float32."""

    scale: Float32Array
    zero_point: int
    lo: int
    hi: int


def prepare_requantize(
    ifm: Quantization, weight_scale: ArrayLike, ofm: Quantization, alpha: float = 1.0
) -> RequantizeParams:
    """Form ``(alpha * ifm.scale * weight_scale) / ofm.scale`` in float32, left to right.

    Args:
        ifm: Quantization of the input (or of the first matmul operand).
        weight_scale: One scale, or one per output channel.
        ofm: Quantization of the output.
        alpha: The factor of Gemm; 1 for convolution and matmul.
    """
    weights = np.atleast_1d(np.asarray(weight_scale, np.float32))
    product = (np.float32(alpha) * np.float32(ifm.scale)) * weights
    scale = (product / np.float32(ofm.scale)).astype(np.float32)
    return RequantizeParams(scale, ofm.zero_point, ofm.lo, ofm.hi)


def quantize_bias(bias: ArrayLike, ifm: Quantization, weight_scale: ArrayLike) -> Int32Array:
    """Return a float bias as int32 codes of scale ``ifm.scale * weight_scale``, half to even."""
    scale = np.float32(ifm.scale) * np.asarray(weight_scale, np.float32)
    codes = np.rint(np.asarray(bias, np.float32) / scale).astype(np.float64)
    limits = np.iinfo(np.int32)
    return np.clip(codes, limits.min, limits.max).astype(np.int32)


@njit(error_model="numpy")
def requantize_value(acc: int, scale: np.float32, params: RequantizeParams) -> np.int32:
    """Return ``clamp(rint(float32(acc) * scale)) + zero_point`` of one accumulator."""
    value = np.float32(np.int32(acc)) * scale
    return round_clamped(value, params.zero_point, params.lo, params.hi)


@njit(error_model="numpy")
def requantize(acc: Int32Array, params: RequantizeParams) -> Int32Array:
    """Requantize accumulators ``[rows, channels] int32``, bias and zero points already in.

    This is QLinearConv, QLinearMatMul and QGemm after their integer sum.
    """
    rows, channels = acc.shape
    step = 0 if params.scale.size == 1 else 1
    ofm = np.empty((rows, channels), np.int32)
    for row in range(rows):
        for channel in range(channels):
            scale = params.scale[channel * step]
            ofm[row, channel] = requantize_value(acc[row, channel], scale, params)
    return ofm


class AddParams(NamedTuple):
    """Parameters of ``add``; ``offset`` holds all three zero points."""

    ratio_a: np.float32
    ratio_b: np.float32
    offset: np.float32
    lo: int
    hi: int


def prepare_add(a: Quantization, b: Quantization, ofm: Quantization) -> AddParams:
    """Form the scale ratios and ``zero_point - fma(ratio_a, za, ratio_b * zb)`` in float32.

    The golden's compiler fuses that one product: its rounding shows in sums close to a tie.
    """
    ratio_a = np.float32(a.scale) / np.float32(ofm.scale)
    ratio_b = np.float32(b.scale) / np.float32(ofm.scale)
    shift = np.float32(fma(ratio_a, a.zero_point, ratio_b * np.float32(b.zero_point)))
    offset = np.float32(ofm.zero_point) - shift
    return AddParams(ratio_a, ratio_b, np.float32(offset), ofm.lo, ofm.hi)


@njit(error_model="numpy")
def add_value(a: int, b: int, params: AddParams) -> np.int32:
    """Return ``clamp(rint(fma(a, ratio_a, fma(b, ratio_b, offset))))``."""
    inner = fmaf(np.float32(b), params.ratio_b, params.offset)
    return round_clamped(fmaf(np.float32(a), params.ratio_a, inner), 0, params.lo, params.hi)


@njit(error_model="numpy")
def add(a: Int32Array, b: Int32Array, params: AddParams) -> Int32Array:
    """Add two flat code arrays of equal length (QLinearAdd).

    Where the golden broadcasts one element of ``a`` over a run of ``b``, it adds that one first:
    call with the operands (and ``prepare_add``) exchanged. A broadcast ``b`` needs nothing.
    """
    ofm = np.empty(a.size, np.int32)
    for i in range(a.size):
        ofm[i] = add_value(a[i], b[i], params)
    return ofm


class MulParams(NamedTuple):
    """Parameters of ``mul``."""

    ratio: np.float32
    zero_point_a: int
    zero_point_b: int
    zero_point: int
    lo: int
    hi: int


def prepare_mul(a: Quantization, b: Quantization, ofm: Quantization) -> MulParams:
    """Form ``a.scale * b.scale / ofm.scale`` in float32, left to right."""
    ratio = np.float32(a.scale) * np.float32(b.scale) / np.float32(ofm.scale)
    points = (a.zero_point, b.zero_point, ofm.zero_point)
    return MulParams(np.float32(ratio), *points, ofm.lo, ofm.hi)


@njit(error_model="numpy")
def mul_value(a: int, b: int, params: MulParams) -> np.int32:
    """Return ``clamp(rint(float32((a - za) * (b - zb)) * ratio + float32(zero_point)))``.

    Two roundings, product and sum: no fused multiply-add here, unlike ``add_value``.
    """
    product = (np.int32(a) - params.zero_point_a) * (np.int32(b) - params.zero_point_b)
    scaled = np.float32(np.int32(product)) * params.ratio
    value = np.float32(scaled + np.float32(params.zero_point))
    return round_clamped(value, 0, params.lo, params.hi)


@njit(error_model="numpy")
def mul(a: Int32Array, b: Int32Array, params: MulParams) -> Int32Array:
    """Multiply two flat code arrays of equal length (QLinearMul)."""
    ofm = np.empty(a.size, np.int32)
    for i in range(a.size):
        ofm[i] = mul_value(a[i], b[i], params)
    return ofm


class SoftmaxParams(NamedTuple):
    """Parameters of ``softmax``: 256 exponentials float32, indexed by ``255 - (max - code)``."""

    table: Float32Array
    inverse_scale: np.float32
    zero_point: int
    lo: int
    hi: int


def prepare_softmax(ifm: Quantization, ofm: Quantization, length: int) -> SoftmaxParams:
    """Build the exponential table for rows of ``length`` elements.

    Entry 255 belongs to the row's maximum. The exponents are shifted up so that a sum of
    ``length`` entries stays below the float32 maximum by a factor of e**5.
    """
    scale = float(ifm.scale)
    limit = np.finfo(np.float32).max / np.float32(length)
    # The golden takes this logarithm in float32.
    shift = max(0.0, float(np.float32(math.log(float(limit)))) - 5.0) / scale
    table = np.array([math.exp((i - 255 + shift) * scale) for i in range(256)], np.float64)
    inverse = np.floor(np.float32(1.0) / np.float32(ofm.scale))
    with np.errstate(over="ignore"):
        single = table.astype(np.float32)
    return SoftmaxParams(single, np.float32(inverse), ofm.zero_point, ofm.lo, ofm.hi)


@njit(error_model="numpy")
def softmax(ifm: Int32Array, params: SoftmaxParams) -> Int32Array:
    """Apply softmax to every row of ``[rows, length]`` codes (QLinearSoftmax)."""
    rows, length = ifm.shape
    ofm = np.empty((rows, length), np.int32)
    for row in range(rows):
        top = ifm[row, 0]
        for i in range(length):
            top = max(top, ifm[row, i])
        total = np.float32(0.0)
        for i in range(length):
            total += params.table[255 - (top - ifm[row, i])]
        for i in range(length):
            share = params.table[255 - (top - ifm[row, i])] * params.inverse_scale / total
            ofm[row, i] = softmax_code(np.float32(share), params)
    return ofm


@njit(error_model="numpy")
def softmax_code(share: np.float32, params: SoftmaxParams) -> np.int32:
    """Round one scaled probability, add the zero point, saturate.

    A product that overflowed float32 (short rows, output scale below about 1/148) is converted as
    the x86 instruction does: to 0 if unsigned, and if signed to -2**31, to which the zero point is
    added with wrap-around.
    """
    if not np.isfinite(share):
        if params.lo == 0:
            return np.int32(params.zero_point)
        return np.int32(params.hi) if params.zero_point < 0 else np.int32(params.lo)
    return round_saturated(share, params.zero_point, params.lo, params.hi)


@njit(error_model="numpy")
def requantize_code(code: int, ifm: Quantization, ofm: Quantization) -> np.int32:
    """Return DequantizeLinear followed by QuantizeLinear of one code."""
    return quantize_value(dequantize_value(code, ifm.scale, ifm.zero_point), ofm)


def prepare_table(ifm: Quantization, ofm: Quantization) -> Int32Array:
    """Return the 256 output codes, indexed by ``code - ifm.lo``, of a plain requantization.

    QLinearConcat and QLinearWhere send each input through such a table, or copy it where scale
    and zero point are the output's own (the table is then the identity).
    """
    if ifm.scale == ofm.scale and ifm.zero_point == ofm.zero_point:
        return np.arange(ifm.lo, ifm.hi + 1, dtype=np.int32)
    codes = [requantize_code(code, ifm, ofm) for code in range(ifm.lo, ifm.hi + 1)]
    return np.array(codes, np.int32)


@njit
def lookup(ifm: Int32Array, table: Int32Array, lo: int) -> Int32Array:
    """Replace each code of a flat array by ``table[code - lo]``."""
    ofm = np.empty(ifm.size, np.int32)
    for i in range(ifm.size):
        ofm[i] = table[ifm[i] - lo]
    return ofm


@njit
def select(condition: NDArray[np.bool_], a: Int32Array, b: Int32Array) -> Int32Array:
    """Take ``a`` where condition holds, else ``b`` (QLinearWhere after its two tables)."""
    ofm = np.empty(a.size, np.int32)
    for i in range(a.size):
        ofm[i] = a[i] if condition[i] else b[i]
    return ofm
