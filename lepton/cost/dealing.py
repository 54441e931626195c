"""Pixels of a row dealt to groups of arrays; docs/timing.md, section 10, "Dealt pixels"."""

from __future__ import annotations

from typing import NamedTuple

from lepton.cost.closed_forms import ONE_PIXEL, Pixels, Walk, divide_up, step_cycles
from lepton.cost.scalars import CostScalars
from lepton.jit import njit

__all__ = ["Row", "group_count", "row_cycles"]


class Row(NamedTuple):
    """A row of output pixels."""

    pixels: int
    distance: int
    """Bytes from the address of one to that of the next."""
    groups: int
    """Groups of arrays that each can take one, a power of two."""


@njit
def group_count(p: CostScalars, columns: int, sums_pitch: int) -> int:
    """Return the groups of arrays that hold the weights of all columns, a power of two."""
    arrays = divide_up(columns, p.columns)
    groups = 1
    while (
        sums_pitch >= columns
        and 2 * groups * arrays <= p.dealt
        and 2 * groups * sums_pitch <= p.all_columns
    ):
        groups *= 2
    return groups


@njit(inlined=True)
def _longest_word(walk: Walk, rows: tuple[int, int]) -> int:
    """Return the bytes of the longest word of rows [start, stop)."""
    start, stop = rows
    first = min((start // walk.run + 1) * walk.run, stop)
    return max(first - start, min(walk.run, stop - first))


@njit
def row_cycles(p: CostScalars, walk: Walk, rows: tuple[int, int], row: Row) -> tuple[int, int]:
    """Return the cycles in which the feed fetches rows [start, stop) for a row of pixels.

    As many pixels make a step as let the row take the fewest cycles. The second result is the
    number of pixels that share a word.
    """
    least = row.pixels * step_cycles(p, walk, rows, ONE_PIXEL)
    shared, dealt = 1, 2
    while dealt <= row.groups:
        added = (dealt - 1) * row.distance
        is_shared = _longest_word(walk, rows) + added <= p.rows
        pixels = Pixels(1, 0, added) if is_shared else Pixels(dealt, row.distance, 0)
        cycles = divide_up(row.pixels, dealt) * step_cycles(p, walk, rows, pixels)
        if cycles < least:
            least, shared = cycles, dealt if is_shared else 1
        dealt *= 2
    return least, shared
