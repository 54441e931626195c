"""Packed passes in plain loops: "Packed passes" in section 10 of docs/timing.md written out.

Every way to cut the strips is tried, and every weight is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from lepton.chip import Chip
from lepton.isa import instructions as isa

__all__ = ["Pass", "packed_cost", "packed_passes"]

Weights = list[list[int]]
"""By row and column."""
Word = tuple[int, int]
"""Offset and length."""


@dataclass(frozen=True)
class Pass:
    """A pass of a block of columns."""

    strips: tuple[int, ...]
    columns: tuple[int, ...]
    rows: int
    step: int
    replicas: int


def _words(i: isa.Matmul, rows: list[int], most: int) -> list[Word]:
    """Return offset and length of the words of rows, which are walked through one by one."""
    is_packed = i.ifm_pixel_pitch == i.channels and i.dilation_x == 1
    words: list[Word] = []
    before = None
    for row in rows:
        tap, channel = divmod(row, i.channels)
        ky, kx = divmod(tap, i.kernel_width)
        offset = ky * i.dilation_y * i.ifm_row_pitch + kx * i.dilation_x * i.ifm_pixel_pitch
        run = ky if is_packed else tap
        if before == (run, row - 1) and words[-1][1] < most:
            words[-1] = words[-1][0], words[-1][1] + 1
        else:
            words.append((offset + channel, 1))
        before = run, row
    return words


def _step(words: list[Word], rows: int, feed: int) -> int:
    def fit(a: Word, b: Word) -> bool:
        ring = 2 * feed * rows
        if max(a[0] + a[1], b[0] + b[1]) - min(a[0], b[0]) <= ring - rows + 1:
            return True
        return rows - 1 + a[1] <= (b[0] - a[0]) % ring <= ring - (rows - 1 + b[1])

    cycles, taken = 1, list[Word]()
    for word in words:
        if len(taken) == feed or not all(fit(old, word) for old in taken):
            cycles, taken = cycles + 1, []
        taken.append(word)
    return cycles


def _ways(count: int, most: int) -> Iterator[list[int]]:
    """Yield all ways to cut so many strips, those whose first passes take most first."""
    if count == 0:
        yield []
    for first in range(min(count, most), 0, -1):
        yield from ([first, *rest] for rest in _ways(count - first, most))


def packed_passes(i: isa.Matmul, weights: Weights, chip: Chip) -> list[Pass]:
    """Return the passes of a matmul whose weights are known."""
    sparsity, height, wide = chip.sparsity, chip.array.rows, chip.columns
    assert sparsity is not None
    made: list[Pass] = []
    for start in range(0, i.columns, wide):
        columns = tuple(range(start, min(start + wide, i.columns)))
        strips = [
            list(range(row, min(row + height, len(weights))))
            for row in range(0, len(weights), height)
        ]
        order = [
            number
            for number, rows in enumerate(strips)
            if not sparsity.zero_blocks or any(weights[r][c] for r in rows for c in columns)
        ] or [0]

        def of(taken: tuple[int, ...], columns=columns, strips=strips) -> tuple[Pass, bool]:
            rows = [row for strip in taken for row in strips[strip]]
            stretch, fullest = len(taken) * sparsity.lanes, 0
            for begin in range(0, len(rows), stretch):
                for c in columns:
                    count = sum(weights[r][c] != 0 for r in rows[begin : begin + stretch])
                    fullest = max(fullest, count)
            step = _step(_words(i, rows, height), height, sparsity.feed_words)
            replicas = max(-(-fullest // sparsity.lanes), 1)
            fits = len(taken) == 1 or fullest <= wide // len(columns) * sparsity.lanes
            return Pass(taken, columns, len(rows), step, replicas), fits

        best: list[Pass] = []
        for way in _ways(len(order), sparsity.window):
            ends = [sum(way[:n]) for n in range(len(way) + 1)]
            tried = [of(tuple(order[a:b])) for a, b in pairwise(ends)]
            if not all(fits for _, fits in tried):
                continue
            passes = [one for one, _ in tried]
            if not best or sum(p.step for p in passes) < sum(p.step for p in best):
                best = passes
        made += best
    return made


def packed_cost(i: isa.Matmul, weights: Weights, chip: Chip) -> tuple[int, int, int]:
    """Return preload, stream and last: loads and pixels of the passes one after the other."""
    passes = packed_passes(i, weights, chip)
    pixels, issue = i.ofm_height * i.ofm_width, chip.array.issue_cycles
    loads = [min(each.rows, chip.array.rows) for each in passes]
    begin = first = loads[0]
    for now, load in zip(passes[:-1], loads[1:], strict=True):
        # the next load begins with this pass
        begin = max(begin + load, begin + pixels * now.step)
    end = begin + pixels * passes[-1].step + issue
    return first, end - first, end - begin
