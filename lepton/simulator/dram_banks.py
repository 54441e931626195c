"""The DRAM's banks as the controller looks at them: each one's next command and its earliest cycle.

Both are in one number, a key: cycle, turn, kind. The least key is the next command. The keys of all
banks lie side by side, 32 bits each with cycles counted from a base that moves now and then, so
that a few vector operations delay them and find the first.

Kernel arguments: `c` configuration, `m` the channel's block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.jit import njit
from lepton.simulator.dram_intrinsics import (
    CYCLE_SHIFT,
    FEW_BANKS,
    FEW_GROUPS,
    KIND_MASK,
    delay_all,
    delay_few,
    key_at,
    likely,
    put_few,
    put_many,
    renew_few,
    renew_many,
    search_few,
    search_many,
    unlikely,
)
from lepton.simulator.dram_state import (
    ACT,
    ACTIVATE,
    ACTIVE,
    BANK_BITS,
    BANK_FIELDS,
    BANK_GAPS,
    BANK_STATE,
    BANKS,
    BASE,
    CHOICES,
    COLUMN_RD,
    COLUMN_WR,
    EPOCH,
    FAW_FIELDS,
    FAW_SLOT,
    FAW_TIMES,
    GATES,
    GROUPS,
    HIT,
    HIT_COUNT,
    HIT_LIMIT,
    MAX_BANKS,
    MAX_GROUPS,
    NEXT,
    NO_COMMAND,
    NO_CYCLE,
    OPEN,
    PRE,
    PRECHARGE,
    RANKS,
    READ,
    READ_COMMAND,
    READ_GAPS,
    SEVERAL,
    WAITING,
)

__all__ = ["delay_gates", "first_of_all", "group_of", "key_of", "move_base", "next_of", "offer"]
__all__ += ["put", "renew", "since_base"]

I64 = NDArray[np.int64]


@njit(allocates=False, inlined=True)
def group_of(c: I64, local: int) -> int:
    """Return the group of a bank, numbered over its channel."""
    return (local >> c[BANK_BITS]) & (MAX_GROUPS - 1)


@njit(allocates=False, inlined=True)
def delay_gates(c: I64, m: I64, kind: int, gaps: int, t: int) -> None:
    """Delay a kind of command, in all bank groups, to `t` plus the gaps there."""
    gate = GATES + kind * MAX_GROUPS
    if likely(c[GROUPS] <= FEW_GROUPS):
        delay_few(m, gate, c, gaps, t)
    else:
        delay_all(m, gate, c, gaps, t)


@njit(allocates=False, inlined=True)
def _by_bank(gaps: int) -> int:
    """Return where a row of gaps to groups is by bank."""
    return BANK_GAPS + (gaps - READ_GAPS) * (MAX_BANKS // MAX_GROUPS // 2)


@njit(allocates=False, inlined=True)
def key_of(t: int, kind: int) -> int:
    """Return a cycle and a kind of command in one number."""
    return (t << CYCLE_SHIFT) | kind


@njit(allocates=False, inlined=True)
def since_base(m: I64, t: int, kind: int) -> int:
    """Return the key of a cycle and a kind of command, counted from `BASE`, itself such a key."""
    return key_of(t, kind) - m[BASE]


@njit(allocates=False, inlined=True)
def renew(
    c: I64, m: I64, gaps: int, command: int, other_gaps: int, other: int, local: int, own: int,
    then: int,
) -> int:  # fmt: skip
    """Delay the banks' next commands, of two kinds, and set that of one bank to `own`.

    `command` and `other` are keys: the kind, and the cycle to which the gaps to the groups, which
    begin at `gaps` and `other_gaps`, are added. Return the least key of all, of cycle `then` at
    least, with its turn after that bank. All keys count from `BASE`.
    """
    gaps, other_gaps, then = _by_bank(gaps), _by_bank(other_gaps), since_base(m, then, 0)
    if c[BANKS] <= FEW_BANKS:
        return renew_few(m, NEXT, c, gaps, command, other_gaps, other, local, own, then)
    best = renew_many(m, NEXT, c, gaps, command, other_gaps, other, local, own, then)
    if unlikely(c[BANKS] > 2 * FEW_BANKS):
        best = min(best, renew_many(
            m, NEXT + FEW_BANKS, c, gaps + FEW_BANKS, command, other_gaps + FEW_BANKS,
            other, local - 2 * FEW_BANKS, own, then,
        ))  # fmt: skip
    return best


@njit(allocates=False, inlined=True)
def first_of_all(c: I64, m: I64, local: int, then: int) -> int:
    """Return the least key of all banks, of cycle `then` at least, with its turn after one."""
    then = since_base(m, then, 0)
    if c[BANKS] <= FEW_BANKS:
        return search_few(m, NEXT, local, then)
    best = search_many(m, NEXT, local, then)
    if unlikely(c[BANKS] > 2 * FEW_BANKS):
        best = min(best, search_many(m, NEXT + FEW_BANKS, local - 2 * FEW_BANKS, then))
    return best


@njit(allocates=False, inlined=True)
def _has_choice(c: I64, m: I64, b: int, hit: int, reads: int) -> bool:
    """Tell if a bank with requests for its open row can go on with several kinds of command."""
    if unlikely(reads != 0 and reads != hit):
        return True
    return hit & m[b + WAITING] & -m[b + WAITING] == 0 and m[b + HIT_COUNT] >= c[HIT_LIMIT]


@njit(allocates=False, inlined=True)
def next_of(c: I64, m: I64, local: int) -> int:
    """Return the key of the bank's next command, with all gaps, counted from `BASE`."""
    b = BANK_STATE + local * BANK_FIELDS
    waiting = m[b + WAITING]
    if waiting == 0:
        m[ACTIVE] &= ~(1 << local)
        return NO_COMMAND
    if m[b + OPEN] < 0:
        at, kind = m[b + ACT], ACTIVATE
    else:
        hit = m[b + HIT] & waiting
        reads = hit & m[b + READ]
        if hit == 0:
            at, kind = m[b + PRE], PRECHARGE
        elif unlikely(_has_choice(c, m, b, hit, reads)):
            m[CHOICES] |= 1 << local
            return key_of(NO_CYCLE, SEVERAL)
        else:
            is_write = int(reads == 0)
            at, kind = m[b + COLUMN_RD + is_write], READ_COMMAND + is_write
    return since_base(m, max(at, m[GATES + kind * MAX_GROUPS + group_of(c, local)]), kind)


