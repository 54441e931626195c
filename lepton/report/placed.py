"""A run of a placed network as a text and as plain types, and its timeline for Perfetto.

Figures of the NPU are those of its regions, each simulated alone from a cold chip: cycles, bytes,
instructions and energy are sums, `scratchpad_peak_bytes` is the largest.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from lepton.cost.estimate import estimate_program
from lepton.program import one_line
from lepton.report.summary import Summary, summarize
from lepton.runtime.devices import Clock, NpuDevice, NpuRegion
from lepton.runtime.placed import Execution, PlacedModel
from lepton.runtime.split import Unit

__all__ = ["execution_json", "execution_text", "timeline_json"]

_SUMMED = (
    "cycles", "effective_macs", "dram_read_bytes", "dram_write_bytes", "weight_bytes_raw",
    "weight_bytes_stored", "energy_joules", "instructions", "program_bytes", "bound_cycles",
    "roofline_cycles",
)  # fmt: skip


def execution_text(model: PlacedModel, execution: Execution) -> str:
    """Return what ran where, and the timeline."""
    plan = model.plan
    used = dict.fromkeys(plan.devices[region.device].name for region in plan.regions)
    head = (
        f"{one_line(plan.network.name)}: {execution.timeline.latency_ns / 1e6:,.3f} ms "
        f"on {', '.join(used)}; {len(plan.network.units)} layers in {len(plan.regions)} regions"
    )
    return f"{head}\n\n{execution.timeline.text()}"


def execution_json(
    model: PlacedModel, execution: Execution, prepare_seconds: float, run_seconds: float
) -> dict[str, object]:
    """Return what `lepton run --json` prints of a placed run."""
    plan = model.plan
    found = {
        number: summarize(region.program, region.trace, estimate_program(region.program))
        for number, region in enumerate(model.regions)
        if isinstance(region, NpuRegion)
    }
    chips = [device.chip.name for device in plan.devices if isinstance(device, NpuDevice)]
    peak = sum(each.peak_macs_per_cycle * (each.cycles or 0) for each in found.values())
    sums = {name: sum(getattr(each, name) or 0 for each in found.values()) for name in _SUMMED}
    macs = sum(unit.macs for unit in plan.network.units)
    own = sum(unit.macs for number in found for unit in _units(model, number))
    host_ns = sum(
        bar.end_ns - bar.start_ns for bar in execution.timeline.bars if bar.clock == Clock.MEASURED
    )
    made: dict[str, object] = {
        "model": plan.network.name,
        "chip": ", ".join(dict.fromkeys(chips)) or None,
        "devices": {device.name: str(device.clock) for device in plan.devices},
        "milliseconds": execution.timeline.latency_ns / 1e6,
        "host_milliseconds": host_ns / 1e6,
        "macs": macs,
        "mac_utilization": sum(each.macs for each in found.values()) / peak if peak else None,
        "macs_on_npu": own / macs if macs else 0.0,
        **sums,
        "scratchpad_peak_bytes": max(
            (each.scratchpad_peak_bytes for each in found.values()), default=0
        ),
        "compile_seconds": prepare_seconds,
        "simulate_seconds": run_seconds,
        "layers": _layers(model, found),
        "timeline": execution.timeline.to_json(),
        "notes": list(plan.notes),
    }
    return made


def _units(model: PlacedModel, number: int) -> list[Unit]:
    """Return the units of a region."""
    region = model.plan.regions[number]
    return [model.plan.network.units[unit] for unit in region.units]


def _layers(model: PlacedModel, found: dict[int, Summary]) -> list[dict[str, object]]:
    """Return the NPU's operators and the other devices' units."""
    made: list[dict[str, object]] = []
    for number, region in enumerate(model.plan.regions):
        name = model.plan.devices[region.device].name
        if number in found:
            for layer in found[number].layers:
                shown: dict[str, object] = asdict(layer)
                made.append(shown | {"index": len(made), "device": name})
            continue
        for unit in _units(model, number):
            made.append(
                {"index": len(made), "name": unit.name, "op": unit.kind, "device": name,
                 "cycles": None, "macs": unit.macs, "mac_utilization": None, "bound": "host",
                 "stalls": {}}
            )  # fmt: skip
    return made


def timeline_json(model: PlacedModel, execution: Execution) -> str:
    """Return a trace file for Perfetto: a track per device and link, named with its clock."""
    bars = execution.timeline.bars
    tracks = list(dict.fromkeys((bar.row, bar.clock) for bar in bars))
    named: list[dict[str, object]] = [
        {"ph": "M", "pid": 1, "tid": number, "name": "thread_name",
         "args": {"name": f"{row} ({clock})"}}
        for number, (row, clock) in enumerate(tracks)
    ]  # fmt: skip
    slices: list[dict[str, object]] = [
        {"ph": "X", "pid": 1, "tid": tracks.index((bar.row, bar.clock)), "name": bar.name,
         "cat": bar.clock, "ts": bar.start_ns / 1e3, "dur": (bar.end_ns - bar.start_ns) / 1e3}
        for bar in bars
    ]  # fmt: skip
    about = {"model": model.plan.network.name}
    made = {"traceEvents": named + slices, "displayTimeUnit": "ns", "otherData": about}
    return json.dumps(made, separators=(",", ":"))
