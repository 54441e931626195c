"""Which instruction each wait waits for: the n-th wait of a semaphore takes its n-th signal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.isa.declaration import BY_MNEMONIC, SEMAPHORES
from lepton.isa.encoding import COLUMNS
from lepton.jit import njit

__all__ = ["dependences", "semaphore"]

I64 = NDArray[np.int64]

_WAIT, _SIGNAL = COLUMNS["wait"], COLUMNS["signal"]
_HALT = BY_MNEMONIC["halt"].opcode


@njit(allocates=False, inlined=True)
def _lowest(mask: int) -> int:
    """Return the number of the lowest bit of a mask that has one."""
    bit = 0
    while mask & 0xFF == 0:
        mask >>= 8
        bit += 8
    while mask & 1 == 0:
        mask >>= 1
        bit += 1
    return bit


@njit(allocates=False, inlined=True)
def semaphore(bit: int, core: int, first_shared: int) -> int:
    """Return the number among all cores' of a semaphore in a core's mask."""
    return bit if bit >= first_shared else core * SEMAPHORES + bit


@njit(inlined=True)
def _users(table: I64, column: int, span: tuple[int, int, int, int]) -> tuple[I64, I64]:
    """Return, semaphore by semaphore, the instructions whose mask has it: offsets and numbers.

    `span` is `start, stop, cores, first_shared` of `dependences`.
    """
    start, stop, cores, first_shared = span
    offset = np.zeros(cores * SEMAPHORES + 1, np.int64)
    core = 0
    for i in range(start, stop):
        mask = table[i, column]
        while mask:
            offset[semaphore(_lowest(mask), core, first_shared) + 1] += 1
            mask &= mask - 1
        core += table[i, 0] == _HALT
    offset = np.cumsum(offset)
    place = offset[:-1].copy()
    users = np.zeros(offset[-1], np.int64)
    core = 0
    for i in range(start, stop):
        mask = table[i, column]
        while mask:
            b = semaphore(_lowest(mask), core, first_shared)
            users[place[b]] = i
            place[b] += 1
            mask &= mask - 1
        core += table[i, 0] == _HALT
    return offset, users


@njit
def dependences(
    table: I64, start: int, stop: int, cores: int, first_shared: int
) -> tuple[I64, I64, I64]:
    """Return who waits for whom among instructions [start, stop) of a region.

    Args:
        table: `lepton.isa.records`, whose semaphores each instruction waits for and signals.
        start: first instruction.
        stop: behind the last one.
        cores: streams of the region, each up to its `halt`.
        first_shared: the first semaphore that all cores have in common.

    Returns:
        `[n + 1]`: the edges of instruction i are [first[i], first[i + 1]). `[edges, 2]`: the
        instruction that waits for i, and the semaphore. `[n]`: signals that each waits for,
        those that nothing fires included.
    """
    span = (start, stop, cores, first_shared)
    fired_from, fired = _users(table, _SIGNAL, span)
    taken_from, taken = _users(table, _WAIT, span)
    open_waits = np.zeros(len(table), np.int64)
    first = np.zeros(len(table) + 1, np.int64)
    for i in taken:
        open_waits[i] += 1
    semaphores = cores * SEMAPHORES
    matched = np.zeros(semaphores, np.int64)
    for b in range(semaphores):
        matched[b] = min(fired_from[b + 1] - fired_from[b], taken_from[b + 1] - taken_from[b])
        for k in range(matched[b]):
            first[fired[fired_from[b] + k] + 1] += 1
    first = np.cumsum(first)
    place = first[:-1].copy()
    edges = np.zeros((first[-1], 2), np.int64)
    for b in range(semaphores):
        for k in range(matched[b]):
            i = fired[fired_from[b] + k]
            edges[place[i], 0], edges[place[i], 1] = taken[taken_from[b] + k], b % SEMAPHORES
            place[i] += 1
    return first, edges, open_waits
