"""The DRAM controller: FR-FCFS over bank queues, event-driven; docs/timing.md, "DRAM controller".

Each channel has its own clock, in DRAM cycles, and never runs ahead of what its caller allows:
`advance` runs all its cycles before a limit, `accept` takes a request at the channel's cycle, and
a request's completion is known, in `done`, once its column command is issued. Bit masks stand for
sets of banks and of queue positions; a queue's positions are in order of age.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.jit import njit
from lepton.simulator.dram_queues import (
    accept, has_room, offer_bank, remove, row_of, schedule, wants_schedule,
)
from lepton.simulator.dram_state import (
    ACT, ACTIVATES, ACTIVE, BANKS, BEST_AT, BEST_BANK, BEST_KIND, CLOCK, COLUMN_RD, COLUMN_WR,
    COUNT, DUAL, FAW, GATE, GROUPS, HIT, HIT_COUNT, HITS, LATER, OPEN, PER_GROUP, POINTER, PRE,
    PRECHARGES, QUEUE, RANKS, RAS, RCD_RD, RCD_WR, READ, READ_AT, READ_DONE, READS, REFI,
    REFRESHES, REFRESHING, RFC, ROW_AT, ROW_GATE, RP, RTP, SINGLE, STALE, WAITING, WRITE_AT,
    WRITE_PRE, WRITES, ControllerState, lowest,
)  # fmt: skip

__all__ = ["accept", "advance", "has_room", "next_event", "run_cycle"]

I64 = NDArray[np.int64]

ROW_COMMAND, READ_COMMAND, WRITE_COMMAND = range(3)


@njit
def _raise_gates(s: ControllerState, ch: int, offset: int, count: int, gaps: I64, row: int, t: int) -> None:
    for g in range(count):
        earliest = t + gaps[row, g]
        if earliest > s.gates[ch, offset + g]:
            s.gates[ch, offset + g] = earliest


@njit
def _activate(s: ControllerState, ch: int, b: int, t: int) -> None:
    """Open the row of the bank's oldest request."""
    c = s.configuration
    row = row_of(s, s.lines[b, lowest(s.banks[b, WAITING])])
    hit, waiting = 0, s.banks[b, WAITING]
    while waiting:
        at = lowest(waiting)
        hit |= (row_of(s, s.lines[b, at]) == row) << at
        waiting &= waiting - 1
    s.banks[b, OPEN], s.banks[b, HIT] = row, hit
    s.banks[b, COLUMN_RD], s.banks[b, COLUMN_WR] = t + c[RCD_RD], t + c[RCD_WR]
    s.banks[b, PRE], s.banks[b, ACT] = t + c[RAS], t + c[RAS] + c[RP]
    groups = c[GROUPS]
    group = s.banks[b, GATE]
    s.banks[b, ROW_GATE] = groups + group
    _raise_gates(s, ch, 0, groups, s.activate, group, t)
    rank_groups = groups // c[RANKS]
    rank = group // rank_groups
    f = ch * c[RANKS] + rank
    slot = s.faw[f, 4]
    s.faw[f, slot] = t
    slot = (slot + 1) & 3
    s.faw[f, 4] = slot
    window = s.faw[f, slot] + c[FAW]
    for g in range(rank * rank_groups, (rank + 1) * rank_groups):
        s.gates[ch, g] = max(s.gates[ch, g], window)
    s.counters[ch, ACTIVATES] += 1


@njit
def _precharge(s: ControllerState, ch: int, b: int, t: int) -> None:
    c = s.configuration
    s.banks[b, OPEN], s.banks[b, HIT], s.banks[b, HIT_COUNT] = -1, 0, 0
    s.banks[b, ACT] = max(s.banks[b, ACT], t + c[RP])
    s.banks[b, ROW_GATE] = s.banks[b, GATE]
    _raise_gates(s, ch, c[GROUPS], c[GROUPS], s.precharge, s.banks[b, GATE], t)
    s.counters[ch, PRECHARGES] += 1


@njit
def _access(s: ControllerState, ch: int, local: int, is_write: int, t: int) -> None:
    """Do the oldest read (write) of the bank's open row."""
    c = s.configuration
    b = ch * c[BANKS] + local
    wanted = s.banks[b, HIT]
    wanted &= ~s.banks[b, READ] if is_write else s.banks[b, READ]
    at = lowest(wanted)
    if not is_write:
        ticket = s.tickets[b, at]
        while ticket >= 0:
            s.done[ticket] = t + c[READ_DONE]
            ticket = s.link[ticket]
    remove(s, ch, local, at)
    s.banks[b, PRE] = max(s.banks[b, PRE], t + (c[WRITE_PRE] if is_write else c[RTP]))
    s.counters[ch, WRITES if is_write else READS] += 1
    s.counters[ch, HITS] += s.banks[b, HIT_COUNT] > 0
    s.banks[b, HIT_COUNT] += 1
    groups = c[GROUPS]
    _raise_gates(s, ch, 2 * groups, 2 * groups, s.column, is_write * groups + s.banks[b, GATE], t)


