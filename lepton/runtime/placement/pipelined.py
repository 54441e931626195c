"""When successive inputs run on a placed network: the dispatch that defines its throughput.

An input enters as soon as fewer than `window` others are on their way, in order. A device or link
that is free takes, of what is ready for it, the oldest input's, and of that what comes first in
`Problem.order`; what it has started it ends. Tensors move as soon as they are made. Launches are
paid as `lepton.runtime.placement.schedule` states; the network's own inputs and outputs take no
device's time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from lepton.runtime.placement.problem import Problem
from lepton.runtime.placement.schedule import Bar, Schedule

__all__ = ["pipelined"]

_Resource = tuple[int, int | None]
"""A device, or a device and the other end of a link."""


def pipelined(
    problem: Problem, placement: Sequence[int], taken_ns: Sequence[Sequence[int]], window: int
) -> Schedule:
    """Return the schedule of successive inputs.

    Args:
        problem: of one input.
        placement: the device of every operation.
        taken_ns: `[inputs, operations]`, launches apart.
        window: how many inputs may be on their way, at least 1.
    """
    flow = _Flow(problem, placement, taken_ns, window)
    flow.run()
    return Schedule.of(flow.bars, flow.energy_pj, len(taken_ns))


@dataclass(frozen=True, order=True)
class _Task:
    """What waits for a device or a link; the least goes first."""

    sample: int
    rank: int
    item: int
    resource: _Resource


class _Network:
    """What is the same for all inputs."""

    def __init__(self, problem: Problem, placement: Sequence[int]) -> None:
        self.problem, self.placement = problem, placement
        self.rank = {number: at for at, number in enumerate(problem.order)}
        self.readers: dict[tuple[int, int], list[int]] = defaultdict(list)
        self.targets: dict[int, list[int]] = defaultdict(list)
        self.made: dict[int, list[int]] = defaultdict(list)
        self.launch = [0] * len(problem.operations)
        for tensor, each in enumerate(problem.tensors):
            self.made[each.source].append(tensor)
        for number in problem.order:
            self._connect(number)

    def _connect(self, number: int) -> None:
        """Note what an operation reads, and whether it pays for a launch."""
        problem, device = self.problem, self.placement[number]
        enters = problem.opens[number]
        for tensor in dict.fromkeys(problem.operations[number].operands):
            enters |= self.placement[problem.tensors[tensor].source] != device
            if device not in self.targets[tensor]:
                self.targets[tensor].append(device)
            self.readers[tensor, device].append(number)
        if enters:
            self.launch[number] = problem.devices[device].launch_ns

    def operands(self) -> list[int]:
        """Return how many tensors each operation reads."""
        return [len(set(operation.operands)) for operation in self.problem.operations]


class _Flow:
    """The state of a dispatch."""

    def __init__(
        self, problem: Problem, placement: Sequence[int],
        taken_ns: Sequence[Sequence[int]], window: int,
    ) -> None:  # fmt: skip
        self._network = _Network(problem, placement)
        self._taken_ns, self._window = taken_ns, window
        self._ready: dict[_Resource, list[_Task]] = defaultdict(list)
        self._busy: set[_Resource] = set()
        self._running: list[tuple[int, _Task]] = []
        self._missing: dict[int, list[int]] = {}
        self._left: dict[int, int] = {}
        self._entered = 0
        self._now = 0
        self.bars: list[Bar] = []
        self.energy_pj = 0

    def run(self) -> None:
        """Run all inputs."""
        self._admit()
        self._start()
        while self._running:
            self._now = self._running[0][0]
            while self._running and self._running[0][0] == self._now:
                _, task = heappop(self._running)
                self._busy.remove(task.resource)
                self._ended(task)
            self._admit()
            self._start()

    def _admit(self) -> None:
        """Let inputs in while there is room."""
        while self._entered < len(self._taken_ns) and len(self._left) < self._window:
            sample, self._entered = self._entered, self._entered + 1
            self._missing[sample] = self._network.operands()
            self._left[sample] = len(self._missing[sample])
            for number, count in enumerate(list(self._missing[sample])):
                if not count:
                    self._is_ready(sample, number)

    def _is_ready(self, sample: int, number: int) -> None:
        """Let an operation wait for its device; the network's own ends need none."""
        network = self._network
        device = network.placement[number]
        if network.problem.operations[number].is_boundary:
            self._made(sample, number, device)
            return
        task = _Task(sample, network.rank[number], number, (device, None))
        heappush(self._ready[task.resource], task)

    def _made(self, sample: int, number: int, device: int) -> None:
        """Pass on what an operation has made."""
        network = self._network
        self._left[sample] -= 1
        if not self._left[sample]:
            del self._left[sample], self._missing[sample]
        for tensor in network.made[number]:
            for target in network.targets[tensor]:
                if target == device:
                    self._arrived(sample, tensor, target)
                    continue
                first = network.rank[network.readers[tensor, target][0]]
                task = _Task(sample, first, tensor, (device, target))
                heappush(self._ready[task.resource], task)

    def _arrived(self, sample: int, tensor: int, device: int) -> None:
        """Make ready what waited for a tensor only."""
        for number in self._network.readers[tensor, device]:
            self._missing[sample][number] -= 1
            if not self._missing[sample][number]:
                self._is_ready(sample, number)

    def _start(self) -> None:
        """Start what waits for a free device or link."""
        for task in self._chosen():
            device, target = task.resource
            problem = self._network.problem
            if target is None:
                taken = self._taken_ns[task.sample][task.item] + self._network.launch[task.item]
                self.energy_pj += taken * problem.devices[device].power_mw
            else:
                taken = int(problem.transfer[task.item, device, target])
                self.energy_pj += int(problem.transfer_pj[task.item, device, target])
            end = self._now + taken
            self._busy.add(task.resource)
            heappush(self._running, (end, task))
            self.bars.append(Bar(device, target, task.item, self._now, end, task.sample))

    def _chosen(self) -> Iterator[_Task]:
        """Yield the first task of each free device and link that has one."""
        for resource, tasks in self._ready.items():
            if tasks and resource not in self._busy:
                yield heappop(tasks)

    def _ended(self, task: _Task) -> None:
        """Pass on what an operation made, or a tensor that has moved."""
        device, target = task.resource
        if target is None:
            self._made(task.sample, task.item, device)
        else:
            self._arrived(task.sample, task.item, target)
