"""Costs of whole instruction records."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.cost.closed_forms import (
    Walk,
    depthwise_cycles,
    divide_up,
    vector_cycles,
)
from lepton.cost.dataflows import Product, matmul_cost
from lepton.cost.scalars import CostScalars, cost_scalars
from lepton.isa.declaration import BY_MNEMONIC
from lepton.isa.encoding import COLUMNS
from lepton.isa.footprints import REQUANTIZE_BYTES
from lepton.isa.instructions import ResizeMode, Stationary
from lepton.jit import njit

__all__ = ["InstructionCosts", "instruction_costs"]


class InstructionCosts(NamedTuple):
    """Cycles of each instruction on its unit, all `[n] int64`; zero for transfers."""

    preload: NDArray[np.int64]
    """Cycles to bring the first weights into the array, hidden behind the previous instruction; 0
    where they cannot be hidden and are part of the stream."""
    stream: NDArray[np.int64]
    """Cycles the unit is occupied."""
    last: NDArray[np.int64]
    """Cycles from the beginning of the last pass to the end, in which the next instruction may
    preload; 0 where it may not."""
    drain: NDArray[np.int64]
    """Cycles between the end of the stream and the last result."""


_MATMUL = BY_MNEMONIC["matmul"].opcode
_DEPTHWISE = BY_MNEMONIC["depthwise"].opcode
_REQUANTIZE = BY_MNEMONIC["requantize"].opcode
_BINARY = BY_MNEMONIC["binary"].opcode
_LUT = BY_MNEMONIC["lut"].opcode
_COPY = BY_MNEMONIC["copy"].opcode
_FILL = BY_MNEMONIC["fill"].opcode
_POOL = BY_MNEMONIC["pool"].opcode
_SOFTMAX = BY_MNEMONIC["softmax"].opcode
_RESIZE = BY_MNEMONIC["resize"].opcode
_ONES = int(Stationary.ONES)
_NEAREST = int(ResizeMode.NEAREST)
_REQUANTIZE_BYTES = REQUANTIZE_BYTES

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
_TABLE_PITCH = COLUMNS["table_pitch"]


@njit
def _is_packed(row: int, pixel: int, width: int, channels: int, height: int) -> bool:
    """Return whether a tile's bytes are one run."""
    return (pixel == channels or width == 1) and (row == width * pixel or height == 1)


@njit
def _walk(r: NDArray[np.int64]) -> Walk:
    """Return the walk of a matmul record: packed, undilated pixels make a kernel row one run."""
    line_pitch = r[_DILATION_Y] * r[_IFM_ROW]
    if r[_IFM_PIXEL] == r[_CHANNELS] and r[_DILATION_X] == 1:
        return Walk(r[_KERNEL_W] * r[_CHANNELS], 1, 0, line_pitch)
    return Walk(r[_CHANNELS], r[_KERNEL_W], r[_DILATION_X] * r[_IFM_PIXEL], line_pitch)


@njit
def _matrix_cost(p: CostScalars, r: NDArray[np.int64]) -> tuple[int, int, int, int]:
    """Return preload, stream, last and drain of a matmul or depthwise record."""
    if r[0] == _MATMUL:
        reduction = r[_KERNEL_H] * r[_KERNEL_W] * r[_CHANNELS]
        pixels = r[_OFM_H] * r[_OFM_W]
        return matmul_cost(p, Product(reduction, r[_COLUMNS], pixels, _walk(r), r[_STATIONARY]))
    taps = r[_KERNEL_H] * r[_KERNEL_W]
    preload = 0 if r[_STATIONARY] == _ONES else min(taps, p.rows)
    stream, last = depthwise_cycles(
        p, (r[_KERNEL_H], r[_KERNEL_W]), r[_STRIDE_X], r[_DILATION_X], (r[_OFM_H], r[_OFM_W]),
        r[_CHANNELS] * r[_MULTIPLIER],
    )  # fmt: skip
    drain = p.rows + p.columns - 2
    return preload, stream + p.issue_cycles, last + p.issue_cycles, drain


