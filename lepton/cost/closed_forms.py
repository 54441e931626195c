"""Cycles of passes and element streams, as scalars; docs/timing.md derives each."""

from __future__ import annotations

from lepton.cost.scalars import CostScalars
from lepton.jit import njit

__all__ = ["depthwise_cycles", "divide_up", "feed_words_of_block", "matmul_cycles"]
__all__ += ["vector_cycles"]


@njit
def divide_up(numerator: int, denominator: int) -> int:
    """Return the quotient rounded up; both positive."""
    return -(-numerator // denominator)


@njit
def feed_words_of_block(start: int, stop: int, run: int) -> int:
    """Return the words that rows [start, stop) of the flattened reduction take from the feed.

    Every run of `run` contiguous bytes that the block touches is a word of its own; a block is
    never longer than a word.
    """
    return (stop - 1) // run - start // run + 1


@njit
def matmul_cycles(
    p: CostScalars, reduction: int, columns: int, pixels: int, run: int
) -> tuple[int, int]:
    """Return `(stream, last)`: cycles the array streams, and those of its last pass.

    Blocks of `rows` of the reduction, `all_columns` of the columns; each block pair is a pass in
    which all pixels stream, a step taking as many cycles as the feed needs; the next pass's
    weights load meanwhile, a row per cycle, so no pass is shorter than that.
    """
    blocks = divide_up(reduction, p.rows)
    total = 0
    last = 0
    for block in range(blocks):
        start = block * p.rows
        stop = min(start + p.rows, reduction)
        step = divide_up(feed_words_of_block(start, stop, run), p.feed_words)
        last = max(pixels * step, stop - start)
        total += last
    return total * divide_up(columns, p.all_columns), last


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
    new pixels, the first step of a row those of the whole window.
    """
    height, width = kernel
    taps = height * width
    words_per_pixel = divide_up(min(outputs, p.all_columns), p.rows)
    new_columns = min(stride_x, width) if dilation_x == 1 else width
    step = max(divide_up(height * new_columns * words_per_pixel, p.feed_words), 1)
    first = max(divide_up(taps * words_per_pixel, p.feed_words), 1)
    rows = divide_up(taps, p.rows)
    one = ofm[0] * (first + (ofm[1] - 1) * step)
    last = max(one, min(taps, p.rows))
    return last * rows * divide_up(outputs, p.all_columns), last


@njit
def vector_cycles(p: CostScalars, pixels: int, channels: int, packed: bool, steps: int) -> int:
    """Return the cycles of `steps` lane operations on every element of a tile.

    A packed tile is one stream of elements; otherwise every pixel begins a new vector.
    """
    if packed:
        return divide_up(pixels * channels, p.lanes) * steps
    return pixels * divide_up(channels, p.lanes) * steps
