"""Successive inputs on a placed network, nanosecond by nanosecond: the words of
`lepton.runtime.placement.pipelined` in plain loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lepton.runtime.placement import Problem

__all__ = ["dispatched"]

Bar = tuple[int, int | None, int, int, int, int]
Waiting = tuple[tuple[int, int, int], int, int | None]
"""(sample, rank, item), device, target."""


def dispatched(
    problem: Problem, placement: Sequence[int], taken: Sequence[Sequence[int]], window: int
) -> set[Bar]:
    """Return bars as (device, target, item, start, end, sample)."""
    state = _State(problem, placement, taken)
    while not state.is_done():
        while state.entered(window) or state.passed_boundary() or state.started():
            pass
        state.now += 1
    return state.bars


class _State:
    def __init__(
        self, problem: Problem, placement: Sequence[int], taken: Sequence[Sequence[int]]
    ) -> None:
        self.problem, self.placement, self.taken = problem, placement, taken
        self.now = self.count = 0
        self.bars: set[Bar] = set()
        self.ended: dict[tuple[int, int], int] = {}  # (sample, operation) -> when
        self.moved: dict[tuple[int, int, int], int] = {}  # (sample, tensor, device) -> when
        self.free: dict[tuple[int, int | None], int] = {}

    def is_over(self, sample: int) -> bool:
        numbers = range(len(self.problem.operations))
        return all(self.ended.get((sample, n), self.now + 1) <= self.now for n in numbers)

    def is_done(self) -> bool:
        return self.count == len(self.taken) and all(map(self.is_over, range(self.count)))

    def entered(self, window: int) -> bool:
        alive = sum(not self.is_over(sample) for sample in range(self.count))
        if self.count == len(self.taken) or alive >= window:
            return False
        self.count += 1
        return True

    def is_there(self, sample: int, tensor: int, device: int) -> bool:
        source = self.problem.tensors[tensor].source
        if self.placement[source] == device:
            return self.ended.get((sample, source), self.now + 1) <= self.now
        return self.moved.get((sample, tensor, device), self.now + 1) <= self.now

    def able(self, sample: int) -> Iterator[int]:
        """Yield operations that have not started and whose operands are there."""
        for number, operation in enumerate(self.problem.operations):
            device = self.placement[number]
            if (sample, number) not in self.ended and all(
                self.is_there(sample, tensor, device) for tensor in operation.operands
            ):
                yield number

    def passed_boundary(self) -> bool:
        for sample in range(self.count):
            for number in self.able(sample):
                if self.problem.operations[number].is_boundary:
                    self.ended[sample, number] = self.now
                    return True
        return False

    def tensors(self, sample: int) -> Iterator[tuple[int, int, int]]:
        """Yield tensors that are made and wanted elsewhere: rank, tensor, target."""
        operations = self.problem.operations
        for tensor, each in enumerate(self.problem.tensors):
            home = self.placement[each.source]
            readers = [n for n, o in enumerate(operations) if tensor in o.operands]
            for target in {self.placement[n] for n in readers} - {home}:
                there = self.is_there(sample, tensor, home)
                if there and (sample, tensor, target) not in self.moved:
                    order = [n for n in self.problem.order if n in readers]
                    first = next(n for n in order if self.placement[n] == target)
                    yield self.problem.order.index(first), tensor, target

    def waiting(self) -> list[Waiting]:
        """Return all that could start now."""
        found: list[Waiting] = []
        for sample in range(self.count):
            for n in self.able(sample):
                if not self.problem.operations[n].is_boundary:
                    rank = self.problem.order.index(n)
                    found.append(((sample, rank, n), self.placement[n], None))
            for rank, tensor, target in self.tensors(sample):
                home = self.placement[self.problem.tensors[tensor].source]
                found.append(((sample, rank, tensor), home, target))
        return sorted(found, key=lambda item: item[0])

    def launch(self, number: int) -> int:
        device = self.placement[number]
        sources = [self.problem.tensors[t].source for t in self.problem.operations[number].operands]
        enters = any(self.placement[source] != device for source in sources)
        pays = enters or self.problem.opens[number]
        return self.problem.devices[device].launch_ns if pays else 0

    def started(self) -> bool:
        for (sample, _, item), device, target in self.waiting():
            if self.free.get((device, target), 0) > self.now:
                continue
            if target is None:
                end = self.now + self.taken[sample][item] + self.launch(item)
                self.ended[sample, item] = end
            else:
                end = self.now + int(self.problem.transfer[item, device, target])
                self.moved[sample, item, target] = end
            self.free[device, target] = end
            self.bars.add((device, target, item, self.now, end, sample))
            return True
        return False
