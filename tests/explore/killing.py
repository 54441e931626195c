"""Sweeps in processes that can be killed, and what they leave behind."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

__all__ = ["begun", "known_runs"]

ROOT = Path(__file__).parents[2]

_SWEEP = """
import sys
from lepton.explore import sweep
found = sweep(sys.argv[1], out=sys.argv[2], sampler="grid", workers=int(sys.argv[3]))
print(found.fresh, flush=True)
"""


def begun(space: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    """Begin to sweep a grid; the process prints how many runs it has simulated."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", _SWEEP, str(space), str(out), str(workers)],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def known_runs(out: Path) -> int:
    """Return how many runs are kept in a folder."""
    if not (out / "runs.db").exists():
        return 0
    with sqlite3.connect(out / "runs.db") as connection:
        try:
            return connection.execute("select count(*) from lepton_runs").fetchone()[0]
        except sqlite3.OperationalError:
            return 0
