"""Which instruction each wait waits for: the n-th wait of a semaphore takes its n-th signal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.isa.declaration import SEMAPHORES
from lepton.isa.encoding import COLUMNS
from lepton.jit import njit

__all__ = ["dependences"]

I64 = NDArray[np.int64]

_WAIT, _SIGNAL = COLUMNS["wait"], COLUMNS["signal"]


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


@njit(inlined=True)
def _users(masks: I64, start: int, stop: int) -> tuple[I64, I64]:
    """Return, semaphore by semaphore, the instructions whose mask has it: offsets and numbers."""
    offset = np.zeros(SEMAPHORES + 1, np.int64)
    for i in range(start, stop):
        mask = masks[i]
        while mask:
            offset[_lowest(mask) + 1] += 1
            mask &= mask - 1
    offset = np.cumsum(offset)
    place = offset[:-1].copy()
    users = np.zeros(offset[-1], np.int64)
    for i in range(start, stop):
        mask = masks[i]
        while mask:
            b = _lowest(mask)
            users[place[b]] = i
            place[b] += 1
            mask &= mask - 1
    return offset, users


@njit
def dependences(table: I64, start: int, stop: int) -> tuple[I64, I64, I64]:
    """Return who waits for whom among instructions [start, stop).

    Args:
        table: `lepton.isa.records`, whose semaphores each instruction waits for and signals.
        start: first instruction.
        stop: behind the last one.

    Returns:
        `[n + 1]`: the edges of instruction i are [first[i], first[i + 1]). `[edges, 2]`: the
        instruction that waits for i, and the semaphore. `[n]`: signals that each waits for,
        those that nothing fires included.
    """
    fired_from, fired = _users(table[:, _SIGNAL], start, stop)
    taken_from, taken = _users(table[:, _WAIT], start, stop)
    open_waits = np.zeros(len(table), np.int64)
    first = np.zeros(len(table) + 1, np.int64)
    for i in taken:
        open_waits[i] += 1
    matched = np.zeros(SEMAPHORES, np.int64)
    for b in range(SEMAPHORES):
        matched[b] = min(fired_from[b + 1] - fired_from[b], taken_from[b + 1] - taken_from[b])
        for k in range(matched[b]):
            first[fired[fired_from[b] + k] + 1] += 1
    first = np.cumsum(first)
    place = first[:-1].copy()
    edges = np.zeros((first[-1], 2), np.int64)
    for b in range(SEMAPHORES):
        for k in range(matched[b]):
            i = fired[fired_from[b] + k]
            edges[place[i], 0], edges[place[i], 1] = taken[taken_from[b] + k], b
            place[i] += 1
    return first, edges, open_waits
