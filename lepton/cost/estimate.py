"""The cycles of a program without simulating its memories' requests; docs/estimate.md."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lepton.cost.instructions import instruction_costs
from lepton.cost.schedule_kernel import FACTS, TIMES, Scalars, schedule_region
from lepton.cost.service import Walks, memory_rows, service
from lepton.cost.work import bank_masks, transfer_columns
from lepton.isa import WORD_BYTES
from lepton.isa.encoding import COLUMNS
from lepton.isa.footprints import Space, footprints, queues
from lepton.program import Program, Region

__all__ = ["Estimate", "estimate_program"]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


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


def _facts(program: Program) -> tuple[I64, F64, F64]:
    chip, table = program.chip, program.table
    count = len(table)
    costs = instruction_costs(table, chip)
    boxes = footprints(table)
    walk = transfer_columns(table)
    facts = np.zeros((count + 1, FACTS), np.int64)
    queue = queues(table, chip.dma.load_channels, chip.dma.store_channels)
    sums = bank_masks(boxes, count, Space.ACCUMULATORS, chip.accumulators.bank_elements)
    banks = bank_masks(boxes, count, Space.SCRATCHPAD, chip.scratchpad.bank_bytes)
    decoder = chip.weight_buffer.decoder_bytes_per_cycle
    is_transfer = (queue >= 0) & (queue < chip.dma.load_channels + chip.dma.store_channels + 1)
    is_store = is_transfer & (banks[0] != 0)
    columns = (
        queue, walk["memory"], *costs, -(-walk["expanded"] // decoder), is_store, *banks, *sums,
    )  # fmt: skip
    facts[:count, : len(columns)] = np.stack(columns, axis=1)
    rows = memory_rows(chip)
    needs = np.zeros((count, 3))
    names = ("memory", "address", "run", "rows", "row_stride", "planes", "plane_stride")
    walks = Walks(*(np.where(is_transfer, walk[name], 0) for name in names))
    service(rows, chip.scratchpad.port_bytes, walks, needs)
    return facts, rows, needs


def _fetches(program: Program, region: Region, rows: F64) -> F64:
    group = max(program.chip.control.fetch_bytes // WORD_BYTES, 1)
    first = np.arange(region.start, region.stop, group)
    size = np.minimum(first + group, region.stop) - first
    one = np.ones_like(first)
    walks = Walks(
        one * program.program_memory, program.program_address + first * WORD_BYTES,
        size * WORD_BYTES, one, one * 0, one, one * 0,
    )  # fmt: skip
    needs = np.zeros((len(first), 3))
    service(rows, 1 << 20, walks, needs)
    return needs


def estimate_program(program: Program) -> Estimate:
    """Return the estimate of one inference from a cold chip."""
    began = time.perf_counter()
    chip = program.chip
    facts, rows, needs = _facts(program)
    times = np.zeros((len(program.table), TIMES))
    masks = program.table[:, [COLUMNS["wait"], COLUMNS["signal"]]]
    cycle = 0.0
    spans: list[tuple[int, int]] = []
    for region in program.regions:
        if region.device != "npu":
            continue
        scalars = Scalars(
            transfer_queues=chip.dma.load_channels + chip.dma.store_channels + 1,
            queue_depth=chip.control.queue_depth,
            outstanding=chip.dma.outstanding,
            setup_cycles=chip.dma.setup_cycles,
            group=max(chip.control.fetch_bytes // WORD_BYTES, 1),
            fetch_outstanding=chip.control.fetch_outstanding,
            program_memory=program.program_memory,
            start=region.start,
            stop=region.stop,
            base=cycle,
        )
        fetches = _fetches(program, region, rows)
        end = float(schedule_region(scalars, facts, times, needs, fetches, masks, rows))
        spans.append((int(cycle), int(end)))
        cycle = end
    return Estimate(int(cycle), tuple(spans), times, time.perf_counter() - began)
