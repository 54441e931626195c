"""The passes of a matmul one after the other: section 10 of docs/timing.md written out.

No formula of `lepton.cost` is used: each pass, block, pixel and fetch is walked through, and what
the page says can never happen (a register filled before it is empty, two results on a bus) is
checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from lepton.chip import Chip, Dataflow
from lepton.isa import instructions as isa

__all__ = ["Cost", "Word", "dealing", "groups_of", "matmul_cost", "step_cycles"]

Cost = tuple[int, int, int, int]
"""Preload, stream, last, drain."""


Word = tuple[int, int]
"""Offset and length."""


@dataclass(frozen=True)
class Block:
    """Rows of the reduction, and the cycles in which the feed fetches them of one pixel."""

    rows: int
    step: int
    row: int
    """Cycles in which it fetches them of a row of pixels that are dealt."""


def _cut(size: int, most: int) -> list[int]:
    return [min(most, size - start) for start in range(0, size, most)]


def _words(i: isa.Matmul, start: int, stop: int) -> list[Word]:
    """Return offset and length of the words of rows [start, stop), row by row."""
    is_packed = i.ifm_pixel_pitch == i.channels and i.dilation_x == 1
    words: list[Word] = []
    before = None
    for row in range(start, stop):
        tap, channel = divmod(row, i.channels)
        ky, kx = divmod(tap, i.kernel_width)
        line, pixel = ky * i.dilation_y * i.ifm_row_pitch, kx * i.dilation_x * i.ifm_pixel_pitch
        run = ky if is_packed else tap
        if run == before:
            words[-1] = words[-1][0], words[-1][1] + 1
        else:
            words.append((line + pixel + channel, 1))
        before = run
    return words


def _fit(a: Word, b: Word, rows: int, feed: int) -> bool:
    ring = 2 * feed * rows
    if max(a[0] + a[1], b[0] + b[1]) - min(a[0], b[0]) <= ring - rows + 1:
        return True
    return rows - 1 + a[1] <= (b[0] - a[0]) % ring <= ring - (rows - 1 + b[1])


def step_cycles(words: list[Word], rows: int, feed: int) -> int:
    """Return the cycles in which a feed of so many words per cycle fetches these."""
    cycles, taken = 1, list[Word]()
    for word in words:
        if len(taken) == feed or not all(_fit(old, word, rows, feed) for old in taken):
            cycles, taken = cycles + 1, []
        taken.append(word)
    return cycles


def groups_of(i: isa.Matmul, chip: Chip) -> int:
    """Return among how many groups of arrays pixels can be dealt ("Dealt pixels")."""
    array, groups = chip.array, 1
    is_resident = i.stationary in (isa.Stationary.BUFFER, isa.Stationary.ONES)
    if not array.deals_pixels or not is_resident or i.accumulator_pitch < i.columns:
        return 1
    if array.dataflow != Dataflow.WEIGHT_STATIONARY or not array.overlap:
        return 1
    arrays = len(_cut(i.columns, array.columns))
    while 2 * groups * arrays <= array.count and 2 * groups * i.accumulator_pitch <= chip.columns:
        groups *= 2
    sums = [g * i.accumulator_pitch + c for g in range(groups) for c in range(i.columns)]
    assert groups == 1 or len({s % chip.columns for s in sums}) == len(sums), "two sums in a lane"
    return groups


def dealing(i: isa.Matmul, rows: range, chip: Chip) -> tuple[int, int, bool]:
    """Return the cycles of a row of pixels, the pixels of a step, and whether they share words."""
    array, most = chip.array, groups_of(i, chip)
    words = _words(i, rows.start, rows.stop)
    found: list[tuple[int, int, bool]] = []
    together = 1
    while together <= most:
        away = [n * i.stride_x * i.ifm_pixel_pitch for n in range(together)]
        is_shared = all(length + away[-1] <= array.rows for _, length in words)
        if is_shared:
            fetched = [(offset, length + away[-1]) for offset, length in words]
        else:
            fetched = [(offset + d, length) for d in away for offset, length in words]
        cycles = 0
        for _ in range(0, i.ofm_width, together):
            cycles += step_cycles(fetched, array.rows, array.feed_words)
        found.append((cycles, together, is_shared))
        together *= 2
    return min(found, key=lambda choice: choice[0])


class _Matrix:
    """One matmul on one chip; t = 0 is the cycle in which it is taken by an idle unit."""

    def __init__(self, i: isa.Matmul, chip: Chip) -> None:
        self.i, self.array, self.wide = i, chip.array, chip.columns
        self.pixels, self.issue = i.ofm_height * i.ofm_width, chip.array.issue_cycles
        rows, feed = chip.array.rows, chip.array.feed_words
        self.skew = rows + chip.array.columns - 2
        reduction = i.kernel_height * i.kernel_width * i.channels
        self.blocks: list[Block] = []
        for start in range(0, reduction, rows):
            block = range(start, min(start + rows, reduction))
            words = _words(i, block.start, block.stop)
            row = dealing(i, block, chip)[0]
            self.blocks.append(Block(sum(n for _, n in words), step_cycles(words, rows, feed), row))
        self.in_order = i.stationary == isa.Stationary.SCRATCHPAD
        self.turned = i.stationary == isa.Stationary.SCRATCHPAD_TRANSPOSED
        row_bytes, port_bytes = self.wide, feed * rows
        self.row_cycles = len(_cut(row_bytes, port_bytes))

    def weight_stationary(self) -> Cost:
        passes: list[tuple[int, int]] = []
        for columns in _cut(self.i.columns, self.wide):
            for block in self.blocks:
                load = block.rows
                if self.in_order:
                    load = sum(self.row_cycles for _ in range(block.rows))
                if self.turned:
                    load = max(block.rows, columns)
                if not self.array.overlap:
                    load = max(load, self.array.rows)
                passes.append((load, sum(block.row for _ in range(self.i.ofm_height))))
        return self._loaded(passes)

    def input_stationary(self) -> Cost:
        passes: list[tuple[int, int]] = []
        for pixels in _cut(self.pixels, self.wide):
            for block in self.blocks:
                load = pixels * block.step
                if not self.array.overlap:
                    load = max(load, self.array.rows)
                stream = self.i.columns
                for _ in _cut(self.i.columns, self.wide) if self.in_order else ():
                    stream += block.rows * self.row_cycles
                passes.append((load, stream))
        return self._loaded(passes)

    def _loaded(self, passes: list[tuple[int, int]]) -> Cost:
        """Return the cost of passes that load one operand and stream the other."""
        if not self.array.overlap:
            end = 0
            for load, stream in passes:
                end += load  # L(i) to P(i)
                end += self.issue + stream + self.skew
            return 0, end, 0, 0
        shares_port = self.in_order or self.turned
        begin = passes[0][0]
        for (_, stream), (load, _) in pairwise(passes):
            if shares_port:
                begin += stream + load
            else:
                begin = max(begin + load, begin + stream)
        end = begin + passes[-1][1] + self.issue
        preload = 0 if shares_port else passes[0][0]
        return preload, end - preload, end - begin, self.skew

    def output_stationary(self) -> Cost:
        fetch = last = 0
        on_bus, retire = -1, 0
        for columns in _cut(self.i.columns, self.wide):
            for pixels in _cut(self.pixels, self.array.rows):
                last = fetch
                over, fetch = self._sum(fetch, pixels, columns)
                assert over > on_bus, "two results on a bus"
                on_bus = over + pixels - 1
                retire = over + self.issue + self.skew
                if not self.array.overlap:
                    fetch = retire
        if not self.array.overlap:
            return 0, fetch, 0, 0
        end = fetch + self.issue
        return 0, end, end - last, retire - end

    def _sum(self, fetch: int, pixels: int, columns: int) -> tuple[int, int]:
        """Return when a pass is over for row 0, and when the next could be fetched."""
        empty = [0] * pixels
        over = 0
        for block in self.blocks:
            if self.in_order:
                fetch += block.rows * self.row_cycles
            if self.turned:
                fetch += columns
            filled = [fetch + (r + 1) * block.step - 1 for r in range(pixels)]
            assert all(full >= free for full, free in zip(filled, empty, strict=True))
            enter = fetch
            while any(full > enter + r for r, full in enumerate(filled)):
                enter += 1
            empty = [enter + r + block.rows for r in range(pixels)]
            over = empty[0]
            fetch = max(over, filled[-1] + 1)
        return over, fetch


def matmul_cost(i: isa.Matmul, chip: Chip) -> Cost:
    """Return preload, stream, last and drain of a matmul."""
    matrix = _Matrix(i, chip)
    if chip.array.dataflow == Dataflow.OUTPUT_STATIONARY:
        return matrix.output_stationary()
    if chip.array.dataflow == Dataflow.INPUT_STATIONARY:
        return matrix.input_stationary()
    return matrix.weight_stationary()
