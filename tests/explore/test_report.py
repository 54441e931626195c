"""Pictures, the page and sensitivities of sweeps, and the command that writes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lepton
from lepton.cli.main import main
from lepton.explore import load, parse_space
from lepton.explore.curves import best_at
from lepton.explore.engine import Sample, Sweep, SweepOptions, run_sweep, with_models
from lepton.explore.page import sweep_page
from lepton.explore.pictures import pictures
from lepton.explore.sensitivity import sensitivity
from lepton.models.onnx_writer import GraphWriter
from tests.explore.spaces import GRID, grid

SPACE = GRID.replace("[parameters]", "[constraints]\narea_mm2 = { at_most = 3 }\n[parameters]")


@pytest.fixture(scope="module")
def found() -> Sweep:
    space = parse_space(SPACE, "grid.toml")
    return run_sweep(space, SweepOptions(sampler="random", points=25))


def test_sensitivity_of_known_functions() -> None:
    """A product of powers: each parameter explains what its power's square says."""
    text = "\n".join(f"{path} = [1, 2, 4, 8]" for path in ("vector.lanes", "dma.load_channels",
                                                           "dma.setup_cycles"))  # fmt: skip
    space = parse_space(f"[parameters]\n{text}", "s")
    numbers = np.arange(space.size)
    a, b, c = space.points(numbers).T
    metrics = {"latency_ms": 2.0 ** (3 * a + b), "energy_mj": 2.0**c, "area_mm2": np.ones(64)}
    made = sensitivity(space, numbers, metrics, list(metrics))
    assert made["latency_ms"]["vector.lanes"] == pytest.approx(0.9, abs=0.05)
    assert made["latency_ms"]["dma.load_channels"] == pytest.approx(0.1, abs=0.05)
    assert made["energy_mj"]["dma.setup_cycles"] == pytest.approx(1, abs=0.01)
    assert set(made["area_mm2"].values()) == {0.0}


def test_sensitivity_looks_at_all_of_a_large_space() -> None:
    """Of 4,096 points in order the first 2,000 would not have the first parameter's last values."""
    values = list(range(1, 65))
    text = f"dma.setup_cycles = {values}\nvector.latency_cycles = {values}"
    space = parse_space(f"[parameters]\n{text}", "s")
    numbers = np.arange(space.size)
    a, b = space.points(numbers).T
    metrics = {"latency_ms": np.where(a >= 40, 100.0, 1.0) * 1.01**b}
    shares = sensitivity(space, numbers, metrics, ["latency_ms"])["latency_ms"]
    assert shares["dma.setup_cycles"] > 0.9


def _is_shown(axes: Any, tick: Any) -> bool:
    """Return whether a tick is within the axes: matplotlib keeps one more at each end."""
    x, y = axes.transAxes.inverted().transform(tick.get_transform().transform(tick.get_position()))
    return -0.3 <= x <= 1.01 and -0.3 <= y <= 1.01


def _overlaps(boxes: list) -> list[tuple[int, int]]:
    return [
        (m, n)
        for n, box in enumerate(boxes)
        for m, other in enumerate(boxes[:n])
        if box.overlaps(other)
    ]


@pytest.mark.parametrize("objectives", [
    ("latency_ms", "area_mm2"), ("latency_ms", "energy_mj", "area_mm2"), ("area_mm2",),
])  # fmt: skip
def test_pictures(found: Sweep, objectives: tuple[str, ...]) -> None:
    """Every axis has a label with its unit, and labels of ticks do not overlap."""
    from dataclasses import replace

    other = replace(found, space=replace(found.space, objectives=objectives))
    shares = sensitivity(other.space, other.sample.numbers, other.sample.metrics, objectives)
    made = pictures(other, shares)
    assert [item.name for item in made] == ["front", "parallel", "knees", "sensitivity", "tiers"]
    for item in made:
        item.figure.canvas.draw()
        for axes in item.figure.axes:
            for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
                shown = [tick for tick in ticks if tick.get_text() and _is_shown(axes, tick)]
                assert not _overlaps([tick.get_window_extent() for tick in shown]), item.name
    front = made[0].figure.axes[0]
    assert "[ms]" in front.get_xlabel() or "[mm2]" in front.get_xlabel()


def test_best_at_each_value(found: Sweep) -> None:
    """The best of a metric at a value is the best of the feasible rows of the table with it."""
    rows = found.frame().query("feasible")
    own = Sample(found.numbers, found.metrics)
    for number, parameter in enumerate(found.space.parameters):
        for metric, choice in (("latency_ms", "min"), ("inferences_per_s", "max")):
            by_value = getattr(rows.groupby(parameter.path)[metric], choice)()
            want = [by_value.get(value, np.nan) for value in parameter.values]
            np.testing.assert_array_equal(best_at(found.space, own, number, metric), want)


