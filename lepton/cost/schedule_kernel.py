"""The event loop of the estimate: one event per start of an instruction and end of its service.

It keeps the queues, semaphores, units and the front end of docs/timing.md, but a transfer is a
stream of service (`lepton.cost.fluid`) and not a sequence of requests.
"""

from __future__ import annotations

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
from lepton.cost.schedule_queues import arm, begin_unit, can_fetch, dispatch, mark_done
from lepton.cost.schedule_state import (
    ACTIVE,
    ARRIVE,
    CORE,
    DISPATCHED,
    DONE,
    END,
    EVENT,
    EXPAND,
    FETCH_TIME,
    FETCHED,
    FIRST_EDGE,
    FREE,
    FRONT_COLUMNS,
    GROUP,
    HEAD,
    IS_STORE,
    LOCAL,
    MEMORY_OF,
    NEVER,
    NEXT,
    NEXT_FETCH,
    OPEN,
    QUEUE,
    QUEUE_COLUMNS,
    READ_BANKS,
    READY,
    RETIRE,
    SERVED_GROUP,
    SERVING,
    START,
    STOP,
    STOP_GROUP,
    STREAMING,
    TO_RETIRE,
    UNTIL,
    WAITING,
    WRITE_BANKS,
    Run,
    Scalars,
)
from lepton.cost.service import (
    BUFFER,
    OPEN_CYCLES,
    READ_LATENCY,
    UNIT_CYCLES,
    WRITE_LATENCY,
)
from lepton.jit import njit
from lepton.program.fetch import (
    E_FIRST_GROUP,
    E_START,
    E_STOP,
    E_STOP_GROUP,
    G_FIRST,
    G_STOP,
)

__all__ = ["schedule_region"]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
_CHANGE, _FETCH = -1, -2
_MOST_EVENTS = 64
"""Of one instruction: far above what any has."""


@njit(allocates=False, error_model="numpy", inlined=True)
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


@njit(allocates=False, error_model="numpy")
def _describe(c: Scalars, s: Run, k: int, m: int, need: F64, is_write: int) -> None:
    """Make a transfer the one that its client is served for."""
    x = s.clients.state[k]
    s.clients.memory[k] = m
    x[SERVICE], x[PORT], x[IS_WRITE] = need[2] / need[0], need[1] / need[0], is_write
    x[WHOLE], x[WINDOW] = need[0], c.outstanding


@njit(allocates=False, error_model="numpy", inlined=True)
def _slack(s: Run, k: int, m: int) -> float:
    """Return the service of a store that a memory owes when it says that it is done."""
    row = s.clients.memories[m]
    return row[BUFFER] * row[UNIT_CYCLES] if s.clients.state[k, IS_WRITE] else 0.0


@njit(allocates=False, error_model="numpy", inlined=True)
def _client(s: Run, q: int) -> int:
    """Return the client that a transfer queue is: a core's are its transfer queues, then fetch."""
    return q - s.q[q, CORE]


@njit(allocates=False, error_model="numpy", inlined=True)
def _fetch_client(c: Scalars, core: int) -> int:
    return (core + 1) * (c.transfer_queues + 1) - 1


@njit(allocates=False, error_model="numpy", inlined=True)
def _end_of_port(c: Scalars, s: Run, q: int, cycle: float) -> None:
    """Free a transfer queue whose last request is made not before `cycle`."""
    i, k = s.q[q, ACTIVE], _client(s, q)
    port = s.needs[i, 1] * (2 if s.clients.busy[k] else 1)
    end = max(cycle, s.times[i, START] + c.setup_cycles + port)
    end = max(end, s.times[i, START] + s.facts[i, EXPAND])
    if s.times[i, UNTIL] > s.clients.state[k, BARRIER]:
        end = max(end, s.clients.state[k, OPENS])
    s.q[q, ACTIVE] = -1
    s.times[i, END] = s.at[q, FREE] = end


