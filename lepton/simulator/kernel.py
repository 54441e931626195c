"""The event loop of the timing model; docs/timing.md specifies what it computes.

Steps are taken in the order of their times; ties go to the lower actor: the cores' fetches, their
dispatches, then the queues by number, the DRAMs' channels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.cost.columns import W_QUEUE
from lepton.cost.dependences import dependences
from lepton.jit import njit
from lepton.program.fetch import (
    E_FIRST_GROUP,
    E_START,
    E_STOP,
    E_STOP_GROUP,
    G_ADDRESS,
    G_BYTES,
    G_ROOM,
)
from lepton.simulator.channels import drain_writes, step_channel
from lepton.simulator.kernel_records import fill_records
from lepton.simulator.kernel_state import (
    ARRIVE,
    CAUSE,
    DISPATCH,
    END,
    F_DISPATCH,
    F_DISPATCHED,
    F_FETCH,
    F_FETCHED,
    F_STOP,
    F_STOP_GROUP,
    FRONT_COLUMNS,
    I_DONE,
    I_EDGE,
    I_NEXT,
    I_OPEN,
    NEVER,
    Q_ACTIVE,
    Q_CORE,
    Q_FREE,
    Q_HEAD,
    Q_HELD,
    Q_LATEST,
    Q_LOCAL,
    Q_RETIRES,
    Q_SLOTS,
    Q_STREAMING,
    Q_TAKES,
    Q_WAITING,
    READY,
    RETIRE,
    START,
    T_ACCESSES,
    TAKEN,
    Settings,
    State,
    dispatch_ahead,
    finish_request,
    step_ahead,
)
from lepton.simulator.kernel_units import open_tag, request, step
from lepton.simulator.memories import MemoryState, burst_of, copied, fill_totals

__all__ = ["ACTOR_BITS", "LONGEST", "run_program"]

I64 = NDArray[np.int64]

ACTOR_BITS = 10
"""Bits of an actor's number: there are at most 84 of the NPU's, and 64 channels of 8 memories."""
LONGEST = -2
"""What `run_program` returns in place of an instruction if the time does not fit."""


@njit(allocates=False, inlined=True)
def _fetch_ahead(c: Settings, s: State, core: int, earliest: int) -> None:
    """Set the tick of a core's next fetch, not before cycle `earliest`."""
    front = s.front[core]
    group = front[F_FETCHED]
    s.next[core] = NEVER
    if group < front[F_STOP_GROUP] and front[F_DISPATCHED] >= s.fetches[group, G_ROOM]:
        s.next[core] = max(front[F_FETCH] + 1, earliest) * c.ticks


@njit(allocates=False, inlined=True)
def _fetch(c: Settings, s: State, core: int, cycle: int) -> None:
    """Request a core's next group of instructions."""
    group = s.front[core, F_FETCHED]
    at, length = s.fetches[group, G_ADDRESS], s.fetches[group, G_BYTES]
    end = at + length
    tag = c.queues * c.outstanding + core * c.fetch_outstanding + group % c.fetch_outstanding
    burst = burst_of(s.memories.memories, c.program_memory, c.burst_bytes)
    open_tag(s, tag, group, c.program_memory, length)
    s.front[core, F_FETCHED] = group + 1
    s.front[core, F_FETCH] = cycle
    while at < end:
        size = min(end - at, burst - at % burst)
        request(c, s, tag, at, size, 0, cycle)
        at += size
    finish_request(c, s, tag, 0)
    _fetch_ahead(c, s, core, cycle + 1)


@njit(allocates=False, inlined=True)
def _dispatch(c: Settings, s: State, core: int, cycle: int) -> None:
    """Move a core's next instruction to its queue."""
    i = s.front[core, F_DISPATCHED]
    q = s.i[i, W_QUEUE]
    s.i[i, DISPATCH] = cycle
    s.front[core, F_DISPATCHED] = i + 1
    s.front[core, F_DISPATCH] = cycle
    if q < 0:
        s.i[i, READY] = s.i[i, TAKEN] = cycle
        s.i[i, START] = s.i[i, END] = s.i[i, RETIRE] = cycle
    else:
        s.q[q, Q_HELD] += 1
        if s.next[c.first_queue + q] == NEVER:
            step_ahead(c, s, q)
    dispatch_ahead(c, s, core, cycle + 1)
    if s.next[core] == NEVER:
        _fetch_ahead(c, s, core, cycle + 1)


