"""A worker process of a sweep: `python -m lepton.explore.worker DESCRIPTOR`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import cast

from lepton.chip import Chip
from lepton.errors import LeptonError
from lepton.explore.events import EventTier
from lepton.explore.fronts import load_front
from lepton.explore.space import Workload
from lepton.explore.task import Task

__all__ = ["serve"]


def serve(pipe: Connection) -> None:
    """Do the tasks that come, one by one, until the pipe closes.

    First come workloads and the chip to import them for; what cannot be imported is the answer to
    every task, and None says that the worker is ready.
    """
    try:
        workloads, base = cast(tuple[Sequence[Workload], Chip], pipe.recv())
        try:
            tier = EventTier(workloads, [load_front(workload, base) for workload in workloads])
        except LeptonError as error:
            pipe.send(error)
            return
        pipe.send(None)
        while True:
            task = cast(Task, pipe.recv())
            pipe.send(tier.run(task.workload, task.chip, task.setting))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
