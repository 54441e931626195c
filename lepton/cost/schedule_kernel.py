"""The event loop of the estimate: one event per start of an instruction and end of its service.

It keeps the queues, semaphores, units and the front end of docs/timing.md, but a transfer is a
stream of service (`lepton.cost.fluid`) and not a sequence of requests.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.cost.dependences import dependences
from lepton.cost.fluid import (
    ASKED,
    BARRIER,
    CLIENT_COLUMNS,
    CREDIT,
    IDLE_FROM,
    IS_WRITE,
    OPENS,
    PORT,
    RATE,
    SERVED,
    SERVICE,
    WHOLE,
    WINDOW,
    Clients,
    share_memories,
)
from lepton.cost.service import (
    BUFFER,
    OPEN_CYCLES,
    READ_LATENCY,
    UNIT_CYCLES,
    WRITE_LATENCY,
)
from lepton.jit import njit

__all__ = ["FACTS", "TIMES", "Scalars", "schedule_region"]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
NEVER = 1e18

# columns of an instruction's facts
(QUEUE, MEMORY_OF, PRELOAD, STREAM, LAST, DRAIN, EXPAND, IS_STORE) = range(8)
(READ_BANKS, WRITE_BANKS, READ_SUMS, WRITE_SUMS, FIRST_EDGE, NEXT, OPEN) = range(8, 15)
FACTS = 15

# columns of an instruction's times
(ARRIVE, DISPATCH, READY, START, END, RETIRE, DONE, UNTIL, FETCHED) = range(9)
"""`DONE` is -1 until known; `UNTIL` is where its service ends on its client's axis,
`FETCHED` where that of the group does which begins with it."""
TIMES = 9

# columns of a queue
(HEAD, TO_RETIRE, SERVING, ACTIVE, WAITING, STREAMING) = range(6)
"""Instructions or -1: next to be taken, next to retire, oldest whose service has not ended, the one
whose requests are not all made, the one that waits to stream, the last that streamed."""
QUEUE_COLUMNS = 6
# columns of a queue's times
(FREE, TAKES, LATEST, EVENT) = range(4)
"""When its unit is free, can take the next; latest retirement; its next step."""


class Scalars(NamedTuple):
    """Scalars of the chip and the region."""

    transfer_queues: int
    queue_depth: int
    outstanding: int
    setup_cycles: int
    group: int
    fetch_outstanding: int
    program_memory: int
    start: int
    stop: int
    base: float


class Run(NamedTuple):
    """Everything that the loop changes."""

    facts: I64
    times: F64
    needs: F64
    """[n, 3] of `lepton.cost.service.service`"""
    fetches: F64
    """[groups, 3] the same of fetches"""
    edges: I64
    q: I64
    at: F64
    """[queues, 4]"""
    held: F64
    """[queues, queue_depth] when the places of the latest instructions were left"""
    count: I64
    """[queues] instructions dispatched"""
    taken: I64
    """[queues] instructions taken"""
    front: I64
    """[3] instructions fetched, dispatched, group being served"""
    last: F64
    """[3] latest fetch, latest dispatch, next fetch"""
    clients: Clients


@njit(allocates=False)
def _arm(c: Scalars, s: Run, q: int) -> None:
    """Take the head of a queue as soon as everything that it waits for is known."""
    i = s.q[q, HEAD]
    is_transfer = q < c.transfer_queues
    if i < 0 or i >= s.front[1] or s.facts[i, OPEN] > 0:
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


@njit(allocates=False)
def _dispatch(c: Scalars, s: Run) -> None:
    """Dispatch and arm all that can be; set the next fetch."""
    while True:
        i = s.front[1]
        if i >= s.front[0] or s.times[i, ARRIVE] < 0:
            break
        q = s.facts[i, QUEUE]
        cycle = max(s.times[i, ARRIVE], s.last[1] + 1)
        if q >= 0:
            if s.count[q] - s.taken[q] >= c.queue_depth:
                break
            if s.count[q] >= c.queue_depth:
                cycle = max(cycle, s.held[q, s.count[q] % c.queue_depth] + 1)
            s.count[q] += 1
        s.times[i, DISPATCH] = s.last[1] = cycle
        s.front[1] = i + 1
        fetched = s.front[0]
        if s.last[2] == NEVER and fetched < c.stop:
            if i + 1 - fetched + c.group * c.fetch_outstanding > 0:
                s.last[2] = max(cycle, s.last[0]) + 1
        if q < 0:
            s.times[i, START] = s.times[i, END] = s.times[i, RETIRE] = cycle
        elif s.q[q, HEAD] == i:
            _arm(c, s, q)


@njit(allocates=False)
def _done(c: Scalars, s: Run, i: int, cycle: float) -> None:
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
                _arm(c, s, s.facts[other, QUEUE])
        j = s.facts[j, NEXT]
    s.q[q, TO_RETIRE] = j


@njit(allocates=False)
def _begin_unit(c: Scalars, s: Run, q: int, now: float) -> None:
    """Let an instruction stream in the matrix or the vector unit."""
    i = s.q[q, WAITING]
    other = 2 * c.transfer_queues + 1 - q
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
    _done(c, s, i, end + s.facts[i, DRAIN])
    _arm(c, s, q)


@njit(allocates=False)
def _ask(c: Scalars, s: Run, k: int, m: int, need: F64, is_write: int, now: float) -> float:
    """Append a transfer's service to its client's axis; return where it ends."""
    x = s.clients.state[k]
    if s.clients.memory[k] == -1:
        latency = s.clients.memories[m, WRITE_LATENCY if is_write else READ_LATENCY]
        fresh = min((now - x[IDLE_FROM]) / latency, 1.0)
        x[CREDIT] = c.outstanding * fresh
    else:
        x[CREDIT] = 0.0
    x[ASKED] += need[2]
    return x[ASKED]


@njit(allocates=False)
def _describe(c: Scalars, s: Run, k: int, m: int, need: F64, is_write: int) -> None:
    """Make a transfer the one that its client is served for."""
    x = s.clients.state[k]
    s.clients.memory[k] = m
    x[SERVICE], x[PORT], x[IS_WRITE] = need[2] / need[0], need[1] / need[0], is_write
    x[WHOLE], x[WINDOW] = need[0], c.outstanding


@njit(allocates=False)
def _slack(s: Run, k: int, m: int) -> float:
    """Return the service of a store that a memory owes when it says that it is done."""
    row = s.clients.memories[m]
    return row[BUFFER] * row[UNIT_CYCLES] if s.clients.state[k, IS_WRITE] else 0.0


@njit(allocates=False)
def _end_of_port(c: Scalars, s: Run, q: int, cycle: float) -> None:
    """Free a transfer queue whose last request is made not before `cycle`."""
    i = s.q[q, ACTIVE]
    port = s.needs[i, 1] * (2 if s.clients.busy[q] else 1)
    end = max(cycle, s.times[i, START] + c.setup_cycles + port)
    end = max(end, s.times[i, START] + s.facts[i, EXPAND])
    if s.times[i, UNTIL] > s.clients.state[q, BARRIER]:
        end = max(end, s.clients.state[q, OPENS])
    s.q[q, ACTIVE] = -1
    s.times[i, END] = s.at[q, FREE] = end


@njit(allocates=False)
def _settle(c: Scalars, s: Run, q: int, now: float) -> None:
    """Note all that the service which a queue has got by now brings about."""
    x = s.clients.state[q]
    eps = 1e-6
    i = s.q[q, ACTIVE]
    if i >= 0:
        m = s.facts[i, MEMORY_OF]
        window = c.outstanding * s.needs[i, 2] / s.needs[i, 0]
        if x[SERVED] + eps >= s.times[i, UNTIL] - window - _slack(s, q, m):
            row = s.clients.memories[m]
            wait = row[WRITE_LATENCY if x[IS_WRITE] else READ_LATENCY]
            _end_of_port(c, s, q, now + wait if s.needs[i, 0] > c.outstanding else now)
            _arm(c, s, q)
    i = s.q[q, SERVING]
    while i >= 0 and i != s.q[q, WAITING] and s.times[i, UNTIL] >= 0:
        m = s.facts[i, MEMORY_OF]
        if s.times[i, END] < 0 or x[SERVED] + eps < s.times[i, UNTIL] - _slack(s, q, m):
            break
        row = s.clients.memories[m]
        wait = row[WRITE_LATENCY] if s.facts[i, IS_STORE] else row[READ_LATENCY] + row[OPEN_CYCLES]
        s.q[q, SERVING] = s.facts[i, NEXT]
        _done(c, s, i, max(s.times[i, END], now + wait))
        j, i = i, s.q[q, SERVING]
        if i >= 0 and s.facts[i, MEMORY_OF] != m:
            left = max(c.outstanding - s.needs[j, 0], 0.0)
            x[BARRIER] = s.times[j, UNTIL] + left * s.needs[i, 2] / s.needs[i, 0]
            x[OPENS] = s.times[j, DONE]
        if i >= 0 and s.times[i, UNTIL] >= 0:
            _describe(c, s, q, s.facts[i, MEMORY_OF], s.needs[i], s.facts[i, IS_STORE])
    if x[SERVED] + eps >= x[ASKED] and s.clients.memory[q] >= 0:
        s.clients.memory[q], x[IDLE_FROM], x[RATE] = -1, now, 0.0


@njit(allocates=False)
def _begin_transfer(c: Scalars, s: Run, q: int, now: float) -> None:
    """Let a transfer make requests."""
    i = s.q[q, WAITING]
    s.q[q, WAITING], s.q[q, ACTIVE] = -1, i
    s.at[q, EVENT] = NEVER
    m, is_store = s.facts[i, MEMORY_OF], s.facts[i, IS_STORE]
    s.times[i, UNTIL] = _ask(c, s, q, m, s.needs[i], is_store, now)
    if s.q[q, SERVING] == i or s.clients.memory[q] == -1:
        _describe(c, s, q, m, s.needs[i], is_store)
    _settle(c, s, q, now)


@njit(allocates=False)
def _fetch(c: Scalars, s: Run, now: float) -> None:
    """Ask for the next group of instructions."""
    k = c.transfer_queues
    first = s.front[0]
    need = s.fetches[(first - c.start) // c.group]
    s.times[first, FETCHED] = _ask(c, s, k, c.program_memory, need, 0, now)
    x = s.clients.state[k]
    x[CREDIT] = NEVER
    if s.clients.memory[k] == -1:
        _describe(c, s, k, c.program_memory, need, 0)
    s.front[0] = min(first + c.group, c.stop)
    s.last[0], s.last[2] = now, NEVER
    if s.front[0] < c.stop and s.front[1] - s.front[0] + c.group * c.fetch_outstanding > 0:
        s.last[2] = now + 1


@njit(allocates=False)
def _settle_fetch(c: Scalars, s: Run, now: float) -> None:
    """Let the groups arrive that have been served."""
    k = c.transfer_queues
    x = s.clients.state[k]
    row = s.clients.memories[c.program_memory]
    while s.front[2] < s.front[0] and x[SERVED] + 1e-6 >= s.times[s.front[2], FETCHED]:
        first = s.front[2]
        s.front[2] = min(first + c.group, c.stop)
        for i in range(first, s.front[2]):
            s.times[i, ARRIVE] = now + row[READ_LATENCY] + row[OPEN_CYCLES]
    if s.front[2] == s.front[0]:
        s.clients.memory[k], x[IDLE_FROM], x[RATE] = -1, now, 0.0
    else:
        x[WINDOW] = x[WHOLE] * ((s.front[0] - s.front[2] + c.group - 1) // c.group)
    _dispatch(c, s)


@njit(allocates=False)
def _mark_busy(c: Scalars, s: Run, now: float) -> float:
    """Tell the clients whose banks a unit uses; return when the next unit is free."""
    following = NEVER
    for k in range(c.transfer_queues - 1):
        s.clients.busy[k] = 0
    for unit in range(c.transfer_queues, c.transfer_queues + 2):
        if s.at[unit, FREE] <= now or s.q[unit, STREAMING] < 0:
            continue
        following = min(following, s.at[unit, FREE])
        u = s.facts[s.q[unit, STREAMING]]
        for k in range(c.transfer_queues - 1):
            i = s.q[k, ACTIVE]
            if i >= 0:
                mine = s.facts[i]
                shared = mine[READ_BANKS] & u[READ_BANKS] | mine[WRITE_BANKS] & u[WRITE_BANKS]
                s.clients.busy[k] |= shared != 0
    return following


@njit(allocates=False)
def _next_served(c: Scalars, s: Run, k: int) -> float:
    """Return the next place on a client's axis where something happens."""
    x = s.clients.state[k]
    place = x[ASKED]
    if k == c.transfer_queues:
        return s.times[s.front[2], FETCHED]
    i = s.q[k, ACTIVE]
    if i >= 0:
        window = c.outstanding * s.needs[i, 2] / s.needs[i, 0]
        place = s.times[i, UNTIL] - window - _slack(s, k, s.facts[i, MEMORY_OF])
    i = s.q[k, SERVING]
    if i >= 0 and i != s.q[k, WAITING] and s.times[i, UNTIL] >= 0:
        place = min(place, s.times[i, UNTIL] - _slack(s, k, s.facts[i, MEMORY_OF]))
    if x[BARRIER] > x[SERVED]:
        place = min(place, x[BARRIER])
    return max(place, x[SERVED])


