"""The measured profile of this machine's CPU: how long a unit takes, alone, its data in the caches.

Each distinct unit is measured once per machine, library version and number of threads, and kept in
a file. A roofline of measured rates stands in where nothing is to be measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lepton.program import atomic_write
from lepton.runtime.devices.library import drawn_inputs, piece_runner
from lepton.runtime.devices.rates import LIBRARIES, Rates, measured_rates
from lepton.runtime.split import Network, Unit

__all__ = ["Profile", "best_ns", "load_profile"]

_VERSION = 1
_BUDGET_NS = 20_000_000
_LEAST_RUNS = 5


def best_ns(run: Callable[[], object], threads: int) -> int:
    """Return the least time of a call, after two that warm up.

    One thread is measured by its own processor time, which waiting for a processor is no part of.
    """
    clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
    run()
    run()
    best = 1 << 62
    runs, began = 0, time.perf_counter_ns()
    while runs < _LEAST_RUNS or time.perf_counter_ns() - began < _BUDGET_NS:
        start = clock()
        run()
        best = min(best, clock() - start)
        runs += 1
    return best


def _machine() -> dict[str, object]:
    """Return what tells this machine, and the libraries, from others."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    found: dict[str, object] = {"cpu": model, "processors": os.cpu_count()}
    return found | {package: version(package) for package in LIBRARIES.values()}


@dataclass
class Profile:
    """Times of units, and rates for the others.

    Attributes:
        path: the file that keeps them; None keeps them in memory only.
        rates: by file format.
        units: nanoseconds by signature, launch included.
    """

    threads: int
    path: Path | None = None
    rates: dict[str, Rates] = field(default_factory=dict[str, Rates])
    units: dict[str, int] = field(default_factory=dict[str, int])

    def rates_of(self, network: Network) -> Rates:
        """Return the rates of the library of a network, measured when first needed."""
        if network.format not in self.rates:
            self.rates[network.format] = measured_rates(
                network.format, self.threads, lambda run: best_ns(run, self.threads)
            )
            self.save()
        return self.rates[network.format]

    def knows(self, unit: Unit) -> bool:
        """Return whether a unit has been measured."""
        return unit.signature in self.units

    def measure(self, network: Network, number: int) -> None:
        """Measure a unit."""
        inputs, _ = network.edges([number])
        run = piece_runner(network.format, network.piece([number]), self.threads)
        arrays = drawn_inputs(network, inputs)
        taken = best_ns(lambda: run(arrays), self.threads)
        self.units[network.units[number].signature] = taken

    def cost_ns(self, network: Network, unit: Unit) -> int:
        """Return the nanoseconds of a unit without its launch: measured, else by the roofline."""
        rates = self.rates_of(network)
        if self.knows(unit):
            return max(self.units[unit.signature] - rates.launch_ns, 0)
        moved = sum(network.tensors[name].size_bytes for name in (*unit.inputs, *unit.outputs))
        return rates.roofline_ns(unit, moved)

    def save(self) -> None:
        """Write the file."""
        if self.path is None:
            return
        rates = {name: vars(item) for name, item in self.rates.items()}
        content = {"version": _VERSION, "machine": _machine(), "rates": rates, "units": self.units}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self.path, json.dumps(content).encode())


def load_profile(threads: int, folder: Path) -> Profile:
    """Return the profile of this machine from a folder, empty if there is none of this version."""
    machine = _machine()
    key = hashlib.sha256(json.dumps([_VERSION, machine], sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"cpu-{threads}-{key}.json"
    try:
        content: Any = json.loads(path.read_bytes())
        rates = {str(name): Rates(**item) for name, item in content["rates"].items()}
        units = {str(name): int(taken) for name, taken in content["units"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Profile(threads, path)
    return Profile(threads, path, rates, units)
