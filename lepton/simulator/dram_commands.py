"""The DRAM controller's commands: which is next, and what it does to the banks and their gates.

Kernel arguments: `c` configuration, `m` the channel's block, `f` its filters, `k` the tickets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.jit import njit
from lepton.simulator.dram_intrinsics import FEW_GROUPS, delay_all, delay_few, lowest, rotated
from lepton.simulator.dram_queues import entries_of, offer, position_of, remove, row_of
from lepton.simulator.dram_state import (
    ACT,
    ACTIVATE_GAPS,
    ACTIVATE_GATE,
    ACTIVATES,
    ACTIVE,
    ALLOWED,
    BANK_BITS,
    BANK_FIELDS,
    BANK_GROUP,
    BANK_STATE,
    BANKS,
    BEST_AT,
    BEST_BANK,
    BEST_KIND,
    CHOOSERS,
    COLUMN_RD,
    COLUMN_WR,
    DECIDED,
    DONE,
    ENTRY_FIELDS,
    FAW_FIELDS,
    FAW_SLOT,
    FAW_TIMES,
    GROUP_BITS,
    GROUPS,
    HIT,
    HIT_COUNT,
    HIT_LIMIT,
    HITS,
    LAST_GROUP,
    LAST_READ,
    LATER,
    LINE,
    LINK,
    MAX_BANKS,
    MAX_GROUPS,
    NEXT_AT,
    NEXT_GATE,
    NEXT_KIND,
    NOTHING,
    OPEN,
    POINTER,
    PRE,
    PRECHARGE_GAPS,
    PRECHARGE_GATE,
    PRECHARGES,
    RAS,
    RCD_RD,
    RCD_WR,
    READ,
    READ_COMMAND,
    READ_DONE,
    READ_GAPS,
    READ_GATE,
    READ_STEPS,
    READS,
    READS_BY,
    RIPE,
    ROW_COMMAND,
    RP,
    RTP,
    SEQUENCES,
    SEVERAL,
    SINGLE,
    STALE,
    STEPS,
    TICKET,
    TURN_BITS,
    WAITING,
    WAKE,
    WAKE_OTHERS,
    WINDOW_GAPS,
    WRITE_COMMAND,
    WRITE_GAPS,
    WRITE_GATE,
    WRITE_PRE,
    WRITE_READ,
    WRITES,
)

__all__ = ["command", "consider", "pick", "precharge"]

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]


@njit(allocates=False, inlined=True)
def _delay(c: I64, m: I64, gate: int, gaps: int, t: int) -> None:
    """Delay the gates of all bank groups from `gate` on to `t` plus the gaps there."""
    if c[GROUPS] <= FEW_GROUPS:
        delay_few(m, gate, c, gaps, t)
    else:
        delay_all(m, gate, c, gaps, t)


@njit(allocates=False, inlined=True)
def _activate(c: I64, m: I64, local: int, t: int) -> None:
    """Open the row of the bank's oldest request."""
    b = BANK_STATE + local * BANK_FIELDS
    entry = entries_of(c, local)
    waiting = m[b + WAITING]
    row = row_of(c, m[entry + lowest(waiting) * ENTRY_FIELDS + LINE])
    hit = 0
    while waiting:
        at = lowest(waiting)
        if row_of(c, m[entry + at * ENTRY_FIELDS + LINE]) == row:
            hit |= 1 << at
        waiting &= waiting - 1
    m[b + OPEN], m[b + HIT] = row, hit
    m[b + COLUMN_RD], m[b + COLUMN_WR] = t + c[RCD_RD], t + c[RCD_WR]
    m[b + PRE], m[b + ACT] = t + c[RAS], t + c[RAS] + c[RP]
    group = m[b + BANK_GROUP] & (MAX_GROUPS - 1)
    _delay(c, m, ACTIVATE_GATE, ACTIVATE_GAPS + group * MAX_GROUPS, t)
    rank = (group >> c[GROUP_BITS]) & (MAX_GROUPS - 1)
    window = FAW_TIMES + rank * FAW_FIELDS
    slot = m[window + FAW_SLOT] & 3
    m[window + slot] = t
    slot = (slot + 1) & 3
    m[window + FAW_SLOT] = slot
    oldest = int(m[window + slot])
    _delay(c, m, ACTIVATE_GATE, WINDOW_GAPS + group * MAX_GROUPS, oldest)
    m[ACTIVATES] += 1


