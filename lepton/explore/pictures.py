"""Pictures of a sweep: its front, all points, knees, what parameters matter, and both tiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.explore.curves import knees
from lepton.explore.engine import Sweep
from lepton.explore.metrics import METRICS, feasible, objective_matrix
from lepton.explore.pareto import fronts_in_order
from lepton.report.style import GREY, OKABE_ITO, Picture, clean, picture, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["log_axis", "numbered", "pictures", "scale_axis", "unit_label", "write_beside"]

F64 = NDArray[np.float64]

_NUMBERED = 8
"""Points of the front that are numbered."""
_NEAR = 24.0
"""Points of the picture, apart from which numbers are written."""
_AWAY = (8.0, 10.5)
"""Points of the picture from a mark to its number."""
_DECADE = 8.0
"""Ratio from which on an axis is logarithmic."""
_LINES = 400
"""Points that parallel coordinates show, the front among them."""

_UNITS = {
    "latency_ms": "latency [ms]", "energy_mj": "energy [mJ]",
    "edp_mj_ms": "energy-delay [mJ ms]", "power_mw": "power [mW]",
    "inferences_per_s": "inferences [1/s]", "inferences_per_s_mm2": "inferences [1/s/mm2]",
    "area_mm2": "area [mm2]", "sram_kib": "SRAM [KiB]", "peak_tops": "peak [TOPS]",
}  # fmt: skip


def unit_label(name: str) -> str:
    """Return a metric's name with its unit in brackets."""
    return _UNITS[name]


def pictures(found: Sweep, shares: Mapping[str, Mapping[str, float]]) -> list[Picture]:
    """Return the pictures of a sweep.

    Args:
        found: the sweep.
        shares: of the variation of each metric, by parameter, as `sensitivity` gives them.
    """
    made = [_front(found), _parallel(found), knees(found), _bars(shares)]
    return [*made, _tiers(found)] if found.simulated is not None else made


def scale_axis(axes: Axes, which: str, values: F64) -> None:
    """Make an axis logarithmic where its values span much."""
    if len(values) and values.min() > 0 and values.max() / values.min() > _DECADE:
        log_axis(axes, which, values)


def log_axis(axes: Axes, which: str, values: F64) -> None:
    """Make an axis logarithmic, with plain numbers at its ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axes, f"set_{which}scale")("log")
    axis: Any = getattr(axes, f"{which}axis")
    decades = float(np.log10(values.max() / values.min()))
    within = (1, 1.5, 2, 3, 5, 7) if decades < 0.9 else (1, 2, 5)
    axis.set_major_locator(LogLocator(subs=within if decades < 2.5 else (1,)))
    axis.set_major_formatter(FuncFormatter(_plain_number))
    axis.set_minor_formatter(NullFormatter())


def _plain_number(value: float, _place: int | None = None) -> str:
    """Return a tick's label without a power of ten."""
    return f"{value:g}"


def _axes_of(found: Sweep) -> tuple[str, str]:
    """Return the metrics of the two axes: the first objectives, or area beside a single one."""
    first, *others = found.space.objectives
    return first, next(iter(others), "latency_ms" if first == "area_mm2" else "area_mm2")


