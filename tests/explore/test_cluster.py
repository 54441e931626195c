"""Sweeps on a Dask cluster: a real scheduler, processes of its own, one of them killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import distributed
import numpy as np
import pytest

from lepton.errors import InputError, LeptonError
from lepton.explore import parse_space
from lepton.explore.cluster import DaskWorkers
from lepton.explore.engine import SweepOptions, run_sweep
from lepton.explore.space import Workload
from lepton.explore.task import Task
from tests.explore.spaces import grid


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
    ) as made:
        yield made


def test_a_cluster_finds_what_one_process_does(cluster: Any) -> None:
    here = run_sweep(grid(), SweepOptions(points=24))
    there = run_sweep(grid(), SweepOptions(points=24, scheduler=cluster.scheduler_address))
    assert there.fresh == here.fresh == 24
    for name, values in here.columns.items():
        np.testing.assert_array_equal(np.asarray(values), np.asarray(there.columns[name]))


def test_a_killed_process_costs_its_point_only(cluster: Any) -> None:
    space = grid()
    points = space.points(np.arange(0, space.size, 4))
    tasks = [
        Task(str(number), 0, space.chip(point), space.setting(point))
        for number, point in enumerate(points.tolist())
    ]
    workers = DaskWorkers(space.workloads, space.base, cluster.scheduler_address)
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        found: list[str] = []
        for number, (task, run) in enumerate(workers.run(tasks)):
            found.append(task.key)
            assert run.cycles > 0
            if number == 5:
                pids: Any = client.run(os.getpid)
                os.kill(next(iter(pids.values())), signal.SIGKILL)
    workers.close()
    assert sorted(found) == sorted(task.key for task in tasks)


def test_equal_tasks_are_each_answered(cluster: Any) -> None:
    space = parse_space("[parameters]\narray.rows = [32]\n[[workload]]\nmodel = 'digits'", "s")
    workers = DaskWorkers(space.workloads, space.base, cluster.scheduler_address)
    setting = space.setting((0,))
    tasks = [Task(str(number), 0, space.chip((0,)), setting) for number in range(30)]
    runs = [run for _, run in workers.run(tasks)]
    workers.close()
    assert len(runs) == 30
    assert len(set(runs)) == 1


def test_clusters_that_cannot_be_used(cluster: Any, tmp_path: Any) -> None:
    space = grid()
    began = time.monotonic()
    with pytest.raises(InputError, match=r"scheduler tcp://127\.0\.0\.1:9: cannot be reached"):
        DaskWorkers(space.workloads, space.base, "tcp://127.0.0.1:9")
    assert time.monotonic() - began < 60
    with pytest.raises(InputError, match="scheduler nonsense://x"):
        DaskWorkers(space.workloads, space.base, "nonsense://x")
    with pytest.raises(InputError, match="the scheduler knows its workers"):
        SweepOptions(workers=2, scheduler="tcp://x:1")
    lost = (Workload("lost", tmp_path / "lost.tflite"),)
    workers = DaskWorkers(lost, space.base, cluster.scheduler_address)
    with pytest.raises(LeptonError, match=r"lost\.tflite"):
        list(workers.run([Task("", 0, space.base, space.setting((0,) * 5))]))
    workers.close()
