"""Costs of single instruction records."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.cost.closed_forms import (
    Walk,
    depthwise_cycles,
    divide_up,
    vector_cycles,
)
from lepton.cost.dataflows import Product, matmul_cost
from lepton.cost.scalars import CostScalars
from lepton.isa.declaration import BY_MNEMONIC
from lepton.isa.encoding import COLUMNS
from lepton.isa.footprints import (
    BINARY_PARAMETER_BYTES,
    POOL_PARAMETER_BYTES,
    REQUANTIZE_BYTES,
    RESIZE_HEADER_BYTES,
    SOFTMAX_PARAMETER_BYTES,
)
from lepton.isa.instructions import BinaryMode, PoolMode, ResizeMode, Stationary
from lepton.jit import njit

__all__ = ["matmul_walk", "matrix_cost", "vector_cost"]

_MATMUL = BY_MNEMONIC["matmul"].opcode
_DEPTHWISE = BY_MNEMONIC["depthwise"].opcode
_REQUANTIZE = BY_MNEMONIC["requantize"].opcode
_BINARY = BY_MNEMONIC["binary"].opcode
_LUT = BY_MNEMONIC["lut"].opcode
_COPY = BY_MNEMONIC["copy"].opcode
_POOL = BY_MNEMONIC["pool"].opcode
_SOFTMAX = BY_MNEMONIC["softmax"].opcode
_RESIZE = BY_MNEMONIC["resize"].opcode
_ONES = int(Stationary.ONES)
_NEAREST = int(ResizeMode.NEAREST)
_AVERAGE_FLOAT32 = int(PoolMode.AVERAGE_FLOAT32)
_MAXIMUM, _MINIMUM = int(BinaryMode.MAXIMUM), int(BinaryMode.MINIMUM)
_REQUANTIZE_BYTES, _BINARY_BYTES = REQUANTIZE_BYTES, BINARY_PARAMETER_BYTES
_POOL_BYTES, _SOFTMAX_BYTES = POOL_PARAMETER_BYTES, SOFTMAX_PARAMETER_BYTES
_RESIZE_BYTES = RESIZE_HEADER_BYTES

# columns of the record, as plain globals that kernels freeze
_HEIGHT, _WIDTH, _CHANNELS = COLUMNS["height"], COLUMNS["width"], COLUMNS["channels"]
_IFM_ROW, _IFM_PIXEL = COLUMNS["ifm_row_pitch"], COLUMNS["ifm_pixel_pitch"]
_OFM_ROW, _OFM_PIXEL = COLUMNS["ofm_row_pitch"], COLUMNS["ofm_pixel_pitch"]
_IFM_CHANNEL, _OFM_CHANNEL = COLUMNS["ifm_channel_pitch"], COLUMNS["ofm_channel_pitch"]
_A_ROW, _A_PIXEL, _A_CHANNEL = (COLUMNS[f"a_{n}_pitch"] for n in ("row", "pixel", "channel"))
_B_ROW, _B_PIXEL, _B_CHANNEL = (COLUMNS[f"b_{n}_pitch"] for n in ("row", "pixel", "channel"))
_KERNEL_H, _KERNEL_W = COLUMNS["kernel_height"], COLUMNS["kernel_width"]
_STRIDE_X, _DILATION_X = COLUMNS["stride_x"], COLUMNS["dilation_x"]
_DILATION_Y = COLUMNS["dilation_y"]
_OFM_H, _OFM_W = COLUMNS["ofm_height"], COLUMNS["ofm_width"]
_COLUMNS, _MULTIPLIER = COLUMNS["columns"], COLUMNS["multiplier"]
_STATIONARY, _MODE, _ROWS = COLUMNS["stationary"], COLUMNS["mode"], COLUMNS["rows"]
_TABLE_PITCH, _SUMS_PITCH = COLUMNS["table_pitch"], COLUMNS["accumulator_pitch"]


@njit
def _is_packed(row: int, pixel: int, channel: int, shape: tuple[int, int, int]) -> bool:
    """Return whether the bytes of a tile of these pitches are one run, in order."""
    height, width, channels = shape
    return (
        (row == width * channels or height == 1)
        and (pixel == channels or width == 1)
        and (channel == 1 or channels == 1)
    )


@njit
def matmul_walk(r: NDArray[np.int64]) -> Walk:
    """Return the walk of a matmul record: packed, undilated pixels make a kernel row one run."""
    line_pitch = r[_DILATION_Y] * r[_IFM_ROW]
    if r[_IFM_PIXEL] == r[_CHANNELS] and r[_DILATION_X] == 1:
        return Walk(r[_KERNEL_W] * r[_CHANNELS], 1, 0, line_pitch)
    return Walk(r[_CHANNELS], r[_KERNEL_W], r[_DILATION_X] * r[_IFM_PIXEL], line_pitch)


@njit(inlined=True)
def matrix_cost(p: CostScalars, r: NDArray[np.int64]) -> tuple[int, int, int, int]:
    """Return preload, stream, last and drain of a matmul or depthwise record."""
    if r[0] == _MATMUL:
        reduction = r[_KERNEL_H] * r[_KERNEL_W] * r[_CHANNELS]
        distance = r[_STRIDE_X] * r[_IFM_PIXEL]
        product = Product(
            reduction, r[_COLUMNS], r[_OFM_H], r[_OFM_W], matmul_walk(r), distance, r[_SUMS_PITCH],
            r[_STATIONARY],
        )  # fmt: skip
        return matmul_cost(p, product)
    taps = r[_KERNEL_H] * r[_KERNEL_W]
    preload = 0 if r[_STATIONARY] == _ONES else min(taps, p.rows)
    stream, last = depthwise_cycles(
        p, (r[_KERNEL_H], r[_KERNEL_W]), r[_STRIDE_X], r[_DILATION_X], (r[_OFM_H], r[_OFM_W]),
        r[_CHANNELS] * r[_MULTIPLIER],
    )  # fmt: skip
    drain = p.rows + p.columns - 2
    return preload, stream + p.issue_cycles, last + p.issue_cycles, drain


@njit(inlined=True)
def _parameter_bytes(r: NDArray[np.int64]) -> int:
    """Return the bytes of the parameters and tables that a vector record reads."""
    if r[0] == _REQUANTIZE:
        return r[_CHANNELS] * _REQUANTIZE_BYTES[r[_MODE]]
    if r[0] == _BINARY:
        return 0 if r[_MODE] == _MAXIMUM or r[_MODE] == _MINIMUM else _BINARY_BYTES
    if r[0] == _LUT:
        return 256 if r[_TABLE_PITCH] == 0 else 256 * r[_CHANNELS]
    if r[0] == _POOL:
        return _POOL_BYTES if r[_MODE] == _AVERAGE_FLOAT32 else 0
    if r[0] == _SOFTMAX:
        return _SOFTMAX_BYTES
    if r[0] == _RESIZE:
        steps = r[_OFM_H] + r[_OFM_W]
        return 4 * steps if r[_MODE] == _NEAREST else _RESIZE_BYTES + 16 * steps
    return 0


@njit(inlined=True)
def _is_stream(r: NDArray[np.int64]) -> bool:
    """Return whether all operands of an element-wise record are packed."""
    shape = (r[_HEIGHT], r[_WIDTH], r[_CHANNELS])
    if not _is_packed(r[_OFM_ROW], r[_OFM_PIXEL], 1, shape):
        return False
    if r[0] == _BINARY:
        return _is_packed(r[_A_ROW], r[_A_PIXEL], r[_A_CHANNEL], shape) and _is_packed(
            r[_B_ROW], r[_B_PIXEL], r[_B_CHANNEL], shape
        )
    if r[0] == _LUT or r[0] == _COPY:
        return _is_packed(r[_IFM_ROW], r[_IFM_PIXEL], 1, shape)
    return True


@njit(inlined=True)
def _element_cycles(p: CostScalars, r: NDArray[np.int64]) -> int:
    """Return the cycles of a vector record after its latency and its parameters."""
    height, width, channels = r[_HEIGHT], r[_WIDTH], r[_CHANNELS]
    if r[0] == _SOFTMAX:
        return vector_cycles(p, r[_ROWS], channels, False, p.softmax_cycles_per_element)
    if r[0] == _POOL or r[0] == _RESIZE:
        steps = r[_KERNEL_H] * r[_KERNEL_W]
        if r[0] == _RESIZE:
            steps = 1 if r[_MODE] == _NEAREST else 4
        return vector_cycles(p, r[_OFM_H] * r[_OFM_W], channels, False, steps)
    if r[0] == _COPY and (r[_IFM_CHANNEL] != 1 or r[_OFM_CHANNEL] != 1):
        return divide_up(height * width * channels, min(p.lanes, p.banks))
    return vector_cycles(p, height * width, channels, _is_stream(r), 1)


@njit(inlined=True)
def vector_cost(p: CostScalars, r: NDArray[np.int64]) -> int:
    """Return the cycles that a vector record occupies its unit."""
    fetch = divide_up(_parameter_bytes(r), p.port_bytes)
    return p.latency_cycles + fetch + _element_cycles(p, r)
