"""The roofline with every layer that has MACs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import hypot, pi, sqrt
from typing import TYPE_CHECKING, cast

from lepton.program import Program
from lepton.report.names import shorten, tidy_names
from lepton.report.style import GREY, MARKERS, OKABE_ITO, Picture, clean, picture, plain
from lepton.report.summary import Layer, summarize
from lepton.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

__all__ = ["Point", "roofline", "roofline_points"]

Spot = tuple[float, ...]
_NAMED = 10


@dataclass(frozen=True)
class Point:
    """A layer on the roofline of the memory that would take longest for its bytes."""

    layer: Layer
    memory: int
    intensity: float
    """MACs per byte moved."""
    performance: float
    """MACs per cycle."""


def roofline_points(program: Program, layers: tuple[Layer, ...]) -> list[Point]:
    """Return the layers with MACs, cycles and bytes; the others have no place on the axes.

    What counts are the MACs that are issued: with those that are skipped a layer may be faster than
    the peak.
    """
    chip = program.chip
    rates = [float(chip.bytes_per_cycle(memory)) for memory in chip.memories]
    made: list[Point] = []
    for layer in layers:
        times = [size / rate for size, rate in zip(layer.dram_bytes, rates, strict=True)]
        if layer.device != "npu" or not layer.effective_macs or not layer.cycles or not any(times):
            continue
        memory = times.index(max(times))
        size = layer.dram_bytes[memory]
        macs = layer.effective_macs
        made.append(Point(layer, memory, macs / size, macs / layer.cycles))
    return made


def _roofs(axes: Axes, program: Program, limits: tuple[float, float]) -> Text:
    """Draw the peak and a diagonal per memory; return the peak's label."""
    chip = program.chip
    peak = chip.peak_macs_per_cycle
    low = limits[0]
    axes.plot(list(limits), [peak, peak], color="black", linewidth=1.2)
    text = axes.annotate(
        f"array: {peak:,} MAC/cycle", (0.99, peak), (0, 8), fontsize=7.5,
        xycoords=axes.get_yaxis_transform(), textcoords="offset points", ha="right", va="bottom",
    )  # fmt: skip
    styles = ("-", "--", "-.", ":")
    for index, memory in enumerate(chip.memories):
        rate = float(chip.bytes_per_cycle(memory))
        line = axes.plot(
            [low, peak / rate], [low * rate, peak], color="black", linewidth=1.2,
            linestyle=styles[index % len(styles)],
        )[0]  # fmt: skip
        line.set_label(plain(f"{memory.name}: {rate:g} bytes/cycle"))
    return text


def _clusters(points: list[Point], spots: list[Spot]) -> list[tuple[str, int]]:
    """Return labels for points, those that lie on each other sharing one, and where they go."""
    made: list[tuple[list[str], int]] = []
    for number, point in enumerate(points[:_NAMED]):
        tag = f"L{point.layer.index}"
        for tags, other in made:
            if hypot(spots[number][0] - spots[other][0], spots[number][1] - spots[other][1]) < 7:
                tags.append(tag)
                break
        else:
            made.append(([tag], number))
    return [(" ".join(tags), number) for tags, number in made]


def _is_free(box: Bbox, taken: list[Bbox], spots: list[Spot]) -> bool:
    """Return whether a label lies on no other label and on no point, whose radius is third."""
    if any(box.overlaps(other) for other in taken):
        return False
    for x, y, radius in spots:
        apart_x = max(box.x0 - x, x - box.x1, 0)
        apart_y = max(box.y0 - y, y - box.y1, 0)
        if hypot(apart_x, apart_y) < radius:
            return False
    return True


def _tag(figure: Figure, axes: Axes, points: list[Point], taken: list[Bbox]) -> None:
    """Label points so that no label lies on another or on a point; one without room has none."""
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text

    total = sum(point.layer.cycles or 0 for point in points) or 1
    scale = figure.dpi / 72
    spots: list[Spot] = []
    for point in points:
        x, y = axes.transData.transform((point.intensity, point.performance))
        spots.append((float(x), float(y), sqrt(_area(point, total) / pi) * scale))
    renderer = cast("FigureCanvasAgg", figure.canvas).get_renderer()
    turns = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))
    for label, number in _clusters(points, spots):
        for distance, (x, y) in product((9, 14, 20, 28, 38), turns):
            text = axes.annotate(
                label, (points[number].intensity, points[number].performance),
                (x * (distance + 2.2 * len(label)), y * distance),
                textcoords="offset points", ha="center", va="center", fontsize=7, zorder=5,
                path_effects=[withStroke(linewidth=1.8, foreground="white")],
                arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": GREY, "shrinkA": 0},
            )  # fmt: skip
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer).expanded(1.05, 1.05)
            if _is_free(box, taken, spots) and _is_inside(axes, box):
                taken.append(box)
                break
            text.remove()