@njit(allocates=False, error_model="numpy", inlined=True)
def _settle(c: Scalars, s: Run, q: int, now: float) -> None:
    """Note all that the service which a queue has got by now brings about."""
    k = _client(s, q)
    x = s.clients.state[k]
    eps = 1e-6
    i = s.q[q, ACTIVE]
    if i >= 0:
        m = s.facts[i, MEMORY_OF]
        window = c.outstanding * s.needs[i, 2] / s.needs[i, 0]
        if x[SERVED] + eps >= s.times[i, UNTIL] - window - _slack(s, k, m):
            row = s.clients.memories[m]
            wait = row[WRITE_LATENCY if x[IS_WRITE] else READ_LATENCY]
            _end_of_port(c, s, q, now + wait if s.needs[i, 0] > c.outstanding else now)
            arm(c, s, q)
    i = s.q[q, SERVING]
    while i >= 0 and i != s.q[q, WAITING] and s.times[i, UNTIL] >= 0:
        m = s.facts[i, MEMORY_OF]
        if s.times[i, END] < 0 or x[SERVED] + eps < s.times[i, UNTIL] - _slack(s, k, m):
            break
        row = s.clients.memories[m]
        wait = row[WRITE_LATENCY] if s.facts[i, IS_STORE] else row[READ_LATENCY] + row[OPEN_CYCLES]
        s.q[q, SERVING] = s.facts[i, NEXT]
        mark_done(c, s, i, max(s.times[i, END], now + wait))
        j, i = i, s.q[q, SERVING]
        if i >= 0 and s.facts[i, MEMORY_OF] != m:
            left = max(c.outstanding - s.needs[j, 0], 0.0)
            x[BARRIER] = s.times[j, UNTIL] + left * s.needs[i, 2] / s.needs[i, 0]
            x[OPENS] = s.times[j, DONE]
        if i >= 0 and s.times[i, UNTIL] >= 0:
            _describe(c, s, k, s.facts[i, MEMORY_OF], s.needs[i], s.facts[i, IS_STORE])
    if x[SERVED] + eps >= x[ASKED] and s.clients.memory[k] >= 0:
        s.clients.memory[k], x[IDLE_FROM], x[RATE] = -1, now, 0.0


@njit(allocates=False, error_model="numpy", inlined=True)
def _begin_transfer(c: Scalars, s: Run, q: int, now: float) -> None:
    """Let a transfer make requests."""
    i, k = s.q[q, WAITING], _client(s, q)
    s.q[q, WAITING], s.q[q, ACTIVE] = -1, i
    s.at[q, EVENT] = NEVER
    m, is_store = s.facts[i, MEMORY_OF], s.facts[i, IS_STORE]
    s.times[i, UNTIL] = _ask(c, s, k, m, s.needs[i], is_store, now)
    if s.q[q, SERVING] == i or s.clients.memory[k] == -1:
        _describe(c, s, k, m, s.needs[i], is_store)
    _settle(c, s, q, now)


@njit(allocates=False, error_model="numpy", inlined=True)
def _describe_fetch(c: Scalars, s: Run, core: int) -> None:
    """Make the oldest group the one that is served; all groups asked for are in flight."""
    k = _fetch_client(c, core)
    need = s.fetches[s.front[core, SERVED_GROUP]]
    groups = s.front[core, GROUP] - s.front[core, SERVED_GROUP]
    _describe(c, s, k, c.program_memory, need, 0)
    x = s.clients.state[k]
    x[WHOLE] = x[WINDOW] = x[CREDIT] = need[0] * groups


@njit(allocates=False, error_model="numpy")
def _fetch(c: Scalars, s: Run, core: int, now: float) -> None:
    """Ask for a core's next group of instructions."""
    group = s.front[core, GROUP]
    need, client = s.fetches[group], _fetch_client(c, core)
    first = s.groups[group, G_FIRST]
    s.times[first, FETCHED] = _ask(c, s, client, c.program_memory, need, 0, now)
    s.front[core, GROUP] = group + 1
    _describe_fetch(c, s, core)
    s.last[core, FETCH_TIME], s.last[core, NEXT_FETCH] = now, NEVER
    if can_fetch(s, core):
        s.last[core, NEXT_FETCH] = now + 1


@njit(allocates=False, error_model="numpy", inlined=True)
def _settle_fetch(c: Scalars, s: Run, core: int, now: float) -> None:
    """Let a core's groups arrive that have been served."""
    k, front = _fetch_client(c, core), s.front[core]
    x = s.clients.state[k]
    row = s.clients.memories[c.program_memory]
    while front[SERVED_GROUP] < front[GROUP]:
        group = front[SERVED_GROUP]
        first, stop = s.groups[group, G_FIRST], s.groups[group, G_STOP]
        if x[SERVED] + 1e-6 < s.times[first, FETCHED]:
            break
        front[SERVED_GROUP] += 1
        for i in range(first, stop):
            s.times[i, ARRIVE] = now + row[READ_LATENCY] + row[OPEN_CYCLES]
    if front[SERVED_GROUP] == front[GROUP]:
        s.clients.memory[k], x[IDLE_FROM], x[RATE] = -1, now, 0.0
    else:
        _describe_fetch(c, s, core)


