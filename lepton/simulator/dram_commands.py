"""The DRAM controller's commands: which is next, and what it does to the banks and their gates.

Kernel arguments: `c` configuration, `m` the channel's block, `f` its filters, `k` the tickets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.jit import njit
from lepton.simulator.dram_banks import (
    delay_banks,
    delay_gates,
    group_of,
    next_of,
    renew,
)
from lepton.simulator.dram_intrinsics import (
    TURN_BITS,
    lowest,
    rotated,
)
from lepton.simulator.dram_queues import (
    entries_of,
    position_of,
    remove,
    row_of,
)
from lepton.simulator.dram_state import (
    ACT,
    ACTIVATE,
    ACTIVATE_GAPS,
    ACTIVATES,
    ACTIVE,
    ALLOWED,
    BANK_FIELDS,
    BANK_STATE,
    BANKS,
    BEST_AT,
    BEST_BANK,
    BEST_KIND,
    COLUMN_RD,
    COLUMN_WR,
    DECIDED,
    DONE,
    DUAL,
    ENTRY_FIELDS,
    FAW_FIELDS,
    FAW_SLOT,
    FAW_TIMES,
    GATES,
    GROUP_BITS,
    HIT,
    HIT_COUNT,
    HIT_LIMIT,
    HITS,
    LATER,
    LINE,
    LINK,
    MAX_BANKS,
    MAX_GROUPS,
    NEXT_AT,
    NEXT_KIND,
    NOTHING,
    OFFERS,
    OPEN,
    POINTER,
    PRE,
    PRECHARGE,
    PRECHARGE_GAPS,
    PRECHARGES,
    RAS,
    RCD_RD,
    RCD_WR,
    READ,
    READ_COMMAND,
    READ_DONE,
    READ_GAPS,
    READS,
    RP,
    RTP,
    SEQUENCES,
    SEVERAL,
    SINGLE,
    STALE,
    TICKET,
    WAITING,
    WINDOW_GAPS,
    WRITE_COMMAND,
    WRITE_GAPS,
    WRITE_PRE,
    WRITES,
)

__all__ = ["command", "consider", "pick", "precharge"]

I64 = NDArray[np.int64]
U16 = NDArray[np.uint16]


@njit(allocates=False, inlined=True)
def _activate(c: I64, m: I64, local: int, t: int) -> int:
    """Open the row of the bank's oldest request; return where the gaps to activations are."""
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
    group = group_of(c, local)
    delay_gates(c, m, ACTIVATE, ACTIVATE_GAPS + group * MAX_GROUPS, t)
    rank = (group >> c[GROUP_BITS]) & (MAX_GROUPS - 1)
    window = FAW_TIMES + rank * FAW_FIELDS
    slot = m[window + FAW_SLOT] & 3
    m[window + slot] = t
    slot = (slot + 1) & 3
    m[window + FAW_SLOT] = slot
    oldest = int(m[window + slot])
    delay_gates(c, m, ACTIVATE, WINDOW_GAPS + group * MAX_GROUPS, oldest)
    delay_banks(c, m, ACTIVATE, WINDOW_GAPS + group * MAX_GROUPS, oldest)
    m[ACTIVATES] += 1
    return ACTIVATE_GAPS + group * MAX_GROUPS


@njit(allocates=False, inlined=True)
def precharge(c: I64, m: I64, local: int, t: int) -> int:
    """Close a bank; return where the gaps to precharges are."""
    b = BANK_STATE + local * BANK_FIELDS
    m[b + OPEN], m[b + HIT], m[b + HIT_COUNT] = -1, 0, 0
    m[b + ACT] = max(m[b + ACT], t + c[RP])
    group = group_of(c, local)
    delay_gates(c, m, PRECHARGE, PRECHARGE_GAPS + group * MAX_GROUPS, t)
    m[PRECHARGES] += 1
    return PRECHARGE_GAPS + group * MAX_GROUPS


@njit(allocates=False, inlined=True)
def _access(c: I64, m: I64, f: U16, k: I64, local: int, is_write: int, t: int) -> int:
    """Do the oldest read (write) of the bank's open row; return where the gaps to its like are."""
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
    m[HITS] += m[b + HIT_COUNT] > 0
    m[b + HIT_COUNT] += 1
    gaps = (WRITE_GAPS if is_write else READ_GAPS) + group_of(c, local) * 2 * MAX_GROUPS
    delay_gates(c, m, READ_COMMAND, gaps, t)
    delay_gates(c, m, WRITE_COMMAND, gaps + MAX_GROUPS, t)
    if is_write:
        delay_banks(c, m, READ_COMMAND, gaps, t)
        return gaps + MAX_GROUPS
    delay_banks(c, m, WRITE_COMMAND, gaps + MAX_GROUPS, t)
    return gaps


@njit(allocates=False, inlined=True)
def _earliest(c: I64, m: I64, local: int, kind: int, t: int) -> int:
    """Return when, from `t` on, a bank with several choices can go on with a kind of command."""
    b = BANK_STATE + local * BANK_FIELDS
    hit, reads = m[b + HIT], m[b + READ]
    gate = GATES + kind * MAX_GROUPS + group_of(c, local)
    if kind == PRECHARGE:
        oldest = m[b + WAITING] & -m[b + WAITING]
        blocked = hit & oldest != 0 or (hit != 0 and m[b + HIT_COUNT] < c[HIT_LIMIT])
        return LATER if blocked else max(m[b + PRE], m[gate], t)
    if kind == READ_COMMAND:
        return max(m[b + COLUMN_RD], m[gate], t) if hit & reads else LATER
    return max(m[b + COLUMN_WR], m[gate], t) if hit & ~reads else LATER