def _front(found: Sweep) -> Picture:
    """Draw the points by the first two objectives, the front in the colours of the third."""
    across, up = _axes_of(found)
    space = found.space
    x, y = found.metrics[across], found.metrics[up]
    sound = ~np.isnan(x)
    within = feasible(space.constraints, found.metrics)
    on_front = np.isin(found.numbers, found.front)
    made = picture(
        "front",
        f"{len(found.front)} points on the front of {int(sound.sum()):,}",
        _front_caption(found),
        4.6,
    )
    axes = made.figure.subplots()
    if space.constraints:
        axes.scatter(x[sound & ~within], y[sound & ~within], s=14, color="#BBBBBB", marker="x",
                     linewidths=0.8, label="breaks a constraint")  # fmt: skip
    rest = sound & within & ~on_front
    axes.scatter(x[rest], y[rest], s=12, color="#56B4E9", label="dominated", linewidths=0)
    scale_axis(axes, "x", x[sound])
    scale_axis(axes, "y", y[sound])
    third = space.objectives[2] if len(space.objectives) > 2 else ""
    if third:
        dots = axes.scatter(x[on_front], y[on_front], s=34, c=found.metrics[third][on_front],
                            cmap="cividis", edgecolors="black", linewidths=0.6,
                            label="front")  # fmt: skip
        bar = made.figure.colorbar(dots, ax=axes, pad=0.02)
        bar.set_label(unit_label(third), fontsize=8)
        bar.ax.tick_params(labelsize=8)
    else:
        order = np.argsort(x[on_front], kind="stable")
        axes.plot(x[on_front][order], y[on_front][order], color="#D55E00", marker="o",
                  markersize=5, linewidth=1.2, label="front", drawstyle="steps-post")  # fmt: skip
    _number(axes, found, (x, y))
    clean(axes, x=unit_label(across), y=unit_label(up))
    axes.legend(fontsize=7.5, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    return made


def _front_caption(found: Sweep) -> str:
    limits = "; ".join(str(item) for item in found.space.constraints) or "none"
    kind = "simulated" if found.simulated is not None else "by closed forms"
    return (
        f"Each dot is a chip, {kind}. No chip of the front is beaten by another in all of "
        f"{', '.join(found.space.objectives)}. Constraints: {limits}. Numbers are those of the "
        "table in report.html."
    )


def _number(axes: Axes, found: Sweep, places: tuple[F64, F64]) -> None:
    """Write numbers beside points of the front that are apart from each other."""
    taken: list[F64] = []
    axes.figure.canvas.draw()
    scale = axes.figure.get_dpi() / 72
    shown: F64 = axes.transData.transform(np.column_stack(places)) / scale
    dots = shown[np.isfinite(shown).all(axis=1)]
    box: F64 = axes.transAxes.transform([(0, 0), (1, 1)]) / scale
    for number, row in enumerate(numbered(found), 1):
        if any(np.hypot(*(shown[row] - other)) < _NEAR for other in taken):
            continue
        taken.append(shown[row])
        offset = _emptiest(shown[row], dots, (box[0] + _AWAY[0], box[1] - _AWAY[0]))
        place = float(places[0][row]), float(places[1][row])
        way = float(offset[0]), float(offset[1])
        write_beside(axes, str(number), place, way, ha="center", va="center")


def write_beside(
    axes: Axes, text: str, place: tuple[float, float], offset: tuple[float, float], **align: Any
) -> None:
    """Write what tells a mark from others so many points beside it, aligned as matplotlib says."""
    from matplotlib.patheffects import withStroke

    outline = [withStroke(linewidth=2, foreground="white")]
    axes.annotate(text, place, offset, textcoords="offset points", fontsize=8, fontweight="bold",
                  path_effects=outline, **align)  # fmt: skip


def _emptiest(place: F64, dots: F64, box: tuple[F64, F64]) -> F64:
    """Return the way from a place, all in points, to where a number is farthest from all dots.

    The number's middle is in the box, of which two corners are given, if it can be.
    """
    turns = np.arange(0, 2 * np.pi, np.pi / 8)
    ways = np.concatenate([r * np.stack([np.cos(turns), np.sin(turns)], 1) for r in _AWAY])
    gaps = np.linalg.norm((place + ways)[:, None] - dots[None], axis=2).min(axis=1)
    inside = ((place + ways >= box[0]) & (place + ways <= box[1])).all(axis=1)
    return ways[int((gaps + _AWAY[-1] * inside).argmax())]


def numbered(found: Sweep) -> list[int]:
    """Return the rows of the points of the front that have numbers, those far apart first."""
    rows = np.flatnonzero(np.isin(found.numbers, found.front))
    values = objective_matrix(found.metrics, found.space.objectives)[rows]
    chosen = rows[fronts_in_order(values, _NUMBERED)]
    first = found.metrics[found.space.objectives[0]][chosen]
    return chosen[np.argsort(first, kind="stable")].tolist()


def _parallel(found: Sweep) -> Picture:
    """Draw each point as a line across one axis per parameter and objective."""
    space = found.space
    varied = [n for n, p in enumerate(space.parameters) if len(p.values) > 1]
    points = space.points(found.numbers)
    names = [space.parameters[n].path for n in varied] + list(space.objectives)
    made = picture(
        "parallel",
        "Parameters and objectives of every point",
        f"A line is a chip; those of the front are coloured by {space.objectives[0]}, from dark "
        f"(least) to light. At most {_LINES} lines are drawn. Axes of objectives are logarithmic.",
        4.4,
    )
    axes = made.figure.subplots()
    columns = [points[:, n] / (space.extents[n] - 1) for n in varied]
    columns += [_unit(found.metrics[name]) for name in space.objectives]
    heights = np.stack(columns, axis=1)
    on_front = np.isin(found.numbers, found.front)
    sound = ~np.isnan(heights).any(axis=1)
    places = np.arange(len(names))
    rest = np.flatnonzero(sound & ~on_front)[:: max(int((sound & ~on_front).sum()) // _LINES, 1)]
    axes.plot(places, heights[rest].T, color="#BBBBBB", linewidth=0.5, alpha=0.5)
    colours = _colours(_unit(found.metrics[space.objectives[0]][on_front & sound]))
    for row, colour in zip(np.flatnonzero(on_front & sound), colours, strict=True):
        axes.plot(places, heights[row], color=colour, linewidth=1.4)
    for place in places:
        axes.axvline(float(place), color="black", linewidth=0.8)
    _ends(axes, found, varied)
    axes.set_xticks(places, [plain(_two_lines(name)) for name in names])
    axes.set_yticks([])
    clean(axes)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.set_ylim(-0.09, 1.09)
    return made


def _ends(axes: Axes, found: Sweep, varied: Sequence[int]) -> None:
    """Write the least and the greatest value at the ends of every axis."""
    ends: list[tuple[str, str]] = [
        (str(found.space.parameters[n].values[0]), str(found.space.parameters[n].values[-1]))
        for n in varied
    ]
    for name in found.space.objectives:
        values = found.metrics[name][~np.isnan(found.metrics[name])]
        ends.append((f"{values.min():.3g}", f"{values.max():.3g}") if len(values) else ("", ""))
    for place, (low, high) in enumerate(ends):
        axes.text(place, -0.03, plain(low), ha="center", va="top", fontsize=7)
        axes.text(place, 1.03, plain(high), ha="center", va="bottom", fontsize=7)


def _unit(values: F64) -> F64:
    """Return logarithms scaled to 0 ... 1."""
    logs = np.log(np.where(values > 0, values, np.nan))
    if np.isnan(logs).all():
        return logs
    low, high = np.nanmin(logs), np.nanmax(logs)
    return (logs - low) / (high - low) if high > low else logs * 0 + 0.5


def _colours(values: F64) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["cividis"](0.9 * float(value)) for value in values]


def _two_lines(name: str) -> str:
    """Return a path or a metric's name broken where it is long."""
    head, _, last = name.rpartition(".")
    text = f"{head}\n{last}" if head else _UNITS.get(name, name).replace(" [", "\n[")
    return "\n".join(
        line if len(line) <= 14 else line.replace("_", "\n", 1) for line in text.split("\n")
    )


def _bars(shares: Mapping[str, Mapping[str, float]]) -> Picture:
    """Draw what each parameter explains of each metric."""
    metrics = list(shares)
    paths = list(next(iter(shares.values()), {}))
    made = picture(
        "sensitivity",
        "What parameters explain of each objective's variation",
        "Share of the variance of the logarithm over the whole space that a parameter explains by "
        "itself (fANOVA over a random forest); the rest, which parameters explain only together, "
        "is left out.",
        1.3 + 0.24 * len(paths) * max(len(metrics), 1) ** 0.5,
    )
    axes = made.figure.subplots()
    height = 0.8 / max(len(metrics), 1)
    for number, name in enumerate(metrics):
        places = np.arange(len(paths)) + (number - (len(metrics) - 1) / 2) * height
        axes.barh(places, [100 * shares[name][path] for path in paths], height,
                  color=OKABE_ITO[number % len(OKABE_ITO)], label=name)  # fmt: skip
    axes.set_yticks(np.arange(len(paths)), [plain(path) for path in paths])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    clean(axes, x="share of variance [%]")
    axes.legend(fontsize=7.5, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    return made


def _tiers(found: Sweep) -> Picture:
    """Draw latency by closed forms beside the simulated one, and energy."""
    agreement = found.agreement()
    text = ", ".join(f"{name} {value:.3f}" for name, value in agreement.items()) or "too few points"
    made = picture(
        "tiers",
        "Closed forms beside the simulator",
        f"A dot is a chip. On the line both agree. Rank correlation (Spearman): {text}.",
        3.6,
    )
    for number, name in enumerate(("latency_ms", "energy_mj")):
        axes = made.figure.add_subplot(1, 2, number + 1)
        x, y = found.metrics[name], found.analytic[name]
        sound = ~np.isnan(x)
        axes.scatter(x[sound], y[sound], s=10, color=OKABE_ITO[number], linewidths=0)
        if sound.any():
            low = float(min(x[sound].min(), y[sound].min()))
            high = float(max(x[sound].max(), y[sound].max()))
            axes.plot([low, high], [low, high], color=GREY, linewidth=1)
            scale_axis(axes, "x", np.array([low, high]))
            scale_axis(axes, "y", np.array([low, high]))
        label = METRICS[name].name.rpartition("_")[0]
        unit = unit_label(name).partition("[")[2]
        clean(axes, x=f"simulated {label} [{unit}", y=f"{label} by closed forms [{unit}")
    return made