@njit(allocates=False)
def _loop(c: Scalars, s: Run) -> float:
    """Take events in the order of their times; return the time of the last."""
    now = c.base
    queues = c.transfer_queues + 2
    for step in range(100 * (c.stop - c.start) + 1000):
        unit_free = _mark_busy(c, s, now)
        share_memories(s.clients, now)
        actor, at, reached = -1, s.last[2], 0.0
        for q in range(queues):
            if s.at[q, EVENT] < at:
                actor, at = q, s.at[q, EVENT]
        for k in range(c.transfer_queues + 1):
            x = s.clients.state[k]
            if s.clients.memory[k] < -1 and x[OPENS] < at:
                actor, at = -2, x[OPENS]
            if s.clients.memory[k] >= 0:
                place = _next_served(c, s, k)
                when = now + (place - x[SERVED]) / x[RATE]
                if when < at:
                    actor, at, reached = queues + k, when, place
        if at == NEVER:
            return now
        if unit_free < at:
            actor, at = -2, unit_free
        for k in range(c.transfer_queues + 1):
            x = s.clients.state[k]
            x[SERVED] += x[RATE] * (at - now)
        now = max(at, now)
        if actor >= queues:
            k = actor - queues
            s.clients.state[k, SERVED] = reached
            if k == c.transfer_queues:
                _settle_fetch(c, s, now)
            else:
                _settle(c, s, k, now)
        elif actor >= c.transfer_queues:
            _begin_unit(c, s, actor, now)
        elif actor >= 0:
            _begin_transfer(c, s, actor, now)
        elif actor == -1:
            _fetch(c, s, now)
        _dispatch(c, s)
    return 0.0


