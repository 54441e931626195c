"""The cycles of a program without simulating its memories' requests; docs/estimate.md."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lepton.cost.columns import W_DECODER, W_MEMORY, W_PRELOAD, W_QUEUE, W_READS, WALK, WORK
from lepton.cost.packed_work import PackedWork, fill_program_work
from lepton.cost.schedule_kernel import schedule_region
from lepton.cost.schedule_state import (
    EXPAND,
    FACTS,
    FIRST_EDGE,
    IS_STORE,
    MEMORY_OF,
    PRELOAD,
    QUEUE,
    READ_BANKS,
    TIMES,
    Scalars,
)
from lepton.cost.service import memory_rows, service
from lepton.errors import CheckError
from lepton.isa.declaration import BY_MNEMONIC
from lepton.isa.footprints import first_shared
from lepton.program import Program
from lepton.program.fetch import G_ADDRESS, G_BYTES, fetch_streams

__all__ = ["Estimate", "estimate_program"]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
_NO_PORT = 1 << 40


@dataclass(frozen=True)
class Estimate:
    """Estimated times of a program.

    Attributes:
        cycles: from the cold chip to the last byte written back, NPU regions one after the other.
        regions: `(start_cycle, end_cycle)` of each NPU region.
        times: `[n, TIMES]` of the instructions, columns as `lepton.cost.schedule_kernel` has them.
    """

    cycles: int
    regions: tuple[tuple[int, int], ...]
    times: F64
    seconds: float = field(default=0.0, compare=False)
    """Wall time of the estimate."""


def _facts(program: Program, rows: F64, packed: PackedWork | None) -> tuple[I64, F64]:
    """Return the facts of each instruction and what each transfer asks of its memory."""
    chip, table = program.chip, program.table
    facts = np.zeros((len(table) + 1, FACTS), np.int64)
    work = np.zeros((len(table), len(WORK)), np.int64)
    fill_program_work(program, work, packed)
    known = facts[:-1]
    known[:, [QUEUE, MEMORY_OF]] = work[:, [W_QUEUE, W_MEMORY]]
    known[:, PRELOAD:EXPAND] = work[:, W_PRELOAD:W_READS]
    known[:, EXPAND] = work[:, W_DECODER]
    known[:, IS_STORE] = table[:, 0] == BY_MNEMONIC["store"].opcode
    known[:, READ_BANKS:FIRST_EDGE] = work[:, W_READS:W_MEMORY]
    needs = np.zeros((len(table), 3))
    walks = np.ascontiguousarray(work[:, W_MEMORY:])
    service(rows, chip.scratchpad.port_bytes, walks, needs)
    return facts, needs


def _fetches(program: Program, groups: I64, rows: F64) -> F64:
    """Return what each fetch of a region asks of its memory; it meets no port."""
    walks = np.zeros((len(groups), len(WALK)), np.int64)
    walks[:, :7] = program.program_memory, 0, 0, 1, 0, 1, 0
    walks[:, 1], walks[:, 2] = groups[:, G_ADDRESS], groups[:, G_BYTES]
    needs = np.zeros((len(groups), 3))
    service(rows, _NO_PORT, walks, needs)
    return needs


def estimate_program(program: Program, packed: PackedWork | None = None) -> Estimate:
    """Return the estimate of one inference from a cold chip.

    Args:
        program: what runs.
        packed: what zero weights save, if it is not what the program's own constants say.

    Raises:
        CheckError: the program deadlocks.
    """
    began = time.perf_counter()
    chip = program.chip
    rows = memory_rows(chip)
    facts, needs = _facts(program, rows, packed)
    times = np.zeros((len(program.table), TIMES))
    cycle = 0.0
    spans: list[tuple[int, int]] = []
    for region in program.regions:
        if region.device != "npu":
            continue
        streams, groups = fetch_streams(program, region)
        scalars = Scalars(
            cores=chip.cores,
            transfer_queues=chip.dma.load_channels + chip.dma.store_channels + 1,
            queue_depth=chip.control.queue_depth,
            outstanding=chip.dma.outstanding,
            setup_cycles=chip.dma.setup_cycles,
            program_memory=program.program_memory,
            first_shared=first_shared(chip.cores),
            start=region.start,
            stop=region.stop,
            base=cycle,
        )
        asked = _fetches(program, groups, rows)
        end, stuck = schedule_region(
            scalars, streams, facts, times, needs, groups, asked, program.table, rows
        )
        if stuck >= 0:
            raise CheckError(
                f"instruction {stuck}: deadlock, it waits for a signal that never comes"
            )
        spans.append((int(cycle), int(end)))
        cycle = float(end)
    return Estimate(int(cycle), tuple(spans), times, time.perf_counter() - began)