def test_page_holds_everything(found: Sweep) -> None:
    shares = sensitivity(
        found.space, found.sample.numbers, found.sample.metrics, found.space.objectives
    )
    page = sweep_page(found, shares)
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "http" not in outside
    assert not re.search(r"<(link|img|iframe)|src=", outside)
    assert page.count('class="plotly-graph-div"') == 3
    rows = re.findall(r"<tr><td>(\d*)</td><td>(\d+)</td>", page)
    assert {int(point) for _, point in rows} == set(found.front.tolist())
    assert "area_mm2 &lt;= 3" in page
    assert "<script>alert" not in sweep_page(_hostile(found), shares)


def _hostile(found: Sweep) -> Sweep:
    from dataclasses import replace

    return replace(found, space=replace(found.space, place="<script>alert(1)</script>"))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.toml").write_text(SPACE)
    arguments = ["sweep", str(tmp_path / "s.toml"), "--points", "12"]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "144 points, 144 screened, 12 simulated (12 runs now)" in text
    assert "front of" in text
    assert {path.name for path in (tmp_path / "s.sweep").iterdir()} >= {
        "points.parquet", "runs.db", "report.html", "front.png", "front.svg", "parallel.png",
        "knees.png", "sensitivity.png", "tiers.png", "migration.png",
    }  # fmt: skip
    assert main([*arguments, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["points"], made["simulated_now"], made["space"]) == (12, 0, 144)
    assert {row["metrics"]["area_mm2"] <= 3 for row in made["front"]} == {True}
    assert sorted(made["rank_agreement"]) == ["energy_mj", "latency_ms"]


def test_command_without_a_feasible_point(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.toml").write_text(SPACE.replace("at_most = 3", "at_most = 0.001"))
    assert main(["sweep", str(tmp_path / "s.toml"), "--tier", "analytic", "--sampler", "grid"]) == 0
    assert "no point is within all constraints" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["none.toml"], "none.toml"),
        (["s.toml", "--sampler", "best"], "invalid choice"),
        (["s.toml", "--workers", "0"], "workers must be at least 1"),
        (["s.toml", "--tier", "analytic"], "two-fidelity search has both tiers"),
        (["s.toml", "--model", "digits"], "two workloads are called 'digits'"),
        (["s.toml", "--storage", "x"], "storage x"),
        (["s.toml", "-o", "s.toml"], "s.toml"),
        (["s"], "s: no such file, and no space of the package"),
        (["s.toml", "--model-folder", "lost"], "lost: the folder of the models does not exist"),
        (["s.toml", "--calibrate", "x.npz"], "--calibrate is for one --model, not 0"),
    ],
)
def test_commands_that_are_refused(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(SPACE)
    assert main(["sweep", *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_models_beside_the_space() -> None:
    assert [w.name for w in with_models(grid(), ["mnist_compressed"]).workloads] == [
        "digits", "mnist_compressed",
    ]  # fmt: skip


def test_float_models_are_quantized_with_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = GraphWriter("small", seed=1)
    kernel = writer.weights("weights", (8, 3, 3, 3), fan_in=27)
    made = writer.add("Conv", "conv", writer.feed("x", (1, 3, 8, 8)), kernel)
    (tmp_path / "small.onnx").write_bytes(writer.finish([made]).SerializeToString())
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((2, 1, 3, 8, 8)))
    (tmp_path / "s.toml").write_text("base = 'nano'\n[parameters]\narray.rows = [8, 16]")
    # the front that a run with the CPU leaves in the user's cache is no answer
    lepton.compile(tmp_path / "small.onnx", "nano", float_on_host=True)
    arguments = ["sweep", str(tmp_path / "s.toml"), "--model", str(tmp_path / "small.onnx")]
    assert main(arguments) == 2
    assert "float" in capsys.readouterr().err
    arguments += ["--calibrate", str(tmp_path / "x.npz"), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--sampler", "grid"]) == 0
    assert "2 points, 2 simulated" in capsys.readouterr().out
    assert list(load(tmp_path / "out")["small.cycles"] > 0) == [True, True]


def test_models_of_which_nothing_is_on_the_npu_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = GraphWriter("sine", seed=1)
    made = writer.add("Sin", "sine", writer.feed("x", (1, 4)))
    (tmp_path / "sine.onnx").write_bytes(writer.finish([made]).SerializeToString())
    (tmp_path / "s.toml").write_text("base = 'nano'\n[parameters]\narray.rows = [8, 16]")
    assert main(["sweep", str(tmp_path / "s.toml"), "--model", str(tmp_path / "sine.onnx")]) == 2
    assert "none of it runs on the NPU" in capsys.readouterr().err
