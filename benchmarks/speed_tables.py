"""What the simulation's speed is measured as: tables, and the limits it must keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.page import Limit, markdown_table
from benchmarks.scalesim import Comparison
from lepton.chip import Chip, Dram
from lepton.trace import Trace

__all__ = ["Cold", "Ideal", "Network", "Spent", "Warm", "bursts", "ideal_table", "limits"]
__all__ += ["network_tables", "peers_table"]

ONNXIM_CYCLES_PER_S = 46_000
"""Stated, not measured here: core cycles on ResNet-50, 4 cores of 128 x 128 and HBM2."""
FEW_BURSTS_PER_CYCLE = 1 / 8
"""Runs with at most so much memory traffic must reach the limit of cycles per second."""
RESNET, MOBILENET = "ResNet-50", "MobileNetV2"
"""How the names of the networks begin that have limits of their own."""


class Spent(NamedTuple):
    """What a user waited for, and what all processes took."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Warm:
    """A program in a process that has run it before; CPU seconds unless said.

    Attributes:
        bursts: column commands of the DRAM, and bursts of flat memories.
        timing_s: of a program that has been simulated before.
        loaded_s: of one that was just loaded, to be decoded.
        values_s: of values alone, without timing or check.
    """

    instructions: int
    cycles: int
    bursts: float
    timing_s: float
    loaded_s: float
    values_s: float
    values_wall_s: float
    estimated: int
    estimate_s: float


@dataclass(frozen=True)
class Cold:
    """`lepton run` in a fresh process, kernels in the cache: with values, and timing only."""

    timing_wall_s: float
    timing_s: float
    timing_mb: float
    values_wall_s: float
    values_s: float
    values_mb: float


@dataclass(frozen=True)
class Network:
    """A network on a chip."""

    name: str
    chip: str
    warm: Warm
    cold: Cold

    @property
    def title(self) -> str:
        return f"{self.name} on {self.chip}"

    @property
    def cycles_per_s(self) -> float:
        return self.warm.cycles / self.warm.timing_s

    @property
    def loaded_cycles_per_s(self) -> float:
        return self.warm.cycles / self.warm.loaded_s

    @property
    def bursts_per_cycle(self) -> float:
        return self.warm.bursts / self.warm.cycles


@dataclass(frozen=True)
class Ideal:
    """A layer table on an array that never waits, SCALE-Sim's machine."""

    array: str
    dataflow: str
    cycles: int
    bursts_per_cycle: float
    timing_s: float

    @property
    def title(self) -> str:
        return f"ResNet-50 table in SCALE-Sim's mode, {self.array} {self.dataflow}"

    @property
    def cycles_per_s(self) -> float:
        return self.cycles / self.timing_s


def bursts(chip: Chip, trace: Trace) -> float:
    """Return the bursts of all memories: a DRAM's column commands, a flat one's bytes / burst."""
    return sum(
        counted.row_hits + counted.row_misses
        if isinstance(memory, Dram)
        else (counted.read_bytes + counted.write_bytes) / memory.burst_bytes
        for memory, counted in zip(chip.memories, trace.memories, strict=True)
    )


def limits(
    networks: Sequence[Network],
    jit: Mapping[str, Spent],
    arrays: Sequence[Ideal],
    found: Sequence[Comparison],
) -> list[Limit]:
    """Return every limit with what was measured."""
    return [
        *_warm_limits(networks),
        *_rate_limits(networks, arrays),
        *_first_limits(networks, jit),
    ] + [
        Limit(f"times SCALE-Sim's speed, {_title(pair)}", 2000, _ratio(pair), is_least=True)
        for pair in found
    ]


def _named(networks: Sequence[Network], name: str) -> list[Network]:
    return [network for network in networks if network.name.startswith(name)]


def _warm_limits(networks: Sequence[Network]) -> list[Limit]:
    """Return the limits of timing and of values."""
    resnets = _named(networks, RESNET)
    timing = [(network, 0.08) for network in resnets]
    timing += [(network, 0.02) for network in _named(networks, MOBILENET)]
    made = [Limit(f"timing, {n.title}, CPU s", most, n.warm.timing_s) for n, most in timing]
    return made + [Limit(f"values, {n.title}, wall s", 0.3, n.warm.values_wall_s) for n in resnets]


def _rate_limits(networks: Sequence[Network], arrays: Sequence[Ideal]) -> list[Limit]:
    """Return the limits of cycles per second, of all runs with so little memory traffic."""
    found = [(run.title, run.cycles_per_s, run) for run in [*networks, *arrays]]
    made = [
        Limit(f"M cycles per CPU s, {title}", 50, rate / 1e6, is_least=True)
        for title, rate, run in found
        if run.bursts_per_cycle <= FEW_BURSTS_PER_CYCLE
    ]
    slowest = min(network.cycles_per_s for network in networks)
    name = "times ONNXim's stated speed, the slowest network"
    return [*made, Limit(name, 100, slowest / ONNXIM_CYCLES_PER_S, is_least=True)]


