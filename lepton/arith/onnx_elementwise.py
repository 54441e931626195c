"""Operators that ONNX Runtime leaves in float32 between dequantize and quantize.

Each operand is dequantized, the operator works on float32 with its own roundings, an optional
clamp follows (a Relu or Clip that the golden could not remove), and the result is quantized.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from lepton.arith.onnx_float import (
    Int32Array,
    Quantization,
    dequantize_value,
    quantize_value,
)
from lepton.jit import njit


class FloatOp(IntEnum):
    """A binary operator evaluated in float32."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    MAX = 4
    MIN = 5
    PRELU = 6
    MEAN = 7


class FloatBinaryParams(NamedTuple):
    """Parameters of ``float_binary``: quantizations and the clamp of the real result."""

    a: Quantization
    b: Quantization
    ofm: Quantization
    lower: np.float32
    upper: np.float32


def prepare_float_binary(
    a: Quantization,
    b: Quantization,
    ofm: Quantization,
    lower: float = -math.inf,
    upper: float = math.inf,
) -> FloatBinaryParams:
    """Collect the parameters; ``lower`` 0 is a Relu behind the operator, both are a Clip."""
    return FloatBinaryParams(a, b, ofm, np.float32(lower), np.float32(upper))


@njit(error_model="numpy")
def float_binary_real(a: np.float32, b: np.float32, op: int) -> np.float32:
    """Return ``a op b`` in float32, rounded once."""
    if op == FloatOp.ADD:
        return a + b
    if op == FloatOp.SUB:
        return a - b
    if op == FloatOp.MUL:
        return a * b
    if op == FloatOp.DIV:
        return a / b
    if op == FloatOp.MAX:
        return max(b, a)
    if op == FloatOp.MIN:
        return min(b, a)
    if op == FloatOp.MEAN:
        return (a + b) * np.float32(0.5)
    return a if a > 0 else a * b


@njit(error_model="numpy")
def float_binary_value(a: int, b: int, op: int, params: FloatBinaryParams) -> np.int32:
    """Return one code of ``quantize(clamp(dequantize(a) op dequantize(b)))``."""
    real_a = dequantize_value(a, params.a.scale, params.a.zero_point)
    real_b = dequantize_value(b, params.b.scale, params.b.zero_point)
    real = float_binary_real(real_a, real_b, op)
    real = max(real, params.lower)
    real = min(real, params.upper)
    return quantize_value(real, params.ofm)


@njit(error_model="numpy")
def float_binary(a: Int32Array, b: Int32Array, op: int, params: FloatBinaryParams) -> Int32Array:
    """Apply ``op`` to two flat code arrays of equal length."""
    ofm = np.empty(a.size, np.int32)
    for i in range(a.size):
        ofm[i] = float_binary_value(a[i], b[i], op, params)
    return ofm
