"""Cycles of passes and element streams, as scalars; docs/timing.md derives each."""

from __future__ import annotations

from typing import NamedTuple

from lepton.cost.scalars import CostScalars
from lepton.jit import njit

__all__ = ["Walk", "depthwise_cycles", "divide_up", "matmul_cycles", "matmul_passes"]
__all__ += ["scratchpad_passes", "step_cycles", "vector_cycles"]


@njit
def divide_up(numerator: int, denominator: int) -> int:
    """Return the quotient rounded up; both positive."""
    return -(-numerator // denominator)


class Walk(NamedTuple):
    """Where the flattened reduction of one output pixel lies in the scratchpad.

    It is cut into runs of `run` contiguous bytes. Runs of a line (a kernel row) are `run_pitch`
    bytes apart and lines `line_pitch`.
    """

    run: int
    runs_per_line: int
    run_pitch: int
    line_pitch: int


@njit
def _word(walk: Walk, index: int, start: int, stop: int) -> tuple[int, int]:
    """Return offset and end of the part of run `index` inside rows [start, stop)."""
    begin = index * walk.run
    offset = (
        index // walk.runs_per_line * walk.line_pitch
        + index % walk.runs_per_line * walk.run_pitch
        - begin
    )
    return offset + max(begin, start), offset + min(begin + walk.run, stop)


@njit
def _words_fit(p: CostScalars, a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Return whether two words never need two lines of one slice, wherever the pixel lies."""
    ring = 2 * p.feed_words * p.rows
    if max(a[1], b[1]) - min(a[0], b[0]) <= ring - p.rows + 1:
        return True
    distance = (b[0] - a[0]) % ring
    return p.rows - 1 + a[1] - a[0] <= distance <= ring - (p.rows - 1 + b[1] - b[0])


@njit
def step_cycles(p: CostScalars, walk: Walk, start: int, stop: int) -> int:
    """Return the cycles in which the feed fetches rows [start, stop) of the reduction.

    Every run that the rows touch is a word. A cycle takes words in order, at most `feed_words`,
    up to the first that does not fit with one already taken.
    """
    cycles = 0
    index = start // walk.run
    last = (stop - 1) // walk.run
    while index <= last:
        first = index
        index += 1
        fits = True
        while fits and index <= last and index - first < p.feed_words:
            candidate = _word(walk, index, start, stop)
            for taken in range(first, index):
                fits = fits and _words_fit(p, _word(walk, taken, start, stop), candidate)
            if fits:
                index += 1
        cycles += 1
    return cycles


@njit
def matmul_passes(
    p: CostScalars, reduction: int, columns: int, pixels: int, walk: Walk
) -> tuple[int, int]:
    """Return `(stream, last)`: cycles of all passes, and those of the last one.

    A pass is a block of `rows` of the reduction and `all_columns` of the columns, through which all
    pixels stream; the reduction's blocks come first. The next pass's weights load meanwhile, a row
    per cycle, and it begins when they have.
    """
    first_rows = min(reduction, p.rows)
    cycles = 0
    last = 0
    start = 0
    while start < reduction:
        stop = min(start + p.rows, reduction)
        last = pixels * step_cycles(p, walk, start, stop)
        next_rows = min(reduction - stop, p.rows) if stop < reduction else first_rows
        cycles += max(last, next_rows)
        start = stop
    return cycles * divide_up(columns, p.all_columns) - max(last, first_rows) + last, last


@njit
def scratchpad_passes(
    p: CostScalars, reduction: int, columns: int, pixels: int, walk: Walk, is_transposed: bool
) -> tuple[int, int]:
    """Return `(stream, last)` of passes whose stationary operand is in the scratchpad.

    Its load takes the feed's port, so it is never hidden behind a pass and counts as stream. A row
    of all columns is fetched at a time, or a column of `rows` if the operand is transposed; no load
    is shorter than the walk over its rows.
    """
    blocks = divide_up(columns, p.all_columns)
    last_columns = columns - (blocks - 1) * p.all_columns
    row_cycles = divide_up(p.all_columns, p.feed_words * p.rows)
    cycles = 0
    last = 0
    for start in range(0, reduction, p.rows):
        rows = min(reduction - start, p.rows)
        last = pixels * step_cycles(p, walk, start, start + rows)
        cycles += last * blocks
        if is_transposed:
            cycles += (blocks - 1) * max(rows, p.all_columns) + max(rows, last_columns)
        else:
            cycles += blocks * rows * row_cycles
    return cycles, last


@njit
def matmul_cycles(
    p: CostScalars, reduction: int, columns: int, pixels: int, run: int
) -> tuple[int, int]:
    """Return `matmul_passes` of a tile whose words, runs of `run` bytes, never conflict."""
    return matmul_passes(p, reduction, columns, pixels, Walk(run, 1, 0, run))


@njit
def depthwise_cycles(
    p: CostScalars,
    kernel: tuple[int, int],
    stride_x: int,
    dilation_x: int,
    ofm: tuple[int, int],
    outputs: int,
) -> tuple[int, int]:
    """Return `(stream, last)` of a depthwise convolution on the array's multipliers.

    A column keeps one channel and its rows keep the taps. A step takes the words of the window's
    new pixels, the first step of a row those of the whole window. Weights load as in
    `matmul_passes`.
    """
    height, width = kernel
    taps = height * width
    words_per_pixel = divide_up(min(outputs, p.all_columns), p.rows)
    new_columns = min(stride_x, width) if dilation_x == 1 else width
    step = max(divide_up(height * new_columns * words_per_pixel, p.feed_words), 1)
    first = max(divide_up(taps * words_per_pixel, p.feed_words), 1)
    last = ofm[0] * (first + (ofm[1] - 1) * step)
    cycles = 0
    for start in range(0, taps, p.rows):
        left = taps - start - p.rows
        cycles += max(last, min(left if left > 0 else taps, p.rows))
    blocks = divide_up(outputs, p.all_columns)
    return cycles * blocks - max(last, min(taps, p.rows)) + last, last


@njit
def vector_cycles(p: CostScalars, pixels: int, channels: int, packed: bool, steps: int) -> int:
    """Return the cycles of `steps` lane operations on every element of a tile.

    A packed tile is one stream of elements; otherwise every pixel begins a new vector.
    """
    if packed:
        return divide_up(pixels * channels, p.lanes) * steps
    return pixels * divide_up(channels, p.lanes) * steps