@njit
def _issue(s: ControllerState, ch: int, local: int, kind: int, t: int) -> None:
    """Issue a bank's next command of a kind."""
    b = ch * s.configuration[BANKS] + local
    if kind != ROW_COMMAND:
        _access(s, ch, local, kind == WRITE_COMMAND, t)
    elif s.banks[b, OPEN] < 0:
        _activate(s, ch, b, t)
    else:
        _precharge(s, ch, b, t)
    offer_bank(s, b)
    s.channels[ch, STALE] = 1


@njit
def _first(s: ControllerState, ch: int, b: int, t: int) -> tuple[int, int]:
    """Return when, from `t` on, the bank's next command can go, and its kind."""
    groups = s.configuration[GROUPS]
    gate = 2 * groups + s.banks[b, GATE]
    row = max(s.banks[b, ROW_AT], s.gates[ch, s.banks[b, ROW_GATE]], t)
    read = max(s.banks[b, READ_AT], s.gates[ch, gate], t)
    write = max(s.banks[b, WRITE_AT], s.gates[ch, gate + groups], t)
    if row <= read and row <= write:
        return row, ROW_COMMAND
    if read != write:
        return (read, READ_COMMAND) if read < write else (write, WRITE_COMMAND)
    hit, reads = s.banks[b, HIT], s.banks[b, READ]
    older = lowest(hit & reads) < lowest(hit & ~reads)
    return read, READ_COMMAND if older else WRITE_COMMAND


@njit
def _allowed(s: ControllerState, ch: int) -> int:
    """Return the banks that have requests and wait for no refresh."""
    c = s.configuration
    rank = s.channels[ch, REFRESHING]
    active = s.channels[ch, ACTIVE]
    if rank < 0:
        return active
    per_rank = c[BANKS] // c[RANKS]
    if c[RANKS] == 1:
        return 0
    return active & ~(((1 << per_rank) - 1) << (rank * per_rank))


@njit
def _pick_in_turn(s: ControllerState, ch: int, t: int) -> None:
    """Find the first command from `t` on; banks take turns from the one after the last served."""
    base = ch * s.configuration[BANKS]
    allowed = _allowed(s, ch)
    after = allowed & (-2 << s.channels[ch, POINTER])
    best, bank, best_kind = LATER, 0, 0
    for turn in (after, allowed ^ after):
        while turn:
            local = lowest(turn)
            turn &= turn - 1
            at, kind = _first(s, ch, base + local, t)
            if at < best:
                best, bank, best_kind = at, local, kind
                if at == t:
                    turn = 0
                    after = allowed
        if best == t:
            break
    s.channels[ch, BEST_AT], s.channels[ch, BEST_BANK] = best, bank
    s.channels[ch, BEST_KIND] = best_kind
    s.channels[ch, STALE] = 0


@njit
def _oldest(s: ControllerState, b: int, kind: int) -> int:
    """Return the age number of the request that the command is for."""
    candidates = s.banks[b, WAITING]
    if kind == READ_COMMAND:
        candidates = s.banks[b, HIT] & s.banks[b, READ]
    elif kind == WRITE_COMMAND:
        candidates = s.banks[b, HIT] & ~s.banks[b, READ]
    return s.sequence[b, lowest(candidates)]


@njit
def _pick_oldest(s: ControllerState, ch: int, t: int) -> None:
    """Find the first command from `t` on: column commands before row commands, then by age."""
    c = s.configuration
    base, groups = ch * c[BANKS], c[GROUPS]
    allowed = _allowed(s, ch)
    best, bank, best_kind, best_rank = LATER, 0, 0, 0
    while allowed:
        local = lowest(allowed)
        allowed &= allowed - 1
        b = base + local
        for kind in range(3):
            gate = s.banks[b, ROW_GATE] if kind == 0 else (1 + kind) * groups + s.banks[b, GATE]
            at = max(s.banks[b, ROW_AT + kind], s.gates[ch, gate], t)
            if at > best or at >= LATER:
                continue
            rank = _oldest(s, b, kind) + (LATER if kind == ROW_COMMAND else 0)
            if at < best or rank < best_rank:
                best, bank, best_kind, best_rank = at, local, kind, rank
    s.channels[ch, BEST_AT], s.channels[ch, BEST_BANK] = best, bank
    s.channels[ch, BEST_KIND] = best_kind
    s.channels[ch, STALE] = 0


