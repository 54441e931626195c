"""The DRAM controller's commands: which is next, and what it does to the banks and their gates.

Kernel arguments: `c` configuration, `m` the channel's block, `f` its filters, `k` the tickets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.jit import njit
from lepton.simulator.dram_banks import (
    delay_gates,
    first_of_all,
    group_of,
    key_of,
    next_of,
    renew,
    since_base,
)
from lepton.simulator.dram_intrinsics import (
    CYCLE_SHIFT,
    KIND_BITS,
    KIND_MASK,
    TURN_MASK,
    key_at,
    likely,
    lowest,
    rotated,
    unlikely,
)
from lepton.simulator.dram_queues import entries_of, position_of, remove, row_of
from lepton.simulator.dram_state import (
    ACT,
    ACTIVATE,
    ACTIVATE_GAPS,
    ACTIVATES,
    ACTIVE,
    BANK_FIELDS,
    BANK_STATE,
    BASE,
    BEST,
    CHOICES,
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
    NEXT,
    NO_COMMAND,
    NOTHING,
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
)

__all__ = ["command", "consider", "pick", "precharge"]

I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]

_MAX_TICKET = (1 << 62) - 1


@njit(allocates=False, inlined=True)
def _activate(c: I64, m: I64, local: int, t: int) -> tuple[int, int, int, int]:
    """Open the row of the bank's oldest request; return what delays the other banks."""
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
    m[ACTIVATES] += 1
    gaps = group * MAX_GROUPS
    now, before = since_base(m, t, ACTIVATE), since_base(m, oldest, ACTIVATE)
    return ACTIVATE_GAPS + gaps, now, WINDOW_GAPS + gaps, before


@njit(allocates=False, inlined=True)
def precharge(c: I64, m: I64, local: int, t: int) -> tuple[int, int, int, int]:
    """Close a bank; return what delays the other banks, twice."""
    b = BANK_STATE + local * BANK_FIELDS
    m[b + OPEN], m[b + HIT], m[b + HIT_COUNT] = -1, 0, 0
    m[b + ACT] = max(m[b + ACT], t + c[RP])
    gaps = PRECHARGE_GAPS + group_of(c, local) * MAX_GROUPS
    delay_gates(c, m, PRECHARGE, gaps, t)
    m[PRECHARGES] += 1
    return gaps, since_base(m, t, PRECHARGE), gaps, since_base(m, t, PRECHARGE)


@njit(allocates=False, inlined=True)
def _access(
    c: I64, m: I64, f: U32, k: I64, local: int, is_write: int, t: int
) -> tuple[int, int, int, int]:
    """Do the oldest read (write) of the bank's open row; return what delays the other banks."""
    b = BANK_STATE + local * BANK_FIELDS
    at = lowest(m[b + HIT] & m[b + WAITING] & (m[b + READ] ^ -is_write))
    m[READS + is_write] += 1
    if is_write:
        m[b + PRE] = max(m[b + PRE], t + c[WRITE_PRE])
    else:
        m[b + PRE] = max(m[b + PRE], t + c[RTP])
        ticket = m[entries_of(c, local) + at * ENTRY_FIELDS + TICKET]
        m[DECIDED] = ticket
        while True:
            ticket &= _MAX_TICKET
            k[ticket, DONE] = t + c[READ_DONE]
            ticket = k[ticket, LINK]
            if likely(ticket < 0):
                break
    remove(c, m, f, local, at, is_write)
    m[HITS] += m[b + HIT_COUNT] > 0
    m[b + HIT_COUNT] += 1
    gaps = (WRITE_GAPS if is_write else READ_GAPS) + group_of(c, local) * 2 * MAX_GROUPS
    delay_gates(c, m, READ_COMMAND, gaps, t)
    delay_gates(c, m, WRITE_COMMAND, gaps + MAX_GROUPS, t)
    return gaps, since_base(m, t, READ_COMMAND), gaps + MAX_GROUPS, since_base(m, t, WRITE_COMMAND)


@njit(allocates=False, inlined=True)
def _earliest(c: I64, m: I64, local: int, kind: int, t: int) -> int:
    """Return when, from `t` on, a bank with several choices can go on with a kind of command."""
    b = BANK_STATE + local * BANK_FIELDS
    waiting, reads = m[b + WAITING], m[b + READ]
    hit = m[b + HIT] & waiting
    gate = GATES + kind * MAX_GROUPS + group_of(c, local)
    if kind == PRECHARGE:
        blocked = hit & waiting & -waiting != 0 or (hit != 0 and m[b + HIT_COUNT] < c[HIT_LIMIT])
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
    hit, reads = m[b + HIT] & m[b + WAITING], m[b + READ]
    older = lowest(hit & reads) < lowest(hit & ~reads)
    return read, READ_COMMAND if older else WRITE_COMMAND


@njit(allocates=False, inlined=True)
def _first_of_bank(c: I64, m: I64, local: int, t: int) -> int:
    """Return the key, counted from `BASE`, of the bank's next command from `t` on."""
    own = key_at(m, NEXT, local)
    if unlikely(own & KIND_MASK == SEVERAL):
        at, kind = _first_of_several(c, m, local, t)
        return since_base(m, at, kind)
    return max(own, since_base(m, t, own & KIND_MASK))