def _first_limits(networks: Sequence[Network], jit: Mapping[str, Spent]) -> list[Limit]:
    """Return the limits of first JIT, cold start and memory."""
    walls = [s for n in networks for s in (n.cold.timing_wall_s, n.cold.values_wall_s)]
    parts = ", ".join(f"{name} {spent.wall_s:.1f}" for name, spent in jit.items())
    cpu_s = sum(spent.cpu_s for spent in jit.values())
    title = f"first JIT, wall s ({parts}; CPU s of all processes {cpu_s:.1f})"
    return [
        Limit(title, 40, sum(spent.wall_s for spent in jit.values())),
        Limit("cold start, the slowest, wall s", 1.5, max(walls)),
        *(
            Limit(f"memory without values, {n.title}, MB", 500, n.cold.timing_mb)
            for n in _named(networks, RESNET)
        ),
    ]


def network_tables(networks: Sequence[Network]) -> str:
    """Return what the networks take, warm and cold, and their estimates."""
    return "\n\n".join([_warm_table(networks), _cold_table(networks), _estimates(networks)])


def _warm_table(networks: Sequence[Network]) -> str:
    head = (
        "network", "chip", "instructions", "cycles", "bursts per cycle", "timing s",
        "M cycles per s", "just loaded s", "M cycles per s", "times ONNXim", "values s",
        "values, wall s",
    )  # fmt: skip
    rows = [
        (
            n.name, n.chip, n.warm.instructions, n.warm.cycles, n.bursts_per_cycle,
            n.warm.timing_s, n.cycles_per_s / 1e6, n.warm.loaded_s, n.loaded_cycles_per_s / 1e6,
            n.cycles_per_s / ONNXIM_CYCLES_PER_S, n.warm.values_s, n.warm.values_wall_s,
        )
        for n in networks
    ]  # fmt: skip
    text = (
        "Timing of a program that has been simulated before, and of one just read from its file,\n"
        "which includes decoding; nothing includes the check. Bursts are those of the DRAM,\n"
        f"instruction fetch included. ONNXim's speed, {ONNXIM_CYCLES_PER_S:,} cycles per CPU s, is "
        "stated, not\nmeasured in this run; programs simulated before stand beside it."
    )
    return _section("Warm", text, markdown_table(head, rows, 2))


def _cold_table(networks: Sequence[Network]) -> str:
    head = (
        "network", "chip", "timing, wall s", "timing s", "timing, peak MB",
        "with values, wall s", "with values s", "with values, peak MB",
    )  # fmt: skip
    rows = [
        (
            n.name, n.chip, n.cold.timing_wall_s, n.cold.timing_s, n.cold.timing_mb,
            n.cold.values_wall_s, n.cold.values_s, n.cold.values_mb,
        )
        for n in networks
    ]  # fmt: skip
    text = (
        "`lepton run` on the program's file in a fresh process, the kernels in the cache on disk."
    )
    return _section("Cold start", text, markdown_table(head, rows, 2))


def _estimates(networks: Sequence[Network]) -> str:
    head = ("network", "chip", "simulated", "estimated", "error %", "us", "times faster")
    rows = [
        (
            n.name, n.chip, n.warm.cycles, n.warm.estimated,
            f"{100 * (n.warm.estimated / n.warm.cycles - 1):+.2f}", 1e6 * n.warm.estimate_s,
            n.warm.timing_s / n.warm.estimate_s,
        )
        for n in networks
    ]  # fmt: skip
    text = "Not a simulation, and in no figure above: `lepton.estimate` of the same programs, warm."
    return _section("The closed-form estimate", text, markdown_table(head, rows, 2))


def ideal_table(arrays: Sequence[Ideal]) -> str:
    """Return what the table takes in SCALE-Sim's mode."""
    rows = [(a.array, a.dataflow, a.cycles, a.timing_s, a.cycles_per_s / 1e6) for a in arrays]
    head = ("array", "dataflow", "compute cycles", "timing s", "M cycles per s")
    text = (
        "The event kernel, warm, on one encoded program of all layers; SCALE-Sim's compute cycles."
    )
    return _section("ResNet-50's table in SCALE-Sim's mode", text, markdown_table(head, rows, 2))


def _ratio(pair: Comparison) -> float:
    return pair.theirs.seconds / pair.ours.seconds


def _title(pair: Comparison) -> str:
    return f"{pair.array} x {pair.array} {pair.dataflow}"


def peers_table(found: Sequence[Comparison]) -> str:
    """Return the layers that SCALE-Sim ran in the same run."""
    title = "Beside SCALE-Sim"
    if not found:
        return _section(title, "Not in this run: it needs `--scalesim PYTHON`.")
    head = ("array", "compute cycles, both", "ours s", "SCALE-Sim s", "times faster")
    rows = [
        (_title(p), sum(p.ours.cycles), p.ours.seconds, p.theirs.seconds, _ratio(p)) for p in found
    ]
    text = (
        f"Layers {', '.join(layer.name for layer in found[0].layers)} of ResNet-50's table, in one "
        "run of each, warm here.\nThe compute cycles are equal layer by layer."
    )
    return _section(title, text, markdown_table(head, rows, 1))


def _section(title: str, *parts: str) -> str:
    return "\n\n".join([f"### {title}", *parts])
