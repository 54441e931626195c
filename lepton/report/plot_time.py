"""Pictures over time: every unit, the memories' bandwidth, the scratchpad."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton.program import Program
from lepton.report.attribution import attribute
from lepton.report.names import size_text
from lepton.report.style import GREY, Picture, Time, clean, layer_colour, picture, time_axis
from lepton.trace import MemoryCounters, Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["bandwidth", "memory_caption", "timeline"]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
_PIXELS = 1500
_BINS = 360
_REQUESTS = 6
"""Longest requests that fit into a bin of the bandwidth at the memory's peak."""
_WAITING = (0.86, 0.86, 0.86)


def _shares(starts: I64, ends: I64, edges: F64) -> F64:
    """Return for each bin the share of it that lies in the disjoint, ordered intervals."""
    keep = ends > starts
    starts, ends = starts[keep], ends[keep]
    if not len(starts):
        return np.zeros(len(edges) - 1)
    knots = np.stack([starts, ends], 1).reshape(-1)
    covered = np.cumsum(ends - starts)
    values = np.stack([np.concatenate([[0], covered[:-1]]), covered], 1).reshape(-1)
    return np.diff(np.interp(edges, knots, values)) / np.diff(edges)


def _colours(operators: I64) -> F64:
    """Return the RGB of each operator's layer."""
    from matplotlib.colors import to_rgb

    palette = np.array([to_rgb(layer_colour(index)) for index in range(7)])
    return palette[operators % len(palette)]


def _strip(rows: NDArray[np.void], edges: F64) -> F64:
    """Return the `[pixels, 3]` image of a unit: its layers' colours, grey waiting, white idle."""
    image = np.ones((len(edges) - 1, 3))
    if not len(rows):
        return image
    start, end = rows["start"], rows["end"]
    occupied = _shares(start, end, edges)[:, None]
    stalls = ("stall_fetch", "stall_dispatch", "stall_semaphore", "stall_preload")
    waited = np.sum([rows[name] for name in stalls], axis=0)
    waiting = _shares(start - waited, start, edges)[:, None]
    middle = (edges[:-1] + edges[1:]) / 2
    at = np.clip(np.searchsorted(start, middle, "right") - 1, 0, len(rows) - 1)
    idle = np.clip(1 - occupied - waiting, 0, 1)
    mixed = occupied * _colours(rows["operator"][at]) + waiting * np.array(_WAITING) + idle
    return np.clip(mixed, 0, 1)


def _spans(edges: I64, operator: I64) -> list[tuple[int, int, int]]:
    """Return (start, end, operator) of every stretch of one layer."""
    if not len(operator):
        return []
    first = np.flatnonzero(np.concatenate([[True], operator[1:] != operator[:-1]]))
    last = np.concatenate([first[1:], [len(operator)]])
    return [
        (int(edges[a]), int(edges[b]), int(operator[a])) for a, b in zip(first, last, strict=True)
    ]


def _layer_band(axes: Axes, trace: Trace, program: Program, edges: F64, time: Time) -> F64:
    """Label the layers that are wide enough; return the image of their row."""
    spent = attribute(trace, len(program.operators))
    spans = _spans(spent.edges, spent.operator)
    reached = -1.0
    for start, end, operator in spans:
        text = f"L{operator}"
        if (end - start) / max(trace.cycles, 1) * 95 > len(text) and start >= reached:
            middle = (start + end) / 2 / time.per_unit
            axes.text(middle, 0, text, ha="center", va="center", fontsize=6.5, color="black")
            reached = float(end)
    middle = ((edges[:-1] + edges[1:]) / 2).astype(np.int64)
    if not spans:
        return np.ones((len(middle), 3))
    at = np.clip(np.searchsorted(spent.edges, middle, "right") - 1, 0, len(spent.operator) - 1)
    return _colours(spent.operator[at]) * 0.6 + 0.4


