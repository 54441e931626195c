"""State of the timing kernel, and what retires an instruction. See docs/timing.md.

The NPU's times are cycles, the memories' are ticks; `next` holds ticks, so that both compare.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.cost.columns import W_QUEUE, WORK
from lepton.jit import njit
from lepton.program.fetch import G_FIRST, G_STOP
from lepton.simulator.memories import MemoryState

__all__ = ["INSTRUCTION_COLUMNS", "NEVER", "TRACE", "Settings", "State", "finish_request"]
__all__ += ["dispatch_ahead", "head_cycle", "mark_done", "step_ahead"]

I64 = NDArray[np.int64]
NEVER = 1 << 52


class Settings(NamedTuple):
    """Scalars of the chip and of the region."""

    ticks: int
    """Base ticks of an NPU cycle."""
    cores: int
    queues: int
    """Of all cores."""
    core_queues: int
    """Of each core."""
    transfer_queues: int
    """A core's queues below this number move bytes; the last of them is the weight decoder's."""
    queue_depth: int
    burst_bytes: int
    outstanding: int
    setup_cycles: int
    port_bytes: int
    bank_bytes: int
    program_memory: int
    fetch_outstanding: int
    first_shared: int
    """The first semaphore that all cores have in common."""
    first_queue: int
    """Actor of the first queue: before them come each core's fetch, then each core's dispatch."""
    first_channel: int
    """Actor of the first DRAM channel."""
    start: int
    stop: int
    base: int
    """Cycle at which the region begins."""


TRACE = (
    "arrive", "dispatch", "ready", "taken", "start", "end", "retire", "cause", "bank", "memory",
)  # fmt: skip
"""What the run finds out, in cycles, but `cause`: the instruction whose signal came last, or -1."""

# columns of the instructions: `lepton.cost.columns.WORK`, TRACE, then what only the loop needs
FIRST_TRACE = len(WORK)
(ARRIVE, DISPATCH, READY, TAKEN, START, END, RETIRE, CAUSE, BANK, MEMORY) = range(
    FIRST_TRACE, FIRST_TRACE + len(TRACE)
)
(I_NEXT, I_OPEN, I_RANK, I_LEFT, I_DONE, I_EDGE) = range(
    FIRST_TRACE + len(TRACE), FIRST_TRACE + len(TRACE) + 6
)
"""Next instruction of the queue, or -1; signals it still waits for; semaphore of the latest one so
far; requests in flight and to come, -1 once all is known; latest cycle known of what it must wait
for before it retires; its first edge to an instruction that waits for it."""
INSTRUCTION_COLUMNS = I_EDGE + 1

# columns of the queues' state
(Q_HEAD, Q_HELD, Q_RETIRES) = range(3)
"""Instruction at the head or -1, instructions held, next to retire or -1."""
(Q_ACTIVE, Q_PLANE, Q_ROW, Q_BYTE, Q_SLOT, Q_FREE, Q_LATEST) = range(3, 10)
"""Transfer under way or -1 with its position; slot of the next request; when the port or the
unit is free; the latest retirement."""
(Q_WAITING, Q_BEGIN, Q_STREAMING, Q_TAKES) = range(10, 14)
"""Of a unit: instruction that waits to stream or -1, and when it does; instruction that streams or
streamed last or -1; when the unit can take the next."""
(Q_CORE, Q_LOCAL) = range(14, 16)
"""Its core, and its number among those of the core."""
Q_SLOTS = 16
"""The first of the slots: cycle at which the request in it finished, -1 while in flight."""

# columns of a core's front end
(F_FETCHED, F_FETCH, F_DISPATCHED, F_DISPATCH, F_STOP, F_STOP_GROUP) = range(6)
"""Next group to fetch, cycle of the latest fetch; next instruction to dispatch, cycle of the
latest; where its instructions and its groups end."""
FRONT_COLUMNS = 6

# columns of the state of requests in flight
(T_OPEN, T_FINISH, T_OWNER, T_MEMORY, T_SIZE, T_ACCESSES) = range(6)
"""Parts still open, latest cycle at which one finished, instruction or group of a fetch, memory,
bytes, accesses."""


class State(NamedTuple):
    """Mutable arrays of the loop."""

    i: I64
    """[n + 1, INSTRUCTION_COLUMNS]"""
    edges: I64
    """[edges, 2] instruction that waits, and its semaphore; sorted by the one that signals"""
    q: I64
    """[queues, Q_SLOTS + outstanding]"""
    front: I64
    """[cores, FRONT_COLUMNS]"""
    fetches: I64
    """[groups, GROUP_COLUMNS] of `lepton.program.fetch`"""
    next: I64
    """[actors] tick of the next action of each"""
    tags: I64
    """[queues * slots + cores * groups, 6] requests in flight, those of the queues first"""
    memories: MemoryState
    bins: I64
    """[memories + 1, bins] bytes per span of 2^k cycles; the last row begins with k"""


@njit(allocates=False, inlined=True)
def head_cycle(s: State, q: int) -> int:
    """Return the first cycle in which queue `q` could take its head, NEVER if not known yet."""
    head = s.q[q, Q_HEAD]
    if head < 0 or s.q[q, Q_HELD] == 0 or s.i[head, I_OPEN] > 0:
        return NEVER
    return max(s.i[head, READY], s.i[head, DISPATCH])


@njit(allocates=False, inlined=True)
def step_ahead(c: Settings, s: State, q: int) -> None:
    """Set the tick of the next step of queue `q`, NEVER if something else must happen first."""
    if s.q[q, Q_ACTIVE] >= 0:
        slot = s.q[q, Q_SLOTS + s.q[q, Q_SLOT]]
        cycle = NEVER if slot < 0 else max(slot, s.q[q, Q_FREE])
    elif s.q[q, Q_WAITING] >= 0:
        cycle = s.q[q, Q_BEGIN]
    else:
        cycle = head_cycle(s, q)
        if cycle != NEVER:
            is_unit = s.q[q, Q_LOCAL] >= c.transfer_queues
            cycle = max(cycle, s.q[q, Q_TAKES if is_unit else Q_FREE])
    s.next[c.first_queue + q] = NEVER if cycle == NEVER else cycle * c.ticks


@njit(allocates=False, inlined=True)
def _fire(c: Settings, s: State, i: int, cycle: int) -> None:
    """Give an instruction's signals to those that wait for them."""
    for edge in range(s.i[i, I_EDGE], s.i[i + 1, I_EDGE]):
        j, semaphore = s.edges[edge, 0], s.edges[edge, 1]
        s.i[j, I_OPEN] -= 1
        known = s.i[j, READY]
        if cycle > known or (cycle == known and semaphore > s.i[j, I_RANK]):
            s.i[j, READY], s.i[j, CAUSE], s.i[j, I_RANK] = cycle, i, semaphore
        q = s.i[j, W_QUEUE]
        if s.i[j, I_OPEN] == 0 and s.q[q, Q_HEAD] == j:
            step_ahead(c, s, q)


