"""Channels of the DRAMs as actors of the timing kernel. See docs/timing.md, 14.

A channel for which no access waits or is under way has no next step: what its controller would do
on its own (refresh, draining writes) is caught up with when the next access comes.
"""

from __future__ import annotations

from lepton.jit import njit
from lepton.simulator.dram_controller import (
    channel_of,
    next_cycle,
    run,
    run_cycle,
    upcoming,
)
from lepton.simulator.dram_queues import enter, room
from lepton.simulator.dram_state import (
    ACTIVE,
    CLOCK,
    COUNT,
    DECIDED,
    DONE,
    FLUSH,
    LINE_MASK,
    LINK,
    QUEUE_FIELDS,
    QUEUES,
)
from lepton.simulator.kernel_state import NEVER, Settings, State, finish_request
from lepton.simulator.memories import (
    A_ADDRESS,
    A_ARRIVAL,
    A_IS_WRITE,
    A_NEXT,
    ACCESS,
    C_CYCLE,
    C_DRAM,
    C_HEAD,
    C_OPEN,
    C_TAIL,
    C_TICKS,
    FIRST_CHANNEL,
    MemoryState,
)

__all__ = ["drain_writes", "send_accesses", "step_channel"]


@njit(allocates=False, inlined=True)
def _channel_ahead(c: Settings, s: State, ch: int, cycle: int) -> None:
    """Set the tick of a channel's next step; left alone, it does something in `cycle`."""
    r = s.memories
    if r.channels[ch, C_OPEN] == 0:
        s.next[c.first_channel + ch] = NEVER
        return
    configuration, m, f = r.configurations[r.channels[ch, C_DRAM]], r.blocks[ch], r.filters[ch]
    ticks, head = r.channels[ch, C_TICKS], r.channels[ch, C_HEAD]
    if head >= 0:
        line = r.accesses[head, A_ADDRESS] & configuration[LINE_MASK]
        earliest = max(r.accesses[head, A_ARRIVAL], m[CLOCK])
        if earliest < cycle and room(configuration, m, f, line, r.accesses[head, A_IS_WRITE]):
            cycle = earliest
    r.channels[ch, C_CYCLE] = cycle
    s.next[c.first_channel + ch] = cycle * ticks


@njit(allocates=False, inlined=True)
def send_accesses(
    c: Settings, s: State, tag: int, first: int, m: int, address: int, size: int, is_write: int,
    tick: int,
) -> int:  # fmt: skip
    """Queue the accesses of a request at their channels; return how many there are.

    Args:
        c: scalars.
        s: state.
        tag: of the request.
        first: accesses that the tag has already.
        m: the memory, a DRAM.
        address: first byte.
        size: bytes.
        is_write: 1 or 0.
        tick: of arrival.
    """
    r = s.memories
    access = r.memories[m, ACCESS]
    begin = r.memories[m, FIRST_CHANNEL]
    configuration = r.configurations[r.channels[begin, C_DRAM]]
    ticks = r.channels[begin, C_TICKS]
    arrival = (tick + ticks - 1) // ticks
    at = address & configuration[LINE_MASK]
    ticket = tag * r.parts + first
    while at < address + size:
        ch = begin + channel_of(configuration, at)
        r.accesses[ticket, A_ADDRESS], r.accesses[ticket, A_IS_WRITE] = at, is_write
        r.accesses[ticket, A_ARRIVAL], r.accesses[ticket, A_NEXT] = arrival, -1
        if r.channels[ch, C_HEAD] < 0:
            r.channels[ch, C_HEAD] = ticket
        else:
            r.accesses[r.channels[ch, C_TAIL], A_NEXT] = ticket
        r.channels[ch, C_TAIL] = ticket
        r.channels[ch, C_OPEN] += 1
        if r.channels[ch, C_OPEN] == 1:
            # what it would have done while it slept, its steps catch up with
            clock = r.blocks[ch, CLOCK]
            cycle = min(upcoming(configuration, r.blocks[ch]), max(arrival, clock))
            r.channels[ch, C_CYCLE] = cycle
            s.next[c.first_channel + ch] = cycle * ticks
        elif r.channels[ch, C_HEAD] == ticket:
            _channel_ahead(c, s, ch, upcoming(configuration, r.blocks[ch]))
        ticket += 1
        at += access
    return ticket - tag * r.parts - first


@njit(allocates=False, inlined=True)
def _accept(c: Settings, s: State, ch: int, cycle: int) -> bool:
    """Let the oldest waiting access in, if it has arrived and there is room; tell if it is done."""
    r = s.memories
    ticket = r.channels[ch, C_HEAD]
    if ticket < 0 or r.accesses[ticket, A_ARRIVAL] > cycle:
        return False
    configuration, m, f = r.configurations[r.channels[ch, C_DRAM]], r.blocks[ch], r.filters[ch]
    line = r.accesses[ticket, A_ADDRESS] & configuration[LINE_MASK]
    is_write = r.accesses[ticket, A_IS_WRITE]
    if not room(configuration, m, f, line, is_write):
        return False
    enter(configuration, m, f, r.tickets, line, is_write, ticket)
    r.channels[ch, C_HEAD] = r.accesses[ticket, A_NEXT]
    if r.tickets[ticket, DONE] < 0:
        return False
    _finish(c, s, ch, ticket)
    return True


@njit(allocates=False, inlined=True)
def _finish(c: Settings, s: State, ch: int, ticket: int) -> None:
    """Take note of an access's completion."""
    r = s.memories
    r.channels[ch, C_OPEN] -= 1
    tick = r.tickets[ticket, DONE] * r.channels[ch, C_TICKS]
    finish_request(c, s, ticket // r.parts, (tick + c.ticks - 1) // c.ticks)


@njit(allocates=False, inlined=True)
def step_channel(c: Settings, s: State, ch: int, tick: int, limit: int) -> bool:
    """Run a channel from a tick on, before `limit` and until it has news; tell if it has."""
    r = s.memories
    configuration, m, f = r.configurations[r.channels[ch, C_DRAM]], r.blocks[ch], r.filters[ch]
    while tick < limit:
        now = r.channels[ch, C_CYCLE]
        m[CLOCK] = now
        has_news = _accept(c, s, ch, now)
        run_cycle(configuration, m, f, r.tickets, now)
        m[CLOCK] = now + 1
        ticket = m[DECIDED]
        m[DECIDED] = -1
        while ticket >= 0:
            # finishing may begin another request, which takes the ticket over
            following = r.tickets[ticket, LINK]
            _finish(c, s, ch, ticket)
            ticket = following
            has_news = True
        _channel_ahead(c, s, ch, next_cycle(configuration, m))
        tick = s.next[c.first_channel + ch]
        if has_news:
            return True
    return False


@njit(allocates=False, inlined=True)
def drain_writes(r: MemoryState, tick: int) -> int:
    """Write out the queues of all channels from a tick on; return the tick of the last command."""
    end = tick
    for ch in range(len(r.channels)):
        configuration, m, f = r.configurations[r.channels[ch, C_DRAM]], r.blocks[ch], r.filters[ch]
        ticks = r.channels[ch, C_TICKS]
        limit = (tick + ticks - 1) // ticks
        while True:
            run(configuration, m, f, r.tickets, limit, -1, 0)
            if m[FLUSH] != 0:
                end = max(end, m[CLOCK] * ticks)
            m[FLUSH] = 1
            if m[ACTIVE] == 0 and m[QUEUES + QUEUE_FIELDS + COUNT] == 0:
                break
            limit = next_cycle(configuration, m) + 1
        m[FLUSH] = 0
    return end
