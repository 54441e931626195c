"""All pictures of a run, and their files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path

from lepton.program import Program, atomic_write
from lepton.program.files import made_folder
from lepton.report.plot_energy import energy_layers
from lepton.report.plot_layers import layer_stalls, unit_stalls
from lepton.report.plot_roofline import roofline
from lepton.report.plot_scratchpad import scratchpad
from lepton.report.plot_time import bandwidth, timeline
from lepton.report.style import Picture
from lepton.trace import Trace

__all__ = ["PICTURES", "pictures", "png_bytes", "save_all", "save_pictures", "svg_bytes"]

PICTURES: tuple[Callable[[Program, Trace], Picture], ...] = (
    timeline,
    roofline,
    unit_stalls,
    layer_stalls,
    energy_layers,
    scratchpad,
    bandwidth,
)
_DPI = 120


def pictures(program: Program, trace: Trace) -> list[Picture]:
    """Return every picture of a run."""
    return [draw(program, trace) for draw in PICTURES]


def png_bytes(made: Picture) -> bytes:
    """Return the PNG of a picture, the same bytes every time."""
    buffer = io.BytesIO()
    made.figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def svg_bytes(made: Picture) -> bytes:
    """Return the SVG of a picture, text as text."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": made.name}):
        made.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def save_all(
    program: Program, trace: Trace, folder: str | Path, *, svg: bool = False
) -> list[Path]:
    """Write every picture of a run as `save_pictures` does."""
    return save_pictures(pictures(program, trace), folder, svg=svg)


def save_pictures(found: Iterable[Picture], folder: str | Path, *, svg: bool = False) -> list[Path]:
    """Write pictures as PNG of about 900 pixels, and as SVG if asked for.

    Raises:
        InputError: the folder cannot be made.
        ProgramError: a file cannot be written.
    """
    place = made_folder(Path(folder))
    written: list[Path] = []
    for made in found:
        files = [(".png", png_bytes)] + ([(".svg", svg_bytes)] if svg else [])
        for suffix, content in files:
            path = place / f"{made.name}{suffix}"
            atomic_write(path, content(made))
            written.append(path)
    return written
