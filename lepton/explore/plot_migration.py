"""How the workloads move on the roofline from chip to chip of a front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.explore.engine import Sweep
from lepton.explore.pictures import log_axis, numbered, write_beside
from lepton.report.style import GREY, MARKERS, OKABE_ITO, Picture, clean, picture, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Roof", "migration", "roof_of", "workload_path"]

F64 = NDArray[np.float64]
Spot = tuple[float, float]

_STYLES = "--", "-"
_MARGIN = 1.5
"""Between the outermost point and the frame, as a factor."""
_NEAR_POINTS = 11.0
"""Two numbers nearer than this would overlap."""
_OFFSETS = (5, 4), (5, -10), (-5, 4), (-5, -10)
"""Of a number from its point, in points: the first is taken that is free."""


@dataclass(frozen=True)
class Roof:
    """What no workload exceeds on a chip.

    Attributes:
        gmacs_per_s: peak of the arrays and the vector unit.
        gb_per_s: of all external memories together.
    """

    gmacs_per_s: float
    gb_per_s: float


def roof_of(chip: Chip) -> Roof:
    """Return the roof of a chip."""
    macs_per_s = chip.peak_macs_per_cycle * float(chip.array.clock_mhz) * 1e6
    bytes_per_s = sum(float(memory.bytes_per_second) for memory in chip.memories)
    return Roof(macs_per_s / 1e9, bytes_per_s / 1e9)


def workload_path(found: Sweep, workload: int, rows: Sequence[int]) -> tuple[F64, F64]:
    """Return a workload's MACs per byte and 10^9 MACs per second at rows of the table.

    Bytes are those that cross to and from the external memories; MACs are the network's, of which
    a chip may skip some. Both are NaN where no byte crosses.
    """
    simulated = found.simulated
    assert simulated is not None
    at = np.asarray(rows, np.int64)
    macs = found.macs[workload]
    moved = simulated.read_bytes[at, workload] + simulated.written_bytes[at, workload]
    points = found.space.points(found.numbers[at]).tolist()
    mhz = np.array([float(found.space.chip(point).array.clock_mhz) for point in points])
    seconds = simulated.cycles[at, workload] / (1e6 * mhz)
    intensity = np.divide(macs, moved, out=np.full(len(at), np.nan), where=moved > 0)
    return intensity, np.where(np.isnan(intensity), np.nan, macs / seconds / 1e9)


def migration(found: Sweep) -> Picture:
    """Draw the way of each workload over the numbered chips of the front, by their area."""
    rows = numbered(found)
    area = found.metrics["area_mm2"]
    order = sorted(rows, key=lambda row: float(area[row]))
    tags = [str(rows.index(row) + 1) for row in order]
    made = picture(
        "migration",
        "Each workload on the roofline, from chip to chip of the front",
        "From the smallest chip to the largest; numbers are those of the front. Lines: the peak of "
        "a chip, and the bandwidth of all its external memories together. MACs are the network's: "
        "a chip that skips some may be above its peak.",
        4.2,
    )
    axes = made.figure.subplots()
    paths = [workload_path(found, number, order) for number in range(len(found.macs))]
    chips = [_chip_at(found, row) for row in (order[:1] + order[-1:] if order else [])]
    ends = [tags[0], tags[-1]] if tags else []
    _frame(axes, paths, [roof_of(chip) for chip in chips], ends)
    taken: list[Spot] = []
    for number, (x, y) in enumerate(paths):
        name = found.space.workloads[number].name
        _path(axes, (x, y), number, name)
        _tags(axes, (x, y), tags, taken)
    clean(axes, x="operational intensity [MAC/byte]", y="performance [10⁹ MAC/s]")
    axes.grid(which="major", color=GREY, alpha=0.2)
    axes.legend(fontsize=7.5, frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=4)
    return made


def _chip_at(found: Sweep, row: int) -> Chip:
    """Return the chip of a row of the table."""
    (point,) = found.space.points(found.numbers[row : row + 1]).tolist()
    return found.space.chip(point)


def _frame(
    axes: Axes, paths: Sequence[tuple[F64, F64]], roofs: Sequence[Roof], tags: Sequence[str]
) -> None:
    """Set the limits and draw the roofs of the first and the last chip."""
    ridges = [roof.gmacs_per_s / roof.gb_per_s for roof in roofs]
    x = np.concatenate([*(x for x, _ in paths), ridges])
    y = np.concatenate([*(y for _, y in paths), [roof.gmacs_per_s for roof in roofs]])
    x, y = x[~np.isnan(x)], y[~np.isnan(y)]
    if not len(x):
        return
    low, high = float(x.min()) / _MARGIN, float(x.max()) * _MARGIN
    for roof, ridge, style, tag in zip(roofs, ridges, _STYLES, tags, strict=True):
        heights = [low * roof.gb_per_s, roof.gmacs_per_s, roof.gmacs_per_s]
        axes.plot([low, ridge, high], heights, color="black", linewidth=1.0, linestyle=style,
                  label=f"roof of {tag}")  # fmt: skip
    axes.set_xlim(low, high)
    axes.set_ylim(float(y.min()) / _MARGIN, float(y.max()) * _MARGIN)
    for which, values in (("x", x), ("y", y)):
        log_axis(axes, which, values)


def _path(axes: Axes, places: tuple[F64, F64], number: int, name: str) -> None:
    """Draw one workload's points with an arrow from each to the next."""
    x, y = places
    colour = OKABE_ITO[number % len(OKABE_ITO)]
    for step in range(len(x) - 1):
        if np.isnan([*x[step : step + 2], *y[step : step + 2]]).any():
            continue
        axes.annotate(
            "", (float(x[step + 1]), float(y[step + 1])), (float(x[step]), float(y[step])),
            arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.1, "shrinkA": 3,
                        "shrinkB": 3, "mutation_scale": 9},
        )  # fmt: skip
    axes.scatter(x, y, s=24, color=colour, marker=MARKERS[number % len(MARKERS)], zorder=3,
                 edgecolors="black", linewidths=0.5, label=plain(name))  # fmt: skip


def _tags(axes: Axes, places: tuple[F64, F64], tags: Sequence[str], taken: list[Spot]) -> None:
    """Write the chips' numbers beside their points, those of points on each other together."""
    pixels = _NEAR_POINTS * axes.figure.dpi / 72
    groups: list[tuple[Spot, Spot, list[str]]] = []
    for x, y, tag in zip(*(values.tolist() for values in places), tags, strict=True):
        if math.isnan(x):
            continue
        across, up = (float(part) for part in axes.transData.transform((x, y)))
        near = [group for group in groups if math.dist(group[1], (across, up)) < pixels]
        if near:
            near[0][2].append(tag)
        else:
            groups.append(((x, y), (across, up), [tag]))
    for place, (across, up), names in groups:
        spots = [(across + a * pixels / 4, up + b * pixels / 4) for a, b in _OFFSETS]
        free = [
            n for n, spot in enumerate(spots) if all(math.dist(spot, t) > pixels for t in taken)
        ]
        chosen = free[0] if free else 0
        taken.append(spots[chosen])
        offset = _OFFSETS[chosen]
        side = "left" if offset[0] > 0 else "right"
        write_beside(axes, " ".join(names), place, offset, ha=side)
