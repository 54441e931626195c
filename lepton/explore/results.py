"""Runs of the points of a space, and their metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton.explore.analytic.machine import Machines
from lepton.explore.events import Run
from lepton.explore.keys import run_key, workload_digest
from lepton.explore.metrics import METRICS, combined, feasible, objective_matrix
from lepton.explore.pareto import non_dominated
from lepton.explore.space import Space
from lepton.explore.storage import Storage
from lepton.explore.task import Task
from lepton.explore.workers import Workers

__all__ = ["Simulated", "Simulations", "Told"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Told:
    """News of a sweep.

    Attributes:
        done: points that are done since the last news.
        fresh: runs that were simulated since the beginning; the others were known.
        front_size: tells how many points are on the front so far.
    """

    done: int
    fresh: int
    front_size: Callable[[], int]


@dataclass(frozen=True)
class Simulated:
    """What the simulator says of n points.

    Attributes:
        metrics: `[n]` each; NaN where there is no chip or no program.
        cycles, millijoules, read_bytes, written_bytes: `[n, workloads]`, NaN likewise.
        failures: of each point, "" where all is well.
    """

    metrics: dict[str, F64]
    cycles: F64
    millijoules: F64
    read_bytes: F64
    written_bytes: F64
    failures: list[str]


class Simulations:
    """The event tier on points of a space: each run is done once, ever, and kept at once."""

    def __init__(
        self,
        space: Space,
        storage: Storage,
        workers: Workers,
        tell: Callable[[Told], None] = lambda told: None,
    ) -> None:
        """Take a space whose workloads are known to the workers.

        Args:
            space: what is swept.
            storage: of runs that are done.
            workers: for those that are not.
            tell: hears of every point that is done.
        """
        self._space, self._storage, self._workers, self._tell = space, storage, workers, tell
        self._digests = [workload_digest(workload) for workload in space.workloads]
        self._runs: dict[int, tuple[Run, ...]] = {}
        self.fresh = 0
        """Runs that were not known before."""

    def simulate(self, numbers: I64) -> Simulated:
        """Return the results of points by their numbers, after doing the runs that are missing."""
        points = self._space.points(numbers)
        legal = self._space.are_legal(points)
        todo = [n for n in numbers[legal].tolist() if n not in self._runs]
        tasks = {number: self._tasks(number) for number in dict.fromkeys(todo)}
        every = [task for found in tasks.values() for task in found]
        known = self._storage.get(task.key for task in every)
        owners: dict[str, list[int]] = {}
        for number, found in tasks.items():
            for task in found:
                owners.setdefault(task.key, []).append(number)
        missing = {task.key: task for task in every if task.key not in known}
        self._keep(tasks, known, tasks)
        for task, run in self._workers.run(list(missing.values())):
            self._storage.add({task.key: run})
            known[task.key] = run
            self.fresh += 1
            self._keep(tasks, known, owners[task.key])
        return self._collected(numbers, legal)

    def _tasks(self, number: int) -> list[Task]:
        """Return what is to be done for a legal point."""
        (point,) = self._space.points(np.array([number])).tolist()
        chip, setting = self._space.chip(point), self._space.setting(point)
        return [
            Task(run_key(digest, chip, setting), workload, chip, setting)
            for workload, digest in enumerate(self._digests)
        ]

    def _keep(
        self,
        tasks: Mapping[int, Sequence[Task]],
        known: Mapping[str, Run],
        numbers: Sequence[int] | Mapping[int, object],
    ) -> None:
        """Keep the runs of those points all of whose runs are known now."""
        done = [
            n
            for n in dict.fromkeys(numbers)
            if n not in self._runs and all(task.key in known for task in tasks[n])
        ]
        for number in done:
            self._runs[number] = tuple(known[task.key] for task in tasks[number])
        if done:
            self._tell(Told(len(done), self.fresh, self.front_size))

    def front_size(self) -> int:
        """Return how many points are on the front of those that are done."""
        numbers = np.array(list(self._runs), np.int64)
        metrics = self._collected(numbers, np.ones(len(numbers), np.bool_)).metrics
        values = objective_matrix(metrics, self._space.objectives)
        values[~feasible(self._space.constraints, metrics)] = np.nan
        return int(non_dominated(values).sum())

    def _collected(self, numbers: I64, legal: NDArray[np.bool_]) -> Simulated:
        """Return what is known of points as arrays."""
        shape = len(numbers), len(self._space.workloads)
        cycles, joules, read, written = (np.full(shape, np.nan) for _ in range(4))
        failures = [""] * len(numbers)
        for row, number in enumerate(numbers.tolist()):
            if not legal[row]:
                (point,) = self._space.points(numbers[row : row + 1]).tolist()
                failures[row] = "; ".join(self._space.faults(point))
                continue
            for column, run in enumerate(self._runs[number]):
                if run.failure:
                    failures[row] = failures[row] or run.failure
                    continue
                cycles[row, column], joules[row, column] = run.cycles, 1000 * run.joules
                read[row, column], written[row, column] = run.read_bytes, run.written_bytes
        metrics = self._metrics(numbers, legal, cycles, joules)
        return Simulated(metrics, cycles, joules, read, written, failures)

    def _metrics(
        self, numbers: I64, legal: NDArray[np.bool_], cycles: F64, millijoules: F64
    ) -> dict[str, F64]:
        made = {name: np.full(len(numbers), np.nan) for name in METRICS}
        if not legal.any():
            return made
        machines = Machines(self._space, self._space.points(numbers[legal]))
        clock = machines.column(("array.clock_mhz",), lambda chip: float(chip.array.clock_mhz))
        milliseconds = cycles[legal] / (1000 * clock[:, None])
        weights = [workload.weight for workload in self._space.workloads]
        found = combined(machines.chip_metrics, milliseconds, millijoules[legal], weights)
        for name, values in found.items():
            made[name][legal] = values
        return made
