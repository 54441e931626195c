"""Who runs the event tier: this process, or several of this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Protocol

from lepton.chip import Chip
from lepton.compiler.steps import FrontModel
from lepton.errors import LeptonError
from lepton.explore.events import EventTier, Run
from lepton.explore.space import Workload
from lepton.explore.task import Task
from lepton.jit_ahead import package_environment

__all__ = ["ProcessWorkers", "SerialWorker", "Workers", "open_workers"]

_ATTEMPTS = 3
"""Workers that a task may cost before it counts as failed."""


class Workers(Protocol):
    """Does tasks."""

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Run]]:
        """Yield every task with its run, in the order in which they are done."""
        ...

    def close(self) -> None:
        """End what was begun."""
        ...


class SerialWorker:
    """This process."""

    def __init__(self, tier: EventTier) -> None:
        self._tier = tier

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Run]]:
        """Yield every task with its run, in order."""
        for task in tasks:
            yield task, self._tier.run(task.workload, task.chip, task.setting)

    def close(self) -> None:
        """Do nothing."""


@dataclass
class _Worker:
    """A process, the way to it, and what it is at."""

    process: subprocess.Popen[bytes]
    pipe: Connection
    tasks: deque[int]
    """Numbers of those that it is to do next; neighbours share most of a compilation."""
    task: int | None = None
    is_ready: bool = False


class ProcessWorkers:
    """Processes of this machine; one that is lost costs only the run that it was at.

    They end when their pipes close, so also with this process, whatever ends it.
    """

    def __init__(self, workloads: Sequence[Workload], base: Chip, count: int) -> None:
        """Start so many."""
        self._first = (tuple(workloads), base)
        self._lost_early = 0
        self._workers = [_Worker(*self._start(), deque()) for _ in range(count)]

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection]:
        """Start a process and send it what comes first."""
        mine, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lepton.explore.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=package_environment(),
                # Ctrl-C is for this process, which closes the pipes
                start_new_session=True,
            )
        pipe = Connection(mine.detach())
        with suppress(BrokenPipeError):
            pipe.send(self._first)
        return process, pipe

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids."""
        return tuple(worker.process.pid for worker in self._workers)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Run]]:
        """Yield every task with its run, in the order in which they are done.

        Each worker begins with a part of the tasks; who has none left takes half of the rest of
        who has most. A task that has cost three workers is a failure.

        Raises:
            LeptonError: no worker can read a model.
        """
        lost = dict.fromkeys(range(len(tasks)), 0)
        share = -(-len(tasks) // len(self._workers))
        for number, worker in enumerate(self._workers):
            worker.tasks = deque(range(len(tasks))[number * share : (number + 1) * share])
        left = len(tasks)
        for worker in self._workers:
            self._give(worker, tasks)
        while left:
            ready = wait([worker.pipe for worker in self._workers])
            for worker in [worker for worker in self._workers if worker.pipe in ready]:
                number = worker.task
                try:
                    answer = worker.pipe.recv()
                except (EOFError, ConnectionResetError):
                    answer = self._replace(worker, lost)
                if isinstance(answer, LeptonError):
                    raise answer
                worker.is_ready = worker.is_ready or answer is None
                if isinstance(answer, Run) and number is not None:
                    left -= 1
                    worker.task = None
                    self._give(worker, tasks)
                    yield tasks[number], answer
                elif worker.task is None and worker.is_ready:
                    self._give(worker, tasks)

    def _give(self, worker: _Worker, tasks: Sequence[Task]) -> None:
        """Send a ready worker its next task, if there is any."""
        if not worker.is_ready or worker.task is not None:
            return
        if not worker.tasks:
            longest = max(self._workers, key=lambda other: len(other.tasks))
            half = (len(longest.tasks) + 1) // 2
            worker.tasks = deque(longest.tasks.pop() for _ in range(half))
            worker.tasks.reverse()
        if worker.tasks:
            worker.task = worker.tasks.popleft()
            try:
                worker.pipe.send(tasks[worker.task])
            except (BrokenPipeError, ConnectionResetError):
                # its end of the pipe is read next, where it is replaced
                return

    def _replace(self, worker: _Worker, lost: dict[int, int]) -> Run | None:
        """Put another process in the place of one that is gone; give up its task in the end."""
        task = worker.task
        worker.pipe.close()
        status = worker.process.wait()
        if not worker.is_ready:
            self._lost_early += 1
            if self._lost_early > _ATTEMPTS:
                raise LeptonError(f"workers end before they are ready (exit code {status})")
        worker.process, worker.pipe = self._start()
        worker.is_ready = False
        if task is None:
            return None
        lost[task] += 1
        if lost[task] >= _ATTEMPTS:
            return Run(failure=f"{_ATTEMPTS} processes ended at it (exit code {status})")
        worker.tasks.appendleft(task)
        worker.task = None
        return None

    def close(self) -> None:
        """End all processes."""
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.wait()

    def __enter__(self) -> ProcessWorkers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def open_workers(
    workloads: Sequence[Workload],
    fronts: Sequence[FrontModel],
    base: Chip,
    count: int,
    scheduler: str | None = None,
) -> Workers:
    """Return who does tasks: a cluster's processes, so many of this machine, or this process."""
    if scheduler is not None:
        from lepton.explore.cluster import DaskWorkers

        return DaskWorkers(workloads, base, scheduler)
    if count == 1:
        return SerialWorker(EventTier(workloads, fronts))
    return ProcessWorkers(workloads, base, count)
