"""The DRAM controller: FR-FCFS over bank queues, event-driven; docs/timing.md, "DRAM controller".

Each channel has its own clock, in DRAM cycles, and never runs ahead of what its caller allows:
`advance` runs all its cycles before a limit, `accept` takes a request at the channel's clock, and
the cycle of a request's completion is known once its column command is issued.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.jit import njit_borrowing
from lepton.simulator.dram_queues import enter, offer, remove, room, row_of, schedule, starts_drain
from lepton.simulator.dram_state import (
    ACT, ACTIVATES, ACTIVE, ALLOWED, BANK_FIELDS, BANK_GROUP, BANK_STATE, BANKS, BEST_AT,
    BEST_BANK, BEST_KIND, CHANNEL, CLOCK, COLUMN_RD, COLUMN_WR, DONE, DRAIN, DUAL, ELIGIBLE,
    FAW, FAW_FIELDS, FAW_SLOT, FAW_TIMES, FLUSH, GROUP_BITS, CHOOSERS, NEXT_AT, NEXT_GATE, NEXT_KIND, TURN_BITS, MAX_GROUPS, MAX_BANKS, READ_GATE, ACTIVATE_GATE, PRECHARGE_GATE, READ_GAPS, WRITE_GAPS, ACTIVATE_GAPS, PRECHARGE_GAPS, delay_rows, delay_columns, rotated, HIT, HIT_COUNT, HIT_LIMIT, HITS,
    LATER, LINE_MASK, LINES, LINK, MASK, NOTHING, OPEN, PER_RANK, POINTER, POSITION_BITS,
    PRE, PRECHARGES, QUEUE_FIELDS, QUEUES, RANK_GROUPS, RANKS, RAS, RCD_RD, RCD_WR, READ,
    READ_COMMAND, READ_DONE, READS, REFI, REFRESH_AT, REFRESHES, REFRESHING, RFC, ROW_COMMAND, RP,
    RTP, SEQUENCES, SEVERAL, SHIFT, SINGLE, STALE, TICKETS, WAITING, WRITE_COMMAND, WRITE_PRE,
    WRITES, ControllerState, lowest,
)  # fmt: skip

__all__ = ["accept", "advance", "advance_until_room", "channel_of", "flush", "next_event"]

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]


@njit_borrowing
def _activate(c: I64, m: I64, local: int, t: int) -> None:
    """Open the row of the bank's oldest request."""
    b = BANK_STATE + local * BANK_FIELDS
    entry = LINES + (local << c[POSITION_BITS])
    waiting = m[b + WAITING]
    row = row_of(c, m[entry + lowest(waiting)])
    hit = 0
    while waiting:
        at = lowest(waiting)
        if row_of(c, m[entry + at]) == row:
            hit |= 1 << at
        waiting &= waiting - 1
    m[b + OPEN], m[b + HIT] = row, hit
    m[b + COLUMN_RD], m[b + COLUMN_WR] = t + c[RCD_RD], t + c[RCD_WR]
    m[b + PRE], m[b + ACT] = t + c[RAS], t + c[RAS] + c[RP]
    group = m[b + BANK_GROUP] & (MAX_GROUPS - 1)
    delay_rows(m, ACTIVATE_GATE, c, ACTIVATE_GAPS + group * MAX_GROUPS, t)
    rank = group >> c[GROUP_BITS]
    window = FAW_TIMES + rank * FAW_FIELDS
    m[window + m[window + FAW_SLOT]] = t
    m[window + FAW_SLOT] = (m[window + FAW_SLOT] + 1) & 3
    earliest = m[window + m[window + FAW_SLOT]] + c[FAW]
    begin = ACTIVATE_GATE + (rank << c[GROUP_BITS])
    for g in range(begin, begin + c[RANK_GROUPS]):
        m[g] = max(m[g], earliest)
    m[ACTIVATES] += 1


@njit_borrowing
def _precharge(c: I64, m: I64, b: int, t: int) -> None:
    """Close a bank."""
    m[b + OPEN], m[b + HIT], m[b + HIT_COUNT] = -1, 0, 0
    m[b + ACT] = max(m[b + ACT], t + c[RP])
    group = m[b + BANK_GROUP] & (MAX_GROUPS - 1)
    delay_rows(m, PRECHARGE_GATE, c, PRECHARGE_GAPS + group * MAX_GROUPS, t)
    m[PRECHARGES] += 1


