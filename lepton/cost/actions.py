"""What each instruction makes the chip do, counted; docs/energy.md section 2 derives each count.

The matrix unit's counts are those of a weight-stationary array: the passes of docs/timing.md
section 10. Another dataflow needs its own `_count_passes`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.cost.action_names import Action
from lepton.cost.closed_forms import Walk
from lepton.cost.dealing import Row, group_count, row_cycles
from lepton.cost.scalars import CostScalars, cost_scalars
from lepton.isa.declaration import BY_MNEMONIC
from lepton.isa.encoding import COLUMNS
from lepton.isa.footprints import (
    BINARY_PARAMETER_BYTES,
    POOL_PARAMETER_BYTES,
    REQUANTIZE_BYTES,
    RESIZE_HEADER_BYTES,
    SOFTMAX_PARAMETER_BYTES,
)
from lepton.isa.instructions import (
    BinaryMode,
    PoolMode,
    ResizeMode,
    Stationary,
    WeightFormat,
)
from lepton.jit import njit

__all__ = ["action_counts", "slices_of"]

I64 = NDArray[np.int64]


# plain globals, which kernels freeze
_MAC, _OPERAND_SHIFT, _SUM_SHIFT = int(Action.MAC), int(Action.OPERAND_SHIFT), int(Action.SUM_SHIFT)
_ROW_SUM, _ZERO_POINT = int(Action.ROW_SUM), int(Action.ZERO_POINT)
_WEIGHT_LATCH, _LINE_BUFFER = int(Action.WEIGHT_LATCH), int(Action.LINE_BUFFER)
_FEED_SLICE, _STATIONARY_SLICE = int(Action.FEED_SLICE), int(Action.STATIONARY_SLICE)
_SUM_READ, _SUM_WRITE = int(Action.ACCUMULATOR_READ), int(Action.ACCUMULATOR_WRITE)
_BUFFER_READ, _BUFFER_WRITE = int(Action.WEIGHT_BUFFER_READ), int(Action.WEIGHT_BUFFER_WRITE)
_DECODER_BYTE = int(Action.DECODER_BYTE)
_WEIGHT_SYMBOL, _ENTROPY_SYMBOL = int(Action.WEIGHT_SYMBOL), int(Action.ENTROPY_SYMBOL)
_VECTOR_READ, _VECTOR_WRITE = int(Action.VECTOR_READ), int(Action.VECTOR_WRITE)
_PARAMETER_READ, _LANE_STEP = int(Action.PARAMETER_READ), int(Action.LANE_STEP)
_REQUANTIZE_Q31, _COMPARE = int(Action.REQUANTIZE_Q31), int(Action.COMPARE)
_BINARY_Q31_OP, _BINARY_FLOAT = int(Action.BINARY_Q31), int(Action.BINARY_FLOAT)
_LOOK_UP, _POOL_ADD = int(Action.LOOK_UP), int(Action.POOL_ADD)
_SOFTMAX_OP, _INTERPOLATE = int(Action.SOFTMAX), int(Action.INTERPOLATE)
_LOAD_BYTE, _STORE_BYTE = int(Action.LOAD_BYTE), int(Action.STORE_BYTE)
_INSTRUCTION = int(Action.INSTRUCTION)

_LOAD, _STORE = BY_MNEMONIC["load"].opcode, BY_MNEMONIC["store"].opcode
_WEIGHTS, _MATMUL = BY_MNEMONIC["weights"].opcode, BY_MNEMONIC["matmul"].opcode
_DEPTHWISE, _REQUANTIZE = BY_MNEMONIC["depthwise"].opcode, BY_MNEMONIC["requantize"].opcode
_BINARY, _LUT = BY_MNEMONIC["binary"].opcode, BY_MNEMONIC["lut"].opcode
_COPY = BY_MNEMONIC["copy"].opcode
_POOL, _SOFTMAX = BY_MNEMONIC["pool"].opcode, BY_MNEMONIC["softmax"].opcode
_RESIZE = BY_MNEMONIC["resize"].opcode

_BUFFER, _SCRATCHPAD = int(Stationary.BUFFER), int(Stationary.SCRATCHPAD)
_TRANSPOSED = int(Stationary.SCRATCHPAD_TRANSPOSED)
_MAXIMUM, _MINIMUM = int(BinaryMode.MAXIMUM), int(BinaryMode.MINIMUM)
_RAW, _FIRST_ENTROPY = int(WeightFormat.RAW), int(WeightFormat.ENTROPY)
_FIRST_FLOAT = int(BinaryMode.ADD_RATIO)
_POOL_MAXIMUM, _POOL_MINIMUM = int(PoolMode.MAXIMUM), int(PoolMode.MINIMUM)
_POOL_FLOAT32 = int(PoolMode.AVERAGE_FLOAT32)
_NEAREST = int(ResizeMode.NEAREST)
_REQUANTIZE_BYTES = REQUANTIZE_BYTES
_BINARY_BYTES, _POOL_BYTES = BINARY_PARAMETER_BYTES, POOL_PARAMETER_BYTES
_SOFTMAX_BYTES, _RESIZE_BYTES = SOFTMAX_PARAMETER_BYTES, RESIZE_HEADER_BYTES

_HEIGHT, _WIDTH, _CHANNELS = COLUMNS["height"], COLUMNS["width"], COLUMNS["channels"]
_IFM, _IFM_ROW, _IFM_PIXEL = COLUMNS["ifm"], COLUMNS["ifm_row_pitch"], COLUMNS["ifm_pixel_pitch"]
_IFM_H, _IFM_W = COLUMNS["ifm_height"], COLUMNS["ifm_width"]
_KERNEL_H, _KERNEL_W = COLUMNS["kernel_height"], COLUMNS["kernel_width"]
_STRIDE_Y, _STRIDE_X = COLUMNS["stride_y"], COLUMNS["stride_x"]
_DILATION_Y, _DILATION_X = COLUMNS["dilation_y"], COLUMNS["dilation_x"]
_PAD_TOP, _PAD_LEFT = COLUMNS["pad_top"], COLUMNS["pad_left"]
_OFM_H, _OFM_W = COLUMNS["ofm_height"], COLUMNS["ofm_width"]
_N_COLUMNS, _MULTIPLIER = COLUMNS["columns"], COLUMNS["multiplier"]
_ACCUMULATE, _SOURCE = COLUMNS["accumulate"], COLUMNS["stationary"]
_SUMS_PITCH = COLUMNS["accumulator_pitch"]
_ADDRESS, _PITCH = COLUMNS["stationary_address"], COLUMNS["stationary_pitch"]
_WEIGHT_ZERO = COLUMNS["weight_zero_point"]
_FORMAT = COLUMNS["format"]
_REDUCTION, _MODE, _ROWS = COLUMNS["reduction"], COLUMNS["mode"], COLUMNS["rows"]
_ROW_BYTES, _PLANES, _TABLE_PITCH = COLUMNS["row_bytes"], COLUMNS["planes"], COLUMNS["table_pitch"]


@njit
def slices_of(
    word: int, length: int, base: int, height: tuple[int, int], width: tuple[int, int]
) -> int:
    """Return the slices that hold a run of `length` bytes, over all pixels.

    `word` bytes are in a slice; the runs start at `base` + y x pitch + x x pitch for `(count,
    pitch)` of rows and columns.
    """
    rows = 1 if height[1] % word == 0 else height[0]
    columns = 1 if width[1] % word == 0 else width[0]
    total = 0
    for y in range(rows):
        line = base + y * height[1]
        for x in range(columns):
            total += ((line + x * width[1]) % word + length - 1) // word + 1
    return total * (height[0] // rows) * (width[0] // columns)


@njit(inlined=True)
def _feed_slices(p: CostScalars, r: I64, reduction: int, groups: int) -> int:
    """Return the slices read for one block of columns: every word of every step of all passes."""
    run, per_line, run_pitch = r[_CHANNELS], r[_KERNEL_W], r[_DILATION_X] * r[_IFM_PIXEL]
    if r[_IFM_PIXEL] == r[_CHANNELS] and r[_DILATION_X] == 1:
        run, per_line, run_pitch = r[_KERNEL_W] * r[_CHANNELS], 1, 0
    origin = r[_IFM] - r[_PAD_TOP] * r[_IFM_ROW] - r[_PAD_LEFT] * r[_IFM_PIXEL]
    height = (r[_OFM_H], r[_STRIDE_Y] * r[_IFM_ROW])
    row = Row(r[_OFM_W], r[_STRIDE_X] * r[_IFM_PIXEL], groups)
    walk = Walk(run, per_line, run_pitch, r[_DILATION_Y] * r[_IFM_ROW])
    total = 0
    for start in range(0, reduction, p.rows):
        stop = min(start + p.rows, reduction)
        shared = row_cycles(p, walk, (start, stop), row)[1] if groups > 1 else 1
        width = -(-row.pixels // shared), shared * row.distance
        for index in range(start // run, (stop - 1) // run + 1):
            line = index // per_line * r[_DILATION_Y] * r[_IFM_ROW]
            first = max(start, index * run)
            length = min(stop, (index + 1) * run) - first + (shared - 1) * row.distance
            offset = line + index % per_line * run_pitch + first - index * run
            total += slices_of(p.rows, length, origin + offset, height, width)
    return total


@njit(inlined=True)
def _stationary_slices(p: CostScalars, r: I64, reduction: int, columns: int) -> int:
    """Return the slices read to load a stationary operand of the scratchpad, each block once."""
    total = 0
    outer, inner, step = reduction, columns, p.all_columns
    if r[_SOURCE] == _TRANSPOSED:
        outer, inner, step = columns, reduction, p.rows
    for first in range(0, inner, step):
        length = min(step, inner - first)
        total += slices_of(p.rows, length, r[_ADDRESS] + first, (outer, r[_PITCH]), (1, 0))
    return total


@njit(inlined=True)
def _count_passes(p: CostScalars, r: I64, out: I64, reduction: int, columns: int) -> None:
    """Add what the passes of `reduction` rows and `columns` columns do in the array."""
    pixels = r[_OFM_H] * r[_OFM_W]
    row_blocks = -(-reduction // p.rows)
    macs = pixels * reduction * columns
    out[_MAC] += macs
    out[_OPERAND_SHIFT] += macs
    out[_SUM_SHIFT] += pixels * row_blocks * p.rows * columns
    out[_SUM_WRITE] += pixels * row_blocks * columns
    out[_SUM_READ] += pixels * (row_blocks - 1 + r[_ACCUMULATE]) * columns
    if r[_WEIGHT_ZERO] != 0:
        out[_ZERO_POINT] += pixels * row_blocks * columns
    out[_WEIGHT_LATCH] += reduction * columns
    if r[_SOURCE] == _BUFFER:
        out[_BUFFER_READ] += reduction * columns


@njit(inlined=True)
def _count_matmul(p: CostScalars, r: I64, out: I64) -> None:
    """Add the actions of a matmul."""
    reduction = r[_KERNEL_H] * r[_KERNEL_W] * r[_CHANNELS]
    columns = r[_N_COLUMNS]
    blocks = -(-columns // p.all_columns)
    operands = r[_OFM_H] * r[_OFM_W] * reduction * blocks
    in_scratchpad = r[_SOURCE] == _SCRATCHPAD or r[_SOURCE] == _TRANSPOSED
    groups = 1 if in_scratchpad else group_count(p, columns, r[_SUMS_PITCH])
    _count_passes(p, r, out, reduction, columns)
    out[_WEIGHT_LATCH] += reduction * columns * (min(groups, r[_OFM_W]) - 1)
    out[_ROW_SUM] += operands
    out[_LINE_BUFFER] += operands
    out[_FEED_SLICE] += _feed_slices(p, r, reduction, groups) * blocks
    if in_scratchpad:
        out[_STATIONARY_SLICE] += _stationary_slices(p, r, reduction, columns)


@njit(inlined=True)
def _count_depthwise(p: CostScalars, r: I64, out: I64) -> None:
    """Add the actions of a depthwise: every multiplier has an operand of its own."""
    taps = r[_KERNEL_H] * r[_KERNEL_W]
    outputs = r[_CHANNELS] * r[_MULTIPLIER]
    _count_passes(p, r, out, taps, outputs)
    pixels = r[_OFM_H] * r[_OFM_W]
    out[_ROW_SUM] += pixels * taps * outputs
    out[_LINE_BUFFER] += pixels * taps * outputs
    new_columns = min(r[_STRIDE_X], r[_KERNEL_W]) if r[_DILATION_X] == 1 else r[_KERNEL_W]
    window = r[_KERNEL_W] + (r[_OFM_W] - 1) * new_columns
    words = -(-min(outputs, p.all_columns) // p.rows)
    passes = -(-taps // p.rows) * -(-outputs // p.all_columns)
    out[_FEED_SLICE] += passes * r[_OFM_H] * r[_KERNEL_H] * window * words


@njit
def _inside(taps: int, outputs: int, step: tuple[int, int], pad: int, size: int) -> int:
    """Return the taps, over all outputs of one dimension, that lie in the tile."""
    total = 0
    for output in range(outputs):
        for tap in range(taps):
            total += 0 <= output * step[0] + tap * step[1] - pad < size
    return total


@njit(inlined=True)
def _count_pool(r: I64, out: I64) -> None:
    """Add the actions of a pool: a step per tap inside the tile."""
    rows = _inside(r[_KERNEL_H], r[_OFM_H], (r[_STRIDE_Y], r[_DILATION_Y]), r[_PAD_TOP], r[_IFM_H])
    columns = _inside(
        r[_KERNEL_W], r[_OFM_W], (r[_STRIDE_X], r[_DILATION_X]), r[_PAD_LEFT], r[_IFM_W]
    )
    steps = rows * columns * r[_CHANNELS]
    made = r[_OFM_H] * r[_OFM_W] * r[_CHANNELS]
    out[_VECTOR_READ] += steps
    out[_LANE_STEP] += steps
    out[_VECTOR_WRITE] += made
    if r[_MODE] == _POOL_MAXIMUM or r[_MODE] == _POOL_MINIMUM:
        out[_COMPARE] += steps
    else:
        out[_POOL_ADD] += steps
        out[_REQUANTIZE_Q31 + (1 if r[_MODE] == _POOL_FLOAT32 else 0)] += made
    if r[_MODE] == _POOL_FLOAT32:
        out[_PARAMETER_READ] += _POOL_BYTES


@njit(inlined=True)
def _count_binary(r: I64, out: I64, elements: int) -> None:
    """Add the actions of a binary."""
    out[_VECTOR_READ] += 2 * elements
    out[_VECTOR_WRITE] += elements
    out[_LANE_STEP] += elements
    if r[_MODE] == _MAXIMUM or r[_MODE] == _MINIMUM:
        out[_COMPARE] += elements
        return
    out[_PARAMETER_READ] += _BINARY_BYTES
    out[_BINARY_FLOAT if r[_MODE] >= _FIRST_FLOAT else _BINARY_Q31_OP] += elements


@njit(inlined=True)
def _count_windowless(r: I64, out: I64) -> None:
    """Add the actions of a requantize, lut, copy, fill or softmax."""
    elements = r[_HEIGHT] * r[_WIDTH] * r[_CHANNELS]
    if r[0] == _SOFTMAX:
        elements = r[_ROWS] * r[_CHANNELS]
        out[_VECTOR_READ] += 3 * elements
        out[_SOFTMAX_OP] += elements
        out[_PARAMETER_READ] += _SOFTMAX_BYTES
    elif r[0] == _REQUANTIZE:
        out[_SUM_READ] += elements
        out[_PARAMETER_READ] += r[_CHANNELS] * _REQUANTIZE_BYTES[r[_MODE]]
        out[_REQUANTIZE_Q31 + r[_MODE]] += elements
    elif r[0] == _LUT:
        out[_VECTOR_READ] += elements
        out[_PARAMETER_READ] += 256 if r[_TABLE_PITCH] == 0 else 256 * r[_CHANNELS]
        out[_LOOK_UP] += elements
    elif r[0] == _COPY:
        out[_VECTOR_READ] += elements
    out[_VECTOR_WRITE] += elements
    out[_LANE_STEP] += 3 * elements if r[0] == _SOFTMAX else elements


@njit(inlined=True)
def _count_resize(r: I64, out: I64) -> None:
    """Add the actions of a resize: one tap of the nearest pixel, or four."""
    made = r[_OFM_H] * r[_OFM_W] * r[_CHANNELS]
    sides = r[_OFM_H] + r[_OFM_W]
    taps = 1 if r[_MODE] == _NEAREST else 4
    out[_PARAMETER_READ] += 4 * sides if taps == 1 else _RESIZE_BYTES + 16 * sides
    out[_INTERPOLATE] += 0 if taps == 1 else taps * made
    out[_VECTOR_READ] += taps * made
    out[_LANE_STEP] += taps * made
    out[_VECTOR_WRITE] += made


@njit(inlined=True)
def _count_vector(r: I64, out: I64) -> None:
    """Add the actions of a vector instruction."""
    if r[0] == _BINARY:
        _count_binary(r, out, r[_HEIGHT] * r[_WIDTH] * r[_CHANNELS])
    elif r[0] == _POOL:
        _count_pool(r, out)
    elif r[0] == _RESIZE:
        _count_resize(r, out)
    else:
        _count_windowless(r, out)


@njit
def _count(p: CostScalars, table: I64, row_of: I64, out: I64) -> None:
    """Add the actions of every record to the row of `out` that `row_of` names."""
    for index in range(len(table)):
        r = table[index]
        mine = out[row_of[index]]
        mine[_INSTRUCTION] += 1
        if r[0] == _MATMUL:
            _count_matmul(p, r, mine)
        elif r[0] == _DEPTHWISE:
            _count_depthwise(p, r, mine)
        elif _REQUANTIZE <= r[0] <= _RESIZE:
            _count_vector(r, mine)
        elif r[0] == _LOAD:
            mine[_LOAD_BYTE] += r[_ROW_BYTES] * r[_ROWS] * r[_PLANES]
        elif r[0] == _STORE:
            mine[_STORE_BYTE] += r[_ROW_BYTES] * r[_ROWS] * r[_PLANES]
        elif r[0] == _WEIGHTS:
            mine[_BUFFER_WRITE] += r[_REDUCTION] * r[_N_COLUMNS]
            mine[_DECODER_BYTE] += r[_REDUCTION] * r[_N_COLUMNS]
            if r[_FORMAT] >= _FIRST_ENTROPY:
                mine[_ENTROPY_SYMBOL] += r[_REDUCTION] * r[_N_COLUMNS]
            elif r[_FORMAT] != _RAW:
                mine[_WEIGHT_SYMBOL] += r[_REDUCTION] * r[_N_COLUMNS]


def action_counts(table: I64, row_of: I64, rows: int, chip: Chip) -> I64:
    """Return the actions `[rows, len(Action)]` of records of `lepton.isa.records_of`.

    Args:
        table: `[n, ...]` the records.
        row_of: `[n]` to which row of the result each record's actions are added: its operator.
        rows: rows of the result.
        chip: what runs them.
    """
    out = np.zeros((rows, len(Action)), np.int64)
    _count(cost_scalars(chip), table, row_of, out)
    return out