def timeline(program: Program, trace: Trace) -> Picture:
    """Return the Gantt chart of all units, aggregated to pixels."""
    made = picture(
        "timeline",
        f"Timeline: {program.source} on {program.chip.name}, {trace.cycles:,} cycles",
        "Colours: layers, numbered as in the table; the top row says whose each cycle "
        "is. In a unit's row, coloured: occupied (its own memory and bank stalls included); grey: "
        "waiting for a signal or an instruction; white: idle.",
        0.34 * len(trace.queues) + 1.75,
    )
    axes = made.figure.subplots()
    time = time_axis(trace.cycles, trace.clock_hz)
    edges = np.linspace(0, max(trace.cycles, 1), _PIXELS + 1)
    strips = [_layer_band(axes, trace, program, edges, time)]
    strips += [
        _strip(trace.records[trace.records["queue"] == q], edges) for q in range(len(trace.queues))
    ]
    for row, strip in enumerate(strips):
        extent = (0.0, float(edges[-1]) / time.per_unit, row + 0.4, row - 0.4)
        axes.imshow(strip[None], aspect="auto", extent=extent, interpolation="nearest")
    axes.set_xlim(0, float(edges[-1]) / time.per_unit)
    axes.set_ylim(len(strips) - 0.45, -0.55)
    axes.set_yticks(range(len(strips)), ["layer", *trace.queues])
    clean(axes, x=time.label)
    axes.tick_params(axis="y", length=0)
    return made


def memory_caption(memory: MemoryCounters, cycles: int, peak: float) -> str:
    """Return traffic, average use and row-hit rate of a memory as a sentence."""
    moved = memory.read_bytes + memory.write_bytes
    average = moved / cycles if cycles else 0.0
    text = (
        f"{memory.name}: {size_text(memory.read_bytes)} read, "
        f"{size_text(memory.write_bytes)} written, {average:.2f} bytes/cycle on average "
        f"({100 * average / peak:.1f} % of the peak of {peak:g})"
    )
    accesses = memory.row_hits + memory.row_misses
    if accesses:
        text += (
            f"; {100 * memory.row_hits / accesses:.1f} % row hits, {memory.row_misses:,} misses, "
            f"{memory.activates:,} activations, {memory.refreshes:,} refreshes"
        )
    return text + "."


def _rates(memory: MemoryCounters, trace: Trace, least: float) -> tuple[F64, F64]:
    """Return edges [cycles] and bytes per cycle of about `_BINS` bins of `least` cycles or more."""
    profile, width, cycles = memory.profile, trace.profile_cycles, trace.cycles
    count = max(-(-cycles // width), len(profile), 1)
    group = max(-(-count // _BINS), ceil(least / width))
    padded: F64 = np.zeros(-(-count // group) * group)
    padded[: len(profile)] = profile
    edges = np.arange(len(padded) // group + 1).astype(np.float64) * (group * width)
    rates: F64 = padded.reshape(-1, group).sum(axis=1) / float(group * width)
    return edges, rates


def bandwidth(program: Program, trace: Trace) -> Picture:
    """Return bytes per cycle of every memory over time, under its peak."""
    chip = program.chip
    peaks = [float(chip.bytes_per_cycle(memory)) for memory in chip.memories]
    pairs = list(zip(trace.memories, peaks, strict=True))
    made = picture(
        "bandwidth",
        f"Memory bandwidth: {program.source} on {chip.name}",
        " ".join(memory_caption(memory, trace.cycles, peak) for memory, peak in pairs)
        + " Bytes count in the bin in which their request ends, so a bin may pass the peak.",
        1.15 + 1.65 * max(len(pairs), 1),
    )
    grid = made.figure.subplots(max(len(pairs), 1), 1, sharex=True, squeeze=False)
    time = time_axis(trace.cycles, trace.clock_hz)
    for number, (axes, (memory, peak)) in enumerate(zip(grid[:, 0], pairs, strict=False)):
        edges, rates = _rates(memory, trace, _REQUESTS * chip.dma.burst_bytes / peak)
        colour = layer_colour(number)
        axes.stairs(rates, edges / time.per_unit, fill=True, color=colour, alpha=0.75)
        axes.axhline(peak, color="black", linestyle="--", linewidth=1)
        axes.set_ylim(0, max(peak, float(rates.max(initial=0))) * 1.25)
        axes.set_xlim(0, max(trace.cycles, 1) / time.per_unit)
        axes.text(
            0.995, peak * 1.03, f"peak {peak:g}", transform=axes.get_yaxis_transform(),
            ha="right", va="bottom", fontsize=7.5,
        )  # fmt: skip
        last = number + 1 == len(pairs)
        clean(axes, x=time.label if last else "", y=f"{memory.name}\n[bytes/cycle]")
        axes.grid(axis="y", color=GREY, alpha=0.2)
    return made