@njit(allocates=False, inlined=True)
def _first_of_several(c: I64, m: I64, local: int, t: int) -> tuple[int, int]:
    """Return when and how the bank can first go on; its older request wins a tie."""
    row = _earliest(c, m, local, PRECHARGE, t)
    read = _earliest(c, m, local, READ_COMMAND, t)
    write = _earliest(c, m, local, WRITE_COMMAND, t)
    if row <= read and row <= write:
        return row, PRECHARGE
    if read != write:
        return (read, READ_COMMAND) if read < write else (write, WRITE_COMMAND)
    b = BANK_STATE + local * BANK_FIELDS
    hit, reads = m[b + HIT], m[b + READ]
    older = lowest(hit & reads) < lowest(hit & ~reads)
    return read, READ_COMMAND if older else WRITE_COMMAND


@njit(allocates=False, inlined=True)
def _first_of_bank(c: I64, m: I64, local: int, t: int) -> tuple[int, int]:
    """Return when, from `t` on, the bank's next command can go, and its kind."""
    kind = m[NEXT_KIND + local]
    if kind == SEVERAL:
        return _first_of_several(c, m, local, t)
    return max(m[NEXT_AT + local], t), kind


@njit(allocates=False, inlined=True)
def _note_best(c: I64, m: I64, last: int, at: int, best: int, t: int) -> None:
    """Pick the first command from `t` on, by turns from the bank after the one served last.

    `at` is when that one can go on, `best` the first of the others but those that have a choice.
    """
    if (m[ALLOWED] >> last) & 1:
        best = min(best, (max(at, t) << TURN_BITS) | ((1 << TURN_BITS) - 1))
    after = last + 1
    turn = rotated(m[ALLOWED] & m[OFFERS + SEVERAL], after)
    while turn:
        place = lowest(turn)
        turn &= turn - 1
        at = _first_of_bank(c, m, (place + after) & (MAX_BANKS - 1), t)[0]
        best = min(best, (at << TURN_BITS) | place)
    local = (best + after) & (MAX_BANKS - 1)
    kind = _first_of_bank(c, m, local, t)[1]
    m[BEST_AT], m[BEST_BANK], m[BEST_KIND], m[STALE] = best >> TURN_BITS, local, kind, 0


@njit(allocates=False, inlined=True)
def _issue(c: I64, m: I64, f: U16, k: I64, local: int, kind: int, t: int, then: int) -> None:
    """Issue the bank's next command; pick another from `then` on."""
    if kind >= READ_COMMAND:
        gaps = _access(c, m, f, k, local, kind - READ_COMMAND, t)
    elif kind == ACTIVATE:
        gaps = _activate(c, m, local, t)
    else:
        gaps = precharge(c, m, local, t)
    banks = m[OFFERS + kind]
    at = next_of(c, m, local)
    best = renew(c, m, banks, gaps, t, local, at, then)
    m[STALE] = 1
    if not c[SINGLE]:
        _note_best(c, m, local, at, best, then)


@njit(allocates=False, inlined=True)
def _pick_in_turn(c: I64, m: I64, t: int) -> None:
    """Find the first command from `t` on; banks take turns from the one after the last served."""
    last = int(m[POINTER] & (MAX_BANKS - 1))
    at = int(m[NEXT_AT + last])
    _note_best(c, m, last, at, renew(c, m, 0, READ_GAPS, 0, last, at, t), t)


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
        for kind in range(SEVERAL):
            at, only = LATER, m[NEXT_KIND + local]
            if only == SEVERAL and kind != ACTIVATE:
                at = _earliest(c, m, local, kind, t)
            elif only == kind:
                at = _first_of_bank(c, m, local, t)[0]
            if at >= LATER:
                continue
            age = _age(c, m, local, kind) + (LATER if kind < READ_COMMAND else 0)
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
    if c[SINGLE] or (local == m[BEST_BANK] and m[BEST_AT] < LATER):
        m[STALE] = 1
    elif (m[ALLOWED] >> local) & 1:
        at, kind = _first_of_bank(c, m, local, t)
        last, wrap = m[POINTER] + 1, c[BANKS] - 1
        sooner = ((local - last) & wrap) < ((m[BEST_BANK] - last) & wrap)
        if at < m[BEST_AT] or (at == m[BEST_AT] and sooner):
            m[BEST_AT], m[BEST_BANK], m[BEST_KIND] = at, local, kind


@njit(allocates=False, inlined=True)
def command(c: I64, m: I64, f: U16, k: I64, first: int, t: int) -> int:
    """Issue the picked command if it is ready and may follow `first` in the cycle.

    Return its kind, or `NOTHING`.
    """
    if m[BEST_AT] > t:
        return NOTHING
    local, kind = m[BEST_BANK] & (MAX_BANKS - 1), m[BEST_KIND]
    m[POINTER], m[STALE] = local, 1
    if first == NOTHING or (kind < READ_COMMAND) != (first < READ_COMMAND):
        then = t if first == NOTHING and c[DUAL] else t + 1
        _issue(c, m, f, k, local, kind, t, then)
    return kind
