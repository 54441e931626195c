"""Replay of a request trace through the DRAM controller alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.jit import njit
from lepton.simulator.dram_controller import (
    advance,
    channel_of,
    next_event,
    run,
)
from lepton.simulator.dram_queues import enter
from lepton.simulator.dram_state import (
    ACTIVATES,
    BANK_FIELDS,
    BANK_STATE,
    BANKS,
    CLOCK,
    COUNTERS,
    DECIDED,
    DONE,
    HITS,
    LINE_MASK,
    QUEUES,
    READ,
    READS,
    REFRESHES,
    VALID,
    WAITING,
    WRITES,
    ControllerState,
    controller_state,
)
from lepton.simulator.dram_timing import Arbitration, DramTiming

__all__ = ["Replay", "replay"]

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]


_MAX_CHANNELS = 1 << 16
_MAX_ADDRESS = (1 << 63) - 1


@dataclass(frozen=True)
class Replay:
    """What became of a trace; cycles of the DRAM's command clock."""

    cycles: int
    accepted: I64
    done: I64
    reads: int
    writes: int
    row_hits: int
    activates: int
    refreshes: int

    @property
    def row_hit_rate(self) -> float:
        """Share of the column commands that were not the first in their row's activation."""
        return self.row_hits / max(1, self.reads + self.writes)


@njit(allocates=False)
def _send(
    s: ControllerState, address: I64, is_write: U8, earliest: I64, per_cycle: int, accepted: I64
) -> int:
    """Send all requests in order, at most `per_cycle` in a cycle, each as soon as it is taken.

    Return a negative number if an address is negative.
    """
    c, k = s.configuration, s.tickets
    now = sent = signs = 0
    for i in range(len(address)):
        # the masks tell the compiler that these are not negative
        ch = channel_of(c, address[i]) & (_MAX_CHANNELS - 1)
        m, f = s.blocks[ch], s.filters[ch]
        signs |= address[i]
        line = address[i] & c[LINE_MASK] & _MAX_ADDRESS
        if earliest[i] > now:
            now, sent = earliest[i], 0
        if sent == per_cycle:
            now, sent = now + 1, 0
        run(c, m, f, k, now, line, is_write[i] & 1)
        if m[CLOCK] > now:
            now, sent = m[CLOCK], 0
        enter(c, m, f, k, line, is_write[i] & 1, i)
        accepted[i] = now
        sent += 1
    return signs


@njit(allocates=False, inlined=True)
def _reads_wait(c: I64, m: I64) -> bool:
    """Tell if a read waits in a channel."""
    reads = m[QUEUES + VALID]
    for local in range(c[BANKS]):
        b = BANK_STATE + local * BANK_FIELDS
        reads |= m[b + WAITING] & m[b + READ]
    return reads != 0


@njit(allocates=False)
def _finish(s: ControllerState, sent: int) -> int:
    """Run until all requests are done; return the cycle after that.

    That is when the one sent last is done, or what the last read command of a channel answers.
    """
    end = s.tickets[sent - 1, DONE] if sent else 0
    for ch in range(len(s.blocks)):
        m = s.blocks[ch]
        while _reads_wait(s.configuration, m):
            advance(s, ch, next_event(s, ch) + 1)
        if m[DECIDED] >= 0:
            end = max(end, s.tickets[m[DECIDED], DONE])
    for ch in range(len(s.blocks)):
        advance(s, ch, end + 1)
    return end + 1


def replay(
    timing: DramTiming,
    arbitration: Arbitration,
    address: I64,
    is_write: NDArray[np.bool_],
    earliest: I64 | None = None,
) -> Replay:
    """Send a trace through a DRAM in order, at most as many requests per cycle as channels."""
    count = len(address)
    if earliest is None:
        earliest = np.zeros(count, np.int64)
    state = controller_state(timing, arbitration, count)
    accepted = np.empty(count, np.int64)
    writes = np.ascontiguousarray(is_write, np.bool_).view(np.uint8)
    if _send(state, address, writes, earliest, timing.channels, accepted) < 0:
        raise InputError("DRAM trace: addresses must not be negative")
    cycles = _finish(state, count)
    total = state.blocks[:, :COUNTERS].sum(axis=0)
    return Replay(
        cycles,
        accepted,
        state.tickets[:, DONE],
        int(total[READS]),
        int(total[WRITES]),
        int(total[HITS]),
        int(total[ACTIVATES]),
        int(total[REFRESHES]),
    )
