"""The scratchpad over time: which operator's bytes lie where, and how many are live."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton.program import Program
from lepton.report.names import shorten, tidy_names
from lepton.report.occupancy import Occupancy, fullest_core, occupancy, touched_bytes
from lepton.report.style import GREY, Picture, Time, clean, layer_colour, picture, plain, time_axis
from lepton.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["scratchpad"]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
_FOLD = 0.03
"""Gaps of more than this share of the used addresses are cut out of the axis."""
_MOST_LABELS = 40


def _fold(held: Occupancy) -> tuple[F64, F64, list[tuple[int, int]]]:
    """Return low and high on an axis without the large gaps, and where its pieces begin.

    A piece is (address, position on the axis).
    """
    order = np.argsort(held.low, kind="stable")
    low, high = held.low[order], np.maximum.accumulate(held.high[order])
    gap = np.concatenate([[low[0]], np.maximum(low[1:] - high[:-1], 0)])
    used = int(high[-1] - gap.sum())
    cut = np.where(gap > max(int(used * _FOLD), 0), gap, 0)
    cut[0] = low[0]
    shift_of = np.cumsum(cut)
    pieces = [(int(low[i]), int(low[i] - shift_of[i])) for i in np.flatnonzero(cut)]
    if not pieces or pieces[0][1] > 0:
        pieces.insert(0, (int(low[0]), 0))
    shift = np.zeros(len(order), np.int64)
    shift[order] = shift_of
    return (held.low - shift).astype(float), (held.high - shift).astype(float), pieces


def _groups(held: Occupancy, trace: Trace, ys: tuple[F64, F64]) -> list[tuple[int, I64]]:
    """Return (operator, rectangles) of what one unit wrote for one operator, the largest first."""
    queue = trace.records["queue"][held.writer]
    area = (ys[1] - ys[0]) * (held.end - held.start)
    key = held.operator * (len(trace.queues) + 1) + queue
    made = [np.flatnonzero(key == one) for one in np.unique(key)]
    made.sort(key=lambda mine: -float(area[mine].sum()))
    return [(int(held.operator[mine[0]]), mine) for mine in made]


def _label(axes: Axes, held: Occupancy, trace: Trace, names: list[str]) -> None:
    """Write layers at the middle of what they wrote, where no other label is."""
    from matplotlib.patheffects import withStroke

    low, high, _ = _fold(held)
    ys = (low, high)
    per_pixel = 1 / (axes.get_window_extent().width or 1.0)
    left, right = axes.get_xlim()
    unit = time_axis(trace.cycles, trace.clock_hz).per_unit
    middle_x, middle_y = (held.start + held.end) / 2 / unit, (ys[0] + ys[1]) / 2
    area = (ys[1] - ys[0]) * (held.end - held.start)
    taken: list[tuple[float, float, float]] = []
    for operator, mine in _groups(held, trace, ys)[:_MOST_LABELS]:
        share = area[mine] / max(float(area[mine].sum()), 1.0)
        centre = float((middle_x[mine] * share).sum()), float((middle_y[mine] * share).sum())
        away = np.abs(middle_x[mine] - centre[0]) / (right - left)
        away = away + np.abs(middle_y[mine] - centre[1]) / axes.get_ylim()[1]
        at = mine[int(np.argmin(away))]
        extent = float((held.end[mine].max() - held.start[mine].min()) / unit / (right - left))
        name = f"L{operator} {shorten(names[operator], 20)}"
        text = name if len(name) * 7.5 * per_pixel < extent else f"L{operator}"
        x, y = float(middle_x[at]) / (right - left), float(middle_y[at]) / axes.get_ylim()[1]
        half = len(text) * 3.9 * per_pixel
        x = min(max(x, half), 1 - half)
        if any(abs(x - u) < half + w and abs(y - v) < 0.055 for u, v, w in taken):
            continue
        taken.append((x, y, half))
        axes.text(
            x, min(max(y, 0.03), 0.97), plain(text), ha="center", va="center", fontsize=6.5,
            transform=axes.transAxes, path_effects=[withStroke(linewidth=1.8, foreground="white")],
        )  # fmt: skip


def _map(axes: Axes, held: Occupancy, time: Time) -> None:
    """Draw every live rectangle at its addresses."""
    from matplotlib.collections import PolyCollection

    low, high, pieces = _fold(held)
    left, right = held.start / time.per_unit, held.end / time.per_unit
    corners = np.stack(
        [np.stack([x, y], -1) for x, y in ((left, low), (right, low), (right, high), (left, high))],
        axis=1,
    )
    colours = [layer_colour(int(operator)) for operator in held.operator]
    axes.add_collection(
        PolyCollection(
            list(corners), facecolors=colours, edgecolors="white", linewidths=0.2, alpha=0.75
        )
    )
    top = float(high.max())
    axes.set_ylim(0, top)
    ticks: list[tuple[int, int]] = []
    for address, position in pieces:
        if position:
            axes.axhline(position, color="black", linestyle=":", linewidth=0.8)
        if not ticks or position - ticks[-1][1] > top * 0.07:
            ticks.append((address, position))
    if len(pieces) == 1:
        step = 1 << max(int(top / 4).bit_length() - 1, 0)
        ticks = [(pieces[0][0] + at, at) for at in range(0, int(top) + 1, step)]
    axes.set_yticks([position for _, position in ticks], [f"{a:#x}" for a, _ in ticks])


def _live(axes: Axes, held: Occupancy, size: int, time: Time) -> None:
    """Draw the live bytes over time."""
    edges, live = held.live_bytes()
    axes.fill_between(
        edges / time.per_unit, live / 1024, step="post", color=layer_colour(0), alpha=0.75
    )
    peak = int(live.max(initial=0))
    close = peak > 0.4 * size
    axes.set_ylim(0, (size if close else max(peak, 1)) / 1024 * 1.3)
    level, text = (size, "size") if close else (peak, "peak")
    axes.axhline(level / 1024, color="black", linestyle="--", linewidth=1)
    axes.annotate(
        f"{text} {level / 1024:,.1f} KiB", (0.995, level / 1024), (0, 2), fontsize=7.5,
        xycoords=axes.get_yaxis_transform(), textcoords="offset points", ha="right", va="bottom",
    )  # fmt: skip
    axes.grid(axis="y", color=GREY, alpha=0.2)


def scratchpad(program: Program, trace: Trace) -> Picture:
    """Return the map of the scratchpad and its live bytes over time, of the fullest core."""
    core = fullest_core(program)
    held = occupancy(program, trace, core)
    size = program.chip.scratchpad.size_bytes
    whose = f" of core {core}" if program.chip.cores > 1 else ""
    made = picture(
        "scratchpad",
        f"Scratchpad{whose}: {program.source} on {program.chip.name}",
        f"At most {held.peak_bytes / 1024:,.1f} KiB live at once of {size / 1024:,.0f} KiB; "
        f"{touched_bytes(program) / 1024:,.1f} KiB are ever touched. A rectangle reaches from the "
        "first write to the last read before the next write and has the colour and number of the "
        "layer that wrote it; dotted lines: unused addresses left out.",
        4.6,
    )
    top, bottom = made.figure.subplots(2, 1, sharex=True, height_ratios=[2.6, 1])
    time = time_axis(trace.cycles, trace.clock_hz)
    top.set_xlim(0, max(trace.cycles, 1) / time.per_unit)
    names = tidy_names([operator.name for operator in program.operators])
    if len(held.low):
        _live(bottom, held, size, time)
        _map(top, held, time)
    clean(top, y="address")
    clean(bottom, x=time.label, y="live [KiB]")
    if len(held.low):
        made.figure.draw_without_rendering()
        _label(top, held, trace, names)
    return made
