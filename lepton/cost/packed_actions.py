"""What packed passes make the chip do, counted; docs/energy.md section 2 derives each count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.cost.action_names import Action
from lepton.cost.actions import action_counts, slices_of
from lepton.cost.closed_forms import Walk
from lepton.cost.instructions import matmul_walk
from lepton.cost.packed_work import Cut, packed_work
from lepton.cost.packing import P_COLUMNS, P_COUNT, P_FIRST, P_REPLICAS, P_ROWS, pass_words
from lepton.cost.scalars import CostScalars, cost_scalars
from lepton.isa.encoding import COLUMNS
from lepton.jit import njit
from lepton.program import Program

__all__ = ["program_actions"]

I64 = NDArray[np.int64]

_IFM, _IFM_ROW, _IFM_PIXEL = COLUMNS["ifm"], COLUMNS["ifm_row_pitch"], COLUMNS["ifm_pixel_pitch"]
_STRIDE_Y, _STRIDE_X = COLUMNS["stride_y"], COLUMNS["stride_x"]
_PAD_TOP, _PAD_LEFT = COLUMNS["pad_top"], COLUMNS["pad_left"]
_OFM_H, _OFM_W = COLUMNS["ofm_height"], COLUMNS["ofm_width"]
_KERNEL_H, _KERNEL_W = COLUMNS["kernel_height"], COLUMNS["kernel_width"]
_CHANNELS, _N_COLUMNS = COLUMNS["channels"], COLUMNS["columns"]
_ACCUMULATE = COLUMNS["accumulate"]


@njit
def _feed_slices(p: CostScalars, r: I64, walk: Walk, passes: I64, orders: I64) -> int:
    """Return the slices that the words of all passes are read from, for all pixels."""
    reduction = r[_KERNEL_H] * r[_KERNEL_W] * r[_CHANNELS]
    origin = r[_IFM] - r[_PAD_TOP] * r[_IFM_ROW] - r[_PAD_LEFT] * r[_IFM_PIXEL]
    height = (r[_OFM_H], r[_STRIDE_Y] * r[_IFM_ROW])
    width = (r[_OFM_W], r[_STRIDE_X] * r[_IFM_PIXEL])
    words = np.zeros((passes[:, P_COUNT].max() * p.rows, 2), np.int64)
    total, block = 0, -1
    for number in range(len(passes)):
        first, taken = passes[number, P_FIRST], passes[number, P_COUNT]
        block += first == 0
        count = pass_words(p, walk, reduction, orders[block, first : first + taken], words)
        for word in range(count):
            length = words[word, 1] - words[word, 0]
            total += slices_of(p.rows, length, origin + words[word, 0], height, width)
    return total


def _counts(p: CostScalars, r: I64, cut: Cut) -> I64:
    """Return the actions `[len(Action)]` of a matmul of packed passes."""
    out = np.zeros(len(Action), np.int64)
    rows, columns = cut.passes[:, P_ROWS], cut.passes[:, P_COLUMNS]
    taken = columns * cut.passes[:, P_REPLICAS]
    pixels = int(r[_OFM_H] * r[_OFM_W])
    written = int(columns.sum())
    out[Action.MAC] = pixels * cut.issued
    out[Action.OPERAND_SHIFT] = pixels * int((rows * taken).sum())
    out[Action.SUM_SHIFT] = pixels * p.rows * int(taken.sum())
    out[Action.REPLICA_SUM] = pixels * int((taken - columns).sum())
    out[Action.ACCUMULATOR_WRITE] = pixels * written
    others = written - (1 - int(r[_ACCUMULATE])) * int(r[_N_COLUMNS])
    out[Action.ACCUMULATOR_READ] = pixels * others
    out[Action.WEIGHT_LATCH] = out[Action.WEIGHT_BUFFER_READ] = int((cut.loads * taken).sum())
    out[Action.ROW_SUM] = out[Action.LINE_BUFFER] = pixels * int(rows.sum())
    walk = Walk(*map(int, matmul_walk(r)))
    out[Action.FEED_SLICE] = _feed_slices(p, r, walk, cut.passes, cut.orders)
    out[Action.INSTRUCTION] = 1
    return out


def program_actions(program: Program, row_of: I64, rows: int) -> I64:
    """Return the actions `[rows, len(Action)]` of a program; what is skipped costs nothing.

    Args:
        program: what runs.
        row_of: `[n]` to which row of the result each instruction's actions are added.
        rows: rows of the result.
    """
    chip, table = program.chip, program.table
    out = action_counts(table, row_of, rows, chip)
    packed = packed_work(program)
    if len(packed.matmuls):
        mine, records = row_of[packed.matmuls], table[packed.matmuls]
        out -= action_counts(records, mine, rows, chip)
        p = chip.derived(cost_scalars)
        for row, record, cut in zip(mine.tolist(), records, packed.cuts, strict=True):
            out[row] += _counts(p, record, cut)
    if chip.sparsity is not None:
        out[:, Action.OPERAND_SELECT] = out[:, Action.MAC]
    return out
