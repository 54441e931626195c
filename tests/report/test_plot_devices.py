"""The picture of devices and links."""

from __future__ import annotations

import numpy as np
from matplotlib.collections import PolyCollection

from lepton.report.plot_devices import devices_picture
from lepton.report.plots import png_bytes
from lepton.runtime.timeline import Timeline, TimelineBar

BARS = (
    TimelineBar("cpu", "a", 0, 2_000_000, "measured"),
    TimelineBar("npu", "b", 3_000_000, 4_000_000, "simulated"),
    TimelineBar("cpu->npu", "t", 2_000_000, 3_000_000, "modelled"),
    TimelineBar("cpu", "a", 2_000_000, 5_000_000, "measured", 1),
)


def test_rows_are_devices_then_links_and_clocks_are_hatches() -> None:
    made = devices_picture(Timeline(BARS, 5_000_000), "two $inputs$")
    (axes,) = made.figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["cpu (measured)", "npu (simulated)", "cpu->npu (modelled)"]
    assert axes.get_xlim() == (0, 5)
    drawn = [item for item in axes.collections if isinstance(item, PolyCollection)]
    assert [item.get_hatch() or "" for item in drawn] == ["", "////", "....", ""]
    spans = [item.get_paths()[0].get_extents() for item in drawn]
    assert [(box.x0, box.x1) for box in spans] == [(0, 2), (3, 4), (2, 3), (2, 5)]
    assert "successive inputs" in made.caption
    assert png_bytes(made).startswith(b"\x89PNG")


def test_colours_of_a_single_input_are_its_regions() -> None:
    made = devices_picture(Timeline(BARS[:3], 4_000_000), "one")
    assert "regions in their order" in made.caption
    drawn = [item for item in made.figure.axes[0].collections if isinstance(item, PolyCollection)]
    colours = {tuple(np.asarray(item.get_facecolor()).reshape(-1)) for item in drawn}
    assert len(colours) == 3


def test_a_timeline_without_bars() -> None:
    assert devices_picture(Timeline((), 0), "none").figure.axes
