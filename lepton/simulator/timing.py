"""From a program to its trace: prepares the kernel's arrays and runs it region by region."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, Dram
from lepton.cost.work import fill_work
from lepton.errors import CheckError
from lepton.isa.footprints import queue_count, queue_names
from lepton.program import Program, Region
from lepton.program.fetch import fetch_groups
from lepton.simulator.dram_state import ACTIVATES, HITS, PRECHARGES, READS, REFRESHES, WRITES
from lepton.simulator.kernel import LONGEST, run_region
from lepton.simulator.kernel_records import R_OPERATOR
from lepton.simulator.kernel_state import (
    FIRST_QUEUE,
    INSTRUCTION_COLUMNS,
    NEVER,
    Settings,
)
from lepton.simulator.memories import (
    FIRST_CHANNEL,
    READ_BYTES,
    WRITE_BYTES,
    MemoryState,
    memory_state,
)
from lepton.trace import RECORD, MemoryCounters, Trace

__all__ = ["simulate_timing"]

I64 = NDArray[np.int64]
_BINS = 1024
_COUNTERS = max(ACTIVATES, HITS, PRECHARGES, READS, REFRESHES, WRITES) + 1
"""Columns of a channel's block among which its counters are."""


def _settings(program: Program, region: Region, base: int) -> Settings:
    """Return the scalars of one region's run."""
    chip = program.chip
    transfers = chip.dma.load_channels + chip.dma.store_channels + 1
    return Settings(
        ticks=chip.cycle_ticks,
        queues=transfers + 2,
        transfer_queues=transfers,
        queue_depth=chip.control.queue_depth,
        burst_bytes=chip.dma.burst_bytes,
        outstanding=chip.dma.outstanding,
        setup_cycles=chip.dma.setup_cycles,
        port_bytes=chip.scratchpad.port_bytes,
        bank_bytes=chip.scratchpad.bank_bytes,
        program_memory=program.program_memory,
        fetch_outstanding=chip.control.fetch_outstanding,
        start=region.start,
        stop=region.stop,
        base=base,
        first_channel=FIRST_QUEUE + transfers + 2,
    )


def simulate_timing(program: Program) -> Trace:
    """Return the trace of one inference from a cold chip.

    Raises:
        CheckError: the program deadlocks, or takes longer than the ticks of its chip can count.
    """
    began = time.perf_counter()
    chip = program.chip
    table = program.table
    work = np.zeros((len(table) + 1, INSTRUCTION_COLUMNS), np.int64)
    fill_work(table, chip, work)
    memories = memory_state(chip, _tags(chip))
    bins = np.zeros((len(chip.memories) + 1, _BINS), np.int64)
    bins[-1, 0] = 64
    fields = np.zeros((len(table), RECORD.itemsize // 8), np.int64)
    fields[:, R_OPERATOR] = program.operator_of
    cycle = 0
    spans: list[tuple[int, int]] = []
    for region in program.regions:
        if region.device != "npu":
            continue
        settings = _settings(program, region, cycle)
        fetches = fetch_groups(program, region)
        end, stuck = run_region(settings, work, fetches, table, memories, bins, fields)
        if stuck == LONGEST:
            raise CheckError(
                f"the program takes too long: at {settings.ticks} ticks a cycle no more than "
                f"{NEVER // settings.ticks} cycles can be timed; choose rounder clock_mhz"
            )
        if stuck >= 0:
            raise CheckError(
                f"instruction {stuck}: deadlock, it waits for a signal that never comes"
            )
        spans.append((cycle, int(end)))
        cycle = int(end)
    names = queue_names(chip.dma.load_channels, chip.dma.store_channels)
    return Trace(
        records=fields.view(RECORD)[:, 0],
        queues=tuple(names),
        cycles=cycle,
        regions=tuple(spans),
        memories=_counters(chip, memories, bins),
        profile_cycles=int(bins[-1, 0]),
        clock_hz=chip.cycles_per_second,
        seconds=time.perf_counter() - began,
    )


def _tags(chip: Chip) -> int:
    """Return how many requests can be in flight."""
    queues = queue_count(chip.dma.load_channels, chip.dma.store_channels)
    return queues * chip.dma.outstanding + chip.control.fetch_outstanding


def _counters(chip: Chip, memories: MemoryState, bins: I64) -> tuple[MemoryCounters, ...]:
    """Return the traffic of every memory."""
    made: list[MemoryCounters] = []
    for memory, row, profile in zip(chip.memories, memories.memories, bins[:-1], strict=True):
        commands = [0] * 6
        if isinstance(memory, Dram):
            first = row[FIRST_CHANNEL]
            blocks = memories.blocks[first : first + memory.channels, :_COUNTERS]
            total: list[int] = blocks.sum(axis=0).tolist()
            misses = total[READS] + total[WRITES] - total[HITS]
            commands = [total[HITS], misses]
            commands += [total[at] for at in (ACTIVATES, PRECHARGES, REFRESHES, WRITES)]
        used = profile.nonzero()[0]
        length = int(used[-1]) + 1 if len(used) else 0
        moved = int(row[READ_BYTES]), int(row[WRITE_BYTES])
        made.append(MemoryCounters(memory.name, *moved, *commands, profile=profile[:length].copy()))
    return tuple(made)
