"""From a program to its trace: prepares the kernel's arrays and runs it."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.cost.packed_work import fill_program_work
from lepton.errors import CheckError
from lepton.isa.footprints import first_shared, queue_count, queue_names
from lepton.program import Program
from lepton.program.fetch import E_FIRST_GROUP, GROUP_COLUMNS, STREAM_COLUMNS, fetch_streams
from lepton.simulator.kernel import LONGEST, run_program
from lepton.simulator.kernel_records import R_OPERATOR
from lepton.simulator.kernel_state import (
    INSTRUCTION_COLUMNS,
    NEVER,
    Settings,
)
from lepton.simulator.memories import TOTAL_BINS, TOTALS, cold_memories
from lepton.trace import RECORD, MemoryCounters, Trace

__all__ = ["simulate_timing"]

I64 = NDArray[np.int64]
_BINS = 1024
_FIRST_SHIFT = 6
"""A bin of the profile is at first so many doublings of a cycle wide."""
_NO_GROUPS = np.zeros((0, len(GROUP_COLUMNS)), np.int64)


def _settings(chip: Chip) -> Settings:
    """Return the scalars of a chip."""
    queues = queue_count(chip.dma.load_channels, chip.dma.store_channels)
    first_queue = 2 * chip.cores
    return Settings(
        ticks=chip.cycle_ticks,
        cores=chip.cores,
        queues=queues * chip.cores,
        core_queues=queues,
        transfer_queues=queues - 2,
        queue_depth=chip.control.queue_depth,
        burst_bytes=chip.dma.burst_bytes,
        outstanding=chip.dma.outstanding,
        setup_cycles=chip.dma.setup_cycles,
        port_bytes=chip.scratchpad.port_bytes,
        bank_bytes=chip.scratchpad.bank_bytes,
        program_memory=chip.memory_index(chip.placement.program),
        fetch_outstanding=chip.control.fetch_outstanding,
        first_shared=first_shared(chip.cores),
        first_queue=first_queue,
        first_channel=first_queue + queues * chip.cores,
        start=0,
        stop=0,
        base=0,
    )


def _queue_names(chip: Chip) -> tuple[str, ...]:
    return tuple(queue_names(chip.dma.load_channels, chip.dma.store_channels, chip.cores))


def _streams(program: Program) -> tuple[I64, I64]:
    """Return the NPU's regions as the kernel takes them, and the groups of all."""
    found = [fetch_streams(program, r) for r in program.regions if r.device == "npu"]
    if len(found) == 1:
        return found[0][0][None], found[0][1]
    made = np.zeros((len(found), program.chip.cores, len(STREAM_COLUMNS)), np.int64)
    fetched = 0
    for row, (streams, groups) in zip(made, found, strict=True):
        row[:] = streams
        row[:, E_FIRST_GROUP:] += fetched
        fetched += len(groups)
    return made, np.concatenate([_NO_GROUPS, *(groups for _, groups in found)])


def simulate_timing(program: Program) -> Trace:
    """Return the trace of one inference from a cold chip.

    Raises:
        CheckError: the program deadlocks, or takes longer than the ticks of its chip can count.
    """
    began = time.perf_counter()
    chip, table = program.chip, program.table
    work = np.zeros((len(table) + 1, INSTRUCTION_COLUMNS), np.int64)
    fill_program_work(program, work)
    bins = np.zeros((len(chip.memories) + 1, _BINS), np.int64)
    bins[-1, 0] = _FIRST_SHIFT
    totals = np.zeros((len(chip.memories), TOTALS), np.int64)
    fields = np.zeros((len(table), RECORD.itemsize // 8), np.int64)
    fields[:, R_OPERATOR] = program.operator_of
    settings, cold = chip.derived(_settings), chip.derived(cold_memories)
    streams, groups = _streams(program)
    cycles = np.zeros((len(streams), 2), np.int64)
    stuck = run_program(settings, streams, work, groups, table, cold, bins, cycles, fields, totals)
    if stuck != -1:
        raise _failure(settings, stuck)
    spans = tuple((begin, end) for begin, end in cycles.tolist())
    return Trace(
        records=fields.view(RECORD)[:, 0],
        queues=chip.derived(_queue_names),
        cycles=spans[-1][1] if spans else 0,
        regions=spans,
        memories=_counters(chip, totals, bins),
        profile_cycles=1 << int(bins[-1, 0]),
        clock_hz=chip.cycles_per_second,
        seconds=time.perf_counter() - began,
    )


def _failure(settings: Settings, stuck: int) -> CheckError:
    """Return the error of a run that has not come to its end."""
    if stuck == LONGEST:
        return CheckError(
            f"the program takes too long: at {settings.ticks} ticks a cycle no more than "
            f"{NEVER // settings.ticks} cycles can be timed; choose rounder clock_mhz"
        )
    return CheckError(f"instruction {stuck}: deadlock, it waits for a signal that never comes")


def _counters(chip: Chip, totals: I64, bins: I64) -> tuple[MemoryCounters, ...]:
    """Return the traffic of every memory."""
    listed = zip(chip.memories, totals.tolist(), bins, strict=False)
    return tuple(
        MemoryCounters(memory.name, *row[:TOTAL_BINS], profile=profile[: row[TOTAL_BINS]].copy())
        for memory, row, profile in listed
    )
