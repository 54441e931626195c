"""What all pictures share: size, colours, time axis, title and caption."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "CAUSE_COLOURS",
    "GREY",
    "MARKERS",
    "OKABE_ITO",
    "Picture",
    "Time",
    "clean",
    "layer_colour",
    "plain",
    "picture",
]
__all__ += ["time_axis"]

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Source: M. Okabe and K. Ito, Color Universal Design, 2008; without the black."""

MARKERS = "os^Dv<>"
"""Of as many series as there are colours."""

GREY = "#666666"

CAUSE_COLOURS: dict[str, tuple[str, str]] = {
    "busy": ("#0072B2", ""), "matrix": ("#0072B2", ""), "vector": ("#009E73", ""),
    "transfer": ("#56B4E9", ""), "bank": ("#F0E442", ""), "memory": ("#D55E00", ""),
    "fetch": ("#BBBBBB", ""), "dispatch": ("#BBBBBB", "...."), "preload": ("#0072B2", "////"),
    "wait load": ("#E69F00", ""), "wait weights": ("#CC79A7", ""),
    "wait store": ("#E69F00", "////"), "wait matrix": ("#56B4E9", "...."),
    "wait vector": ("#009E73", "...."), "wait start": ("#BBBBBB", "////"),
    "write back": ("#D55E00", "////"), "idle": ("#FFFFFF", ""),
}  # fmt: skip
"""Colour and hatch of every cause."""

_WIDTH_INCHES = 7.5
_DPI = 120
_TITLE = 88
"""Characters of a title that fit."""


@dataclass(frozen=True)
class Picture:
    """A figure with what a reader must know to read it."""

    name: str
    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Time:
    """The unit of the time axis: cycles, or thousands of them."""

    per_unit: int
    label: str


def time_axis(cycles: int, clock_hz: int) -> Time:
    """Return the unit that keeps the numbers short."""
    thousands = cycles >= 20_000
    nanoseconds = 1e9 / clock_hz * (1000 if thousands else 1)
    unit = "kcycle" if thousands else "cycle"
    worth = f"{nanoseconds / 1000:g} µs" if thousands else f"{nanoseconds:g} ns"
    return Time(1000 if thousands else 1, f"time [{unit}s; 1 {unit} = {worth}]")


def layer_colour(index: int) -> str:
    """Return the colour of a layer; neighbours differ."""
    return OKABE_ITO[index % len(OKABE_ITO)]


def plain(text: str) -> str:
    """Return text that matplotlib writes as it is: no formulas, no control characters."""
    shown = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    return shown.replace("$", r"\$")


def picture(name: str, title: str, caption: str, height: float) -> Picture:
    """Return an empty figure of the common width with title and caption."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=_DPI)
    figure.set_layout_engine("constrained", w_pad=0.09, h_pad=0.06)
    FigureCanvasAgg(figure)
    short = title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…"
    figure.suptitle(plain(short), x=0.01, ha="left", fontsize=10, fontweight="bold")
    text = plain("\n".join(textwrap.wrap(caption, 136)))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7, color=GREY)
    return Picture(name, title, caption, figure)


def clean(axes: Axes, **labels: str) -> None:
    """Set labels and the common look of an axes."""
    axes.set_xlabel(plain(labels.get("x", "")), fontsize=8)
    axes.set_ylabel(plain(labels.get("y", "")), fontsize=8)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