@njit(allocates=False, inlined=True)
def put(c: I64, m: I64, local: int, own: int) -> None:
    """Set the key of a bank's next command."""
    if c[BANKS] <= FEW_BANKS:
        put_few(m, NEXT, local, own)
    elif local < 2 * FEW_BANKS:
        put_many(m, NEXT, local, own)
    else:
        put_many(m, NEXT + FEW_BANKS, local - 2 * FEW_BANKS, own)


@njit(allocates=False, inlined=True)
def offer(c: I64, m: I64, local: int) -> None:
    """Find the bank's next command and its earliest cycle."""
    put(c, m, local, next_of(c, m, local))


@njit(allocates=False, inlined=True)
def move_base(c: I64, m: I64, t: int) -> None:
    """Let keys count from `t`, on or after which all that is to come comes.

    So nothing depends on how long before `t` a command became possible.
    """
    by = since_base(m, t, 0)
    m[BASE] += by
    for rank in range(c[RANKS]):
        for slot in range(FAW_SLOT):
            at = FAW_TIMES + rank * FAW_FIELDS + slot
            m[at] = max(m[at], t - EPOCH)
    for local in range(c[BANKS]):
        for field in (COLUMN_RD, COLUMN_WR, PRE, ACT):
            at = BANK_STATE + local * BANK_FIELDS + field
            m[at] = max(m[at], t)
        key = key_at(m, NEXT, local)
        if key >> CYCLE_SHIFT < NO_CYCLE:
            put(c, m, local, max(key - by, key & KIND_MASK))