@njit(allocates=False, inlined=True)
def precharge(c: I64, m: I64, b: int, t: int) -> None:
    """Close a bank."""
    m[b + OPEN], m[b + HIT], m[b + HIT_COUNT] = -1, 0, 0
    m[b + ACT] = max(m[b + ACT], t + c[RP])
    group = m[b + BANK_GROUP] & (MAX_GROUPS - 1)
    _delay(c, m, PRECHARGE_GATE, PRECHARGE_GAPS + group * MAX_GROUPS, t)
    m[PRECHARGES] += 1


@njit(allocates=False, inlined=True)
def _note_column(c: I64, m: I64, group: int, is_write: int, t: int) -> None:
    """Note a column command; the gaps of a read are its gates if no earlier one lies beyond."""
    if is_write:
        m[LAST_GROUP] = -1
        m[READS_BY] = max(m[READS_BY], t + c[WRITE_READ])
        return
    least = READ_STEPS + group * 2 * STEPS
    most = least + 2 * (STEPS - 1)
    m[LAST_READ] = t
    m[LAST_GROUP] = group if m[READS_BY] <= t + c[least] else -1
    m[READS_BY] = max(m[READS_BY], t + c[most])


@njit(allocates=False, inlined=True)
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
        ticket = m[entries_of(c, local) + at * ENTRY_FIELDS + TICKET]
        m[DECIDED] = ticket
        while ticket >= 0:
            k[ticket, DONE] = t + c[READ_DONE]
            ticket = k[ticket, LINK]
    remove(c, m, f, local, at, is_write)
    _note_column(c, m, m[b + BANK_GROUP] & (MAX_GROUPS - 1), is_write, t)
    m[HITS] += m[b + HIT_COUNT] > 0
    m[b + HIT_COUNT] += 1
    gaps = (WRITE_GAPS if is_write else READ_GAPS) + (
        m[b + BANK_GROUP] & (MAX_GROUPS - 1)
    ) * 2 * MAX_GROUPS
    _delay(c, m, READ_GATE, gaps, t)
    _delay(c, m, WRITE_GATE, gaps + MAX_GROUPS, t)


@njit(allocates=False, inlined=True)
def _issue(c: I64, m: I64, f: U8, k: I64, local: int, kind: int, t: int) -> None:
    """Issue the bank's next command."""
    b = BANK_STATE + local * BANK_FIELDS
    if kind != ROW_COMMAND:
        _access(c, m, f, k, local, kind - READ_COMMAND, t)
    elif m[b + OPEN] < 0:
        _activate(c, m, local, t)
    else:
        precharge(c, m, b, t)
    m[WAKE] = m[WAKE_OTHERS]
    offer(c, m, local)
    m[STALE] = 1


@njit(allocates=False, inlined=True)
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


@njit(allocates=False, inlined=True)
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


@njit(allocates=False, inlined=True)
def _first_of_bank(c: I64, m: I64, local: int, t: int) -> tuple[int, int]:
    """Return when, from `t` on, the bank's next command can go, and its kind."""
    kind = m[NEXT_KIND + local]
    if kind == SEVERAL:
        return _first_of_several(c, m, BANK_STATE + local * BANK_FIELDS, t)
    return max(m[NEXT_AT + local], m[m[NEXT_GATE + local]], t), kind


