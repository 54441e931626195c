"""What a simulation leaves behind: one record per instruction, and counters of the memories."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["RECORD", "MemoryCounters", "Trace"]

RECORD = np.dtype(
    [
        ("instruction", np.int64),
        ("operator", np.int64),
        ("queue", np.int64),
        ("arrive", np.int64),
        ("dispatch", np.int64),
        ("taken", np.int64),
        ("start", np.int64),
        ("end", np.int64),
        ("retire", np.int64),
        ("stall_fetch", np.int64),
        ("stall_dispatch", np.int64),
        ("stall_semaphore", np.int64),
        ("cause", np.int64),
        ("cause_queue", np.int64),
        ("stall_preload", np.int64),
        ("stall_bank", np.int64),
        ("stall_memory", np.int64),
    ]
)
"""Cycles of the NPU clock. An instruction arrives on the chip, is dispatched to its queue, and is
taken from there by its unit, which is occupied in [start, end); of that, `stall_bank` and
`stall_memory` cycles made no progress. Before it, the unit stood still for `stall_fetch` cycles
because the instruction had not arrived, `stall_dispatch` because those before it waited for room,
`stall_semaphore` for the signal of instruction `cause` of queue `cause_queue` (-1: none), and
`stall_preload` while the first weights were loaded. Control instructions have queue -1."""


@dataclass(frozen=True)
class MemoryCounters:
    """Traffic of one memory."""

    name: str
    read_bytes: int
    write_bytes: int
    row_hits: int
    """Column commands of a DRAM but the first after each activation; 0 in a flat memory."""
    row_misses: int
    """The first ones."""
    activates: int
    precharges: int
    refreshes: int
    write_commands: int
    """Column commands that write, of the row hits and misses."""
    profile: NDArray[np.int64]
    """Bytes per bin of `Trace.profile_cycles`."""


@dataclass(frozen=True)
class Trace:
    """Timing of one run.

    Attributes:
        records: `[n] RECORD`, in program order.
        queues: names of the queues.
        cycles: from the cold chip to the last byte written back, NPU regions one after the other.
        regions: `(start_cycle, end_cycle)` of each NPU region.
        profile_cycles: width of a bin of the memories' bandwidth profiles.
    """

    records: NDArray[np.void]
    queues: tuple[str, ...]
    cycles: int
    regions: tuple[tuple[int, int], ...]
    memories: tuple[MemoryCounters, ...]
    profile_cycles: int
    clock_hz: int
    seconds: float = field(default=0.0, compare=False)
    """Wall time of the simulation."""

    def __repr__(self) -> str:
        """Return one line: what is inside would fill a hundred."""
        return (
            f"<Trace of {len(self.records)} instructions in {self.cycles} cycles, "
            f"{len(self.regions)} NPU regions>"
        )

    def attribution(self) -> dict[str, dict[str, int]]:
        """Return for each unit where every cycle went; the causes add up to `cycles` exactly."""
        return {name: self._unit(number) for number, name in enumerate(self.queues)}

    def _unit(self, queue: int) -> dict[str, int]:
        """Return busy, each stall cause and idle of one unit."""
        mine = self.records[self.records["queue"] == queue]
        occupied = int((mine["end"] - mine["start"]).sum())
        bank, memory = int(mine["stall_bank"].sum()), int(mine["stall_memory"].sum())
        causes = {"busy": occupied - bank - memory, "bank": bank, "memory": memory}
        for cause in ("fetch", "dispatch", "preload"):
            causes[cause] = int(mine[f"stall_{cause}"].sum())
        for cause in np.unique(mine["cause_queue"]):
            waited = mine[mine["cause_queue"] == cause]["stall_semaphore"].sum()
            name = "start" if cause < 0 else self.queues[int(cause)]
            if waited:
                causes[f"wait_{name}"] = int(waited)
        causes["idle"] = self.cycles - sum(causes.values())
        return causes
