"""Cycles of the feed, of depthwise passes and of element streams; docs/timing.md derives each."""

from __future__ import annotations

from typing import NamedTuple

from lepton.cost.scalars import CostScalars
from lepton.jit import njit

__all__ = [
    "ONE_PIXEL",
    "Pixels",
    "Walk",
    "depthwise_cycles",
    "divide_up",
    "step_cycles",
    "vector_cycles",
]


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


class Pixels(NamedTuple):
    """The output pixels of a step, as the feed fetches them."""

    fetches: int
    """Pixels that are fetched one after the other."""
    distance: int
    """Bytes from the address of one to that of the next."""
    added: int
    """Bytes by which every word is longer, for further pixels that share it."""


ONE_PIXEL = Pixels(1, 0, 0)


@njit(inlined=True)
def _word(walk: Walk, index: int, start: int, stop: int) -> tuple[int, int]:
    """Return offset and end of the part of run `index` inside rows [start, stop)."""
    begin = index * walk.run
    offset = (
        index // walk.runs_per_line * walk.line_pitch
        + index % walk.runs_per_line * walk.run_pitch
        - begin
    )
    return offset + max(begin, start), offset + min(begin + walk.run, stop)


@njit(inlined=True)
def _words_fit(p: CostScalars, a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Return whether two words never need two lines of one slice, wherever the pixel lies."""
    ring = 2 * p.feed_words * p.rows
    if max(a[1], b[1]) - min(a[0], b[0]) <= ring - p.rows + 1:
        return True
    distance = (b[0] - a[0]) % ring
    return p.rows - 1 + a[1] - a[0] <= distance <= ring - (p.rows - 1 + b[1] - b[0])


@njit(inlined=True)
def _step_word(walk: Walk, rows: tuple[int, int], pixels: Pixels, place: int) -> tuple[int, int]:
    """Return offset and end of the word at a place in the order of a step."""
    first = rows[0] // walk.run
    words = (rows[1] - 1) // walk.run - first + 1
    shift = place // words * pixels.distance
    offset, end = _word(walk, first + place % words, rows[0], rows[1])
    return offset + shift, end + shift + pixels.added


@njit
def step_cycles(p: CostScalars, walk: Walk, rows: tuple[int, int], pixels: Pixels) -> int:
    """Return the cycles in which the feed fetches rows [start, stop) of the reduction.

    Every run that the rows touch is a word of each pixel. A cycle takes words in order, pixel by
    pixel, at most `feed_words`, up to the first that does not fit with one already taken.
    """
    cycles = place = 0
    words = ((rows[1] - 1) // walk.run - rows[0] // walk.run + 1) * pixels.fetches
    while place < words:
        first = place
        place += 1
        fits = True
        while fits and place < words and place - first < p.feed_words:
            candidate = _step_word(walk, rows, pixels, place)
            for taken in range(first, place):
                fits = fits and _words_fit(p, _step_word(walk, rows, pixels, taken), candidate)
            if fits:
                place += 1
        cycles += 1
    return cycles


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
    new pixels, the first step of a row those of the whole window. Weights load as in a
    weight-stationary `matmul` whose passes overlap.
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


@njit(inlined=True)
def vector_cycles(p: CostScalars, pixels: int, channels: int, packed: bool, steps: int) -> int:
    """Return the cycles of `steps` lane operations on every element of a tile.

    A packed tile is one stream of elements; otherwise every pixel begins a new vector.
    """
    if packed:
        return divide_up(pixels * channels, p.lanes) * steps
    return pixels * divide_up(channels, p.lanes) * steps
