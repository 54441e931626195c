"""The timing kernel and the plain simulator of docs/timing.md on one program, compared."""

from __future__ import annotations

from collections import Counter

import pytest

from lepton.errors import CheckError
from lepton.isa import BY_MNEMONIC, disassemble
from lepton.program import Program
from lepton.simulator import simulate_timing
from lepton.trace import Trace
from tests.naive_timing import Deadlock, NaiveTiming, naive_timing
from tests.simulator.timing_cases import random_program

__all__ = ["compare", "cores_met", "describe", "difference", "run_seed", "timing_verdict"]

STALLS = ("fetch", "dispatch", "semaphore", "preload", "memory")
DRAM_SHARE = 0.8
"""Of the memories of a chip that has DRAMs."""


def describe(program: Program, what: str) -> str:
    listing = enumerate(disassemble(program.decoded).splitlines())
    lines = "\n".join(f"{number:3} {line}" for number, line in listing)
    return f"{what}\n{program.chip}\n{program.regions}\n{lines}"


def difference(naive: NaiveTiming, trace: Trace) -> str:
    """Return the first instruction of which the two say different things, or nothing."""
    assert naive.records.dtype.names is not None
    for mine, kernels in zip(naive.records, trace.records, strict=True):
        if mine != kernels:
            names = [name for name in naive.records.dtype.names if mine[name] != kernels[name]]
            said = ", ".join(f"{n} {mine[n]} (kernel {kernels[n]})" for n in names)
            return f"instruction {mine['instruction']}: {said}"
    if (naive.cycles, naive.regions) != (trace.cycles, trace.regions):
        return f"regions {naive.regions} to {naive.cycles} (kernel {trace.regions})"
    for unit, (name, causes) in zip(naive.attribution, trace.attribution().items(), strict=True):
        kernels = Counter(
            {"semaphore": sum(n for cause, n in causes.items() if cause.startswith("wait_"))}
            | {cause: n for cause, n in causes.items() if not cause.startswith("wait_")}
        )
        if +Counter(unit) != +kernels:
            return f"attribution of {name}: {unit} (kernel {causes})"
        if sum(causes.values()) != trace.cycles or min(causes.values()) < 0:
            return f"attribution of {name}: {causes} do not add up to {trace.cycles}"
    return ""


def compare(program: Program) -> NaiveTiming | int:
    """Return what both say: the timing, or the instruction at which the program deadlocks."""
    try:
        naive = naive_timing(program)
    except Deadlock as deadlock:
        stuck: int = deadlock.args[0]
        with pytest.raises(CheckError, match=f"^instruction {stuck}: deadlock"):
            simulate_timing(program)
        return stuck
    found = difference(naive, simulate_timing(program))
    assert not found, describe(program, found)
    return naive


def run_seed(seed: int, cores: int = 1) -> Counter[str]:
    """Compare both on a random program, of ten seeds three with DRAMs; return what happened."""
    has_drams = seed % 10 >= 7
    program = random_program(seed, DRAM_SHARE if has_drams else 0.0, cores)
    try:
        timing = compare(program)
    except Exception as error:
        raise AssertionError(f"seed {seed}, {cores} cores: {error}") from error
    met = Counter({"programs": 1, "programs with DRAMs": int(has_drams)})
    if isinstance(timing, int):
        return met + Counter({"deadlocks": 1})
    return met + _units_met(timing, program) + _memories_met(simulate_timing(program))


def _units_met(naive: NaiveTiming, program: Program) -> Counter[str]:
    """Return how often instructions met what can happen to them."""
    met, rows = Counter[str](), naive.records
    for item, lost in zip(program.decoded, rows["stall_bank"] > 0, strict=True):
        met[f"instruction {item.mnemonic}"] += 1
        met["waits for several signals"] += item.wait.bit_count() > 1
        met[f"bank lost by {item.unit.name.lower()}"] += int(lost)
    for name in STALLS:
        met[f"stall {name}"] += int((rows[f"stall_{name}"] > 0).sum())
    met["several regions"] += len(naive.regions) > 1
    return +(met + cores_met(naive, program))


def cores_met(naive: NaiveTiming, program: Program) -> Counter[str]:
    """Return how often cores met each other, of programs for several."""
    cores, rows = program.chip.cores, naive.records[naive.records["queue"] >= 0]
    if cores == 1:
        return Counter()
    queues = len(naive.attribution) // cores
    core, cause = rows["queue"] // queues, rows["cause_queue"] // queues
    met = Counter({"idle cores": cores - len(set(core.tolist()))})
    met["signals of another core"] += int(((rows["cause_queue"] >= 0) & (cause != core)).sum())
    return met


def _memories_met(trace: Trace) -> Counter[str]:
    """Return in how many memories, DRAMs but for writes, each event came up."""
    met = Counter[str]()
    for memory in trace.memories:
        met["memories with row hits"] += memory.row_hits > 0
        met["memories with row misses"] += memory.row_misses > 1
        met["memories with refreshes"] += memory.refreshes > 1
        met["memories written"] += memory.write_bytes > 0
    return +met


def timing_verdict(met: Counter[str]) -> str:
    """Judge whether the programs of many seeds met everything often enough."""
    fifth = met["programs"] // 5
    least = {f"instruction {mnemonic}": fifth for mnemonic in BY_MNEMONIC}
    least |= {f"bank lost by {unit}": fifth for unit in ("load", "store", "matrix", "vector")}
    least |= {f"stall {name}": fifth for name in STALLS}
    least |= {"waits for several signals": fifth, "several regions": fifth}
    dram = met["programs with DRAMs"] // 5
    least |= {f"memories with {name}": dram for name in ("row hits", "row misses", "refreshes")}
    least |= {"memories written": dram, "deadlocks": met["programs"] // 200}
    rare = [f"{name}: {met[name]}" for name, count in least.items() if met[name] < count]
    if rare:
        return f"of {met['programs']} programs, seldom met: {', '.join(rare)}"
    if met["deadlocks"] > met["programs"] // 10:
        return f"{met['deadlocks']} of {met['programs']} programs deadlock"
    wrong = [unit for unit in ("weights", "control") if met[f"bank lost by {unit}"]]
    return f"banks held up: {', '.join(wrong)}" if wrong else ""