@njit(allocates=False, inlined=True)
def _turn(m: I64, local: int) -> int:
    """Return a bank's place, in a key, in the order of turns after the one served last."""
    return ((local - m[POINTER] - 1) & TURN_MASK) << KIND_BITS


@njit(allocates=False, inlined=True)
def _note_best(c: I64, m: I64, last: int, best: int, t: int) -> None:
    """Pick the first command from `t` on, by turns from the bank after the one served last.

    `best` is the first key of the banks but those that have a choice.
    """
    after = last + 1
    if unlikely(m[CHOICES] != 0):
        turn = rotated(m[CHOICES], after)
        while turn:
            place = lowest(turn)
            turn &= turn - 1
            local = (place + after) & (MAX_BANKS - 1)
            if key_at(m, NEXT, local) & KIND_MASK == SEVERAL:
                best = min(best, _first_of_bank(c, m, local, t) | (place << KIND_BITS))
            else:
                m[CHOICES] &= ~(1 << local)
    m[BEST] = m[BASE] + best


@njit(allocates=False, inlined=True)
def _issue(c: I64, m: I64, f: U32, k: I64, local: int, kind: int, t: int, then: int) -> None:
    """Issue the bank's next command; pick another from `then` on."""
    if likely(kind >= READ_COMMAND):
        gaps, by, other_gaps, other = _access(c, m, f, k, local, kind - READ_COMMAND, t)
    elif kind == ACTIVATE:
        gaps, by, other_gaps, other = _activate(c, m, local, t)
    else:
        gaps, by, other_gaps, other = precharge(c, m, local, t)
    own = next_of(c, m, local)
    best = renew(c, m, gaps, by, other_gaps, other, local, own, then)
    m[BEST] = STALE
    if likely(c[SINGLE] == 0):
        _note_best(c, m, local, best, then)


@njit(allocates=False, inlined=True)
def _pick_in_turn(c: I64, m: I64, t: int) -> None:
    """Find the first command from `t` on; banks take turns from the one after the last served."""
    last = int(m[POINTER] & (MAX_BANKS - 1))
    _note_best(c, m, last, first_of_all(c, m, last, t), t)


@njit(allocates=False, inlined=True)
def _age(c: I64, m: I64, local: int, kind: int) -> int:
    """Return the number in order of arrival of the request that a bank's command is for."""
    b = BANK_STATE + local * BANK_FIELDS
    requests = m[b + WAITING]
    if kind >= READ_COMMAND:
        requests &= m[b + HIT] & (m[b + READ] ^ -(kind - READ_COMMAND))
    return int(m[c[SEQUENCES] + position_of(c, local) + lowest(requests)])


@njit(allocates=False, inlined=True)
def _pick_oldest(c: I64, m: I64, t: int) -> None:
    """Find the first command from `t` on: column commands before row commands, then by age."""
    active = m[ACTIVE]
    best, best_at, best_age = m[BASE] + NO_COMMAND, LATER, LATER
    while active:
        local = lowest(active)
        active &= active - 1
        for kind in range(SEVERAL):
            at, only = LATER, key_at(m, NEXT, local) & KIND_MASK
            if only == SEVERAL and kind != ACTIVATE:
                at = _earliest(c, m, local, kind, t)
            elif only == kind:
                at = max((key_at(m, NEXT, local) + m[BASE]) >> CYCLE_SHIFT, t)
            if at >= LATER:
                continue
            age = _age(c, m, local, kind) + (LATER if kind < READ_COMMAND else 0)
            if at < best_at or (at == best_at and age < best_age):
                best, best_at, best_age = key_of(at, kind) | _turn(m, local), at, age
    m[BEST] = best


@njit(allocates=False, inlined=True)
def pick(c: I64, m: I64, t: int) -> None:
    """Find the first command that can be issued from `t` on."""
    if unlikely(c[SINGLE] != 0):
        _pick_oldest(c, m, t)
    else:
        _pick_in_turn(c, m, t)


@njit(allocates=False, inlined=True)
def consider(c: I64, m: I64, local: int, t: int) -> None:
    """Take a bank's new request into account for the next command from `t` on."""
    best = m[BEST]
    if unlikely(best < 0):
        return
    turn = _turn(m, local)
    if unlikely(turn == best & (TURN_MASK << KIND_BITS) and best & KIND_MASK != NOTHING):
        m[BEST] = STALE
        return
    m[BEST] = min(best, m[BASE] + (_first_of_bank(c, m, local, t) | turn))


@njit(allocates=False, inlined=True)
def command(c: I64, m: I64, f: U32, k: I64, first: int, t: int) -> int:
    """Issue the picked command, which is ready, if it may follow `first` in the cycle.

    Return its kind.
    """
    local, kind = ((m[BEST] >> KIND_BITS) + m[POINTER] + 1) & TURN_MASK, m[BEST] & KIND_MASK
    m[POINTER], m[BEST] = local, STALE
    if first == NOTHING or (kind < READ_COMMAND) != (first < READ_COMMAND):
        then = t if first == NOTHING and c[DUAL] else t + 1
        _issue(c, m, f, k, local, kind, t, then)
    return kind
