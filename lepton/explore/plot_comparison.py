"""The fronts of two sweeps in one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.explore.comparison import Table
from lepton.explore.pareto import non_dominated
from lepton.explore.pictures import scale_axis, unit_label
from lepton.report.style import OKABE_ITO, Picture, clean, picture, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["comparison_picture"]

F64 = NDArray[np.float64]

_COLOURS = OKABE_ITO[0], OKABE_ITO[5]
_MARKERS = "o", "s"
_SIZES = 46, 18
"""Of which the smaller lies on the larger where both sweeps have a chip."""
_MOST_PANELS = 2


def comparison_picture(a: Table, b: Table) -> Picture:
    """Draw the points of two sweeps by their objectives, each front in a colour of its own."""
    first, *others = a.about.objectives
    ups = others[:_MOST_PANELS] or ["latency_ms" if first == "area_mm2" else "area_mm2"]
    fronts = [table.frame["front"].to_numpy(np.bool_) for table in (a, b)]
    values = [table.values(a.about.objectives) for table in (a, b)]
    ahead = non_dominated(np.concatenate(values))
    kept = ahead[: len(values[0])], ahead[len(values[0]) :]
    made = picture(
        "comparison",
        f"Two sweeps: A has {int(fronts[0].sum())} points on its front, B {int(fronts[1].sum())}",
        f"A: {a.name}; B: {b.name}. Pale: evaluated and within the constraints; full: on its own "
        "front; with a black edge: not beaten by the other sweep either, in all of "
        f"{', '.join(a.about.objectives)}.",
        3.7,
    )
    grid: Any = made.figure.subplots(1, len(ups), squeeze=False)
    for axes, up in zip(grid.flat, ups, strict=True):
        for number, table in enumerate((a, b)):
            _draw(axes, table, (first, up), (fronts[number], kept[number]), number)
        for which, name in (("x", first), ("y", up)):
            shown = [table.frame[name][table.frame["feasible"]] for table in (a, b)]
            scale_axis(axes, which, np.concatenate(shown).astype(np.float64))
        clean(axes, x=unit_label(first), y=unit_label(up))
    handles, labels = grid.flat[0].get_legend_handles_labels()
    made.figure.legend(handles, labels, loc="outside upper right", fontsize=7.5, frameon=False,
                       ncols=2)  # fmt: skip
    return made


def _draw(
    axes: Axes,
    table: Table,
    names: tuple[str, str],
    masks: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    number: int,
) -> None:
    """Draw one sweep's points: the rest, its front, and what the other does not beat of it."""
    x, y = (table.frame[name].to_numpy(np.float64) for name in names)
    front, kept = masks
    colour, marker = _COLOURS[number], _MARKERS[number]
    rest = table.frame["feasible"].to_numpy(np.bool_) & ~front
    axes.scatter(x[rest], y[rest], s=9, color=colour, alpha=0.25, marker=marker, linewidths=0)
    beaten = front & ~kept
    axes.scatter(x[beaten], y[beaten], s=_SIZES[number], color=colour, marker=marker,
                 linewidths=0)  # fmt: skip
    axes.scatter(x[front & kept], y[front & kept], s=_SIZES[number], color=colour, marker=marker,
                 edgecolors="black", linewidths=0.9,
                 label=plain(f"front of {'AB'[number]}"))  # fmt: skip
