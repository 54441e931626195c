"""An estimate layer by layer, as a text and as plain types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton.cost.estimate import Estimate
from lepton.cost.schedule_state import ARRIVE, DISPATCH, END, RETIRE, START
from lepton.isa.footprints import queue_names, queues
from lepton.program import one_line
from lepton.report.attribution import attribute
from lepton.report.names import optimized_text, shorten, tidy_names
from lepton.trace import RECORD, Trace

if TYPE_CHECKING:
    from lepton.program import Program

__all__ = ["estimate_json", "estimate_table", "estimated_layers", "estimated_trace"]

I64 = NDArray[np.int64]


def estimated_trace(program: Program, estimate: Estimate) -> Trace:
    """Return the estimated times in the form of a trace, as far as attribution needs it."""
    dma, cores = program.chip.dma, program.chip.cores
    records = np.zeros(len(program.table), RECORD)
    records["instruction"] = np.arange(len(records))
    records["operator"] = program.operator_of
    records["queue"] = queues(program.table, dma.load_channels, dma.store_channels, cores)
    records["cause"] = records["cause_queue"] = -1
    named = (("arrive", ARRIVE), ("dispatch", DISPATCH), ("start", START), ("end", END))
    for name, column in (*named, ("retire", RETIRE)):
        records[name] = estimate.times[:, column]
    return Trace(
        records=records,
        queues=tuple(queue_names(dma.load_channels, dma.store_channels, cores)),
        cycles=estimate.cycles,
        regions=estimate.regions,
        memories=(),
        profile_cycles=1,
        clock_hz=program.chip.cycles_per_second,
    )


def estimated_layers(program: Program, estimate: Estimate) -> I64:
    """Return the estimated cycles of each operator, which add up to the estimate.

    Cycles belong to operators by the rules that `lepton.report.attribution` has for simulated ones.
    """
    return attribute(estimated_trace(program, estimate), len(program.operators)).cycles


def estimate_json(program: Program, estimate: Estimate) -> dict[str, object]:
    """Return an estimate as plain types."""
    cycles = estimated_layers(program, estimate)
    clock = program.chip.cycles_per_second
    return {
        "model": program.source,
        "chip": program.chip.name,
        "objective": str(program.objective),
        "clock_hz": clock,
        "estimated_cycles": estimate.cycles,
        "estimated_milliseconds": estimate.cycles * 1000 / clock,
        "estimate_seconds": estimate.seconds,
        "instructions": len(program.table),
        "layers": [
            {"index": index, "name": o.name, "op": o.kind, "device": o.device, "macs": o.macs,
             "estimated_cycles": int(cycles[index])}
            for index, o in enumerate(program.operators) if o.kind != "halt" or cycles[index]
        ],
    }  # fmt: skip


def estimate_table(program: Program, estimate: Estimate) -> str:
    """Return an estimate as text."""
    cycles = estimated_layers(program, estimate)
    clock = program.chip.cycles_per_second
    names = tidy_names([operator.name for operator in program.operators])
    lines = [
        f"{one_line(program.source)} on {one_line(program.chip.name)}, {clock / 1e6:,.0f} MHz"
        f"{optimized_text(program.objective)}",
        f"estimated {estimate.cycles:,} cycles, {estimate.cycles * 1000 / clock:,.3f} ms, of "
        f"{len(program.table):,} instructions; `lepton run` simulates them",
        "",
        f"{'layer':32}  {'operator':12}  {'estimated cycles':>16}  {'%':>5}",
    ]
    for index, operator in enumerate(program.operators):
        if operator.kind == "halt" and not cycles[index]:
            continue
        share = 100 * cycles[index] / max(estimate.cycles, 1)
        text = "on the host" if operator.device == "host" else f"{int(cycles[index]):,}"
        lines.append(
            f"{shorten(names[index], 32):32}  {operator.kind:12}  {text:>16}  {share:5.1f}"
        )
    return "\n".join(lines)