@njit
def _new_state(
    c: Settings, streams: I64, instructions: I64, groups: I64, table: I64, memories: MemoryState,
    bins: I64,
) -> State:  # fmt: skip
    """Return the state of an idle chip at the region's first cycle."""
    first, edges, open_waits = dependences(table, c.start, c.stop, c.cores, c.first_shared)
    queues = np.zeros((c.queues, Q_SLOTS + c.outstanding), np.int64)
    queues[:, Q_SLOTS:] = c.base
    for column in (Q_HEAD, Q_RETIRES, Q_ACTIVE, Q_WAITING, Q_STREAMING):
        queues[:, column] = -1
    for column in (Q_FREE, Q_LATEST, Q_TAKES):
        queues[:, column] = c.base
    for q in range(c.queues):
        queues[q, Q_CORE], queues[q, Q_LOCAL] = q // c.core_queues, q % c.core_queues
    for i in range(c.stop - 1, c.start - 1, -1):
        row = instructions[i]
        q = row[W_QUEUE]
        row[I_NEXT], row[I_OPEN], row[I_DONE] = -1, open_waits[i], c.base
        row[ARRIVE], row[READY], row[CAUSE] = -1, c.base, -1
        if q >= 0:
            row[I_NEXT] = queues[q, Q_HEAD]
            queues[q, Q_HEAD] = queues[q, Q_RETIRES] = i
    for i in range(c.start, c.stop + 1):
        instructions[i, I_EDGE] = first[i]
    actions = np.full(c.first_channel + len(memories.channels), NEVER, np.int64)
    front = np.zeros((c.cores, FRONT_COLUMNS), np.int64)
    for core in range(c.cores):
        actions[core] = c.base * c.ticks
        row, stream = front[core], streams[core]
        row[F_FETCHED], row[F_STOP_GROUP] = stream[E_FIRST_GROUP], stream[E_STOP_GROUP]
        row[F_DISPATCHED], row[F_STOP] = stream[E_START], stream[E_STOP]
        row[F_FETCH] = row[F_DISPATCH] = c.base - 1
    tags = c.queues * c.outstanding + c.cores * c.fetch_outstanding
    return State(
        instructions,
        edges,
        queues,
        front,
        groups,
        actions,
        np.zeros((tags, T_ACCESSES + 1), np.int64),
        memories,
        bins,
    )


@njit(allocates=False, inlined=True)
def _first_two(next: I64) -> tuple[int, int]:
    """Return the first actor's tick and number, in one number each, and the second's.

    So ties go to the lower actor and the loop has no branch to mispredict. No tick counts as more
    than `NEVER`, which in place of an actor's tick ends the run.
    """
    first = second = NEVER << ACTOR_BITS
    for actor in range(len(next)):
        other = (min(next[actor], NEVER) << ACTOR_BITS) | actor
        second = min(second, max(first, other))
        first = min(first, other)
    return first, second


@njit(allocates=False, inlined=True)
def _step_channels(c: Settings, s: State, tick: int, second: int) -> None:
    """Run the channels that step at a tick, and on until one has news for the chip.

    One alone runs on before `second`, the next step of another actor; of several, each steps once.
    """
    limit = second
    if second == tick:
        limit = NEVER
        for actor in range(c.first_channel):
            limit = min(limit, s.next[actor])
    has_news = False
    while tick < limit and not has_news:
        following = NEVER
        for other in range(c.first_channel, len(s.next)):
            if s.next[other] == tick:
                reach = max(second, tick + 1)
                has_news |= step_channel(c, s, other - c.first_channel, tick, reach)
            following = min(following, s.next[other])
        tick = following