@njit_borrowing
def _access(c: I64, m: I64, f: U8, k: I64, local: int, is_write: int, t: int) -> None:
    """Do the oldest read (write) of the bank's open row."""
    b = BANK_STATE + local * BANK_FIELDS
    at = lowest(m[b + HIT] & (~m[b + READ] if is_write else m[b + READ]))
    if is_write:
        m[WRITES] += 1
        m[b + PRE] = max(m[b + PRE], t + c[WRITE_PRE])
    else:
        m[READS] += 1
        m[b + PRE] = max(m[b + PRE], t + c[RTP])
        ticket = m[TICKETS + (local << c[POSITION_BITS]) + at]
        while ticket >= 0:
            k[ticket, DONE] = t + c[READ_DONE]
            ticket = k[ticket, LINK]
    remove(c, m, f, local, at, is_write)
    m[HITS] += m[b + HIT_COUNT] > 0
    m[b + HIT_COUNT] += 1
    gaps = (WRITE_GAPS if is_write else READ_GAPS) + (m[b + BANK_GROUP] & (MAX_GROUPS - 1)) * 2 * MAX_GROUPS
    delay_columns(m, READ_GATE, c, gaps, t)


@njit_borrowing
def _issue(c: I64, m: I64, f: U8, k: I64, local: int, kind: int, t: int) -> None:
    """Issue the bank's next command."""
    b = BANK_STATE + local * BANK_FIELDS
    if kind != ROW_COMMAND:
        _access(c, m, f, k, local, kind - READ_COMMAND, t)
    elif m[b + OPEN] < 0:
        _activate(c, m, local, t)
    else:
        _precharge(c, m, b, t)
    offer(c, m, local)
    m[STALE] = 1


@njit_borrowing
def _earliest(c: I64, m: I64, b: int, kind: int, t: int) -> int:
    """Return when, from `t` on, a bank with several choices can go on with a kind of command."""
    hit, reads = m[b + HIT], m[b + READ]
    gate = PRECHARGE_GATE + kind * MAX_GROUPS + m[b + BANK_GROUP]
    if kind == ROW_COMMAND:
        oldest = m[b + WAITING] & -m[b + WAITING]
        blocked = hit & oldest != 0 or (hit != 0 and m[b + HIT_COUNT] < c[HIT_LIMIT])
        return LATER if blocked else max(m[b + PRE], m[gate], t)
    if kind == READ_COMMAND:
        return max(m[b + COLUMN_RD], m[gate], t) if hit & reads else LATER
    return max(m[b + COLUMN_WR], m[gate], t) if hit & ~reads else LATER


@njit_borrowing
def _first_of_several(c: I64, m: I64, b: int, t: int) -> tuple[int, int]:
    """Return when and how the bank can first go on; its older request wins a tie."""
    row = _earliest(c, m, b, ROW_COMMAND, t)
    read = _earliest(c, m, b, READ_COMMAND, t)
    write = _earliest(c, m, b, WRITE_COMMAND, t)
    if row <= read and row <= write:
        return row, ROW_COMMAND
    if read != write:
        return (read, READ_COMMAND) if read < write else (write, WRITE_COMMAND)
    hit, reads = m[b + HIT], m[b + READ]
    older = lowest(hit & reads) < lowest(hit & ~reads)
    return read, READ_COMMAND if older else WRITE_COMMAND


@njit_borrowing
def _first_of_bank(c: I64, m: I64, local: int, t: int) -> tuple[int, int]:
    """Return when, from `t` on, the bank's next command can go, and its kind."""
    kind = m[NEXT_KIND + local]
    if kind == SEVERAL:
        return _first_of_several(c, m, BANK_STATE + local * BANK_FIELDS, t)
    return max(m[NEXT_AT + local], m[m[NEXT_GATE + local]], t), kind


@njit_borrowing
def _pick_in_turn(c: I64, m: I64, t: int) -> None:
    """Find the first command from `t` on; banks take turns from the one after the last served."""
    after = m[POINTER] + 1
    allowed = m[ACTIVE] & m[ALLOWED]
    turn = rotated(allowed & ~m[CHOOSERS], after)
    # the least of cycle and turn in one number, so that the loop has no branch to mispredict
    best = LATER << TURN_BITS
    while turn:
        place = lowest(turn)
        turn &= turn - 1
        local = (place + after) & (MAX_BANKS - 1)
        gate = m[m[NEXT_GATE + local] & (BANK_STATE - 1)]
        best = min(best, (max(m[NEXT_AT + local], gate, t) << TURN_BITS) | place)
    turn = rotated(allowed & m[CHOOSERS], after)
    while turn:
        place = lowest(turn)
        turn &= turn - 1
        at = _first_of_bank(c, m, (place + after) & (MAX_BANKS - 1), t)[0]
        best = min(best, (at << TURN_BITS) | place)
    local = (best + after) & (MAX_BANKS - 1)
    kind = _first_of_bank(c, m, local, t)[1]
    m[BEST_AT], m[BEST_BANK], m[BEST_KIND], m[STALE] = best >> TURN_BITS, local, kind, 0