@njit(allocates=False, error_model="numpy", inlined=True)
def _mark_busy(c: Scalars, s: Run, now: float) -> bool:
    """Tell the clients whose banks a unit uses; return whether that has changed."""
    has_changed = False
    for q in range(len(s.q)):
        if s.q[q, LOCAL] >= c.transfer_queues - 1:
            continue
        i, k, busy = s.q[q, ACTIVE], _client(s, q), 0
        matrix = q - s.q[q, LOCAL] + c.transfer_queues
        for unit in range(matrix, matrix + 2):
            j = s.q[unit, STREAMING]
            if i >= 0 and j >= 0 and s.at[unit, FREE] > now:
                reads = s.facts[i, READ_BANKS] & s.facts[j, READ_BANKS]
                busy |= (reads | (s.facts[i, WRITE_BANKS] & s.facts[j, WRITE_BANKS])) != 0
        has_changed |= s.clients.busy[k] != busy
        s.clients.busy[k] = busy
    return has_changed


@njit(allocates=False, error_model="numpy", inlined=True)
def _queue_of(c: Scalars, k: int) -> int:
    """Return the transfer queue that a client is, or -1 - its core if it is a fetch."""
    core = k // (c.transfer_queues + 1)
    return -1 - core if k == _fetch_client(c, core) else k + core


@njit(allocates=False, error_model="numpy", inlined=True)
def _next_served(c: Scalars, s: Run, k: int) -> float:
    """Return the next place on a client's axis where something happens."""
    x = s.clients.state[k]
    place = x[ASKED]
    q = _queue_of(c, k)
    if q < 0:
        core = -1 - q
        return s.times[s.groups[s.front[core, SERVED_GROUP], G_FIRST], FETCHED]
    i = s.q[q, ACTIVE]
    if i >= 0:
        window = c.outstanding * s.needs[i, 2] / s.needs[i, 0]
        place = s.times[i, UNTIL] - window - _slack(s, k, s.facts[i, MEMORY_OF])
    i = s.q[q, SERVING]
    if i >= 0 and i != s.q[q, WAITING] and s.times[i, UNTIL] >= 0:
        place = min(place, s.times[i, UNTIL] - _slack(s, k, s.facts[i, MEMORY_OF]))
    if x[BARRIER] > x[SERVED]:
        place = min(place, x[BARRIER])
    return max(place, x[SERVED])


@njit(allocates=False, error_model="numpy", inlined=True)
def _next_event(c: Scalars, s: Run, now: float) -> tuple[int, float, float]:
    """Return who is next, when, and for a client the place on its axis that it reaches.

    Queues come first, then clients; `_FETCH` - core is a front end, `_CHANGE` only alters rates.
    """
    actor, at, reached = _FETCH, s.last[0, NEXT_FETCH], 0.0
    for core in range(1, c.cores):
        if s.last[core, NEXT_FETCH] < at:
            actor, at = _FETCH - core, s.last[core, NEXT_FETCH]
    queues = len(s.q)
    for q in range(queues):
        if s.at[q, EVENT] < at:
            actor, at = q, s.at[q, EVENT]
        if s.q[q, LOCAL] >= c.transfer_queues and now < s.at[q, FREE] < at:
            actor, at = _CHANGE, s.at[q, FREE]
    for k in range(len(s.clients.memory)):
        x = s.clients.state[k]
        if s.clients.memory[k] >= 0:
            place = _next_served(c, s, k)
            when = now + (place - x[SERVED]) / x[RATE]
            if when < at:
                actor, at, reached = queues + k, when, place
        elif s.clients.memory[k] < -1 and x[OPENS] < at:
            actor, at = _CHANGE, x[OPENS]
    return actor, at, reached


