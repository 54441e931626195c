"""Pictures, page and Perfetto file of real runs."""

from __future__ import annotations

import dataclasses
import json
import struct
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from lepton.errors import InputError
from lepton.program import Program
from lepton.report.html import html_page, write_html
from lepton.report.perfetto import perfetto_json
from lepton.report.plot_layers import grouped, unit_stalls
from lepton.report.plots import PICTURES, png_bytes, save_all, svg_bytes
from lepton.report.style import Picture, time_axis
from lepton.trace import Trace
from tests.conftest import data_path

Run = tuple[Program, Trace]


def test_save_all_writes_every_picture_at_readable_size(run: Run, tmp_path: Path) -> None:
    written = save_all(*run, tmp_path / "new", svg=True)
    assert len(written) == 2 * len(PICTURES)
    for path in written:
        content = path.read_bytes()
        if path.suffix == ".png":
            assert content.startswith(b"\x89PNG")
            assert struct.unpack(">I", content[16:20])[0] == 900
        else:
            assert b"<svg" in content
            assert b"http" not in content.replace(b"http://www.w3.org", b"").replace(
                b"http://purl.org", b""
            ).replace(b"http://creativecommons.org", b"").replace(b"https://matplotlib.org", b"")


def test_save_all_into_a_file(digits: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        save_all(*digits, tmp_path / "file")


def test_pictures_leave_no_global_state(digits: Run) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    first = [svg_bytes(draw(*digits)) for draw in PICTURES]
    assert first == [svg_bytes(draw(*digits)) for draw in PICTURES]
    assert dict(mpl.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def _labels(axes: Axes) -> list[tuple[str, Bbox]]:
    """Text and box of every label inside an axes, without arrows."""
    return [(text.get_text(), Text.get_window_extent(text)) for text in axes.texts]


def _ticks(axes: Axes) -> list[tuple[str, Bbox]]:
    """Text and box of the labels at the left that are in view."""
    frame = axes.get_window_extent()
    made = [(text.get_text(), text.get_window_extent()) for text in axes.get_yticklabels()]
    return [(t, box) for t, box in made if frame.y0 - 1 <= (box.y0 + box.y1) / 2 <= frame.y1 + 1]


def _check_texts(made: Picture) -> None:
    """No label meets another label of its axes, and none leaves the picture."""
    figure = made.figure
    figure.draw_without_rendering()
    page = figure.bbox
    boxes = [(text.get_text(), text.get_window_extent()) for text in figure.texts]
    assert len(boxes) >= 2
    for axes in figure.axes:
        names = [axes.xaxis.label, axes.yaxis.label]
        boxes += [(text.get_text(), text.get_window_extent()) for text in names if text.get_text()]
        for group in (_labels(axes), _ticks(axes)):
            boxes += group
            for (first, one), (second, other) in combinations(group, 2):
                # the boxes of two lines may touch, their letters not
                apart = not one.shrunk(0.9, 0.7).overlaps(other.shrunk(0.9, 0.7))
                assert apart, (made.name, first, second)
    for text, box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1 + 1, (made.name, text)
        assert page.y0 <= box.y0 and box.y1 <= page.y1 + 1, (made.name, text)


@pytest.mark.parametrize("draw", PICTURES)
def test_no_text_leaves_the_picture_or_meets_another(
    run: Run, draw: Callable[[Program, Trace], Picture]
) -> None:
    _check_texts(draw(*run))


def test_groups_keep_the_sum() -> None:
    causes = {"busy": 3, "wait_load0": 4, "wait_load1": 5, "idle": 6, "write_back": 1}
    assert grouped(causes) == {"busy": 3, "wait load": 9, "idle": 6, "write back": 1}
    causes = {"wait_0.load1": 4, "wait_12.load0": 5, "wait_2.vector": 1, "wait_start": 2}
    assert grouped(causes) == {"wait load": 9, "wait vector": 1, "wait start": 2}


def test_every_bar_of_the_units_is_as_long_as_the_run(run: Run) -> None:
    program, trace = run
    axes = unit_stalls(program, trace).figure.axes[0]
    reached = dict.fromkeys(range(len(trace.queues)), 0.0)
    for bar in axes.patches:
        assert isinstance(bar, Rectangle)
        row = round(bar.get_y() + bar.get_height() / 2)
        reached[row] = max(reached[row], bar.get_x() + bar.get_width())
    whole = trace.cycles / time_axis(trace.cycles, trace.clock_hz).per_unit
    assert list(reached.values()) == pytest.approx([whole] * len(trace.queues))


def test_a_run_of_nothing_can_be_drawn(assembly: Run) -> None:
    program, trace = assembly
    empty = dataclasses.replace(
        program, instructions=b"", operator_of=np.zeros(0, np.uint32), regions=()
    )
    none = dict.fromkeys((f.name for f in dataclasses.fields(trace.memories[0])), 0)
    none |= {"profile": np.zeros(0, np.int64)}
    memories = tuple(
        dataclasses.replace(memory, **none | {"name": memory.name}) for memory in trace.memories
    )
    nothing = dataclasses.replace(
        trace, records=trace.records[:0], cycles=0, regions=(), memories=memories
    )
    for draw in PICTURES:
        assert png_bytes(draw(empty, nothing))
    assert html_page(empty, nothing)


class _Page(HTMLParser):
    """Collects what a browser would request, and checks the nesting."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.images = 0
        self.tables = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action")]
        self.images += tag == "img"
        self.tables += tag == "table"
        assert tag not in ("script", "link", "iframe", "object")
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_self_contained_with_numbers_under_every_picture(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_html(*run, path)
    text = path.read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert not page.open
    assert page.images == len(PICTURES)
    assert page.tables == len(PICTURES) + 2  # the figures, the critical path
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "url(" not in text
    assert "@import" not in text
    assert f"{run[1].cycles:,}" in text


def test_page_escapes_names(digits: Run) -> None:
    program, trace = digits
    evil = "<script>alert('x')</script>\"&$x_{$ \\frac \x01\u202e"
    operators = tuple(dataclasses.replace(o, name=evil) for o in program.operators)
    text = html_page(dataclasses.replace(program, operators=operators, source=evil), trace)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_perfetto_is_valid_and_complete(run: Run) -> None:
    program, trace = run
    made = json.loads(perfetto_json(program, trace))
    events = made["traceEvents"]
    scale = 1e6 / trace.clock_hz
    names = {e["args"]["name"]: e["tid"] for e in events if e["name"] == "thread_name"}
    assert set(names) == {"layers", *trace.queues}
    slices = [e for e in events if e["ph"] == "X"]
    for e in slices:
        assert 0 <= e["ts"] <= e["ts"] + e["dur"] <= trace.cycles * scale * (1 + 1e-9)
    units = [e for e in slices if e["tid"]]
    assert len(units) == int((trace.records["queue"] >= 0).sum())
    for e in units:
        row = trace.records[e["args"]["instruction"]]
        assert e["tid"] == row["queue"] + 1
        assert e["dur"] == pytest.approx((row["end"] - row["start"]) * scale)
        assert e["args"]["text"].startswith(e["cat"])
    assert sum(e["args"]["cycles"] for e in slices if not e["tid"]) == trace.cycles
    counted = {m.name: 0.0 for m in trace.memories}
    for e in (e for e in events if e["ph"] == "C"):
        counted[e["name"].split()[0]] += e["args"]["bytes/cycle"] * trace.profile_cycles
    assert counted == {m.name: m.read_bytes + m.write_bytes for m in trace.memories}


@pytest.mark.slow
def test_a_larger_network() -> None:
    from lepton.chip import load_chip
    from lepton.compiler.compile import compile_model
    from lepton.report.summary import summarize
    from lepton.simulator import simulate_timing

    path = data_path("mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite")
    program = compile_model(path, load_chip("edge"))
    trace = simulate_timing(program)
    made = summarize(program, trace)
    assert made.bound_cycles <= trace.cycles
    assert sum(layer.cycles or 0 for layer in made.layers) == trace.cycles
    assert all((layer.mac_utilization or 0) <= 1 for layer in made.layers)
    for draw in PICTURES:
        _check_texts(draw(program, trace))