@njit_borrowing
def _age(c: I64, m: I64, local: int, kind: int) -> int:
    """Return the number in order of arrival of the request that a bank's command is for."""
    b = BANK_STATE + local * BANK_FIELDS
    requests = m[b + WAITING]
    if kind == READ_COMMAND:
        requests = m[b + HIT] & m[b + READ]
    elif kind == WRITE_COMMAND:
        requests = m[b + HIT] & ~m[b + READ]
    return m[SEQUENCES + (local << c[POSITION_BITS]) + lowest(requests)]


@njit_borrowing
def _pick_oldest(c: I64, m: I64, t: int) -> None:
    """Find the first command from `t` on: column commands before row commands, then by age."""
    allowed = m[ACTIVE] & m[ALLOWED]
    best, bank, best_kind, best_age = LATER, 0, NOTHING, LATER
    while allowed:
        local = lowest(allowed)
        allowed &= allowed - 1
        b = BANK_STATE + local * BANK_FIELDS
        for kind in range(SEVERAL):
            at, only = LATER, m[NEXT_KIND + local]
            if only == SEVERAL:
                at = _earliest(c, m, b, kind, t)
            elif only == kind:
                at = _first_of_bank(c, m, local, t)[0]
            if at >= LATER:
                continue
            age = _age(c, m, local, kind) + (LATER if kind == ROW_COMMAND else 0)
            if at < best or (at == best and age < best_age):
                best, bank, best_kind, best_age = at, local, kind, age
    m[BEST_AT], m[BEST_BANK], m[BEST_KIND], m[STALE] = best, bank, best_kind, 0


@njit_borrowing
def _pick(c: I64, m: I64, t: int) -> None:
    """Find the first command that can be issued from `t` on."""
    if c[SINGLE]:
        _pick_oldest(c, m, t)
    else:
        _pick_in_turn(c, m, t)


@njit_borrowing
def _refresh_step(c: I64, m: I64, t: int) -> tuple[int, int]:
    """Return when, from `t` on, the refresh goes on, and the bank to close or -1 to refresh."""
    begin = m[REFRESHING] * c[PER_RANK]
    at, bank, ready = LATER, -1, t
    for local in range(begin, begin + c[PER_RANK]):
        b = BANK_STATE + local * BANK_FIELDS
        if m[b + OPEN] >= 0:
            close = max(m[b + PRE], m[PRECHARGE_GATE + m[b + BANK_GROUP]], t)
            if close < at:
                at, bank = close, local
        else:
            ready = max(ready, m[b + ACT])
    return (ready, -1) if bank < 0 else (at, bank)


@njit_borrowing
def _begin_refresh(c: I64, m: I64) -> None:
    """Keep the banks of the rank whose refresh is due from serving their queues."""
    rank = m[REFRESHES] % c[RANKS]
    banks = -1 if c[RANKS] == 1 else ((1 << c[PER_RANK]) - 1) << (rank * c[PER_RANK])
    m[REFRESHING], m[ALLOWED], m[STALE] = rank, ~banks, 1


@njit_borrowing
def _refresh(c: I64, m: I64, t: int) -> bool:
    """Go on with the refresh under way; tell if that took the command bus."""
    at, bank = _refresh_step(c, m, t)
    if at > t:
        m[REFRESH_AT] = at
        return False
    m[STALE] = 1
    if bank >= 0:
        _precharge(c, m, BANK_STATE + bank * BANK_FIELDS, t)
        offer(c, m, bank)
        return True
    begin = m[REFRESHING] * c[PER_RANK]
    for local in range(begin, begin + c[PER_RANK]):
        b = BANK_STATE + local * BANK_FIELDS
        m[b + ACT] = max(m[b + ACT], t + c[RFC])
        offer(c, m, local)
    m[REFRESHES] += 1
    m[REFRESHING], m[ALLOWED] = -1, -1
    m[REFRESH_AT] = (m[REFRESHES] + 1) * c[REFI] - 1
    return True


