"""The measured profile of this machine's CPU or GPU: how long a unit takes, alone and warm.

Each distinct unit is measured once per machine, library version and number of threads, and kept in
a file. A roofline of measured rates stands in where nothing is to be measured.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lepton.program import atomic_write
from lepton.runtime.devices.library import Engine, Run, drawn_inputs, piece_runner
from lepton.runtime.devices.protocol import Progress
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
        threads: of the CPU; 0 for another device, which is measured by the clock on the wall.
        path: the file that keeps them; None keeps them in memory only.
        rates: by file format.
        units: nanoseconds by signature, launch included.
        engine: what makes a runner of an ONNX piece; by default the golden libraries.
    """

    threads: int
    path: Path | None = None
    rates: dict[str, Rates] = field(default_factory=dict[str, Rates])
    units: dict[str, int] = field(default_factory=dict[str, int])
    engine: Engine | None = field(default=None, compare=False)

    def runner(self, network_format: str, piece: bytes) -> Run:
        """Return what runs a piece."""
        if self.engine is not None:
            return self.engine(piece)
        return piece_runner(network_format, piece, self.threads)

    def rates_of(self, network: Network) -> Rates:
        """Return the rates of the library of a network."""
        return self.rates_for(network.format)

    def rates_for(self, network_format: str) -> Rates:
        """Return the rates of the library of a file format, measured when first needed."""
        if network_format not in self.rates:
            self.rates[network_format] = measured_rates(
                network_format,
                lambda piece: self.runner(network_format, piece),
                lambda run: best_ns(run, self.threads),
            )
            self.save()
        return self.rates[network_format]

    def knows(self, unit: Unit) -> bool:
        """Return whether a unit has been measured."""
        return unit.signature in self.units

    def measure(self, network: Network, number: int) -> None:
        """Measure a unit."""
        inputs, _ = network.edges([number])
        run = self.runner(network.format, network.piece([number]))
        arrays = drawn_inputs(network, inputs)
        taken = best_ns(lambda: run(arrays), self.threads)
        self.units[network.units[number].signature] = taken

    def measure_missing(
        self, network: Network, units: Iterable[int], progress: Progress, label: str
    ) -> None:
        """Measure some units of a network that are not known yet, and keep them."""
        numbers = {
            network.units[number].signature: number
            for number in units
            if not self.knows(network.units[number])
        }
        if not numbers:
            return
        for unit in progress([network.units[n] for n in numbers.values()], label):
            self.measure(network, numbers[unit.signature])
        self.save()

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


def load_profile(threads: int, folder: Path, device: str = "cpu", model: str = "") -> Profile:
    """Return the profile of a device of this machine, empty if there is none of this version.

    Args:
        threads: of the CPU, 0 for another device.
        folder: of profiles.
        device: what it is.
        model: which of its kind, if not the CPU.
    """
    machine = _machine() | ({"device": model} if model else {})
    key = hashlib.sha256(json.dumps([_VERSION, machine], sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{device}-{threads}-{key}.json"
    try:
        content: Any = json.loads(path.read_bytes())
        rates = {str(name): Rates(**item) for name, item in content["rates"].items()}
        units = {str(name): int(taken) for name, taken in content["units"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Profile(threads, path)
    return Profile(threads, path, rates, units)
