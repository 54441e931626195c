"""What a design point is judged by: metrics with units, objectives and constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.cost.area import part_areas

__all__ = ["CHIP_METRICS", "METRICS", "Constraint", "Metric", "chip_metrics", "combined"]
__all__ += ["feasible", "objective_matrix"]

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A figure of a design point.

    Attributes:
        name: with its unit.
        about: what it is, for people.
        is_less_better: whether it is minimized where it is an objective.
    """

    name: str
    about: str
    is_less_better: bool = True

    @property
    def sign(self) -> float:
        """By which it is multiplied to be minimized."""
        return 1.0 if self.is_less_better else -1.0


METRICS = {
    metric.name: metric
    for metric in (
        Metric("latency_ms", "time of an inference, mean over the workloads by weight"),
        Metric("energy_mj", "energy of an inference, mean over the workloads by weight"),
        Metric("edp_mj_ms", "mean energy times mean time"),
        Metric("power_mw", "energy over time"),
        Metric("inferences_per_s", "1 over the mean time", is_less_better=False),
        Metric("inferences_per_s_mm2", "the same per area of the NPU", is_less_better=False),
        Metric("area_mm2", "area of the NPU, external memories left out"),
        Metric("sram_kib", "all SRAM on the chip"),
        Metric("peak_tops", "10^12 operations per second, a MAC is two", is_less_better=False),
    )
}
"""Metrics by name; docs/sweeps.md has them as a table."""

CHIP_METRICS = ("area_mm2", "sram_kib", "peak_tops")
"""Those that no workload has a say in."""


@dataclass(frozen=True)
class Constraint:
    """Limits of a metric; infinite where there is none."""

    metric: str
    at_least: float
    at_most: float

    def __str__(self) -> str:
        low = f"{self.at_least:g} <= " if self.at_least > -np.inf else ""
        high = f" <= {self.at_most:g}" if self.at_most < np.inf else ""
        return f"{low}{self.metric}{high}"


def chip_metrics(chip: Chip) -> dict[str, float]:
    """Return `CHIP_METRICS` of a chip."""
    parts = part_areas(chip).values()
    macs_per_second = chip.peak_macs_per_cycle * float(chip.array.clock_mhz) * 1e6
    return {
        "area_mm2": sum(part.mm2 for part in parts),
        "sram_kib": sum(part.sram_kib for part in parts),
        "peak_tops": 2 * macs_per_second / 1e12,
    }


def combined(
    chip: Mapping[str, F64], milliseconds: F64, millijoules: F64, weights: Sequence[float]
) -> dict[str, F64]:
    """Return all metrics of n points.

    Args:
        chip: `CHIP_METRICS`, `[n]` each.
        milliseconds: `[n, workloads]` of an inference.
        millijoules: `[n, workloads]` of an inference.
        weights: how often each workload runs, relative to the others.
    """
    share = np.asarray(weights, np.float64) / sum(weights)
    latency, energy = milliseconds @ share, millijoules @ share
    rate = 1000.0 / latency
    return {
        "latency_ms": latency,
        "energy_mj": energy,
        "edp_mj_ms": latency * energy,
        "power_mw": 1000.0 * energy / latency,
        "inferences_per_s": rate,
        "inferences_per_s_mm2": rate / chip["area_mm2"],
        **chip,
    }


def objective_matrix(metrics: Mapping[str, F64], names: Sequence[str]) -> F64:
    """Return `[n, objectives]`, all to be minimized."""
    return np.stack([METRICS[name].sign * metrics[name] for name in names], axis=1)


def feasible(
    constraints: Sequence[Constraint], metrics: Mapping[str, F64], slack: float = 0.0
) -> NDArray[np.bool_]:
    """Return which points are within the constraints, widened by a share of each limit.

    Limits of what only the chip has a say in are never widened.
    """
    made = ~np.isnan(metrics["latency_ms"])
    for constraint in constraints:
        values = metrics[constraint.metric]
        own = 0.0 if constraint.metric in CHIP_METRICS else slack
        low, high = constraint.at_least, constraint.at_most
        with np.errstate(invalid="ignore"):
            made &= (values >= low - own * abs(low)) if np.isfinite(low) else True
            made &= (values <= high + own * abs(high)) if np.isfinite(high) else True
    return made
