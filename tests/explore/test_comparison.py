"""Two sweeps side by side, and how workloads move on the roofline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lepton
from lepton.cli.main import main
from lepton.errors import InputError
from lepton.explore import parse_space
from lepton.explore.comparison import Table, compare_sweeps, load_table
from lepton.explore.engine import Sweep, SweepOptions, run_sweep
from lepton.explore.plot_comparison import comparison_picture
from lepton.explore.plot_migration import migration, roof_of, workload_path
from tests.explore.spaces import GRID

TWO = GRID.replace('"area_mm2"]', '"area_mm2", "energy_mj"]')


def _saved(text: str, folder: Path, **options: Any) -> Path:
    """Sweep a space in closed form and save its table."""
    chosen: dict[str, Any] = {"sampler": "random", "tier": "analytic", "points": 40, **options}
    lepton.sweep(parse_space(text, "s.toml"), out=folder, **chosen)
    return folder


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Table, Table]:
    """Two random samples of one space."""
    folder = tmp_path_factory.mktemp("compared")
    paths = [_saved(TWO, folder / name, seed=seed) for name, seed in (("a", 1), ("b", 2))]
    return load_table(paths[0]), load_table(paths[1])


def _beats(p: np.ndarray, q: np.ndarray) -> bool:
    return bool((p <= q).all() and (p < q).any())


def _dominated_share(rows: np.ndarray, every: np.ndarray, samples: np.ndarray) -> float:
    """Return the share of the dominated samples that some rows dominate, one by one."""
    mine, all_of_them = 0, 0
    for sample in samples:
        all_of_them += any((row <= sample).all() for row in every)
        mine += any((row <= sample).all() for row in rows)
    return mine / all_of_them


def test_figures_are_those_of_a_brute_force(sides: tuple[Table, Table]) -> None:
    a, b = sides
    found = compare_sweeps(a, b)
    names = ["latency_ms", "area_mm2", "energy_mj"]
    values = [table.frame[names].to_numpy() for table in sides]
    numbers = [set(table.frame.point) for table in sides]
    assert found.shared == len(numbers[0] & numbers[1]) > 0
    fronts = [
        [n for n, p in enumerate(own) if not any(_beats(q, p) for q in own)] for own in values
    ]
    every = np.concatenate(values)
    box = np.concatenate([own[front] for own, front in zip(values, fronts, strict=True)])
    low, span = box.min(axis=0), np.ptp(box, axis=0)
    samples = np.random.default_rng(0).uniform(0, 1.1, (4000, 3)) * span + low
    for side, own, front in zip((found.a, found.b), values, fronts, strict=True):
        assert side.front == len(front)
        ahead = [n for n in front if not any(_beats(q, own[n]) for q in every)]
        assert side.front_of_both == len(ahead)
        share = _dominated_share(own[front], every, samples)
        assert side.hypervolume == pytest.approx(share, abs=0.03)
        assert side.best == dict(zip(names, own.min(axis=0), strict=True))
    points = [set(t.frame.point.to_numpy()[front]) for t, front in zip(sides, fronts, strict=True)]
    assert found.shared_front == len(points[0] & points[1])
    assert found.ratios["latency_ms"] == (1.0, 1.0, 1.0)
    rows = set(a.frame["array.rows"].to_numpy()[fronts[0]].tolist())
    assert set(found.parameters["array.rows"][0]) == rows


def test_a_sweep_and_itself(sides: tuple[Table, Table]) -> None:
    found = compare_sweeps(sides[0], sides[0])
    assert found.shared == found.a.points
    assert found.shared_front == found.a.front == found.a.front_of_both == found.b.front_of_both
    assert (found.a.hypervolume, found.b.hypervolume) == (1.0, 1.0)
    assert all(a == b for a, b in found.parameters.values())
    assert "the same" in found.text()


def test_other_parameters_have_no_chip_in_common(
    sides: tuple[Table, Table], tmp_path: Path
) -> None:
    text = TWO.replace("array.clock_mhz = [250, 500]\n", "")
    other = load_table(_saved(text, tmp_path / "o"))
    found = compare_sweeps(sides[0], other)
    assert found.shared is None and found.shared_front is None
    assert "no chip of A is known to be in B" in found.text()
    assert "array.clock_mhz" not in found.parameters


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.replace(', "energy_mj"]', "]"), "the objectives of the sweeps differ"),
        (lambda t: t.replace('"digits"', '"mnist"'), "the workloads of the sweeps differ"),
        (
            lambda t: t + '[[workload]]\nmodel = "mnist"\nweight = 3',
            "the workloads of the sweeps differ",
        ),
    ],
)
def test_what_does_not_compare(
    sides: tuple[Table, Table], tmp_path: Path, change: Callable[[str], str], text: str
) -> None:
    other = load_table(_saved(change(TWO), tmp_path / "o", points=3))
    with pytest.raises(InputError, match=text):
        compare_sweeps(sides[0], other)


def test_weights_and_tiers_are_compared_too(sides: tuple[Table, Table]) -> None:
    a, b = sides
    two = replace(a, about=replace(a.about, workloads=("x", "y"), weights=(1.0, 2.0)))
    same = replace(b, about=replace(b.about, workloads=("y", "x"), weights=(4.0, 2.0)))
    assert compare_sweeps(two, same).shared
    other = replace(b, about=replace(b.about, workloads=("x", "y"), weights=(2.0, 1.0)))
    with pytest.raises(InputError, match=r"weights of the workloads .* differ.*x 0\.3333"):
        compare_sweeps(two, other)
    old = replace(b, about=replace(b.about, workloads=("x", "y"), weights=()))
    assert compare_sweeps(two, old).shared
    with pytest.raises(InputError, match="the tiers of the sweeps differ"):
        compare_sweeps(a, replace(b, about=replace(b.about, tier="event")))


def test_nothing_feasible(tmp_path: Path) -> None:
    text = TWO.replace("[parameters]", "[constraints]\narea_mm2 = { at_most = 0.01 }\n[parameters]")
    a = load_table(_saved(text, tmp_path / "a"))
    found = compare_sweeps(a, a)
    assert (found.a.feasible, found.a.front, found.a.hypervolume) == (0, 0, 0.0)
    assert found.a.best["latency_ms"] is None
    assert comparison_picture(a, a).figure.axes


def test_picture(sides: tuple[Table, Table]) -> None:
    made = comparison_picture(*sides)
    made.figure.canvas.draw()
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in made.figure.axes]
    assert labels == [("latency [ms]", "area [mm2]"), ("latency [ms]", "energy [mJ]")]


def test_command(
    sides: tuple[Table, Table], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (table.name for table in sides)
    assert main(["diff", a, str(Path(b) / "points.parquet"), "-o", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "not beaten by the other" in printed and "values on the fronts, A -> B:" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.png", "comparison.svg",
    }  # fmt: skip
    assert main(["diff", a, b, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["shared"] == compare_sweeps(*sides).shared
    assert set(made["parameters"]) == set(sides[0].about.parameters)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["a"], "diff needs a second one, B"),
        (["a", "digits"], "is not the table of a sweep"),
        (["digits", "a"], "is not the table of a sweep"),
        (["a", "a", "--effort", "0"], "leave the compiler's options out"),
        (["a", "empty"], "points.parquet"),
        (["digits", "digits", "--chip", "nano", "--chip", "edge", "-o", "x"], "--output is for"),
    ],
)
def test_commands_that_are_refused(
    sides: tuple[Table, Table], arguments: list[str], text: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    shutil.copytree(sides[0].name, tmp_path / "a")
    assert main(["diff", *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def simulated() -> Sweep:
    """A small sweep of two networks, simulated."""
    space = parse_space(TWO + '[[workload]]\nmodel = "mnist"', "s.toml")
    return run_sweep(space, SweepOptions(points=20))


def test_places_on_the_roofline_are_those_of_runs(simulated: Sweep) -> None:
    rows = [0, 7, 19]
    for workload, model in enumerate(("digits", "mnist")):
        x, y = workload_path(simulated, workload, rows)
        for place, row in enumerate(rows):
            (point,) = simulated.space.points(simulated.numbers[row : row + 1]).tolist()
            chip = simulated.space.chip(point)
            program = lepton.compile(model, chip, effort=0)
            trace = lepton.simulate(program).trace
            assert trace is not None
            macs = sum(operator.macs for operator in program.operators)
            moved = sum(memory.read_bytes + memory.write_bytes for memory in trace.memories)
            assert x[place] == pytest.approx(macs / moved)
            rate = macs * float(chip.array.clock_mhz) / trace.cycles / 1000
            assert y[place] == pytest.approx(rate)
            roof = roof_of(chip)
            assert rate <= min(roof.gmacs_per_s, x[place] * roof.gb_per_s)


def test_migration(simulated: Sweep) -> None:
    made = migration(simulated)
    made.figure.canvas.draw()
    (axes,) = made.figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() == "operational intensity [MAC/byte]"
    assert axes.get_legend_handles_labels()[1][-2:] == ["digits", "mnist"]


def test_migration_without_a_front(simulated: Sweep) -> None:
    space = parse_space(
        TWO.replace("[parameters]", "[constraints]\narea_mm2 = { at_most = 0.01 }\n[parameters]"),
        "s.toml",
    )
    empty = replace(simulated, space=replace(simulated.space, constraints=space.constraints))
    assert len(migration(empty).figure.axes) == 1
