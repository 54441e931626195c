"""The DRAM's banks as the controller looks at them: each one's next command and its earliest cycle.

The earliest cycles, with all gaps, of the banks with one next command lie side by side, so that a
few vector operations delay them and find the first.

Kernel arguments: `c` configuration, `m` the channel's block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.jit import njit
from lepton.simulator.dram_intrinsics import (
    FEW_BANKS,
    FEW_GROUPS,
    TURN_BITS,
    delay_all,
    delay_few,
    renew_few,
    renew_many,
)
from lepton.simulator.dram_state import (
    ACT,
    ACTIVATE,
    ALLOWED,
    BANK_BITS,
    BANK_FIELDS,
    BANK_GAPS,
    BANK_STATE,
    BANKS,
    COLUMN_RD,
    COLUMN_WR,
    GATES,
    GROUPS,
    HIT,
    HIT_COUNT,
    HIT_LIMIT,
    LATER,
    MAX_BANKS,
    MAX_GROUPS,
    NEXT_AT,
    NEXT_KIND,
    NOTHING,
    OFFERS,
    OPEN,
    PRE,
    PRECHARGE,
    READ,
    READ_COMMAND,
    READ_GAPS,
    SEVERAL,
    WAITING,
    WRITE_COMMAND,
)

__all__ = ["delay_banks", "delay_gates", "group_of", "next_of", "offer", "renew"]

I64 = NDArray[np.int64]


@njit(allocates=False, inlined=True)
def group_of(c: I64, local: int) -> int:
    """Return the group of a bank, numbered over its channel."""
    return (local >> c[BANK_BITS]) & (MAX_GROUPS - 1)


@njit(allocates=False, inlined=True)
def delay_gates(c: I64, m: I64, kind: int, gaps: int, t: int) -> None:
    """Delay a kind of command, in all bank groups, to `t` plus the gaps there."""
    gate = GATES + kind * MAX_GROUPS
    if c[GROUPS] <= FEW_GROUPS:
        delay_few(m, gate, c, gaps, t)
    else:
        delay_all(m, gate, c, gaps, t)


@njit(allocates=False, inlined=True)
def renew(
    c: I64, m: I64, banks: int, gaps: int, t: int, local: int, at: int, then: int
) -> int:  # fmt: skip
    """Delay banks to `t` plus the gaps to their groups, and set the earliest cycle of one.

    Return the least of cycle, `then` at least, and turn, in one number, of the others.
    """
    gaps = BANK_GAPS + (gaps - READ_GAPS) * (MAX_BANKS // MAX_GROUPS)
    allowed = m[ALLOWED]
    if c[BANKS] <= FEW_BANKS:
        return renew_few(m, NEXT_AT, banks, c, gaps, t, local, at, allowed, then)
    best = LATER << TURN_BITS
    for i in range(0, c[BANKS], 2 * FEW_BANKS):
        best = min(best, renew_many(
            m, NEXT_AT + i, banks >> i, c, gaps + i, t, local - i, at, allowed >> i, then
        ))  # fmt: skip
    return best


@njit(allocates=False, inlined=True)
def delay_banks(c: I64, m: I64, kind: int, gaps: int, t: int) -> None:
    """Delay the banks whose next command is of a kind to `t` plus the gaps there."""
    if m[OFFERS + kind]:
        renew(c, m, m[OFFERS + kind], gaps, t, -1, 0, 0)


@njit(allocates=False, inlined=True)
def next_of(c: I64, m: I64, local: int) -> int:
    """Set the bank's next kind of command; return its earliest cycle."""
    b = BANK_STATE + local * BANK_FIELDS
    waiting, hit = m[b + WAITING], m[b + HIT]
    at, kind = LATER, NOTHING
    if waiting == 0:
        pass
    elif m[b + OPEN] < 0:
        at, kind = m[b + ACT], ACTIVATE
    else:
        if hit & (waiting & -waiting) == 0 and (hit == 0 or m[b + HIT_COUNT] >= c[HIT_LIMIT]):
            at, kind = m[b + PRE], PRECHARGE
        if hit != 0:
            reads = hit & m[b + READ]
            if kind == PRECHARGE or (reads != 0 and reads != hit):
                at, kind = LATER, SEVERAL
            elif reads != 0:
                at, kind = m[b + COLUMN_RD], READ_COMMAND
            else:
                at, kind = m[b + COLUMN_WR], WRITE_COMMAND
    # where there is no gate, any other does not matter
    gate = GATES + (kind & WRITE_COMMAND) * MAX_GROUPS + group_of(c, local)
    before = m[NEXT_KIND + local] & 7
    m[NEXT_KIND + local] = kind
    m[OFFERS + before] &= ~(1 << local)
    m[OFFERS + kind] |= 1 << local
    return max(at, m[gate])


@njit(allocates=False, inlined=True)
def offer(c: I64, m: I64, local: int) -> None:
    """Set the bank's next command and its earliest cycle."""
    renew(c, m, 0, READ_GAPS, 0, local, next_of(c, m, local), 0)
