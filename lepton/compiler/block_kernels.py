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
    for block in range(len(blocks) - 1, -1, -1):
        low, high = blocks[block, 0], blocks[block, 0] + blocks[block, 1]
        end = ends[block]
        for later in range(block + 1, len(blocks)):
            if starts[later] >= end or blocks[later, 2] < blocks[block, 3]:
                continue
            if blocks[later, 0] < high and low < blocks[later, 0] + blocks[later, 1]:
                end = starts[later]
        ends[block] = end
        starts[block] = min(starts[block], end)


@njit
def place(order: I64, sizes: I64, lives: F64, floors: I64, align: int, addresses: I64) -> int:
    """Place blocks by first fit in a given order; return where the last ends.

    Args:
        order: `[k]`, the blocks in the order in which they choose.
        sizes: `[k]`, of the blocks.
        lives: `[k, 4]`: instructions [first, stop), cycles [start, end). Two blocks may share bytes
            if one of them is over, by both, before the other begins.
        floors: `[k]`, addresses from which on each block is placed.
        align: bytes that addresses behind another block are multiples of.
        addresses: `[k]`, filled in.
    """
    low = np.zeros(len(order), np.int64)
    high = np.zeros(len(order), np.int64)
    last = 0
    for index in range(len(order)):
        block = order[index]
        count = 0
        for earlier in range(index):
            other = order[earlier]
            if _before(lives, block, other) or _before(lives, other, block):
                continue
            at = count
            while at > 0 and low[at - 1] > addresses[other]:
                low[at], high[at] = low[at - 1], high[at - 1]
                at -= 1
            low[at], high[at] = addresses[other], addresses[other] + sizes[other]
            count += 1
        size = int(sizes[block])
        addresses[block] = _gap(low, high, count, int(floors[block]), size, align)
        last = max(last, int(addresses[block]) + size)
    return last


@njit(inlined=True)
def _before(lives: F64, one: int, other: int) -> bool:
    """Return whether the life of one block is over before the other's begins."""
    return lives[one, 1] <= lives[other, 0] and lives[one, 3] <= lives[other, 2]


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