def _is_inside(axes: Axes, box: Bbox) -> bool:
    frame = axes.get_window_extent()
    return frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1


def _area(point: Point, total: int) -> float:
    """Return the marker's area in square points."""
    return 16 + 260 * (point.layer.cycles or 0) / total


def _scatter(axes: Axes, points: list[Point], program: Program) -> None:
    """Draw the points: colour by kind of operator, shape by memory, area by share of the time."""
    total = sum(point.layer.cycles or 0 for point in points) or 1
    kinds = sorted({point.layer.op for point in points})
    several = len(program.chip.memories) > 1
    for kind_number, kind in enumerate(kinds):
        for memory, described in enumerate(program.chip.memories):
            mine = [p for p in points if p.layer.op == kind and p.memory == memory]
            if mine:
                axes.scatter(
                    [p.intensity for p in mine],
                    [p.performance for p in mine],
                    [_area(p, total) for p in mine],
                    color=OKABE_ITO[kind_number % len(OKABE_ITO)],
                    marker=MARKERS[memory % len(MARKERS)],
                    alpha=0.8, edgecolors="black", linewidths=0.4, zorder=3,
                    label=plain(f"{kind}, {described.name}" if several else kind),
                )  # fmt: skip


def _named(points: list[Point], names: dict[int, str], total: int) -> str:
    """Return the list of the dearest layers beside the picture."""
    lines = ["most cycles:"]
    for point in points[:_NAMED]:
        layer = point.layer
        share = 100 * (layer.cycles or 0) / total
        lines.append(f"L{layer.index} {shorten(names[layer.index], 20)}  {share:.1f} %")
    return plain("\n".join(lines))


def roofline(program: Program, trace: Trace) -> Picture:
    """Return the log-log roofline: MACs per cycle over MACs per byte moved."""
    from matplotlib.collections import PathCollection

    layers = summarize(program, trace).layers
    names = dict(zip((r.index for r in layers), tidy_names([r.name for r in layers]), strict=True))
    points = roofline_points(program, layers)
    points.sort(key=lambda point: -(point.layer.cycles or 0))
    without = sum(layer.device == "npu" for layer in layers) - len(points)
    made = picture(
        "roofline",
        f"Roofline: {program.source} on {program.chip.name}",
        "A point per layer: MACs per cycle over MACs per byte that the layer really moved, on the "
        "memory that takes longest for its bytes; area: share of the cycles. A layer whose bytes "
        "were prefetched while another layer computed may lie above the memory's roof. "
        f"{without} layers without MACs or bytes are not shown.",
        4.4,
    )
    axes = made.figure.subplots()
    peak = program.chip.peak_macs_per_cycle
    rates = [float(program.chip.bytes_per_cycle(memory)) for memory in program.chip.memories]
    ridges = [peak / rate for rate in rates]
    low = min([*(p.intensity for p in points), *ridges]) / 2
    high = max([*(p.intensity for p in points), *ridges]) * 3
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(min([*(p.performance for p in points), peak / 8]) / 2, peak * 3)
    peak_label = _roofs(axes, program, (low, high))
    _scatter(axes, points, program)
    clean(axes, x="operational intensity [MAC/byte]", y="performance [MAC/cycle]")
    axes.grid(which="major", color=GREY, alpha=0.2)
    handles, labels = axes.get_legend_handles_labels()
    legend = made.figure.legend(
        handles, labels, loc="outside right upper", fontsize=7.5, frameon=False,
        title=_named(points, names, max(trace.cycles, 1)), title_fontsize=7, alignment="left",
    )  # fmt: skip
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([24])
    made.figure.draw_without_rendering()
    _tag(made.figure, axes, points, [peak_label.get_window_extent()])
    return made