@njit
def schedule_region(
    c: Scalars, facts: I64, times: F64, needs: F64, fetches: F64, masks: I64, memories: F64
) -> float:
    """Schedule instructions [start, stop) from cycle `base`; return when the region ends.

    Args:
        c: scalars.
        facts: `[n + 1, FACTS]`, filled in but for the last three columns.
        times: `[n, TIMES]`, filled in here.
        needs: `[n, 3]` what each transfer asks of its memory.
        fetches: `[groups, 3]` what each fetch does.
        masks: `[n, 2]` semaphores that each instruction waits for and signals.
        memories: `[memories, MEMORY_COLUMNS]`.
    """
    first, edges, open_waits = dependences(masks, c.start, c.stop)
    queues = c.transfer_queues + 2
    facts[:, FIRST_EDGE] = first
    heads = np.full((queues, QUEUE_COLUMNS), -1, np.int64)
    at = np.full((queues, 4), c.base)
    at[:, EVENT] = NEVER
    for i in range(c.stop - 1, c.start - 1, -1):
        facts[i, NEXT], facts[i, OPEN] = -1, open_waits[i]
        times[i, :] = -1.0
        times[i, READY] = c.base
        q = facts[i, QUEUE]
        if q >= 0:
            facts[i, NEXT] = heads[q, HEAD]
            heads[q, HEAD] = heads[q, TO_RETIRE] = heads[q, SERVING] = i
    clients = Clients(
        np.zeros((c.transfer_queues + 1, CLIENT_COLUMNS)),
        np.full(c.transfer_queues + 1, -1, np.int64),
        np.zeros(c.transfer_queues + 1, np.int64),
        memories,
        np.zeros(c.transfer_queues + 1),
    )
    clients.state[:, IDLE_FROM] = -NEVER
    s = Run(
        facts, times, needs, fetches, edges, heads, at,
        np.zeros((queues, c.queue_depth)), np.zeros(queues, np.int64), np.zeros(queues, np.int64),
        np.array([c.start, c.start, c.start], np.int64),
        np.array([c.base - 1, c.base - 1, c.base]),
        clients,
    )  # fmt: skip
    end = _loop(c, s)
    for q in range(queues):
        end = max(end, at[q, LATEST])
    return np.ceil(max(end, s.last[1]))
