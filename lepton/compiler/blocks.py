"""The blocks of the scratchpad: who touches them, how long they live, how many bytes at once.

A block is what the allocator places as a whole: the buffer of a tile, of rows, of a cascade or of
constants, or a tensor that stays inside. It is alive from the start of the first instruction that
touches it to the end of the last, or until another block takes over some of its bytes; by the
numbers of the instructions likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.compiler.allocate import Block, Lifetime
from lepton.compiler.block_kernels import cut_lives, owners
from lepton.compiler.copies import PIECE_BYTES, is_copy
from lepton.cost.estimate import Estimate
from lepton.cost.schedule_state import END, RETIRE, START
from lepton.isa.addresses import PARAMETER_COLUMNS, scratchpad_fields
from lepton.isa.declaration import Instruction

__all__ = [
    "Blocks",
    "beside_bytes",
    "most_alive",
    "resident_blocks",
    "union_bytes",
    "with_copies_between",
]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

_PIVOTS = 16
"""Large blocks beside which others are looked for that are alive together."""


def resident_blocks(
    residents: Sequence[tuple[Lifetime, int]], steps: Sequence[int], begin: int
) -> list[Block]:
    """Return the blocks of tensors that stay inside.

    Args:
        residents: with their addresses, alive from step to step.
        steps: of each instruction of the region.
        begin: number of the region's first instruction.
    """
    step_of = np.asarray(steps)
    found: list[Block] = []
    for item, address in residents:
        inside = np.flatnonzero((item.first <= step_of) & (step_of <= item.last))
        if len(inside):
            first, last = begin + int(inside[0]), begin + int(inside[-1])
            found.append(Block(address, item.size, first, last + 1))
    return found


def with_copies_between(
    blocks: Sequence[Block], instructions: Sequence[Instruction], lanes: int, chip: Chip
) -> list[Block]:
    """Return the blocks of a program into which copies of weights have been put.

    Args:
        blocks: of the program without copies.
        instructions: those with copies.
        lanes: address of the two places through which copies go.
        chip: the chip that it is for.
    """
    copying = np.array([is_copy(item, chip) for item in instructions], np.bool_)
    own, extra = np.flatnonzero(~copying), np.flatnonzero(copying)
    made = [
        Block(block.address, block.size, int(own[block.first]), int(own[block.stop - 1]) + 1)
        for block in blocks
        if block.first < block.stop
    ]
    if len(extra):
        first, stop = int(extra[0]), int(extra[-1]) + 1
        made += [Block(lanes + at, PIECE_BYTES, first, stop) for at in (0, PIECE_BYTES)]
    return made


def _alive(
    sizes: I64, starts: NDArray[np.generic], ends: NDArray[np.generic]
) -> tuple[NDArray[np.generic], I64]:
    """Return the times at which lives begin and end, in order, and what is alive from each on."""
    times = np.concatenate([starts, ends])
    change = np.concatenate([sizes, -sizes])
    order = np.lexsort((change, times))
    return times[order], np.cumsum(change[order])


def most_alive(sizes: I64, starts: NDArray[np.generic], ends: NDArray[np.generic]) -> int:
    """Return the most bytes that are alive at once; what ends as another begins is not."""
    return int(_alive(sizes, starts, ends)[1].max(initial=0))


def beside_bytes(sizes: I64, starts: F64, ends: F64) -> I64:
    """Return `[k]`: the most bytes that are alive at once during each life, itself included."""
    times, alive = _alive(sizes, starts, ends)
    first = np.searchsorted(times, starts, "right") - 1
    stop = np.maximum(np.searchsorted(times, ends, "left"), first + 1)
    return np.array([alive[i:j].max() for i, j in zip(first, stop, strict=True)], np.int64)


def together(lives: F64, block: int) -> NDArray[np.bool_]:
    """Return `[k]`: whether each block is alive together with one, as `Blocks.lives` has it."""
    first, stop, start, end = lives.T
    before = (stop <= first[block]) & (end <= start[block])
    after = (stop[block] <= first) & (end[block] <= start)
    return ~(before | after)


def union_bytes(addresses: I64, sizes: I64) -> int:
    """Return how many different bytes stretches have."""
    order = np.argsort(addresses, kind="stable")
    begin, end = addresses[order], (addresses + sizes)[order]
    covered = np.maximum.accumulate(np.concatenate([[0], end[:-1]])) if len(end) else end
    return int(np.maximum(end - np.maximum(begin, covered), 0).sum())


@dataclass(frozen=True)
class Blocks:
    """The blocks that a program touches, and by which fields.

    Attributes:
        placed: `[k, 4]`, columns as `Block`, by first instruction; [first, stop) touch it.
        fields: `[m, 2]`, instruction and column of each address of the scratchpad.
        owner: `[m]`, the block that each is in.
    """

    placed: I64
    fields: I64
    owner: I64

    @classmethod
    def of(cls, table: I64, blocks: Sequence[Block]) -> Blocks:
        """Return the blocks of the instructions of `lepton.isa.records_of`."""
        known = np.array(sorted(blocks, key=lambda block: block.first), np.int64).reshape(-1, 4)
        fields = scratchpad_fields(table)
        number, column = fields.T
        owner = owners(np.ascontiguousarray(number), table[number, column], known)
        assert (owner >= 0).all(), "an instruction touches a block that nobody has taken"
        used, owner = np.unique(owner, return_inverse=True)
        placed = known[used]
        placed[:, 2], placed[:, 3] = len(table), 0
        np.minimum.at(placed[:, 2], owner, number)
        np.maximum.at(placed[:, 3], owner, number + 1)
        rank = np.argsort(placed[:, 2], kind="stable")
        return cls(placed[rank], fields, np.argsort(rank)[owner])

    @property
    def sizes(self) -> I64:
        return np.ascontiguousarray(self.placed[:, 1])

    @cached_property
    def are_parameters(self) -> NDArray[np.bool_]:
        """`[k]`, whether a block holds constants of the vector unit."""
        found = np.zeros(len(self.placed), np.bool_)
        found[self.owner[np.isin(self.fields[:, 1], PARAMETER_COLUMNS)]] = True
        return found

    def lives(self, found: Estimate) -> F64:
        """Return `[k, 4]`: the instructions [first, stop) and cycles [start, end) of each block."""
        number = self.fields[:, 0]
        starts = np.full(len(self.placed), np.inf)
        ends = np.zeros(len(self.placed))
        np.minimum.at(starts, self.owner, found.times[number, START])
        np.maximum.at(ends, self.owner, found.times[number][:, [END, RETIRE]].max(axis=1))
        cut_lives(self.placed, starts, ends)
        return np.column_stack([self.placed[:, 2:4].astype(np.float64), starts, ends])

    def bound_bytes(self, lives: F64) -> int:
        """Return the bytes that no placement of these blocks with these lives can do without.

        The most of blocks found any two of which are alive together, by instructions or by cycles:
        those alive at one time, and those of them that are alive beside a large block at another.
        """
        sizes, axes = self.sizes, (lives[:, :2].T, lives[:, 2:].T)
        most = max(most_alive(sizes, *axis) for axis in axes)
        for block in np.argsort(-sizes, kind="stable")[:_PIVOTS].tolist():
            beside = together(lives, block)
            beside[block] = False
            others = max(most_alive(sizes[beside], *axis[:, beside]) for axis in axes)
            most = max(most, int(sizes[block]) + others)
        return most

    @property
    def peak_bytes(self) -> int:
        """The different bytes that the blocks lie on."""
        return union_bytes(self.placed[:, 0], self.sizes)

    def moved(self, table: I64, addresses: I64) -> tuple[I64, Blocks]:
        """Return the table and the blocks with the blocks at new addresses."""
        number, column = self.fields.T
        shift = addresses - self.placed[:, 0]
        made = table.copy()
        made[number, column] += shift[self.owner]
        placed = self.placed.copy()
        placed[:, 0] = addresses
        return made, Blocks(placed, self.fields, self.owner)