@njit(allocates=False, inlined=True)
def mark_done(c: Settings, s: State, i: int) -> None:
    """Retire instruction `i`, of which all is known, and what waited behind it in its queue."""
    s.i[i, I_LEFT] = -1
    q = s.i[i, W_QUEUE]
    j = s.q[q, Q_RETIRES]
    while j >= 0 and s.i[j, I_LEFT] < 0:
        cycle = max(s.i[j, I_DONE], s.q[q, Q_LATEST])
        s.i[j, RETIRE] = cycle
        s.q[q, Q_LATEST] = cycle
        s.q[q, Q_RETIRES] = s.i[j, I_NEXT]
        _fire(c, s, j, cycle)
        j = s.q[q, Q_RETIRES]


@njit(allocates=False, inlined=True)
def _count(bins: I64, m: int, cycle: int, size: int) -> None:
    """Add bytes to the bandwidth profile; halve its resolution when it is full."""
    count = bins.shape[1]
    while cycle >> bins[-1, 0] >= count:
        for row in range(len(bins) - 1):
            for index in range(count // 2):
                bins[row, index] = bins[row, 2 * index] + bins[row, 2 * index + 1]
            for index in range(count // 2, count):
                bins[row, index] = 0
        bins[-1, 0] += 1
    bins[m, cycle >> bins[-1, 0]] += size


@njit(allocates=False, inlined=True)
def dispatch_ahead(c: Settings, s: State, core: int, earliest: int) -> None:
    """Set the tick of a core's next dispatch, not before cycle `earliest`."""
    i = s.front[core, F_DISPATCHED]
    s.next[c.cores + core] = NEVER
    if i >= s.front[core, F_STOP]:
        return
    arrival = s.i[i, ARRIVE]
    q = s.i[i, W_QUEUE]
    if arrival < 0 or (q >= 0 and s.q[q, Q_HELD] >= c.queue_depth):
        return
    s.next[c.cores + core] = max(arrival, s.front[core, F_DISPATCH] + 1, earliest) * c.ticks


@njit(allocates=False, inlined=True)
def finish_request(c: Settings, s: State, tag: int, cycle: int) -> None:
    """Take note that a part of a request finishes in a cycle."""
    s.tags[tag, T_OPEN] -= 1
    if cycle > s.tags[tag, T_FINISH]:
        s.tags[tag, T_FINISH] = cycle
    if s.tags[tag, T_OPEN] > 0:
        return
    cycle = s.tags[tag, T_FINISH]
    _count(s.bins, s.tags[tag, T_MEMORY], cycle, s.tags[tag, T_SIZE])
    owner = s.tags[tag, T_OWNER]
    q = tag // c.outstanding
    if q >= c.queues:
        for i in range(s.fetches[owner, G_FIRST], s.fetches[owner, G_STOP]):
            s.i[i, ARRIVE] = cycle
        core = (tag - c.queues * c.outstanding) // c.fetch_outstanding
        if s.next[c.cores + core] == NEVER:
            dispatch_ahead(c, s, core, 0)
        return
    s.q[q, Q_SLOTS + tag % c.outstanding] = cycle
    s.i[owner, I_LEFT] -= 1
    s.i[owner, I_DONE] = max(s.i[owner, I_DONE], cycle)
    if s.i[owner, I_LEFT] == 0:
        mark_done(c, s, owner)
    if s.q[q, Q_ACTIVE] >= 0:
        step_ahead(c, s, q)
