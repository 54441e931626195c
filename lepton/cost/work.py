"""What the timing needs of each instruction beforehand, from the records alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.codec.decoder import decoder_cycles
from lepton.cost.columns import (
    W_DECODER,
    W_DRAIN,
    W_LAST,
    W_MEMORY,
    W_PRELOAD,
    W_QUEUE,
    W_READS,
    W_STREAM,
    WORK,
)
from lepton.cost.instructions import matrix_cost, vector_cost
from lepton.cost.scalars import CostScalars, cost_scalars
from lepton.isa.declaration import BY_MNEMONIC
from lepton.isa.encoding import COLUMNS
from lepton.isa.footprints import (
    BINARY_PARAMETER_BYTES,
    POOL_PARAMETER_BYTES,
    REQUANTIZE_BYTES,
    RESIZE_HEADER_BYTES,
    SOFTMAX_PARAMETER_BYTES,
    queue_count,
    queue_lanes,
)
from lepton.isa.instructions import BinaryMode, PoolMode, ResizeMode, Stationary
from lepton.jit import njit

__all__ = ["InstructionCosts", "fill_work", "instruction_costs", "work_of"]

I64 = NDArray[np.int64]


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


_LOAD, _STORE = BY_MNEMONIC["load"].opcode, BY_MNEMONIC["store"].opcode
_WEIGHTS, _MATMUL = BY_MNEMONIC["weights"].opcode, BY_MNEMONIC["matmul"].opcode
_DEPTHWISE, _REQUANTIZE = BY_MNEMONIC["depthwise"].opcode, BY_MNEMONIC["requantize"].opcode
_BINARY, _LUT = BY_MNEMONIC["binary"].opcode, BY_MNEMONIC["lut"].opcode
_COPY, _FILL = BY_MNEMONIC["copy"].opcode, BY_MNEMONIC["fill"].opcode
_POOL, _SOFTMAX = BY_MNEMONIC["pool"].opcode, BY_MNEMONIC["softmax"].opcode
_RESIZE, _HALT = BY_MNEMONIC["resize"].opcode, BY_MNEMONIC["halt"].opcode
_PLAIN, _TURNED = int(Stationary.SCRATCHPAD), int(Stationary.SCRATCHPAD_TRANSPOSED)
_MAXIMUM, _MINIMUM = int(BinaryMode.MAXIMUM), int(BinaryMode.MINIMUM)
_AVERAGE_FLOAT, _NEAREST = int(PoolMode.AVERAGE_FLOAT32), int(ResizeMode.NEAREST)
_REQUANTIZE_BYTES, _BINARY_BYTES = REQUANTIZE_BYTES, BINARY_PARAMETER_BYTES
_POOL_BYTES, _SOFTMAX_BYTES = POOL_PARAMETER_BYTES, SOFTMAX_PARAMETER_BYTES
_RESIZE_BYTES = RESIZE_HEADER_BYTES

# columns of the record, as plain globals that kernels freeze
_MEMORY, _ADDRESS, _SCRATCHPAD = COLUMNS["memory"], COLUMNS["address"], COLUMNS["scratchpad"]
_ROW_BYTES, _ROWS, _PLANES = COLUMNS["row_bytes"], COLUMNS["rows"], COLUMNS["planes"]
_ROW_STRIDE, _PLANE_STRIDE = COLUMNS["row_stride"], COLUMNS["plane_stride"]
_ROW_PITCH = COLUMNS["scratchpad_row_pitch"]
_PLANE_PITCH = COLUMNS["scratchpad_plane_pitch"]
_STREAM_BYTES, _REDUCTION = COLUMNS["stream_bytes"], COLUMNS["reduction"]
_FORMAT = COLUMNS["format"]
_COLUMNS, _MULTIPLIER = COLUMNS["columns"], COLUMNS["multiplier"]
_KERNEL_H, _KERNEL_W = COLUMNS["kernel_height"], COLUMNS["kernel_width"]
_CHANNELS, _MODE, _ADDS = COLUMNS["channels"], COLUMNS["mode"], COLUMNS["accumulate"]
_OFM_H, _OFM_W = COLUMNS["ofm_height"], COLUMNS["ofm_width"]
_IFM_H, _IFM_W = COLUMNS["ifm_height"], COLUMNS["ifm_width"]
_HEIGHT, _WIDTH = COLUMNS["height"], COLUMNS["width"]
_SUMS, _SUMS_PITCH = COLUMNS["accumulator"], COLUMNS["accumulator_pitch"]
_STATIONARY, _STATIONARY_AT = COLUMNS["stationary"], COLUMNS["stationary_address"]
_STATIONARY_PITCH, _PARAMETERS = COLUMNS["stationary_pitch"], COLUMNS["parameters"]
_TABLE, _TABLE_PITCH = COLUMNS["table"], COLUMNS["table_pitch"]
_IFM, _IFM_ROW, _IFM_PIXEL = COLUMNS["ifm"], COLUMNS["ifm_row_pitch"], COLUMNS["ifm_pixel_pitch"]
_OFM, _OFM_ROW, _OFM_PIXEL = COLUMNS["ofm"], COLUMNS["ofm_row_pitch"], COLUMNS["ofm_pixel_pitch"]
_CHANNEL = COLUMNS["channel"]
_IFM_CHANNEL, _OFM_CHANNEL = COLUMNS["ifm_channel_pitch"], COLUMNS["ofm_channel_pitch"]
_A, _B = COLUMNS["a"], COLUMNS["b"]
_A_ROW, _A_PIXEL, _A_CHANNEL = (COLUMNS[f"a_{n}_pitch"] for n in ("row", "pixel", "channel"))
_B_ROW, _B_PIXEL, _B_CHANNEL = (COLUMNS[f"b_{n}_pitch"] for n in ("row", "pixel", "channel"))


@njit(inlined=True)
def _walk(r: I64, out: I64) -> None:
    """Fill a transfer's row of `WALK`, but for the decoder."""
    out[0], out[1] = r[_MEMORY], r[_ADDRESS]
    if r[0] == _WEIGHTS:
        out[2], out[3], out[5] = r[_STREAM_BYTES], 1, 1
        return
    run, rows, planes = r[_ROW_BYTES], r[_ROWS], r[_PLANES]
    if rows == 1 or (r[_ROW_STRIDE] == run and r[_ROW_PITCH] == run):
        run, rows = run * rows, 1
        if planes == 1 or (r[_PLANE_STRIDE] == run and r[_PLANE_PITCH] == run):
            run, planes = run * planes, 1
    out[2], out[3], out[4] = run, rows, r[_ROW_STRIDE]
    out[5], out[6], out[7] = planes, r[_PLANE_STRIDE], r[_SCRATCHPAD]
    out[8], out[9] = r[_ROW_PITCH], r[_PLANE_PITCH]


