"""Reductions and layer normalization that ONNX Runtime computes in float32.

The order of a float sum decides its last bit. The orders here are the golden's, and they depend on
where the reduced axes lie in the tensor (``SumOrder``).

Source: orders observed in ONNX Runtime 1.31 on x86-64 and confirmed bit by bit on float outputs
(docs/onnx_golden.md).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from lepton.arith.onnx_float import (
    Float32Array,
    Int32Array,
    Quantization,
    dequantize_value,
    fmaf,
    quantize_value,
)
from lepton.jit import njit

_LANES = 4


class ReduceOp(IntEnum):
    """A reduction evaluated in float32."""

    SUM = 0
    MEAN = 1
    MAX = 2
    MIN = 3


class SumOrder(IntEnum):
    """Where the reduced axes lie, axes of length 1 left out.

    LAST: innermost (contiguous). MIDDLE: one run of axes with kept axes on both sides. FIRST:
    outermost, or two runs of axes with a kept one between. (Outermost and innermost together, as in
    a per-channel mean over a batch, follow an order not reproduced here.)
    """

    LAST = 0
    MIDDLE = 1
    FIRST = 2


@njit(error_model="numpy")
def lane_sum(real: Float32Array, phase: int) -> np.float32:
    """Sum a contiguous float32 row in the golden's order.

    Two accumulators of four lanes take whole aligned groups in turn; the lanes are then added as
    ``(0 + 2) + (1 + 3)``, and the elements before and after the aligned part one by one.

    Args:
        real: The row.
        phase: Position of its first element in the tensor, modulo 4 (tensors start aligned).

    Source: the linear vectorized reduction of Eigen (MPL-2.0) with 4-lane packets.
    """
    size = real.size
    start = min((_LANES - phase) % _LANES, size)
    groups = (size - start) // _LANES
    lanes = np.zeros((2, _LANES), np.float32)
    paired = groups if groups % 2 == 0 or groups == 1 else groups - 1
    for group in range(paired):
        for lane in range(_LANES):
            lanes[group % 2, lane] += real[start + group * _LANES + lane]
    for lane in range(_LANES):
        lanes[0, lane] += lanes[1, lane]
        if paired < groups:
            lanes[0, lane] += real[start + paired * _LANES + lane]
    if groups == 0:
        start = 0
    total = (lanes[0, 0] + lanes[0, 2]) + (lanes[0, 1] + lanes[0, 3])
    for i in range(start):
        total += real[i]
    for i in range(start + groups * _LANES, size):
        total += real[i]
    return total


@njit(error_model="numpy")
def grouped_sum(real: Float32Array) -> np.float32:
    """Sum in groups of four, then two, then one, each group added to the running total."""
    size = real.size
    total = np.float32(0.0)
    i = 0
    while size - i >= _LANES:
        group = ((real[i] + real[i + 1]) + real[i + 2]) + real[i + 3]
        total = group + total
        i += _LANES
    if size - i >= 2:
        total = (real[i] + real[i + 1]) + total
        i += 2
    if i < size:
        total = real[i] + total
    return total


@njit(error_model="numpy")
def running_sum(real: Float32Array) -> np.float32:
    """Sum one element after the other."""
    total = np.float32(0.0)
    for i in range(real.size):
        total += real[i]
    return total


@njit(error_model="numpy")
def reduce_row(real: Float32Array, op: int, order: int, phase: int) -> np.float32:
    """Reduce one row; ``phase`` as in ``lane_sum``, used by ``SumOrder.LAST`` only."""
    if op == ReduceOp.MAX:
        return real.max()
    if op == ReduceOp.MIN:
        return real.min()
    if order == SumOrder.LAST:
        total = lane_sum(real, phase)
    elif order == SumOrder.MIDDLE:
        total = grouped_sum(real)
    else:
        total = running_sum(real)
    if op == ReduceOp.MEAN:
        return np.float32(total / np.float32(real.size))
    return total


class ReduceParams(NamedTuple):
    """Parameters of ``reduce_rows``."""

    ifm: Quantization
    ofm: Quantization
    op: int
    order: int


@njit(error_model="numpy")
def reduce_rows(ifm: Int32Array, params: ReduceParams) -> Int32Array:
    """Reduce ``[rows, length]`` codes to ``[rows]``.

    A row holds the elements that one output element reduces, in the order in which they lie in the
    tensor; rows are in output order. So the caller gathers, whatever the axes.
    """
    rows, length = ifm.shape
    real = np.empty(length, np.float32)
    ofm = np.empty(rows, np.int32)
    for row in range(rows):
        for i in range(length):
            real[i] = dequantize_value(ifm[row, i], params.ifm.scale, params.ifm.zero_point)
        reduced = reduce_row(real, params.op, params.order, (row * length) % _LANES)
        ofm[row] = quantize_value(reduced, params.ofm)
    return ofm


class LayerNormParams(NamedTuple):
    """Parameters of ``layer_norm``: gain and bias ``[length] float32``."""

    ifm: Quantization
    ofm: Quantization
    gain: Float32Array
    bias: Float32Array
    epsilon: np.float32


@njit(error_model="numpy")
def _moments_short(real: Float32Array) -> tuple[np.float32, np.float32]:
    """Return mean and variance of fewer than 8 elements by Welford's recurrence in float32."""
    mean = np.float32(0.0)
    spread = np.float32(0.0)
    for i in range(real.size):
        delta = real[i] - mean
        mean += delta / np.float32(i + 1)
        spread += delta * (real[i] - mean)
    return mean, np.float32(spread / np.float32(real.size))


