"""Queues, semaphores, units and the front end of the estimate, as docs/timing.md has them."""

from __future__ import annotations

import numpy as np

from lepton.cost.schedule_state import (
    ACTIVE,
    ARRIVE,
    CORE,
    DISPATCH,
    DISPATCH_TIME,
    DISPATCHED,
    DONE,
    DRAIN,
    END,
    EVENT,
    FETCH_TIME,
    FIRST_EDGE,
    FREE,
    GROUP,
    HEAD,
    LAST,
    LATEST,
    LOCAL,
    NEVER,
    NEXT,
    NEXT_FETCH,
    OPEN,
    PRELOAD,
    QUEUE,
    READ_BANKS,
    READY,
    RETIRE,
    START,
    STOP,
    STOP_GROUP,
    STREAM,
    STREAMING,
    TAKES,
    TO_RETIRE,
    WAITING,
    WRITE_SUMS,
    Run,
    Scalars,
)
from lepton.jit import njit
from lepton.program.fetch import G_ROOM

__all__ = ["arm", "begin_unit", "can_fetch", "dispatch", "mark_done"]


@njit(allocates=False, error_model="numpy", inlined=True)
def arm(c: Scalars, s: Run, q: int) -> None:
    """Take the head of a queue as soon as everything that it waits for is known."""
    i = s.q[q, HEAD]
    is_transfer = s.q[q, LOCAL] < c.transfer_queues
    if i < 0 or i >= s.front[s.q[q, CORE], DISPATCHED] or s.facts[i, OPEN] > 0:
        return
    if s.q[q, ACTIVE] >= 0 or s.q[q, WAITING] >= 0:
        return
    cycle = max(s.times[i, READY], s.times[i, DISPATCH])
    cycle = max(cycle, s.at[q, FREE if is_transfer else TAKES])
    s.q[q, HEAD] = s.facts[i, NEXT]
    s.held[q, s.taken[q] % c.queue_depth] = cycle
    s.taken[q] += 1
    s.q[q, WAITING] = i
    if is_transfer:
        s.times[i, START] = cycle
        s.at[q, EVENT] = cycle + c.setup_cycles
    else:
        s.at[q, EVENT] = max(cycle + s.facts[i, PRELOAD], s.at[q, FREE])


@njit(allocates=False, error_model="numpy", inlined=True)
def can_fetch(s: Run, core: int) -> bool:
    front = s.front[core]
    group = front[GROUP]
    return group < front[STOP_GROUP] and front[DISPATCHED] >= s.groups[group, G_ROOM]


@njit(allocates=False, error_model="numpy")
def dispatch(c: Scalars, s: Run, core: int) -> None:
    """Dispatch and arm all of a core that can be; set its next fetch."""
    front, last = s.front[core], s.last[core]
    while True:
        i = front[DISPATCHED]
        if i >= front[STOP] or s.times[i, ARRIVE] < 0:
            break
        q = s.facts[i, QUEUE]
        cycle = max(s.times[i, ARRIVE], last[DISPATCH_TIME] + 1)
        if q >= 0:
            if s.dispatched[q] - s.taken[q] >= c.queue_depth:
                break
            if s.dispatched[q] >= c.queue_depth:
                cycle = max(cycle, s.held[q, s.dispatched[q] % c.queue_depth] + 1)
            s.dispatched[q] += 1
        s.times[i, DISPATCH] = last[DISPATCH_TIME] = cycle
        front[DISPATCHED] = i + 1
        if last[NEXT_FETCH] == NEVER and can_fetch(s, core):
            last[NEXT_FETCH] = max(cycle, last[FETCH_TIME]) + 1
        if q < 0:
            s.times[i, START] = s.times[i, END] = s.times[i, RETIRE] = cycle
        elif s.q[q, HEAD] == i:
            arm(c, s, q)


@njit(allocates=False, error_model="numpy", inlined=True)
def mark_done(c: Scalars, s: Run, i: int, cycle: float) -> None:
    """Note when an instruction is done; retire what can, fire its signals."""
    s.times[i, DONE] = cycle
    q = s.facts[i, QUEUE]
    j = s.q[q, TO_RETIRE]
    while j >= 0 and s.times[j, DONE] >= 0:
        latest = max(s.times[j, DONE], s.at[q, LATEST])
        s.times[j, RETIRE] = s.at[q, LATEST] = latest
        for edge in range(s.facts[j, FIRST_EDGE], s.facts[j + 1, FIRST_EDGE]):
            other = s.edges[edge, 0]
            s.facts[other, OPEN] -= 1
            s.times[other, READY] = max(s.times[other, READY], latest)
            if s.facts[other, OPEN] == 0 and s.q[s.facts[other, QUEUE], HEAD] == other:
                arm(c, s, s.facts[other, QUEUE])
        j = s.facts[j, NEXT]
    s.q[q, TO_RETIRE] = j


@njit(allocates=False, error_model="numpy", inlined=True)
def begin_unit(c: Scalars, s: Run, q: int, now: float) -> None:
    """Let an instruction stream in the matrix or the vector unit."""
    i = s.q[q, WAITING]
    other = q + 2 * (c.transfer_queues - s.q[q, LOCAL]) + 1
    j = s.q[other, STREAMING]
    lost = 0.0
    if j >= 0 and s.at[other, FREE] > now:
        shared = 0
        for column in range(READ_BANKS, WRITE_SUMS + 1):
            shared |= s.facts[i, column] & s.facts[j, column]
        if shared:
            lost = min(float(s.facts[i, STREAM]), np.ceil((s.at[other, FREE] - now) / 2))
    end = now + s.facts[i, STREAM] + lost
    s.q[q, WAITING], s.q[q, STREAMING] = -1, i
    s.at[q, FREE], s.at[q, EVENT] = end, NEVER
    s.at[q, TAKES] = max(end - s.facts[i, LAST], now) if s.facts[i, LAST] else end
    s.times[i, START], s.times[i, END] = now, end
    mark_done(c, s, i, end + s.facts[i, DRAIN])
    arm(c, s, q)
