"""Chrome trace events, as ui.perfetto.dev and chrome://tracing read them.

Source: the "Trace Event Format" document of the Chromium project (phases M, X and C).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lepton.isa import disassemble_one
from lepton.program import Program
from lepton.report.attribution import attribute
from lepton.report.names import tidy_names
from lepton.report.traffic import instruction_bytes
from lepton.trace import Trace

__all__ = ["perfetto_events", "perfetto_json"]

_PROCESS = 1
_STALLS = (
    "stall_fetch",
    "stall_dispatch",
    "stall_semaphore",
    "stall_preload",
    "stall_bank",
    "stall_memory",
)
Event = dict[str, Any]


def _tracks(trace: Trace) -> Iterator[Event]:
    """Yield the names of process and tracks: the layers, then a track per unit."""
    yield {"ph": "M", "pid": _PROCESS, "name": "process_name", "args": {"name": "npu"}}
    for number, name in enumerate(("layers", *trace.queues)):
        here = {"ph": "M", "pid": _PROCESS, "tid": number}
        yield here | {"name": "thread_name", "args": {"name": name}}
        yield here | {"name": "thread_sort_index", "args": {"sort_index": number}}


def _layers(program: Program, trace: Trace, names: list[str], scale: float) -> Iterator[Event]:
    """Yield a slice for every stretch of cycles that belongs to one layer."""
    spent = attribute(trace, len(program.operators))
    begin = 0
    for index, operator in enumerate(spent.operator.tolist()):
        last = index + 1 == len(spent.operator)
        if last or int(spent.operator[index + 1]) != operator:
            start, end = int(spent.edges[begin]), int(spent.edges[index + 1])
            yield {
                "ph": "X", "pid": _PROCESS, "tid": 0, "name": names[operator], "cat": "layer",
                "ts": start * scale, "dur": (end - start) * scale,
                "args": {"operator": program.operators[operator].name, "cycles": end - start},
            }  # fmt: skip
            begin = index + 1


def _slices(program: Program, trace: Trace, names: list[str], scale: float) -> Iterator[Event]:
    """Yield a slice per instruction, on the track of its unit."""
    moved = instruction_bytes(program.table).tolist()
    for index, row in enumerate(trace.records):
        queue, start, end = int(row["queue"]), int(row["start"]), int(row["end"])
        if queue < 0:
            continue
        item = program.decoded[index]
        operator = int(row["operator"])
        args: dict[str, Any] = {
            "instruction": index,
            "text": disassemble_one(item),
            "operator": program.operators[operator].name,
            "start_cycle": start,
            "cycles": end - start,
            "retire_cycle": int(row["retire"]),
        }
        if moved[index]:
            args["bytes"] = moved[index]
        args |= {f"{name}_cycles": int(row[name]) for name in _STALLS if row[name]}
        if row["stall_semaphore"] and row["cause_queue"] >= 0:
            args["waited_for"] = trace.queues[int(row["cause_queue"])]
        yield {
            "ph": "X", "pid": _PROCESS, "tid": queue + 1, "cat": item.mnemonic,
            "name": f"{item.mnemonic} {names[operator]}",
            "ts": start * scale, "dur": (end - start) * scale, "args": args,
        }  # fmt: skip


def _counters(trace: Trace, scale: float) -> Iterator[Event]:
    """Yield the bandwidth of every memory, a value per bin of the profile."""
    for memory in trace.memories:
        here = {"ph": "C", "pid": _PROCESS, "name": f"{memory.name} bytes/cycle"}
        for index, size in enumerate((*memory.profile.tolist(), 0)):
            time = min(index * trace.profile_cycles, trace.cycles) * scale
            yield here | {"ts": time, "args": {"bytes/cycle": size / trace.profile_cycles}}


def perfetto_events(program: Program, trace: Trace) -> list[Event]:
    """Return all events; times are microseconds of the NPU clock."""
    scale = 1e6 / trace.clock_hz
    names = tidy_names([operator.name for operator in program.operators])
    return [
        *_tracks(trace),
        *_layers(program, trace, names, scale),
        *_slices(program, trace, names, scale),
        *_counters(trace, scale),
    ]


def perfetto_json(program: Program, trace: Trace) -> str:
    """Return the text of a trace file for Perfetto."""
    about = {
        "model": program.source,
        "chip": program.chip.name,
        "clock_hz": trace.clock_hz,
        "cycles": trace.cycles,
    }
    made = {
        "traceEvents": perfetto_events(program, trace),
        "displayTimeUnit": "ns",
        "otherData": about,
    }
    return json.dumps(made, separators=(",", ":"))
