"""From a program to its trace: prepares the kernel's arrays and runs it region by region."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.cost import instruction_costs
from lepton.errors import CheckError
from lepton.isa import WORD_BYTES, records
from lepton.isa.declaration import BY_MNEMONIC
from lepton.isa.encoding import COLUMNS
from lepton.isa.footprints import Space, footprints, queue_names, queues
from lepton.program import Program, Region
from lepton.simulator import dram, kernel
from lepton.trace import RECORD, MemoryCounters, Trace

__all__ = ["simulate_timing"]

I64 = NDArray[np.int64]
_BINS = 1024


def _bank_masks(boxes: I64, count: int, bank_bytes: int) -> tuple[I64, I64]:
    """Return the masks of scratchpad banks that each instruction reads and writes."""
    mine = boxes[boxes[:, 1] == Space.SCRATCHPAD]
    last = mine[:, 3] + mine[:, 4] - 1
    for low in (5, 7, 9):
        last = last + (mine[:, low] - 1) * mine[:, low + 1]
    low_bit = mine[:, 3] // bank_bytes
    high_bit = last // bank_bytes
    one = np.ones_like(low_bit)
    mask = np.left_shift(one, high_bit + 1) - np.left_shift(one, low_bit)
    masks = np.zeros((2, count), np.int64)
    for write in (0, 1):
        chosen = mine[:, 2] == write
        np.bitwise_or.at(masks[write], mine[chosen, 0], mask[chosen])
    return masks[0], masks[1]


def _transfer_columns(table: I64) -> dict[str, I64]:
    """Return the walk of each transfer through its memory, contiguous dimensions merged."""
    column = {name: table[:, COLUMNS[name]] for name in COLUMNS}
    is_weights = table[:, 0] == BY_MNEMONIC["weights"].opcode
    run = np.where(is_weights, column["stream_bytes"], column["row_bytes"])
    rows = np.where(is_weights, 1, column["rows"])
    planes = np.where(is_weights, 1, column["planes"])
    merge = (column["row_stride"] == run) & ~is_weights
    plane_stride = column["plane_stride"]
    whole = np.where(merge, run * rows, run)
    rows = np.where(merge, 1, rows)
    merge_planes = merge & (plane_stride == whole)
    return {
        "memory": column["memory"],
        "address": column["address"],
        "run": np.where(merge_planes, whole * planes, whole),
        "rows": rows,
        "row_stride": column["row_stride"],
        "planes": np.where(merge_planes, 1, planes),
        "plane_stride": plane_stride,
        "scratchpad": column["scratchpad"],
        "expanded": np.where(is_weights, column["reduction"] * column["columns"], 0),
    }


def _work(chip: Chip, table: I64, boxes: I64) -> I64:
    """Return what the kernel needs of every instruction, `[n, len(WORK)]`."""
    costs = instruction_costs(table, chip)
    reads, writes = _bank_masks(boxes, len(table), chip.scratchpad.bank_bytes)
    columns = {
        "queue": queues(table, chip.dma.load_channels, chip.dma.store_channels),
        "wait": table[:, COLUMNS["wait"]],
        "signal": table[:, COLUMNS["signal"]],
        "reads": reads,
        "writes": writes,
        **costs._asdict(),
        **_transfer_columns(table),
    }
    return np.stack([columns[name] for name in kernel.WORK], axis=1)


def _settings(program: Program, region: Region) -> kernel.Settings:
    """Return the scalars of one region's run."""
    chip = program.chip
    transfers = chip.dma.load_channels + chip.dma.store_channels + 1
    return kernel.Settings(
        ticks=chip.ticks(chip.array.clock_mhz),
        queues=transfers + 2,
        transfer_queues=transfers,
        queue_depth=chip.control.queue_depth,
        burst_bytes=chip.dma.burst_bytes,
        outstanding=chip.dma.outstanding,
        setup_cycles=chip.dma.setup_cycles,
        port_bytes=chip.scratchpad.port_bytes,
        bank_bytes=chip.scratchpad.bank_bytes,
        decoder_bytes=chip.weight_buffer.decoder_bytes_per_cycle,
        program_memory=program.program_memory,
        program_address=program.program_address,
        word_bytes=WORD_BYTES,
        fetch_bytes=max(chip.control.fetch_bytes // WORD_BYTES, 1) * WORD_BYTES,
        fetch_outstanding=chip.control.fetch_outstanding,
        start=region.start,
        stop=region.stop,
    )


def _most_signals(table: I64) -> int:
    """Return the signals of the busiest semaphore, at least 1."""
    signals = table[:, COLUMNS["signal"]]
    bits = signals[:, None] >> np.arange(60) & 1
    return max(int(bits.sum(axis=0).max(initial=0)), 1)


def simulate_timing(program: Program) -> Trace:
    """Return the trace of one inference from a cold chip.

    Raises:
        CheckError: the program deadlocks.
    """
    began = time.perf_counter()
    chip = program.chip
    table = records(program.decoded)
    work = _work(chip, table, footprints(table))
    memories = dram.memory_state(chip)
    times = np.zeros((len(table), len(kernel.TRACE)), np.int64)
    bins = np.zeros((len(chip.memories) + 1, _BINS), np.int64)
    bins[-1, 0] = 64
    cycle = 0
    spans: list[tuple[int, int]] = []
    most = _most_signals(table)
    for region in program.regions:
        if region.device != "npu":
            continue
        settings = _settings(program, region)
        end, stuck = kernel.run_region(settings, work, memories, times, bins, most, cycle)
        if stuck >= 0:
            raise CheckError(
                f"instruction {stuck}: deadlock, it waits for a signal that never comes"
            )
        spans.append((cycle, int(end)))
        cycle = int(end)
    names = queue_names(chip.dma.load_channels, chip.dma.store_channels)
    return Trace(
        records=_records(program, work[:, kernel.W_QUEUE], times),
        queues=tuple(names),
        cycles=cycle,
        regions=tuple(spans),
        memories=_counters(chip, memories, bins),
        profile_cycles=int(bins[-1, 0]),
        clock_hz=chip.cycles_per_second,
        seconds=time.perf_counter() - began,
    )


def _records(program: Program, queue: I64, times: I64) -> NDArray[np.void]:
    """Return the trace's records."""
    made = np.zeros(len(times), RECORD)
    made["instruction"] = np.arange(len(times))
    made["operator"] = program.operator_of
    made["queue"] = queue
    sources = (
        "dispatch",
        "start",
        "end",
        "retire",
        "fetch",
        "semaphore",
        "cause",
        "bank",
        "memory",
    )
    targets = ("dispatch", "start", "end", "retire", "stall_fetch", "stall_semaphore")
    targets += ("cause_queue", "stall_bank", "stall_memory")
    for source, target in zip(sources, targets, strict=True):
        made[target] = times[:, kernel.TRACE.index(source)]
    return made


def _counters(chip: Chip, memories: dram.MemoryState, bins: I64) -> tuple[MemoryCounters, ...]:
    """Return the traffic of every memory."""
    made: list[MemoryCounters] = []
    for index, memory in enumerate(chip.memories):
        counts = [int(value) for value in memories.counters[index]]
        used = np.flatnonzero(bins[index])
        length = int(used[-1]) + 1 if len(used) else 0
        made.append(MemoryCounters(memory.name, *counts, profile=bins[index, :length].copy()))
    return tuple(made)
