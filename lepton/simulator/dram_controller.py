"""The DRAM controller: FR-FCFS over bank queues, event-driven; docs/timing.md, "DRAM controller".

Each channel has its own clock, in DRAM cycles, and never runs ahead of what its caller allows. An
event loop that has come to cycle t calls `advance(s, ch, t)` and then `accept`; where that returns
False, there is no room before a cycle at or after `next_event`. What a channel does next, with
nothing more accepted, it does in cycle `next_event`; `advance(s, ch, next_event(s, ch) + 1)` does
it. The completion of a read, in `tickets`, becomes known as its command is issued, tCL + burst
cycles ahead, so that a loop which advances in such steps never learns of one too late.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.jit import njit
from lepton.simulator.dram_banks import group_of, move_base, offer, put, renew
from lepton.simulator.dram_commands import command, consider, pick, precharge
from lepton.simulator.dram_intrinsics import CYCLE_SHIFT, likely, unlikely
from lepton.simulator.dram_queues import enter, room, schedule, starts_drain
from lepton.simulator.dram_state import (
    ACT,
    ACTIVATE,
    ALLOWED,
    BANK_FIELDS,
    BANK_STATE,
    BASE,
    BEST,
    CHANNEL,
    CLOCK,
    COUNT,
    DRAIN,
    DUAL,
    ELIGIBLE,
    EPOCH,
    FLUSH,
    GATES,
    LATER,
    LINE_MASK,
    MASK,
    MAX_GROUPS,
    NO_COMMAND,
    NOTHING,
    OPEN,
    PER_RANK,
    PRE,
    PRECHARGE,
    QUEUE_FIELDS,
    QUEUES,
    RANKS,
    REFI,
    REFRESH_AT,
    REFRESHES,
    REFRESHING,
    RFC,
    SHIFT,
    SINGLE,
    STALE,
    ControllerState,
)

__all__ = [
    "accept",
    "advance",
    "advance_until_room",
    "channel_of",
    "flush",
    "next_cycle",
    "next_event",
    "run",
    "run_cycle",
    "upcoming",
]

I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]


@njit(allocates=False, inlined=True)
def _refresh_step(c: I64, m: I64, t: int) -> tuple[int, int]:
    """Return when, from `t` on, the refresh goes on, and the bank to close or -1 to refresh."""
    begin = m[REFRESHING] * c[PER_RANK]
    at, bank, ready = LATER, -1, t
    for local in range(begin, begin + c[PER_RANK]):
        b = BANK_STATE + local * BANK_FIELDS
        if m[b + OPEN] >= 0:
            gate = GATES + PRECHARGE * MAX_GROUPS + group_of(c, local)
            close = max(m[b + PRE], m[gate], t)
            if close < at:
                at, bank = close, local
        else:
            ready = max(ready, m[b + ACT])
    return (ready, -1) if bank < 0 else (at, bank)


@njit(allocates=False, inlined=True)
def _await_refresh(c: I64, m: I64) -> None:
    """Note when the next refresh falls due, or before it the keys need a new base."""
    due = (m[REFRESHES] + 1) * c[REFI] - 1
    m[REFRESH_AT] = min(due, (m[BASE] >> CYCLE_SHIFT) + EPOCH)


@njit(allocates=False, inlined=True)
def _begin_refresh(c: I64, m: I64) -> None:
    """Keep the banks of the rank whose refresh is due from serving their queues."""
    rank = m[REFRESHES] % c[RANKS]
    banks = -1 if c[RANKS] == 1 else ((1 << c[PER_RANK]) - 1) << (rank * c[PER_RANK])
    m[REFRESHING], m[ALLOWED], m[BEST] = rank, ~banks, STALE
    for local in range(rank * c[PER_RANK], (rank + 1) * c[PER_RANK]):
        put(c, m, local, NO_COMMAND)


@njit(allocates=False, inlined=True)
def _refresh(c: I64, m: I64, t: int) -> bool:
    """Go on with the refresh under way; tell if that took the command bus."""
    at, bank = _refresh_step(c, m, t)
    if at > t:
        m[REFRESH_AT] = at
        return False
    m[BEST] = STALE
    if bank >= 0:
        gaps, by, other_gaps, other = precharge(c, m, bank, t)
        renew(c, m, gaps, by, other_gaps, other, bank, NO_COMMAND, t)
        return True
    begin = m[REFRESHING] * c[PER_RANK]
    for local in range(begin, begin + c[PER_RANK]):
        b = BANK_STATE + local * BANK_FIELDS
        m[b + ACT] = max(m[b + ACT], t + c[RFC])
        offer(c, m, local)
    m[REFRESHES] += 1
    m[REFRESHING], m[ALLOWED] = -1, -1
    _await_refresh(c, m)
    return True


@njit(allocates=False, inlined=True)
def _moves(c: I64, m: I64) -> bool:
    """Tell if a transaction can move into a bank's queue now, or a drain begin."""
    if m[QUEUES + QUEUE_FIELDS + COUNT] == 0:
        return m[QUEUES + ELIGIBLE] != 0
    drained = QUEUE_FIELDS if m[DRAIN] > 0 else 0
    return m[QUEUES + drained + ELIGIBLE] != 0 or starts_drain(c, m)


