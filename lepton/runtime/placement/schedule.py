"""When each operation of a placed network runs: the list schedule that defines its latency.

Every device takes its operations in `Problem.order`, one at a time, each as soon as its operands
are there. A tensor moves to another device once, when its first reader there comes up; a link
moves one tensor at a time. An operation of which an operand comes from another device, or all of
whose operands are inputs of the network, opens a region and pays for its device's launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lepton.runtime.placement.problem import NEVER, Goal, Problem

__all__ = ["Bar", "ListSchedule", "Schedule", "schedule"]


@dataclass(frozen=True)
class Bar:
    """A stretch of time of a device, or of a link if it has a target.

    Attributes:
        item: number of the operation, or of the tensor on a link.
        sample: which of successive inputs it belongs to.
    """

    device: int
    target: int | None
    item: int
    start_ns: int
    end_ns: int
    sample: int = 0


@dataclass(frozen=True)
class Schedule:
    """A placement in time.

    Attributes:
        latency_ns: until all is done.
        period_ns: of the busiest device or link, per input.
    """

    bars: tuple[Bar, ...]
    latency_ns: int
    period_ns: int
    energy_pj: int

    @staticmethod
    def of(bars: Sequence[Bar], energy_pj: int, samples: int = 1) -> Schedule:
        """Return the schedule of bars of so many inputs."""
        busy = dict[tuple[int, int | None], int]()
        for bar in bars:
            key = bar.device, bar.target
            busy[key] = busy.get(key, 0) + bar.end_ns - bar.start_ns
        latency = max((bar.end_ns for bar in bars), default=0)
        period = max(busy.values(), default=0) // max(samples, 1)
        return Schedule(tuple(bars), latency, period, energy_pj)

    def value(self, goal: Goal) -> int:
        """Return what a goal minimizes."""
        values = {Goal.LATENCY: self.latency_ns, Goal.ENERGY: self.energy_pj}
        return values.get(goal, self.period_ns)


@dataclass
class ListSchedule:
    """A schedule that grows operation by operation."""

    problem: Problem
    device_of: dict[int, int] = field(default_factory=dict[int, int])
    bars: list[Bar] = field(default_factory=list[Bar])
    energy_pj: int = 0
    _finish: dict[int, int] = field(default_factory=dict[int, int])
    _free: dict[tuple[int, int | None], int] = field(
        default_factory=dict[tuple[int, int | None], int]
    )
    _arrival: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])

    def _tried(self, number: int, device: int) -> list[Bar]:
        """Return the bars that an operation adds on a device, its own last."""
        problem, bars, ready = self.problem, list[Bar](), 0
        operation = problem.operations[number]
        free = dict[int, int]()
        enters = problem.opens[number]
        for tensor in dict.fromkeys(operation.operands):
            source = problem.tensors[tensor].source
            home, arrival = self.device_of[source], self._finish[source]
            if home != device:
                enters = True
                known = self._arrival.get((tensor, device))
                if known is None:
                    idle = free.get(home, self._free.get((home, device), 0))
                    start = max(arrival, idle)
                    known = free[home] = start + int(problem.transfer[tensor, home, device])
                    bars.append(Bar(home, device, tensor, start, known))
                arrival = known
            ready = max(ready, arrival)
        start = max(ready, self._free.get((device, None), 0))
        cost = int(problem.cost[number, device]) + enters * problem.devices[device].launch_ns
        return [*bars, Bar(device, None, number, start, start + cost)]

    def finish_on(self, number: int, device: int) -> int:
        """Return when an operation would end on a device."""
        return self._tried(number, device)[-1].end_ns

    def add(self, number: int, device: int) -> None:
        """Run an operation on a device."""
        for bar in self._tried(number, device):
            self._free[bar.device, bar.target] = bar.end_ns
            if bar.target is not None:
                self._arrival[bar.item, bar.target] = bar.end_ns
                moved = self.problem.transfer_pj[bar.item, bar.device, bar.target]
                self.energy_pj += int(moved)
            else:
                spent = bar.end_ns - bar.start_ns
                self.energy_pj += spent * self.problem.devices[bar.device].power_mw
                self._finish[number] = bar.end_ns
            self.bars.append(bar)
        self.device_of[number] = device

    def done(self) -> Schedule:
        """Return the schedule."""
        return Schedule.of(self.bars, self.energy_pj)


def schedule(problem: Problem, placement: Sequence[int]) -> Schedule:
    """Return the schedule of a placement, the device of every operation."""
    made = ListSchedule(problem)
    for number in problem.order:
        made.add(number, placement[number])
    found = made.done()
    assert found.latency_ns < NEVER, "a placement on a device that cannot run an operation"
    return found
