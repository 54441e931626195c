"""Knee curves: the best that can be had of each objective at each value of a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.explore.engine import Sample, Sweep
from lepton.explore.metrics import CHIP_METRICS, METRICS, feasible
from lepton.explore.space import Parameter, Space
from lepton.report.style import MARKERS, OKABE_ITO, Picture, clean, picture, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["best_at", "knees"]

F64 = NDArray[np.float64]

_ACROSS = 3
_MOST = 9
"""Parameters that are shown."""
_LABEL_CHARACTERS = 24
"""Of all values below an axis; more would overlap."""


def best_at(space: Space, sample: Sample, parameter: int, metric: str) -> F64:
    """Return the best of a metric among feasible points at each value of a parameter.

    NaN where no feasible point of the sample has that value.
    """
    within = feasible(space.constraints, sample.metrics)
    chosen = space.points(sample.numbers)[:, parameter]
    values, sign = sample.metrics[metric], METRICS[metric].sign
    best = np.full(space.extents[parameter], np.nan)
    for number in range(len(best)):
        own = values[within & (chosen == number)]
        if len(own):
            best[number] = sign * (sign * own).min()
    return best


def knees(found: Sweep) -> Picture:
    """Draw the best of each objective over the values of each parameter, relative to the best.

    What only the chip has a say in, as its area, is left out beside other objectives. Points are
    those of the sample from the whole space: a search evaluates only what is near its front.
    """
    space = found.space
    every = space.objectives
    names = [name for name in every if name not in CHIP_METRICS] or list(every)
    shown = [n for n, p in enumerate(space.parameters) if len(p.values) > 1][:_MOST]
    rows = max(-(-len(shown) // _ACROSS), 1)
    made = picture(
        "knees",
        "The best that each value of a parameter allows",
        f"Each mark is the best of an objective among {_kind(found)} that have this value and are "
        "within the constraints, over the best of all of them: at 1 the value costs nothing.",
        1.0 + 1.9 * rows,
    )
    if not shown:
        return made
    grid: Any = made.figure.subplots(rows, min(len(shown), _ACROSS), squeeze=False)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    for axes, number in zip(grid.flat, shown, strict=False):
        _curves(axes, found, number, names)
    made.figure.supylabel("times the best", fontsize=8)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    made.figure.legend(handles, labels, loc="outside upper right", fontsize=7.5, frameon=False,
                       ncols=4)  # fmt: skip
    return made


def _kind(found: Sweep) -> str:
    """Return what the points are that the curves are made of."""
    count = len(found.sample.numbers)
    is_whole = count == found.space.size
    which = f"all {count:,} chips" if is_whole else f"{count:,} random chips"
    how = "simulated" if found.sample.metrics is found.metrics and found.simulated else ""
    return f"{which} ({how or 'by closed forms'})"


def _curves(axes: Axes, found: Sweep, number: int, names: Sequence[str]) -> None:
    """Draw the curves of one parameter."""
    parameter = found.space.parameters[number]
    places = np.arange(len(parameter.values))
    for place, name in enumerate(names):
        best = best_at(found.space, found.sample, number, name)
        sign = METRICS[name].sign
        if np.isnan(best).all():
            continue
        whole = sign * np.nanmin(sign * best)
        ratio = best / whole if sign > 0 else whole / best
        axes.plot(places, ratio, color=OKABE_ITO[place % len(OKABE_ITO)], linewidth=1.2,
                  marker=MARKERS[place % len(MARKERS)], markersize=4, label=name)  # fmt: skip
    _ticks(axes, parameter)
    clean(axes, x=parameter.path)
    axes.tick_params(labelsize=7)
    top = max(axes.get_ylim()[1], 1.02)
    axes.set_ylim(1 - 0.08 * (top - 1), top + 0.02 * (top - 1))


def _ticks(axes: Axes, parameter: Parameter) -> None:
    """Write as many values below an axis as there is room for, the first among them."""
    texts = [str(value) for value in parameter.values]
    widest = max(map(len, texts)) + 2
    step = -(-len(texts) * widest // _LABEL_CHARACTERS)
    places = list(range(0, len(texts), step))
    axes.set_xticks(places, [plain(texts[place]) for place in places])
    axes.set_xlim(-0.4, len(texts) - 0.6)