@njit(allocates=False, error_model="numpy", inlined=True)
def _take_event(c: Scalars, s: Run, actor: int, now: float, reached: float) -> None:
    """Do what an event brings about."""
    queues, core = len(s.q), 0
    if actor >= queues:
        k = actor - queues
        s.clients.state[k, SERVED] = reached
        q = _queue_of(c, k)
        if q < 0:
            core = -1 - q
            _settle_fetch(c, s, core, now)
        else:
            core = s.q[q, CORE]
            _settle(c, s, q, now)
    elif actor >= 0:
        core = s.q[actor, CORE]
        if s.q[actor, LOCAL] >= c.transfer_queues:
            begin_unit(c, s, actor, now)
        else:
            _begin_transfer(c, s, actor, now)
    elif actor <= _FETCH:
        core = _FETCH - actor
        _fetch(c, s, core, now)
    dispatch(c, s, core)
    for other in range(c.cores):
        if other != core:
            dispatch(c, s, other)


@njit(allocates=False, error_model="numpy", inlined=True)
def _loop(c: Scalars, s: Run) -> float:
    """Take events in the order of their times; return the time of the last."""
    now = c.base
    for _ in range(_MOST_EVENTS * (c.stop - c.start + 1)):
        actor, at, reached = _next_event(c, s, now)
        if at == NEVER:
            break
        for k in range(len(s.clients.memory)):
            x = s.clients.state[k]
            x[SERVED] += x[RATE] * (at - now)
        now = max(at, now)
        _take_event(c, s, actor, now, reached)
        is_unit = 0 <= actor < len(s.q) and s.q[actor, LOCAL] >= c.transfer_queues
        if _mark_busy(c, s, now) or not is_unit:
            share_memories(s.clients, now)
    return now


@njit
def schedule_region(
    c: Scalars,
    streams: I64,
    facts: I64,
    times: F64,
    needs: F64,
    groups: I64,
    fetches: F64,
    table: I64,
    memories: F64,
) -> tuple[float, int]:
    """Schedule instructions [start, stop) from cycle `base`.

    Return when the region ends, and the first instruction that never retires or -1.

    Args:
        c: scalars.
        streams: `[cores, STREAM_COLUMNS]` of `lepton.program.fetch`.
        facts: `[n + 1, FACTS]`, filled in but for the last three columns.
        times: `[n, TIMES]`, filled in here.
        needs: `[n, 3]` what each transfer asks of its memory.
        groups: `[groups, GROUP_COLUMNS]` of `lepton.program.fetch`.
        fetches: `[groups, 3]` what each fetch asks of its memory.
        table: the program's, of `lepton.isa.records_of`.
        memories: `[memories, MEMORY_COLUMNS]`.
    """
    first, edges, open_waits = dependences(table, c.start, c.stop, c.cores, c.first_shared)
    queues = c.cores * (c.transfer_queues + 2)
    count = c.cores * (c.transfer_queues + 1)
    for i in range(len(first)):
        facts[i, FIRST_EDGE] = first[i]
    heads = np.full((queues, QUEUE_COLUMNS), -1, np.int64)
    for q in range(queues):
        heads[q, CORE], heads[q, LOCAL] = divmod(q, c.transfer_queues + 2)
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
        np.zeros((count, CLIENT_COLUMNS)),
        np.full(count, -1, np.int64),
        np.zeros(count, np.int64),
        memories,
        np.zeros(count),
    )
    clients.state[:, IDLE_FROM] = -NEVER
    front, last = np.zeros((c.cores, FRONT_COLUMNS), np.int64), np.full((c.cores, 3), c.base - 1)
    for core in range(c.cores):
        row, stream = front[core], streams[core]
        row[DISPATCHED], row[STOP] = stream[E_START], stream[E_STOP]
        row[GROUP], row[STOP_GROUP] = stream[E_FIRST_GROUP], stream[E_STOP_GROUP]
        row[SERVED_GROUP], last[core, NEXT_FETCH] = row[GROUP], c.base
    s = Run(
        facts, times, needs, groups, fetches, edges, heads, at,
        np.zeros((queues, c.queue_depth)), np.zeros(queues, np.int64), np.zeros(queues, np.int64),
        front, last, clients,
    )  # fmt: skip
    end = _loop(c, s)
    for i in range(c.start, c.stop):
        if times[i, RETIRE] < 0:
            return 0.0, i
        end = max(end, times[i, RETIRE])
    return np.ceil(end), -1