@njit_borrowing
def _consider(c: I64, m: I64, local: int, t: int) -> None:
    """Take a bank's new request into account for the next command from `t` on."""
    if m[STALE]:
        return
    if c[SINGLE] or local == m[BEST_BANK]:
        m[STALE] = 1
    elif (m[ALLOWED] >> local) & 1:
        at, kind = _first_of_bank(c, m, local, t)
        last, wrap = m[POINTER] + 1, c[BANKS] - 1
        sooner = ((local - last) & wrap) < ((m[BEST_BANK] - last) & wrap)
        if at < m[BEST_AT] or (at == m[BEST_AT] and sooner):
            m[BEST_AT], m[BEST_BANK], m[BEST_KIND] = at, local, kind


@njit_borrowing
def _moves(c: I64, m: I64) -> bool:
    """Tell if a transaction can move into a bank's queue now, or a drain begin."""
    drained = QUEUE_FIELDS if m[DRAIN] > 0 else 0
    return m[QUEUES + drained + ELIGIBLE] != 0 or starts_drain(c, m)


@njit_borrowing
def _command(c: I64, m: I64, f: U8, k: I64, first: int, t: int) -> int:
    """Issue the picked command if it is ready and may follow `first` in the cycle.

    Return its kind, or `NOTHING`.
    """
    if m[BEST_AT] > t:
        return NOTHING
    local, kind = m[BEST_BANK] & (MAX_BANKS - 1), m[BEST_KIND]
    m[POINTER], m[STALE] = local, 1
    if first == NOTHING or (kind == ROW_COMMAND) != (first == ROW_COMMAND):
        _issue(c, m, f, k, local, kind, t)
    return kind


@njit_borrowing
def _run(c: I64, m: I64, f: U8, k: I64, limit: int, line: int, is_write: int) -> None:
    """Run the cycles before `limit`, and on until there is room for a request if `line` >= 0."""
    clock, first = m[CLOCK], NOTHING
    while True:
        if m[STALE]:
            _pick(c, m, clock)
        if first == NOTHING:
            t = clock if _moves(c, m) else max(clock, min(m[BEST_AT], m[REFRESH_AT]))
            if t >= limit and (line < 0 or room(c, m, f, line, is_write)):
                break
            clock = t
            if clock >= m[REFRESH_AT]:
                if m[REFRESHING] < 0:
                    _begin_refresh(c, m)
                    continue
                if _refresh(c, m, clock):
                    first = ROW_COMMAND
            if first == NOTHING:
                first = _command(c, m, f, k, NOTHING, clock)
            if first != NOTHING and c[DUAL]:
                continue
        else:
            _command(c, m, f, k, first, clock)
        if not c[SINGLE]:
            local = schedule(c, m, f)
            if local >= 0:
                _consider(c, m, local, clock + 1)
        clock, first = clock + 1, NOTHING
    m[CLOCK] = max(clock, limit)


@njit_borrowing
def next_event(s: ControllerState, ch: int) -> int:
    """Return the channel's next cycle in which anything happens, with what is queued now."""
    c, m = s.configuration, s.blocks[ch]
    clock = m[CLOCK]
    if m[STALE]:
        _pick(c, m, clock)
    return clock if _moves(c, m) else max(clock, min(m[BEST_AT], m[REFRESH_AT]))


@njit_borrowing
def advance(s: ControllerState, ch: int, limit: int) -> None:
    """Run the channel's cycles before `limit`."""
    _run(s.configuration, s.blocks[ch], s.filters[ch], s.tickets, limit, -1, 0)


@njit_borrowing
def advance_until_room(s: ControllerState, ch: int, limit: int, address: int, is_write: int) -> int:
    """Run the cycles before `limit`, and on until there is room for a request; return the clock."""
    c, m = s.configuration, s.blocks[ch]
    _run(c, m, s.filters[ch], s.tickets, limit, address & c[LINE_MASK], is_write)
    return m[CLOCK]


@njit_borrowing
def accept(s: ControllerState, ch: int, address: int, is_write: int, ticket: int) -> bool:
    """Take a request at the channel's clock; return False if there is no room."""
    c, m, f = s.configuration, s.blocks[ch], s.filters[ch]
    line = address & c[LINE_MASK]
    if not room(c, m, f, line, is_write):
        return False
    enter(c, m, f, s.tickets, line, is_write, ticket)
    return True


@njit_borrowing
def channel_of(s: ControllerState, address: int) -> int:
    """Return the channel of an address."""
    c = s.configuration
    return (address >> c[SHIFT + CHANNEL]) & c[MASK + CHANNEL]


@njit_borrowing
def flush(s: ControllerState, ch: int) -> None:
    """Drain what writes are left, from now on, whenever no other request waits."""
    s.blocks[ch, FLUSH] = 1