@njit(inlined=True)
def _mark(masks: I64, place: int, bank: int, base: int, size: int) -> None:
    """Add the banks of `size` units from `base` on to a mask."""
    if size > 0:
        masks[place] |= (1 << ((base + size - 1) // bank + 1)) - (1 << (base // bank))


@njit(inlined=True)
def _mark_tile(
    masks: I64, place: int, bank: int, base: int, height: int, row: int, width: int, pixel: int,
    channels: int, channel: int,
) -> None:  # fmt: skip
    """Add the banks of a tile of these extents and pitches to a mask."""
    if height > 0 and width > 0 and channels > 0:
        size = (height - 1) * row + (width - 1) * pixel + (channels - 1) * channel + 1
        _mark(masks, place, bank, base, size)


@njit(inlined=True)
def _mark_matrix(r: I64, m: I64, bank: int, sums_bank: int) -> None:
    _mark_tile(
        m, 0, bank, r[_IFM], r[_IFM_H], r[_IFM_ROW], r[_IFM_W], r[_IFM_PIXEL], r[_CHANNELS], 1
    )
    columns = r[_COLUMNS] if r[0] == _MATMUL else r[_CHANNELS] * r[_MULTIPLIER]
    pixels = r[_OFM_H] * r[_OFM_W]
    for place in range(2 if r[_ADDS] == 1 else 3, 4):
        _mark_tile(m, place, sums_bank, r[_SUMS], pixels, r[_SUMS_PITCH], 1, 0, columns, 1)
    if r[0] != _MATMUL:
        return
    at, pitch = r[_STATIONARY_AT], r[_STATIONARY_PITCH]
    reduction = r[_KERNEL_H] * r[_KERNEL_W] * r[_CHANNELS]
    if r[_STATIONARY] == _PLAIN:
        _mark_tile(m, 0, bank, at, reduction, pitch, 1, 0, columns, 1)
    elif r[_STATIONARY] == _TURNED:
        _mark_tile(m, 0, bank, at, columns, pitch, 1, 0, reduction, 1)


@njit(inlined=True)
def _mark_operands(r: I64, m: I64, bank: int, height: int, width: int) -> None:
    """Add the banks that a vector instruction reads tiles in."""
    if r[0] == _BINARY:
        _mark_tile(
            m, 0, bank, r[_A], height, r[_A_ROW], width, r[_A_PIXEL], r[_CHANNELS], r[_A_CHANNEL]
        )
        _mark_tile(
            m, 0, bank, r[_B], height, r[_B_ROW], width, r[_B_PIXEL], r[_CHANNELS], r[_B_CHANNEL]
        )
    elif r[0] == _POOL or r[0] == _RESIZE:
        _mark_tile(
            m, 0, bank, r[_IFM], r[_IFM_H], r[_IFM_ROW], r[_IFM_W], r[_IFM_PIXEL], r[_CHANNELS], 1
        )
    elif r[0] != _REQUANTIZE and r[0] != _FILL:
        channel = r[_IFM_CHANNEL] if r[0] == _COPY else 1
        _mark_tile(
            m, 0, bank, r[_IFM], height, r[_IFM_ROW], width, r[_IFM_PIXEL], r[_CHANNELS], channel
        )


@njit(inlined=True)
def _parameter_bytes(r: I64) -> int:
    """Return the bytes of a vector instruction's parameters."""
    mode = r[_MODE]
    if r[0] == _REQUANTIZE:
        return r[_CHANNELS] * _REQUANTIZE_BYTES[mode]
    if r[0] == _BINARY:
        return 0 if mode in (_MAXIMUM, _MINIMUM) else _BINARY_BYTES
    if r[0] == _POOL:
        return _POOL_BYTES if mode == _AVERAGE_FLOAT else 0
    if r[0] == _SOFTMAX:
        return _SOFTMAX_BYTES
    if r[0] != _RESIZE:
        return 0
    steps = r[_OFM_H] + r[_OFM_W]
    return 4 * steps if mode == _NEAREST else _RESIZE_BYTES + 16 * steps


@njit(inlined=True)
def _mark_vector(r: I64, m: I64, bank: int, sums_bank: int) -> None:
    height, width = r[_HEIGHT], r[_WIDTH]
    out_height, out_width = height, width
    if r[0] == _SOFTMAX:
        height, width = r[_ROWS], 1
        out_height, out_width = height, width
    elif r[0] == _POOL or r[0] == _RESIZE:
        out_height, out_width = r[_OFM_H], r[_OFM_W]
    if r[0] == _REQUANTIZE:
        pixels = height * width
        _mark_tile(m, 2, sums_bank, r[_SUMS], pixels, r[_SUMS_PITCH], 1, 0, r[_CHANNELS], 1)
    _mark_operands(r, m, bank, height, width)
    _mark(m, 0, bank, r[_PARAMETERS], _parameter_bytes(r))
    if r[0] == _LUT:
        tables = 1 if r[_TABLE_PITCH] == 0 else r[_CHANNELS]
        _mark_tile(m, 0, bank, r[_TABLE], tables, r[_TABLE_PITCH], 1, 0, 256, 1)
    channel = r[_OFM_CHANNEL] if r[0] == _COPY else 1
    _mark_tile(
        m, 1, bank, r[_OFM], out_height, r[_OFM_ROW], out_width, r[_OFM_PIXEL], r[_CHANNELS],
        channel,
    )  # fmt: skip


@njit(inlined=True)
def _mark_transfer(r: I64, m: I64, bank: int) -> None:
    _mark_tile(
        m, int(r[0] == _LOAD), bank, r[_SCRATCHPAD], r[_PLANES], r[_PLANE_PITCH], r[_ROWS],
        r[_ROW_PITCH], r[_ROW_BYTES], 1,
    )  # fmt: skip


@njit
def _fill(
    p: CostScalars, bank: int, sums_bank: int, lanes: I64, queues: tuple[int, int], table: I64,
    out: I64,
) -> None:  # fmt: skip
    """Fill the columns of `WORK`; there are so many `queues`, of a core and of all."""
    first = 0
    for i in range(len(table)):
        r, w = table[i], out[i]
        local = lanes[0, r[0]] + r[_CHANNEL] if r[_CHANNEL] < lanes[1, r[0]] else -2
        w[W_QUEUE] = local if local < 0 else first + local
        if r[0] == _HALT:
            first += queues[0]
            if first == queues[1]:
                first = 0
        masks, walk = w[W_READS:W_MEMORY], w[W_MEMORY:]
        if r[0] == _MATMUL or r[0] == _DEPTHWISE:
            w[W_PRELOAD], w[W_STREAM], w[W_LAST], w[W_DRAIN] = matrix_cost(p, r)
            _mark_matrix(r, masks, bank, sums_bank)
        elif _REQUANTIZE <= r[0] <= _RESIZE:
            w[W_STREAM] = vector_cost(p, r)
            _mark_vector(r, masks, bank, sums_bank)
        elif r[0] == _LOAD or r[0] == _STORE:
            _mark_transfer(r, masks, bank)
            _walk(r, walk)
        elif r[0] == _WEIGHTS:
            _walk(r, walk)
            w[W_DECODER] = decoder_cycles(
                r[_FORMAT], r[_REDUCTION] * r[_COLUMNS], p.decoder_bytes_per_cycle, p.entropy_lanes
            )


def fill_work(table: I64, chip: Chip, out: I64) -> None:
    """Fill the columns of `WORK` of an array of zeros, `[at least n, at least len(WORK)]`."""
    bank, sums_bank = chip.scratchpad.bank_bytes, chip.accumulators.bank_elements
    channels = chip.dma.load_channels, chip.dma.store_channels
    count = queue_count(*channels)
    queues = (count, count * chip.cores)
    _fill(chip.derived(cost_scalars), bank, sums_bank, queue_lanes(*channels), queues, table, out)


def work_of(table: I64, chip: Chip) -> I64:
    """Return the work of `lepton.isa.records` on a chip, `[n, len(WORK)]`."""
    out = np.zeros((len(table), len(WORK)), np.int64)
    fill_work(table, chip, out)
    return out


def instruction_costs(table: I64, chip: Chip) -> InstructionCosts:
    """Return the costs of `lepton.isa.records` on a chip."""
    return InstructionCosts(*work_of(table, chip)[:, W_PRELOAD:W_READS].T)