@njit(allocates=False, inlined=True)
def _first_ripe(c: I64, m: I64, ripe: int, after: int, t: int) -> int:
    """Return the least of cycle and turn, in one number, of the banks that wait for gates only.

    They offer reads of open rows, so one look per bank group is enough.
    """
    best = LATER << TURN_BITS
    bits = c[BANK_BITS] & 7
    group_mask = (1 << (1 << bits)) - 1
    if m[LAST_GROUP] >= 0:
        step = READ_STEPS + (m[LAST_GROUP] & (MAX_GROUPS - 1)) * 2 * STEPS
        for _ in range(STEPS):
            mine = ripe & c[step + 1]
            if mine:
                at = m[LAST_READ] + c[step]
                if at < t:
                    break
                return int((at << TURN_BITS) | lowest(rotated(int(mine), after)))
            step += 2
    while ripe:
        group = lowest(ripe) >> bits
        mine = ripe & (group_mask << (group << bits))
        ripe ^= mine
        at = max(m[READ_GATE + (group & (MAX_BANKS - 1))], t)
        best = min(best, (at << TURN_BITS) | lowest(rotated(mine, after)))
    return int(best)


@njit(allocates=False, inlined=True)
def _first_to_wake(m: I64, banks: int, after: int, t: int) -> int:
    """Return the least of cycle and turn of banks with one next command; note which got ripe."""
    best = second = LATER << TURN_BITS
    ripe = m[RIPE]
    turn = rotated(banks, after)
    # cycle and turn in one number: the loop has no branch to mispredict
    while turn:
        place = lowest(turn)
        turn &= turn - 1
        local = (place + after) & (MAX_BANKS - 1)
        own, gate = m[NEXT_AT + local], m[m[NEXT_GATE + local] & (BANK_STATE - 1)]
        key = (max(own, gate, t) << TURN_BITS) | place
        best, second = min(best, key), min(second, max(best, key))
        ripe |= ((m[NEXT_KIND + local] == READ_COMMAND) & (own <= t)) << local
    m[RIPE], m[WAKE], m[WAKE_OTHERS] = ripe, best >> TURN_BITS, second >> TURN_BITS
    return int(best)


@njit(allocates=False, inlined=True)
def _pick_in_turn(c: I64, m: I64, t: int) -> None:
    """Find the first command from `t` on; banks take turns from the one after the last served."""
    after = m[POINTER] + 1
    allowed = m[ACTIVE] & m[ALLOWED]
    ripe = m[RIPE]
    best = _first_ripe(c, m, allowed & ripe, after, t)
    waker = LATER << TURN_BITS
    if best >> TURN_BITS >= m[WAKE]:
        waker = _first_to_wake(m, allowed & ~(m[CHOOSERS] | ripe), after, t)
        best = min(best, waker)
    turn = rotated(allowed & m[CHOOSERS], after)
    while turn:
        place = lowest(turn)
        turn &= turn - 1
        at = _first_of_bank(c, m, (place + after) & (MAX_BANKS - 1), t)[0]
        best = min(best, (at << TURN_BITS) | place)
    if best != waker:
        m[WAKE_OTHERS] = m[WAKE]
    local = (best + after) & (MAX_BANKS - 1)
    kind = _first_of_bank(c, m, local, t)[1]
    m[BEST_AT], m[BEST_BANK], m[BEST_KIND], m[STALE] = best >> TURN_BITS, local, kind, 0


@njit(allocates=False, inlined=True)
def _age(c: I64, m: I64, local: int, kind: int) -> int:
    """Return the number in order of arrival of the request that a bank's command is for."""
    b = BANK_STATE + local * BANK_FIELDS
    requests = m[b + WAITING]
    if kind == READ_COMMAND:
        requests = m[b + HIT] & m[b + READ]
    elif kind == WRITE_COMMAND:
        requests = m[b + HIT] & ~m[b + READ]
    return int(m[c[SEQUENCES] + position_of(c, local) + lowest(requests)])


@njit(allocates=False, inlined=True)
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


@njit(allocates=False, inlined=True)
def pick(c: I64, m: I64, t: int) -> None:
    """Find the first command that can be issued from `t` on."""
    if c[SINGLE]:
        _pick_oldest(c, m, t)
    else:
        _pick_in_turn(c, m, t)


@njit(allocates=False, inlined=True)
def consider(c: I64, m: I64, local: int, t: int) -> None:
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
            m[WAKE_OTHERS] = m[WAKE]


@njit(allocates=False, inlined=True)
def command(c: I64, m: I64, f: U8, k: I64, first: int, t: int) -> int:
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
