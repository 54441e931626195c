"""Pictures of units and layers: where the cycles went, and how far from the roofs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lepton.program import Program
from lepton.report.names import queue_kind, shorten, tidy_names
from lepton.report.style import CAUSE_COLOURS, Picture, clean, picture, plain, time_axis
from lepton.report.summary import Layer, summarize
from lepton.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["grouped", "layer_stalls", "unit_stalls"]

_SHOWN = 18


def grouped(causes: dict[str, int]) -> dict[str, int]:
    """Return causes with the queues of a kind added up, cores too, in the order of the colours."""
    made = dict.fromkeys(CAUSE_COLOURS, 0)
    for cause, cycles in causes.items():
        name = cause.replace("_", " ")
        if name.startswith("wait "):
            name = f"wait {queue_kind(name.removeprefix('wait '))}"
        made[name] = made.get(name, 0) + cycles
    return {name: cycles for name, cycles in made.items() if cycles}


def _bars(axes: Axes, bars: Sequence[dict[str, int]], labels: Sequence[str], unit: int) -> None:
    """Draw a stacked bar per row, and the legend of the causes that occur."""
    present = {name for bar in bars for name in bar}
    reached = np.zeros(len(bars))
    for name in (name for name in CAUSE_COLOURS if name in present):
        colour, hatch = CAUSE_COLOURS[name]
        widths = np.array([bar.get(name, 0) / unit for bar in bars])
        edge = "black" if hatch or colour == "#FFFFFF" else "white"
        axes.barh(
            range(len(bars)), widths, left=reached, height=0.72, label=name,
            color=colour, hatch=hatch, edgecolor=edge, linewidth=0.3,
        )  # fmt: skip
        reached += widths
    axes.set_yticks(range(len(bars)), labels)
    axes.invert_yaxis()


def _legend(axes: Axes) -> None:
    """Put the legend over the axes."""
    if axes.containers:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=6, fontsize=7.5, frameon=False,
            handlelength=1.4, columnspacing=1.4, borderaxespad=0.2,
        )  # fmt: skip


def unit_stalls(program: Program, trace: Trace) -> Picture:
    """Return where every cycle of every unit went; each bar is the whole run."""
    made = picture(
        "stalls_units",
        f"Where every unit's cycles went: {program.source} on {program.chip.name}",
        f"Every bar adds up to the {trace.cycles:,} cycles of the run. memory, bank: occupied but "
        "without progress; fetch: its next instruction had not arrived; dispatch: those before it "
        "waited for room in their queues; wait: for a signal of that unit; preload: of the first "
        "weights; idle: after its last instruction.",
        0.34 * len(trace.queues) + 1.85,
    )
    axes = made.figure.subplots()
    attribution = trace.attribution()
    time = time_axis(trace.cycles, trace.clock_hz)
    _bars(axes, [grouped(row) for row in attribution.values()], list(attribution), time.per_unit)
    axes.set_xlim(0, max(trace.cycles, 1) / time.per_unit * 1.005)
    clean(axes, x=time.label)
    _legend(axes)
    return made


def _label(layer: Layer, name: str) -> str:
    return plain(f"L{layer.index} {shorten(name, 26)}")


def layer_stalls(program: Program, trace: Trace) -> Picture:
    """Return the cycles of the dearest layers, split into work and stalls."""
    layers = summarize(program, trace).layers
    names = dict(zip((r.index for r in layers), tidy_names([r.name for r in layers]), strict=True))
    dear = sorted(layers, key=lambda layer: -(layer.cycles or 0))
    dear = [layer for layer in dear if layer.cycles]
    shown, rest = sorted(dear[:_SHOWN], key=lambda layer: layer.index), dear[_SHOWN:]
    bars = [grouped(layer.busy | layer.stalls) for layer in shown]
    labels = [_label(layer, names[layer.index]) for layer in shown]
    ends = [f"{layer.cycles:,}" for layer in shown]
    if rest:
        total: dict[str, int] = {}
        for layer in rest:
            for cause, cycles in (layer.busy | layer.stalls).items():
                total[cause] = total.get(cause, 0) + cycles
        bars.append(grouped(total))
        labels.append(f"{len(rest)} other layers")
        ends.append(f"{sum(total.values()):,}")
    made = picture(
        "stalls_layers",
        f"Where every layer's cycles went: {program.source} on {program.chip.name}",
        f"Every cycle belongs to one layer; the numbers behind the bars are cycles and add up to "
        f"{trace.cycles:,}. Work hidden behind another layer's computation costs nothing.",
        0.21 * len(bars) + 1.9,
    )
    axes = made.figure.subplots()
    time = time_axis(trace.cycles, trace.clock_hz)
    _bars(axes, bars, labels, time.per_unit)
    lengths = [sum(bar.values()) / time.per_unit for bar in bars]
    for row, (length, text) in enumerate(zip(lengths, ends, strict=True)):
        axes.annotate(
            text, (length, row), (4, 0), textcoords="offset points", va="center", fontsize=7
        )
    axes.set_xlim(0, max(lengths, default=1) * 1.1)
    clean(axes, x=time.label)
    axes.tick_params(axis="y", labelsize=7)
    _legend(axes)
    return made
