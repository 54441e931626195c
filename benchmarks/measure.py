"""CPU seconds, wall seconds and memory of a function here, or of Python in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

__all__ = ["ROOT", "Best", "Ended", "best", "run_python"]

ROOT = Path(__file__).resolve().parents[1]
T = TypeVar("T")

_WAIT = """
import json, os, subprocess, sys, time
began = time.perf_counter()
child = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(child.pid, 0)
child.returncode = os.waitstatus_to_exitcode(status)
wall = time.perf_counter() - began
print()
print(json.dumps([wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
sys.exit(child.returncode != 0)
"""
"""Waits from a small process: a child's peak memory starts at that of the process it came from."""


@dataclass(frozen=True)
class Best(Generic[T]):
    """The fewest seconds of several runs, and what the first one returned."""

    cpu_s: float
    wall_s: float
    result: T


def best(
    function: Callable[[], T], runs: int = 3, cpu_clock: Callable[[], float] = time.process_time
) -> Best[T]:
    """Return what the best of several runs takes."""

    def run() -> Best[T]:
        wall, cpu = time.perf_counter(), cpu_clock()
        result = function()
        return Best(cpu_clock() - cpu, time.perf_counter() - wall, result)

    first = run()
    # a result that is kept makes the next run ask the system for fresh memory
    seconds = [(first.cpu_s, first.wall_s)]
    seconds += [attrgetter("cpu_s", "wall_s")(run()) for _ in range(runs - 1)]
    return Best(min(cpu for cpu, _ in seconds), min(wall for _, wall in seconds), first.result)


class Ended(NamedTuple):
    """What a process and its children printed and took."""

    output: str
    errors: str
    wall_s: float
    cpu_s: float
    peak_mb: float


def run_python(arguments: Sequence[str], home: str | None = None) -> Ended:
    """Run Python in a fresh process, which keeps byte code as an installation does.

    Args:
        arguments: of the interpreter.
        home: folder in which the cache of kernels is; None is the user's own.

    Raises:
        RuntimeError: the process failed.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({"HOME": home} if home else {})
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    ended = subprocess.run(
        [sys.executable, "-S", "-c", _WAIT, sys.executable, *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ended.returncode:
        raise RuntimeError(f"{' '.join(arguments)[:80]} failed: {ended.stderr.strip()[-300:]}")
    output, _, measured = ended.stdout.rstrip("\n").rpartition("\n")
    return Ended(output, ended.stderr, *json.loads(measured))
