"""Picture of the energy: which component of which layer spent it."""

from __future__ import annotations

import numpy as np

from lepton.program import Program
from lepton.report.names import joules_text, shorten, tidy_names
from lepton.report.style import Picture, clean, picture, plain
from lepton.report.summary import Layer, summarize
from lepton.trace import Trace

__all__ = ["COMPONENT_COLOURS", "energy_layers"]

COMPONENT_COLOURS: dict[str, tuple[str, str]] = {
    "array": ("#0072B2", ""), "accumulators": ("#56B4E9", ""),
    "weight_buffer": ("#F0E442", ""), "scratchpad": ("#009E73", ""),
    "vector": ("#CC79A7", ""), "dma": ("#F0E442", "////"), "control": ("#CC79A7", "////"),
    "leakage": ("#BBBBBB", ""), "memory": ("#D55E00", ""), "memory_standby": ("#E69F00", "////"),
}  # fmt: skip
"""Colour and hatch of every component of `lepton.cost.energy.COMPONENTS`."""

_SHOWN = 18
_UNITS = (("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9), ("pJ", 1e-12))


def _shown(layers: tuple[Layer, ...]) -> tuple[list[str], list[dict[str, float]]]:
    """Return labels and bars of the layers that spent most, the others added up in the last."""
    names = dict(zip((r.index for r in layers), tidy_names([r.name for r in layers]), strict=True))
    ranked = sorted((r for r in layers if r.energy), key=lambda r: -sum(r.energy.values()))
    chosen, rest = sorted(ranked[:_SHOWN], key=lambda r: r.index), ranked[_SHOWN:]
    labels = [plain(f"L{r.index} {shorten(names[r.index], 26)}") for r in chosen]
    bars = [r.energy for r in chosen]
    if rest:
        total: dict[str, float] = {}
        for name in COMPONENT_COLOURS:
            total[name] = sum(r.energy.get(name, 0.0) for r in rest)
        labels.append(f"{len(rest)} other layers")
        bars.append(total)
    return labels, bars


def energy_layers(program: Program, trace: Trace) -> Picture:
    """Return the energy of the dearest layers, split by component."""
    summary = summarize(program, trace)
    labels, bars = _shown(summary.layers)
    made = picture(
        "energy",
        f"Where the energy went: {program.source} on {program.chip.name}",
        f"Every picojoule belongs to one layer and one component; all add up to "
        f"{joules_text(summary.energy_joules or 0.0)}. memory: activations, data and refreshes of "
        "the external memories; leakage and standby are shared by cycles. Node "
        f"{program.chip.technology.node}.",
        0.21 * len(bars) + 1.9,
    )
    axes = made.figure.subplots()
    lengths = [sum(bar.values()) for bar in bars]
    longest = max(lengths, default=0.0)
    unit, size = next(((name, s) for name, s in _UNITS if longest >= s), _UNITS[-1])
    reached = np.zeros(len(bars))
    for name, (colour, hatch) in COMPONENT_COLOURS.items():
        widths = np.array([bar.get(name, 0.0) / size for bar in bars])
        if widths.any():
            axes.barh(
                range(len(bars)), widths, left=reached, height=0.72, color=colour, hatch=hatch,
                label=name.replace("_", " "), edgecolor="black" if hatch else "white",
                linewidth=0.3,
            )  # fmt: skip
            reached += widths
    for row, length in enumerate(lengths):
        axes.annotate(
            joules_text(length), (length / size, row), (4, 0), textcoords="offset points",
            va="center", fontsize=7,
        )  # fmt: skip
    axes.set_yticks(range(len(bars)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, max(longest / size, 1e-12) * 1.12)
    clean(axes, x=f"energy [{unit}]")
    axes.tick_params(axis="y", labelsize=7)
    if axes.containers:
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=5, fontsize=7.5, frameon=False,
            handlelength=1.4, columnspacing=1.4, borderaxespad=0.2,
        )  # fmt: skip
    return made