@njit
def _pick(s: ControllerState, ch: int, t: int) -> None:
    if s.configuration[SINGLE]:
        _pick_oldest(s, ch, t)
    else:
        _pick_in_turn(s, ch, t)


@njit
def _refresh_action(s: ControllerState, ch: int, t: int) -> tuple[int, int]:
    """Return when the waiting refresh can go on, and the bank to precharge, or -1 to refresh."""
    c = s.configuration
    per_rank = c[BANKS] // c[RANKS]
    rank = s.channels[ch, REFRESHES] % c[RANKS]
    begin = ch * c[BANKS] + rank * per_rank
    at, bank, ready = LATER, -1, t
    for b in range(begin, begin + per_rank):
        if s.banks[b, OPEN] >= 0:
            close = max(s.banks[b, PRE], s.gates[ch, s.banks[b, ROW_GATE]], t)
            if close < at:
                at, bank = close, b
        else:
            ready = max(ready, s.banks[b, ACT])
    return (ready, -1) if bank < 0 else (at, bank)


@njit
def _refresh(s: ControllerState, ch: int, bank: int, t: int) -> None:
    """Precharge a bank for the refresh, or do the refresh."""
    c = s.configuration
    s.channels[ch, STALE] = 1
    if bank >= 0:
        _precharge(s, ch, bank, t)
        offer_bank(s, bank)
        return
    per_rank = c[BANKS] // c[RANKS]
    begin = ch * c[BANKS] + (s.channels[ch, REFRESHES] % c[RANKS]) * per_rank
    for b in range(begin, begin + per_rank):
        s.banks[b, ACT] = max(s.banks[b, ACT], t + c[RFC])
        offer_bank(s, b)
    s.channels[ch, REFRESHES] += 1
    s.channels[ch, REFRESHING] = -1


@njit
def next_event(s: ControllerState, ch: int) -> int:
    """Return the channel's next cycle in which anything happens."""
    clock = s.channels[ch, CLOCK]
    if wants_schedule(s, ch):
        return clock
    if s.channels[ch, REFRESHING] >= 0:
        at = _refresh_action(s, ch, clock)[0]
    else:
        at = max(clock, (s.channels[ch, REFRESHES] + 1) * s.configuration[REFI] - 1)
    if s.channels[ch, STALE]:
        _pick(s, ch, clock)
    return min(at, s.channels[ch, BEST_AT])


@njit
def _second_command(s: ControllerState, ch: int, first: int, t: int) -> None:
    """Use the other command bus: a row command beside a column command or the reverse."""
    _pick(s, ch, t)
    if s.channels[ch, BEST_AT] <= t:
        kind = s.channels[ch, BEST_KIND]
        s.channels[ch, POINTER] = s.channels[ch, BEST_BANK]
        s.channels[ch, STALE] = 1
        if (kind == ROW_COMMAND) != (first == ROW_COMMAND):
            _issue(s, ch, s.channels[ch, BEST_BANK], kind, t)


@njit
def run_cycle(s: ControllerState, ch: int, t: int) -> None:
    """Run one cycle: a refresh or another command, then a move into a bank's queue."""
    kind = -1
    if s.channels[ch, REFRESHING] < 0 and t >= (s.channels[ch, REFRESHES] + 1) * s.configuration[REFI] - 1:
        s.channels[ch, REFRESHING] = s.channels[ch, REFRESHES] % s.configuration[RANKS]
        s.channels[ch, STALE] = 1
    if s.channels[ch, REFRESHING] >= 0:
        at, bank = _refresh_action(s, ch, t)
        if at <= t:
            _refresh(s, ch, bank, t)
            kind = ROW_COMMAND
    if kind < 0:
        if s.channels[ch, STALE]:
            _pick(s, ch, t)
        if s.channels[ch, BEST_AT] <= t:
            kind = s.channels[ch, BEST_KIND]
            s.channels[ch, POINTER] = s.channels[ch, BEST_BANK]
            _issue(s, ch, s.channels[ch, BEST_BANK], kind, t)
    if kind >= 0 and s.configuration[DUAL]:
        _second_command(s, ch, kind, t)
    if not s.configuration[SINGLE] and schedule(s, ch) >= 0:
        s.channels[ch, STALE] = 1
    s.channels[ch, CLOCK] = t + 1


@njit
def advance(s: ControllerState, ch: int, limit: int) -> None:
    """Run the channel's cycles before `limit`."""
    while True:
        t = next_event(s, ch)
        if t >= limit:
            break
        run_cycle(s, ch, t)
    s.channels[ch, CLOCK] = max(s.channels[ch, CLOCK], limit)