@njit
def _binary_cost(p: CostScalars, r: NDArray[np.int64]) -> int:
    """Return the element cycles of a binary record."""
    height, width, channels = r[_HEIGHT], r[_WIDTH], r[_CHANNELS]
    packed = (
        _is_packed(r[_A_ROW], r[_A_PIXEL], width, channels, height)
        and _is_packed(r[_B_ROW], r[_B_PIXEL], width, channels, height)
        and _is_packed(r[_OFM_ROW], r[_OFM_PIXEL], width, channels, height)
    )
    return vector_cycles(p, height * width, channels, packed, 1)


@njit
def _copy_cost(p: CostScalars, r: NDArray[np.int64]) -> int:
    """Return the cycles of a copy: a vector per run, or one element per bank if strided."""
    height, width, channels = r[_HEIGHT], r[_WIDTH], r[_CHANNELS]
    if r[_IFM_CHANNEL] == 1 and r[_OFM_CHANNEL] == 1:
        packed = _is_packed(r[_IFM_ROW], r[_IFM_PIXEL], width, channels, height) and _is_packed(
            r[_OFM_ROW], r[_OFM_PIXEL], width, channels, height
        )
        return vector_cycles(p, height * width, channels, packed, 1)
    return divide_up(height * width * channels, min(p.lanes, p.banks))


@njit
def _vector_cost(p: CostScalars, r: NDArray[np.int64]) -> int:
    """Return the cycles of a vector record after its start-up."""
    height, width, channels = r[_HEIGHT], r[_WIDTH], r[_CHANNELS]
    packed = _is_packed(r[_OFM_ROW], r[_OFM_PIXEL], width, channels, height)
    if r[0] == _REQUANTIZE:
        parameters = channels * _REQUANTIZE_BYTES[r[_MODE]]
        fetch = divide_up(parameters, p.port_bytes)
        return fetch + vector_cycles(p, height * width, channels, packed, 1)
    if r[0] == _BINARY:
        return _binary_cost(p, r)
    if r[0] == _LUT:
        packed = packed and _is_packed(r[_IFM_ROW], r[_IFM_PIXEL], width, channels, height)
        tables = 1 if r[_TABLE_PITCH] == 0 else channels
        fetch = divide_up(256 * tables, p.port_bytes)
        return fetch + vector_cycles(p, height * width, channels, packed, 1)
    if r[0] == _COPY:
        return _copy_cost(p, r)
    if r[0] == _FILL:
        return vector_cycles(p, height * width, channels, packed, 1)
    if r[0] == _SOFTMAX:
        one = divide_up(channels, p.lanes) * p.softmax_cycles_per_element
        return r[_ROWS] * one
    pixels = r[_OFM_H] * r[_OFM_W]
    if r[0] == _RESIZE:
        return vector_cycles(p, pixels, channels, False, 1 if r[_MODE] == _NEAREST else 4)
    return vector_cycles(p, pixels, channels, False, r[_KERNEL_H] * r[_KERNEL_W])


@njit
def _fill_costs(p: CostScalars, table: NDArray[np.int64], out: NDArray[np.int64]) -> None:
    """Fill `out [4, n]` with preload, stream, last and drain of every record."""
    for index in range(len(table)):
        r = table[index]
        if r[0] == _MATMUL or r[0] == _DEPTHWISE:
            out[0, index], out[1, index], out[2, index], out[3, index] = _matrix_cost(p, r)
        elif _REQUANTIZE <= r[0] <= _RESIZE:
            out[1, index] = p.latency_cycles + _vector_cost(p, r)


def instruction_costs(table: NDArray[np.int64], chip: Chip) -> InstructionCosts:
    """Return the costs of `lepton.isa.records` on a chip."""
    out = np.zeros((4, len(table)), np.int64)
    _fill_costs(cost_scalars(chip), table, out)
    return InstructionCosts(out[0], out[1], out[2], out[3])
