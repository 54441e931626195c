"""The records of a trace: the kernel's times, and the stalls that follow from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.cost.columns import W_QUEUE
from lepton.jit import njit
from lepton.simulator.kernel_state import (
    ARRIVE,
    BANK,
    CAUSE,
    DISPATCH,
    END,
    MEMORY,
    RETIRE,
    START,
    TAKEN,
    Settings,
)

__all__ = ["R_OPERATOR", "fill_records"]

I64 = NDArray[np.int64]

# fields of `lepton.trace.RECORD`
(R_INSTRUCTION, R_OPERATOR, R_QUEUE, R_ARRIVE, R_DISPATCH, R_TAKEN, R_START, R_END, R_RETIRE) = (
    range(9)
)
(R_FETCH, R_DISPATCH_STALL, R_SEMAPHORE, R_CAUSE, R_CAUSE_QUEUE) = range(9, 14)
(R_PRELOAD, R_BANK, R_MEMORY) = range(14, 17)


@njit(allocates=False, inlined=True)
def _fill_stalls(w: I64, free: int, r: I64) -> None:
    """Fill in why a unit that is free from a cycle on stands still until it starts."""
    latest = max(w[START], free)
    arrived = min(max(w[ARRIVE], free), latest)
    dispatched = min(max(w[DISPATCH], arrived), latest)
    taken = min(max(w[TAKEN], dispatched), latest)
    r[R_FETCH] = arrived - free
    r[R_DISPATCH_STALL] = dispatched - arrived
    r[R_SEMAPHORE] = taken - dispatched
    r[R_PRELOAD] = latest - taken


@njit(allocates=False, inlined=True)
def fill_records(c: Settings, instructions: I64, free: I64, records: I64) -> None:
    """Fill in the records of a region's instructions but for their operators.

    Args:
        c: scalars.
        instructions: `[n + 1, INSTRUCTION_COLUMNS]` after the run.
        free: `[queues]`, the region's first cycle; used up.
        records: `[n, fields]`, zeros.
    """
    for i in range(c.start, c.stop):
        w, r = instructions[i], records[i]
        q, cause = w[W_QUEUE], w[CAUSE]
        r[R_INSTRUCTION], r[R_QUEUE] = i, q
        r[R_ARRIVE], r[R_DISPATCH], r[R_TAKEN] = w[ARRIVE], w[DISPATCH], w[TAKEN]
        r[R_START], r[R_END], r[R_RETIRE] = w[START], w[END], w[RETIRE]
        r[R_CAUSE] = cause
        r[R_CAUSE_QUEUE] = instructions[cause, W_QUEUE] if cause >= 0 else -1
        r[R_BANK], r[R_MEMORY] = w[BANK], w[MEMORY]
        if q >= 0:
            _fill_stalls(w, int(free[q]), r)
            free[q] = w[END]