@njit(allocates=False, inlined=True)
def _run(c: Settings, s: State) -> None:
    """Take steps until nothing more can happen."""
    while True:
        first, second = _first_two(s.next)
        tick = first >> ACTOR_BITS
        actor = first & ((1 << ACTOR_BITS) - 1)
        if tick == NEVER:
            return
        if actor >= c.first_channel:
            _step_channels(c, s, tick, second >> ACTOR_BITS)
            continue
        cycle = tick // c.ticks
        if actor >= c.first_queue:
            step(c, s, actor - c.first_queue, cycle)
        elif actor >= c.cores:
            _dispatch(c, s, actor - c.cores, cycle)
        else:
            _fetch(c, s, actor, cycle)


@njit(allocates=False, inlined=True)
def _outcome(c: Settings, s: State) -> tuple[int, int]:
    """Return the cycle at which all that could run has retired, and what could not or -1."""
    for actor in range(len(s.next)):
        if s.next[actor] > NEVER:
            return 0, LONGEST
    end, stuck = c.base, -1
    for core in range(c.cores):
        end = max(end, s.front[core, F_DISPATCH])
        if s.front[core, F_DISPATCHED] < s.front[core, F_STOP] and stuck < 0:
            stuck = s.front[core, F_DISPATCHED]
    for q in range(c.queues):
        end = max(end, s.q[q, Q_LATEST])
        head = s.q[q, Q_RETIRES]
        if head >= 0 and (stuck < 0 or head < stuck):
            stuck = head
    return end, stuck


@njit(inlined=True)
def _settings_of(c: Settings, start: int, stop: int, base: int) -> Settings:
    """Return the scalars of a region."""
    return Settings(
        c.ticks, c.cores, c.queues, c.core_queues, c.transfer_queues, c.queue_depth, c.burst_bytes,
        c.outstanding, c.setup_cycles, c.port_bytes, c.bank_bytes, c.program_memory,
        c.fetch_outstanding, c.first_shared, c.first_queue, c.first_channel, start, stop, base,
    )  # fmt: skip


@njit
def run_program(
    chip: Settings, streams: I64, instructions: I64, groups: I64, table: I64, cold: MemoryState,
    bins: I64, spans: I64, records: I64, totals: I64,
) -> int:  # fmt: skip
    """Run regions one after the other on a chip that is cold at first.

    Args:
        chip: scalars; those of the region are not looked at.
        streams: `[regions, cores, STREAM_COLUMNS]` of `lepton.program.fetch`.
        instructions: `[n + 1, INSTRUCTION_COLUMNS]`, WORK of `lepton.cost` filled in.
        groups: `[groups, GROUP_COLUMNS]`, of all regions.
        table: the program's, of `lepton.isa.records_of`.
        cold: the memories at tick 0; only read.
        bins: profile of the bandwidth.
        spans: `[regions, 2]`, filled in: the cycles at which each begins and ends.
        records: `[n, fields]` of `lepton.trace.RECORD`, filled in but for the operators.
        totals: `[memories, TOTALS]` filled in.

    Returns:
        The first instruction that could not run because of a deadlock, or -1, or `LONGEST` if a
        step would come later than any tick that can be told.
    """
    memories = copied(cold)
    cycle = 0
    for region in range(len(streams)):
        start, stop = streams[region, 0, E_START], streams[region, -1, E_STOP]
        c = _settings_of(chip, start, stop, cycle)
        s = _new_state(c, streams[region], instructions, groups, table, memories, bins)
        _run(c, s)
        end, stuck = _outcome(c, s)
        if stuck != -1:
            return stuck
        # all has retired; now every write leaves
        end = -(-drain_writes(memories, end * c.ticks) // c.ticks)
        fill_records(c, instructions, np.full(c.queues, c.base), records)
        spans[region, 0], spans[region, 1] = cycle, end
        cycle = end
    fill_totals(memories, bins, totals)
    return -1