@njit(error_model="numpy")
def _squares(real: Float32Array, mean: np.float32) -> np.float32:
    """Sum the squared deviations: 8 fused lanes, then fours unfused, then the rest fused."""
    size = real.size
    lanes = np.zeros(8, np.float32)
    body = size - size % 8
    for i in range(body):
        deviation = real[i] - mean
        lanes[i % 8] = fmaf(deviation, deviation, lanes[i % 8])
    even = (lanes[0] + lanes[4]) + (lanes[2] + lanes[6])
    odd = (lanes[1] + lanes[5]) + (lanes[3] + lanes[7])
    total = even + odd
    fours = body + 4 * ((size - body) // 4)
    for i in range(body, fours):
        deviation = real[i] - mean
        total += deviation * deviation
    for i in range(fours, size):
        deviation = real[i] - mean
        total = fmaf(deviation, deviation, total)
    return total


@njit(error_model="numpy")
def moments(real: Float32Array) -> tuple[np.float32, np.float32]:
    """Return mean and variance of a row as the golden's layer normalization forms them.

    From 8 elements on, the mean is a float64 sum rounded once after the division, and the variance
    is taken around that mean in a second pass.
    """
    if real.size < 8:
        return _moments_short(real)
    total = 0.0
    for i in range(real.size):
        total += np.float64(real[i])
    mean = np.float32(total / real.size)
    return mean, np.float32(_squares(real, mean) / np.float32(real.size))


@njit(error_model="numpy")
def normalize_row(real: Float32Array, params: LayerNormParams) -> Float32Array:
    """Return ``(x - mean) / sqrt(variance + epsilon) * gain + bias`` of one float32 row.

    From 8 elements on, the golden multiplies by the reciprocal of the deviation and fuses the last
    multiply-add; below, it divides and rounds every step.
    """
    mean, variance = moments(real)
    deviation = np.float32(np.sqrt(np.float32(variance + params.epsilon)))
    inverse = np.float32(1.0) / deviation
    normalized = np.empty(real.size, np.float32)
    for i in range(real.size):
        if real.size < 8:
            scaled = (real[i] - mean) / deviation
            normalized[i] = scaled * params.gain[i] + params.bias[i]
        else:
            scaled = (real[i] - mean) * inverse
            normalized[i] = fmaf(scaled, params.gain[i], params.bias[i])
    return normalized


@njit(error_model="numpy")
def layer_norm(ifm: Int32Array, params: LayerNormParams) -> Int32Array:
    """Normalize every row of ``[rows, length]`` codes (LayerNormalization over the last axis)."""
    rows, length = ifm.shape
    ofm = np.empty((rows, length), np.int32)
    real = np.empty(length, np.float32)
    for row in range(rows):
        for i in range(length):
            real[i] = dequantize_value(ifm[row, i], params.ifm.scale, params.ifm.zero_point)
        normalized = normalize_row(real, params)
        for i in range(length):
            ofm[row, i] = quantize_value(normalized[i], params.ofm)
    return ofm
