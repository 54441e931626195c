"""Replay of a request trace through the DRAM controller alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.jit import njit
from lepton.simulator.dram_controller import accept, advance, has_room, next_event, run_cycle
from lepton.simulator.dram_state import (
    ACTIVATES, CLOCK, HITS, LATER, MASK, READS, REFRESHES, SHIFT, WRITES, ControllerState,
    controller_state,
)  # fmt: skip
from lepton.simulator.dram_timing import Arbitration, DramTiming

I64 = NDArray[np.int64]

__all__ = ["Replay", "replay"]

CHANNEL_FIELD = 1


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
        """Share of the column commands that found their row open and used."""
        return self.row_hits / max(1, self.reads + self.writes)


@njit
def _replay(
    s: ControllerState, address: I64, is_write: I64, earliest: I64, per_cycle: int, accepted: I64
) -> int:
    """Send all requests in order, at most `per_cycle` in a cycle, and run until all are done."""
    c = s.configuration
    now = sent = 0
    for i in range(len(address)):
        line = address[i]
        ch = (line >> c[SHIFT + CHANNEL_FIELD]) & c[MASK + CHANNEL_FIELD]
        if earliest[i] > now:
            now, sent = earliest[i], 0
        if sent == per_cycle:
            now, sent = now + 1, 0
        advance(s, ch, now)
        while not has_room(s, ch, line, is_write[i]):
            run_cycle(s, ch, next_event(s, ch))
            now, sent = s.channels[ch, CLOCK], 0
        accept(s, ch, line, is_write[i], i)
        accepted[i] = now
        sent += 1
    end = 0
    for i in range(len(address)):
        ch = (address[i] >> c[SHIFT + CHANNEL_FIELD]) & c[MASK + CHANNEL_FIELD]
        while s.done[i] < 0:
            run_cycle(s, ch, next_event(s, ch))
        end = max(end, s.done[i])
    for ch in range(len(s.channels)):
        advance(s, ch, end + 1)
    return end + 1


def replay(
    timing: DramTiming,
    arbitration: Arbitration,
    address: I64,
    is_write: NDArray[np.bool_],
    earliest: I64 | None = None,
) -> Replay:
    """Send a trace through a DRAM in order, one request per channel and cycle at most."""
    count = len(address)
    if earliest is None:
        earliest = np.zeros(count, np.int64)
    if count and int(address.min()) < 0:
        raise InputError("DRAM trace: addresses must not be negative")
    state = controller_state(timing, arbitration, count)
    accepted = np.zeros(count, np.int64)
    cycles = _replay(
        state, address, is_write.astype(np.int64), earliest, timing.channels, accepted
    )
    total = state.counters.sum(axis=0)
    return Replay(
        cycles,
        accepted,
        state.done,
        int(total[READS]),
        int(total[WRITES]),
        int(total[HITS]),
        int(total[ACTIVATES]),
        int(state.channels[:, REFRESHES].sum()),
    )
