"""How the passes of a `matmul` are packed; docs/timing.md, section 10, "Packed passes"."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.cost.closed_forms import Walk, divide_up
from lepton.cost.scalars import CostScalars
from lepton.jit import njit

__all__ = ["PASS", "P_COLUMNS", "P_COUNT", "P_FIRST", "P_REPLICAS", "P_ROWS", "P_STEP", "Packer"]
__all__ += ["count_units", "packed_passes", "packed_stream", "pass_words"]

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]

PASS = ("step", "rows", "columns", "replicas", "first", "count")
"""Columns of a pass: cycles of a pixel; rows of its strips, columns of its block; columns of the
array that each of these takes; its strips, as places in the order of those that are issued."""
(P_STEP, P_ROWS, P_COLUMNS, P_REPLICAS, P_FIRST, P_COUNT) = range(len(PASS))


class Packer(NamedTuple):
    """The options of `lepton.chip.description.Sparsity` that the cut depends on."""

    lanes: int
    window: int
    zero_blocks: bool
    feed_words: int


class _Block(NamedTuple):
    """A block of columns, whose strips are issued in this order."""

    order: I64
    """`[strips]`, their numbers."""
    start: int
    stop: int


@njit
def count_units(weights: U8, lanes: int, counts: U16) -> None:
    """Fill `[units, columns]` with the non-zero weights of each `lanes` rows of a column.

    Args:
        weights: `[rows, columns]` bytes.
        lanes: rows of a unit.
        counts: the result, zeros.
    """
    for row in range(len(weights)):
        mine = counts[row // lanes]
        for column in range(weights.shape[1]):
            mine[column] += weights[row, column] != 0


@njit(inlined=True)
def _issued(p: CostScalars, packer: Packer, counts: U16, strips: int, block: _Block) -> int:
    """Fill the order of the strips that are issued; return how many."""
    units = p.rows // packer.lanes
    kept = 0
    for strip in range(strips):
        is_zero = packer.zero_blocks
        for unit in range(strip * units, min((strip + 1) * units, len(counts))):
            is_zero = is_zero and not counts[unit, block.start : block.stop].any()
        if not is_zero:
            block.order[kept] = strip
            kept += 1
    if kept == 0:
        block.order[0] = 0
        kept = 1
    return kept


@njit(inlined=True)
def _most_weights(
    p: CostScalars, lanes: int, counts: U16, block: _Block, span: tuple[int, int], sums: I64,
    limit: int,
) -> int:  # fmt: skip
    """Return the most non-zero weights of a group and column, of strips [first, stop) in order.

    What exceeds the limit may be returned before all have been counted.
    """
    units, taken = p.rows // lanes, span[1] - span[0]
    most = 0
    for group in range(units):
        sums[:] = 0
        for place in range(group * taken, (group + 1) * taken):
            unit = block.order[span[0] + place // units] * units + place % units
            if unit < len(counts):
                for column in range(block.start, block.stop):
                    sums[column - block.start] += counts[unit, column]
        for column in range(block.stop - block.start):
            most = max(most, sums[column])
        if most > limit:
            break
    return int(most)


@njit
def pass_words(p: CostScalars, walk: Walk, reduction: int, strips: I64, words: I64) -> int:
    """Fill `[words, 2]` with offset and end of the words of a pass; return how many.

    Rows that follow each other in one run are cut into words of at most `rows` bytes.
    """
    count, last = 0, -1
    for strip in strips:
        row, stop = strip * p.rows, min((strip + 1) * p.rows, reduction)
        while row < stop:
            run = row // walk.run
            end = min((run + 1) * walk.run, stop)
            offset = (
                run // walk.runs_per_line * walk.line_pitch
                + run % walk.runs_per_line * walk.run_pitch
                - run * walk.run
            )
            if row == last and row % walk.run:
                # the run goes on behind the strip before
                word = words[count - 1]
                taken = min(p.rows - (word[1] - word[0]), end - row)
                word[1] += taken
                row += taken
            while row < end:
                taken = min(p.rows, end - row)
                words[count, 0], words[count, 1] = offset + row, offset + row + taken
                count += 1
                row += taken
            last = row
    return count


@njit(inlined=True)
def _fetch_cycles(p: CostScalars, feed_words: int, words: I64, count: int) -> int:
    """Return the cycles in which the feed fetches words; as `step_cycles` of one pixel."""
    ring = 2 * feed_words * p.rows
    cycles = place = 0
    while place < count:
        first = place
        place += 1
        fits = True
        while fits and place < count and place - first < feed_words:
            b, b_end = words[place, 0], words[place, 1]
            for taken in range(first, place):
                a, a_end = words[taken, 0], words[taken, 1]
                is_near = max(a_end, b_end) - min(a, b) <= ring - p.rows + 1
                apart = (b - a) % ring
                is_apart = p.rows - 1 + a_end - a <= apart <= ring - (p.rows - 1 + b_end - b)
                fits = fits and (is_near or is_apart)
            if fits:
                place += 1
        cycles += 1
    return cycles


@njit(inlined=True)
def _cut(
    p: CostScalars, packer: Packer, counts: U16, walk: Walk, reduction: int, block: _Block,
    passes: I64,
) -> int:  # fmt: skip
    """Fill in the passes of a block of columns whose order is filled; return how many."""
    strips, columns = len(block.order), block.stop - block.start
    most = p.all_columns // columns * packer.lanes
    sums = np.zeros(columns, np.int64)
    words = np.zeros((packer.window * p.rows, 2), np.int64)
    best = np.zeros(strips + 1, np.int64)
    # step, strips and non-zero weights of the first pass from each strip on
    choice = np.zeros((strips, 3), np.int64)
    for first in range(strips - 1, -1, -1):
        for taken in range(1, min(packer.window, strips - first) + 1):
            span = first, first + taken
            weights = _most_weights(p, packer.lanes, counts, block, span, sums, most)
            if weights > most:
                continue
            count = pass_words(p, walk, reduction, block.order[first : first + taken], words)
            step = _fetch_cycles(p, packer.feed_words, words, count)
            cycles = step + best[first + taken]
            if taken == 1 or cycles <= best[first]:
                best[first] = cycles
                choice[first] = step, taken, weights
    first = made = 0
    while first < strips:
        step, taken, weights = choice[first]
        end = block.order[first + taken - 1] * p.rows
        rows = (taken - 1) * p.rows + min(p.rows, reduction - end)
        replicas = max(divide_up(weights, packer.lanes), 1)
        passes[made] = step, rows, columns, replicas, first, taken
        first += taken
        made += 1
    return made


@njit
def packed_passes(
    p: CostScalars, packer: Packer, counts: U16, reduction: int, walk: Walk
) -> tuple[I64, I64]:
    """Return the passes `[n, len(PASS)]` and the issued strips `[blocks, strips]`, -1 at the end.

    Of all ways to cut the strips of each block of columns, the one whose steps are the fewest; of
    equals the one whose passes take most strips, the first pass before the second.

    Args:
        p: the chip.
        packer: its options.
        counts: `[units, columns]` of `count_units`.
        reduction: rows of the weights.
        walk: where they lie in the scratchpad, for one pixel.
    """
    strips, columns = divide_up(reduction, p.rows), counts.shape[1]
    blocks = divide_up(columns, p.all_columns)
    orders = np.full((blocks, strips), -1, np.int64)
    passes = np.zeros((blocks * strips, len(PASS)), np.int64)
    made = 0
    for number in range(blocks):
        start = number * p.all_columns
        whole = _Block(orders[number], start, min(start + p.all_columns, columns))
        kept = _issued(p, packer, counts, strips, whole)
        block = _Block(orders[number, :kept], whole.start, whole.stop)
        made += _cut(p, packer, counts, walk, reduction, block, passes[made:])
    return passes[:made], orders


@njit
def packed_stream(p: CostScalars, passes: I64, pixels: int) -> tuple[int, int, int]:
    """Return preload, stream and last of so many pixels, as `InstructionCosts` names them."""
    first = min(passes[0, P_ROWS], p.rows)
    stream = p.issue_cycles
    for number in range(len(passes) - 1):
        load = min(passes[number + 1, P_ROWS], p.rows)
        stream += max(pixels * passes[number, P_STEP], load)
    last = pixels * passes[-1, P_STEP]
    return int(first), int(stream + last), int(last + p.issue_cycles)