@njit(allocates=False, inlined=True)
def _refreshes(c: I64, m: I64, t: int) -> bool:
    """Begin a refresh that is due or go on with it; tell if that took the command bus."""
    if likely(t < m[REFRESH_AT]):
        return False
    if t - (m[BASE] >> CYCLE_SHIFT) >= EPOCH // 2:
        move_base(c, m, t)
        m[BEST] = STALE
    if m[REFRESHING] < 0:
        _await_refresh(c, m)
        if t < m[REFRESH_AT]:
            return False
        _begin_refresh(c, m)
    return _refresh(c, m, t)


@njit(allocates=False, inlined=True)
def run_cycle(c: I64, m: I64, f: U32, k: I64, t: int) -> None:
    """Do what the channel does in cycle `t`, before which nothing is left to do."""
    first = ACTIVATE if _refreshes(c, m, t) else NOTHING
    while first == NOTHING or c[DUAL]:
        if unlikely(m[BEST] < 0):
            pick(c, m, t)
        if m[BEST] >> CYCLE_SHIFT > t:
            break
        before, first = first, command(c, m, f, k, first, t)
        if before != NOTHING or not c[DUAL]:
            break
    if likely(c[SINGLE] == 0):
        local = schedule(c, m, f)
        if local >= 0:
            consider(c, m, local, t + 1)


@njit(allocates=False, inlined=True)
def run(c: I64, m: I64, f: U32, k: I64, limit: int, line: int, is_write: int) -> None:
    """Run the cycles before `limit`, and on until there is room for a request if `line` >= 0."""
    clock = m[CLOCK]
    while True:
        enough = line < 0 or room(c, m, f, line, is_write)
        if enough and clock >= limit:
            break
        t = _next_from(c, m, clock)
        if enough and t >= limit:
            break
        run_cycle(c, m, f, k, t)
        clock = t + 1
    m[CLOCK] = max(clock, limit)


@njit(allocates=False, inlined=True)
def _when(c: I64, m: I64, clock: int) -> int:
    """Return the first cycle from `clock` on in which anything happens; the command is picked."""
    return clock if _moves(c, m) else max(clock, min(m[BEST] >> CYCLE_SHIFT, m[REFRESH_AT]))


@njit(allocates=False, inlined=True)
def _next_from(c: I64, m: I64, clock: int) -> int:
    """Return the first cycle from `clock` on in which anything happens."""
    if unlikely(m[BEST] < 0):
        pick(c, m, clock)
    return _when(c, m, clock)


@njit(allocates=False, inlined=True)
def upcoming(c: I64, m: I64) -> int:
    """Return what `next_cycle` returned, if nothing but acceptance has happened since."""
    return _when(c, m, m[CLOCK])


@njit(allocates=False, inlined=True)
def next_cycle(c: I64, m: I64) -> int:
    """Return the channel's next cycle in which anything happens, with what is queued now."""
    return _next_from(c, m, m[CLOCK])


@njit(allocates=False)
def next_event(s: ControllerState, ch: int) -> int:
    """Return the channel's next cycle in which anything happens, with what is queued now."""
    return next_cycle(s.configuration, s.blocks[ch])


@njit(allocates=False)
def advance(s: ControllerState, ch: int, limit: int) -> None:
    """Run the channel's cycles before `limit`."""
    run(s.configuration, s.blocks[ch], s.filters[ch], s.tickets, limit, -1, 0)


@njit(allocates=False)
def advance_until_room(s: ControllerState, ch: int, limit: int, address: int, is_write: int) -> int:
    """Run the cycles before `limit`, and on until there is room for a request; return the clock."""
    c, m = s.configuration, s.blocks[ch]
    run(c, m, s.filters[ch], s.tickets, limit, address & c[LINE_MASK], is_write & 1)
    return m[CLOCK]


@njit(allocates=False)
def accept(s: ControllerState, ch: int, address: int, is_write: int, ticket: int) -> bool:
    """Take a request at the channel's clock; return False if there is no room."""
    c, m, f = s.configuration, s.blocks[ch], s.filters[ch]
    line, is_write = address & c[LINE_MASK], is_write & 1
    if not room(c, m, f, line, is_write):
        return False
    enter(c, m, f, s.tickets, line, is_write, ticket)
    return True


@njit(allocates=False, inlined=True)
def channel_of(c: I64, address: int) -> int:
    """Return the channel of an address."""
    return (address >> c[SHIFT + CHANNEL]) & c[MASK + CHANNEL]


@njit(allocates=False)
def flush(s: ControllerState, ch: int) -> None:
    """Drain what writes are left, from now on, whenever no other request waits."""
    s.blocks[ch, FLUSH] = 1
