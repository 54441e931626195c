"""Loops over the blocks of the scratchpad: whose an address is, which give way, where they fit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.jit import njit

__all__ = ["cut_lives", "owners", "place"]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@njit
def owners(numbers: I64, addresses: I64, blocks: I64) -> I64:
    """Return `[m]`: the block that each address is in, -1 for none.

    Args:
        numbers: `[m]`, instructions in order.
        addresses: `[m]`, an address that each uses.
        blocks: `[k, 4]` of `lepton.compiler.allocate.Block`, by first instruction.
    """
    found = np.full(len(numbers), -1, np.int64)
    taken = np.zeros(len(blocks), np.int64)
    count, begun = 0, 0
    for m in range(len(numbers)):
        number = numbers[m]
        while begun < len(blocks) and blocks[begun, 2] <= number:
            taken[count] = begun
            count += 1
            begun += 1
        kept = 0
        for index in range(count):
            block = taken[index]
            if blocks[block, 3] <= number:
                continue
            taken[kept] = block
            kept += 1
            offset = addresses[m] - blocks[block, 0]
            if 0 <= offset < blocks[block, 1]:
                found[m] = block
        count = kept
    return found


@njit
def cut_lives(blocks: I64, starts: F64, ends: F64) -> None:
    """End each life at the latest where that of a later block begins that shares bytes with it.

    Args:
        blocks: `[k, 4]` of `lepton.compiler.allocate.Block`, by first instruction.
        starts: `[k]`, where their lives begin; a life that is cut before that becomes empty.
        ends: `[k]`, where they end.
    """
    # no block from here on begins earlier
    earliest = np.full(len(blocks) + 1, np.inf)
    for block in range(len(blocks) - 1, -1, -1):
        low, high = blocks[block, 0], blocks[block, 0] + blocks[block, 1]
        end = ends[block]
        for later in range(block + 1, len(blocks)):
            if earliest[later] >= end:
                break
            if starts[later] >= end or blocks[later, 2] < blocks[block, 3]:
                continue
            if blocks[later, 0] < high and low < blocks[later, 0] + blocks[later, 1]:
                end = starts[later]
        ends[block] = end
        starts[block] = min(starts[block], end)
        earliest[block] = min(earliest[block + 1], starts[block])


@njit
def place(order: I64, sizes: I64, lives: F64, floors: I64, align: int, addresses: I64) -> int:
    """Place blocks by first fit in a given order; return where the last ends.

    Args:
        order: `[k]`, the blocks in the order in which they choose.
        sizes: `[k]`, of the blocks.
        lives: `[k, 4]` by first: instructions [first, stop), cycles [start, end). Two blocks may
            share bytes if one of them is over, by both, before the other begins.
        floors: `[k]`, addresses from which on each block is placed.
        align: bytes that addresses behind another block are multiples of.
        addresses: `[k]`, filled in.
    """
    low = np.zeros(len(order), np.int64)
    high = np.zeros(len(order), np.int64)
    is_placed = np.zeros(len(order), np.bool_)
    latest, earliest = _reaches(lives)
    last = 0
    for block in order:
        count = 0
        # from the first block that may not be over when this one begins
        other = block
        while other > 0 and (
            latest[other - 1, 0] > lives[block, 0] or latest[other - 1, 1] > lives[block, 2]
        ):
            other -= 1
        while other < len(order) and (
            lives[other, 0] < lives[block, 1] or earliest[other] < lives[block, 3]
        ):
            other += 1
            if not is_placed[other - 1] or _are_apart(lives, block, other - 1):
                continue
            begin = addresses[other - 1]
            at = count
            while at > 0 and low[at - 1] > begin:
                low[at], high[at] = low[at - 1], high[at - 1]
                at -= 1
            low[at], high[at] = begin, begin + sizes[other - 1]
            count += 1
        size = int(sizes[block])
        is_placed[block] = True
        addresses[block] = _gap(low, high, count, int(floors[block]), size, align)
        last = max(last, int(addresses[block]) + size)
    return last


@njit(inlined=True)
def _reaches(lives: F64) -> tuple[F64, F64]:
    """Return `[k, 2]`, the latest stop and end up to each block; and the earliest start from it."""
    latest = lives[:, 1::2].copy()
    earliest = lives[:, 2].copy()
    for block in range(1, len(lives)):
        for axis in range(2):
            latest[block, axis] = max(latest[block, axis], latest[block - 1, axis])
        back = len(lives) - 1 - block
        earliest[back] = min(earliest[back], earliest[back + 1])
    return latest, earliest


@njit(inlined=True)
def _are_apart(lives: F64, one: int, other: int) -> bool:
    """Return whether one of two lives is over before the other begins."""
    first = lives[one, 1] <= lives[other, 0] and lives[one, 3] <= lives[other, 2]
    return first or (lives[other, 1] <= lives[one, 0] and lives[other, 3] <= lives[one, 2])


@njit(inlined=True)
def _gap(low: I64, high: I64, count: int, begin: int, size: int, align: int) -> int:
    """Return the first aligned address from `begin` on with `size` free bytes behind it."""
    address = begin
    for index in range(count):
        if low[index] - address >= size:
            return address
        if high[index] > address:
            address = -(-high[index] // align) * align
    return address
