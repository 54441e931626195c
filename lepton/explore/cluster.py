"""Workers of a Dask cluster, on this machine or many."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from lepton.chip import Chip
from lepton.errors import InputError, LeptonError
from lepton.explore.events import EventTier, Run
from lepton.explore.extras import needs
from lepton.explore.fronts import load_front
from lepton.explore.space import Workload
from lepton.explore.task import Task

__all__ = ["DaskWorkers"]

_CONNECT_S = 10
_AHEAD = 4
"""Tasks per thread of the cluster that are submitted before they can begin."""

First = tuple[tuple[Workload, ...], Chip]


def _run(task: Task, first: First, tag: str) -> Run:
    """Do a task in a process of the cluster, which keeps what its first task has made ready."""
    worker: Any = needs("distributed").get_worker()
    # a process may have several threads, and compilations share their caches
    lock = worker.__dict__.setdefault("lepton_lock", threading.Lock())
    with lock:
        known: dict[str, EventTier] = worker.__dict__.setdefault("lepton_tiers", {})
        if tag not in known:
            workloads, base = first
            known.clear()
            known[tag] = EventTier(workloads, [load_front(item, base) for item in workloads])
        return known[tag].run(task.workload, task.chip, task.setting)


class DaskWorkers:
    """All processes of a cluster; a task whose process is lost is done by another one.

    The processes need this package and the files of the models, under the same paths.
    """

    def __init__(self, workloads: Sequence[Workload], base: Chip, address: str) -> None:
        """Connect to a scheduler.

        Args:
            workloads: whose numbers tasks have.
            base: the chip to import them for.
            address: of the scheduler, as `tcp://10.0.0.1:8786`.

        Raises:
            InputError: it does not answer.
        """
        distributed = needs("distributed")
        self._killed: type[Exception] = distributed.KilledWorker
        self._completed = distributed.as_completed
        try:
            self._client: Any = distributed.Client(
                address, timeout=_CONNECT_S, set_as_default=False
            )
        except (OSError, TimeoutError, ValueError) as error:
            text = str(error).splitlines()
            reason = text[0] if text else "no answer"
            raise InputError(f"scheduler {address}: cannot be reached: {reason}") from None
        self._first: First = (tuple(workloads), base)
        self._tag = f"{self._client.id}"

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Run]]:
        """Yield every task with its run, in the order in which they are done.

        Raises:
            LeptonError: a process of the cluster cannot read a model.
        """
        waiting = iter(tasks)
        owners: dict[str, Task] = {}
        done: Any = self._completed(loop=self._client.loop)
        for task in waiting:
            self._submit(task, owners, done)
            if len(owners) >= self._most():
                break
        while owners:
            future = next(done)
            task = owners.pop(future.key)
            run = self._result(future)
            for following in waiting:
                self._submit(following, owners, done)
                break
            yield task, run

    def _most(self) -> int:
        """Return how many tasks are with the cluster at a time."""
        return max(_AHEAD * sum(self._client.nthreads().values()), 1)

    def _submit(self, task: Task, owners: dict[str, Task], done: Any) -> None:
        future = self._client.submit(_run, task, self._first, self._tag, pure=False)
        owners[future.key] = task
        done.add(future)

    def _result(self, future: Any) -> Run:
        try:
            return future.result()
        except self._killed:
            return Run(failure="several processes of the cluster ended at it")
        except ModuleNotFoundError as error:
            raise LeptonError(f"a process of the cluster cannot import {error.name}") from None

    def close(self) -> None:
        """Leave the cluster, which goes on."""
        self._client.close()
