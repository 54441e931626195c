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
def cut_lives(order: I64, addresses: I64, sizes: I64, starts: F64, ends: F64) -> None:
    """End each life at the latest where that of a later block begins that shares bytes with it.

    Args:
        order: `[k]`, the blocks by start.
        addresses, sizes: `[k]`.
        starts, ends: `[k]`, lives; ends change.
    """
    alive = np.zeros(len(order), np.int64)
    count = 0
    for index in range(len(order)):
        block = order[index]
        low, high = addresses[block], addresses[block] + sizes[block]
        kept = 0
        for other in range(count):
            old = alive[other]
            if addresses[old] < high and low < addresses[old] + sizes[old]:
                ends[old] = min(ends[old], starts[block])
            if ends[old] > starts[block]:
                alive[kept] = old
                kept += 1
        alive[kept] = block
        count = kept + 1


@njit
def place(order: I64, sizes: I64, lives: F64, apart: Bool, stretches: I64, addresses: I64) -> int:
    """Place blocks by first fit in a given order; return the bytes taken of both stretches.

    Args:
        order: `[k]`, the blocks in the order in which they choose.
        sizes: `[k]`, of the blocks.
        lives: `[k, 4]`: instructions [first, stop), cycles [start, end). Two blocks may share bytes
            if one of them is over, by both, before the other begins.
        apart: `[k]`, whether a block is for the first stretch, as long as that has room.
        stretches: bytes of the first, which begins at 0; start of the second; alignment.
        addresses: `[k]`, filled in.
    """
    room, base, align = stretches
    low = np.zeros(len(order), np.int64)
    high = np.zeros(len(order), np.int64)
    ends = np.zeros(2, np.int64)
    ends[1] = base
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
        which = 0 if apart[block] else 1
        address = _gap(low, high, count, base * which, sizes[block], align)
        if which == 0 and address + sizes[block] > room:
            which = 1
            address = _gap(low, high, count, base, sizes[block], align)
        addresses[block] = address
        ends[which] = max(ends[which], address + sizes[block])
    return ends[0] + ends[1] - base


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
