"""The chain of instructions and resources that made a run as long as it was.

The path is walked backwards from the end: each instruction began when the last of what it needed
was there (its unit, a signal, its dispatch), and that is what the path goes on with. Its steps
follow each other without a gap, so their lengths add up to the run's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lepton.program import Program, Region
from lepton.program.fetch import E_START, G_FIRST, G_ROOM, G_STOP, fetch_streams
from lepton.trace import Trace

__all__ = ["Kind", "PathStep", "critical_path", "path_cycles"]

I64 = NDArray[np.int64]
Kind = Literal["run", "complete", "preload", "dispatch", "fetch", "write_back"]
"""Running; from a unit's end to the last result; loading the first weights; waiting for room in a
queue; waiting for the instruction stream; waiting for the last writes."""


@dataclass(frozen=True)
class PathStep:
    """Cycles [start, end) of the path, and the instruction they belong to."""

    instruction: int
    start: int
    end: int
    kind: Kind


class _Walk:
    """The walk through one region."""

    def __init__(self, program: Program, trace: Trace, region: Region, span: tuple[int, int]):
        self._first = region.start
        self._base, self._end = span
        mine = trace.records[region.start : region.stop]
        self._time = {
            name: mine[name].tolist()
            for name in ("arrive", "dispatch", "taken", "start", "end", "retire", "cause")
        }
        streams, groups = fetch_streams(program, region)
        groups = groups - region.start
        self._room = np.repeat(groups[:, G_ROOM], groups[:, G_STOP] - groups[:, G_FIRST])
        self._firsts = set((streams[:, E_START] - region.start).tolist())
        self._depth = program.chip.control.queue_depth
        self._before = _earlier_in_queue(mine["queue"])
        self._retires = mine["retire"]
        self.steps: list[PathStep] = []

    def _add(self, i: int, start: int, end: int, kind: Kind) -> None:
        """Put a step in front of the path; none if it is empty."""
        if end > start:
            self.steps.append(PathStep(self._first + i, start, end, kind))

    def _at(self, name: str, i: int) -> int:
        return int(self._time[name][i])

    def walk(self) -> None:
        """Walk from the region's end to its first cycle."""
        i = int(np.argmax(self._retires))
        self._add(i, self._at("retire", i), self._end, "write_back")
        place: tuple[str, int] | None = ("retire", i)
        while place is not None:
            name, i = place
            place = getattr(self, f"_from_{name}")(i)

    def _from_retire(self, i: int) -> tuple[str, int]:
        self._add(i, self._at("end", i), self._at("retire", i), "complete")
        return "end", i

    def _from_end(self, i: int) -> tuple[str, int]:
        self._add(i, self._at("start", i), self._at("end", i), "run")
        return "start", i

    def _from_start(self, i: int) -> tuple[str, int]:
        before = self._before[i]
        if before >= 0 and self._at("end", before) == self._at("start", i):
            return "end", before
        self._add(i, self._at("taken", i), self._at("start", i), "preload")
        return "taken", i

    def _from_taken(self, i: int) -> tuple[str, int] | None:
        taken, cause = self._at("taken", i), self._at("cause", i) - self._first
        if cause >= 0 and self._at("retire", cause) == taken:
            return "retire", cause
        if self._at("dispatch", i) == taken:
            return "dispatch", i
        before = self._before[i]
        if before < 0:
            self._add(i, self._base, taken, "dispatch")
            return None
        # the one before made room for this one's weights while it ran
        self._add(before, self._at("start", before), taken, "run")
        return "start", before

    def _from_dispatch(self, i: int) -> tuple[str, int] | None:
        dispatch = self._at("dispatch", i)
        is_first = i in self._firsts
        if not is_first and self._at("dispatch", i - 1) + 1 == dispatch:
            self._add(i, dispatch - 1, dispatch, "dispatch")
            return "dispatch", i - 1
        if self._at("arrive", i) != dispatch:
            blocker = self._taken_at(i, dispatch - 1)
            if blocker >= 0:
                self._add(i, dispatch - 1, dispatch, "dispatch")
                return "taken", blocker
        room = int(self._room[i]) - 1
        if room < 0 or int(self._room[i]) in self._firsts:
            self._add(i, self._base, dispatch, "fetch")
            return None
        self._add(i, self._at("dispatch", room), dispatch, "fetch")
        return "dispatch", room

    def _taken_at(self, i: int, cycle: int) -> int:
        """Return the instruction whose being taken made room for `i`, -1 if there is none."""
        before = i
        for _ in range(self._depth):
            before = self._before[before]
            if before < 0:
                return -1
        return before if self._at("taken", before) == cycle else -1


def _earlier_in_queue(queue: I64) -> list[int]:
    """Return the instruction before each one in its queue, -1 for the first."""
    before = np.full(len(queue), -1, np.int64)
    for number in np.unique(queue):
        mine = np.flatnonzero(queue == number)
        before[mine[1:]] = mine[:-1]
    return [int(index) for index in before]


def critical_path(program: Program, trace: Trace) -> tuple[PathStep, ...]:
    """Return the path from cycle 0 to the run's last, without a gap."""
    steps: list[PathStep] = []
    regions = [region for region in program.regions if region.device == "npu"]
    for region, span in zip(regions, trace.regions, strict=True):
        walk = _Walk(program, trace, region, span)
        walk.walk()
        steps += reversed(walk.steps)
    return tuple(steps)


def path_cycles(program: Program, trace: Trace) -> dict[int, dict[str, int]]:
    """Return the path's cycles by operator and by what it waited for.

    Running counts under the name of the unit, every other kind of step under its own.
    """
    names = (*trace.queues, "control")
    spent: dict[int, dict[str, int]] = {}
    for step in critical_path(program, trace):
        record = trace.records[step.instruction]
        name = names[int(record["queue"])] if step.kind == "run" else step.kind
        mine = spent.setdefault(int(record["operator"]), {})
        mine[name] = mine.get(name, 0) + step.end - step.start
    return spent
