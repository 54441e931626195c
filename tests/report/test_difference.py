"""Two runs compared: which layers belong together, and what differs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lepton.errors import InputError
from lepton.program import Program
from lepton.report.difference import Difference, compare
from lepton.report.figures import Figures, LayerFigures, figures_of, load_figures
from lepton.report.summary import summarize
from lepton.trace import Trace


def layer(name: str, op: str = "convolution", cycles: int | None = 100) -> LayerFigures:
    return LayerFigures(name, op, "npu", "matrix", "compute", cycles, 64, 1000)


def run(*layers: LayerFigures) -> Figures:
    cycles = [one.cycles or 0 for one in layers]
    return Figures("m", "edge", sum(cycles), 0.1, 64 * len(layers), 1000 * len(layers), layers)


def matches(difference: Difference) -> set[tuple[str | None, str | None, str | None]]:
    return {
        (pair.a and pair.a.name, pair.b and pair.b.name, pair.matched) for pair in difference.pairs
    }


def test_layers_are_matched_by_name_in_any_order() -> None:
    found = compare(run(layer("x"), layer("y")), run(layer("y"), layer("x")))
    assert matches(found) == {("x", "x", "name"), ("y", "y", "name")}


def test_of_equal_names_the_operator_decides_then_the_order() -> None:
    a = run(layer("x", "convolution", 1), layer("x", "reshape", 2), layer("x", "reshape", 3))
    b = run(layer("x", "reshape", 2), layer("x", "reshape", 3), layer("x", "convolution", 1))
    assert all(pair.is_equal for pair in compare(a, b).pairs)


def test_other_names_are_matched_by_order_and_operator_between_those_that_match() -> None:
    a = run(layer("a1"), layer("same", "pool"), layer("a2"), layer("a3", "lut"))
    b = run(layer("b0", "lut"), layer("b1"), layer("same", "pool"), layer("b2"))
    assert matches(compare(a, b)) == {
        ("a1", "b1", "order"),
        ("same", "same", "name"),
        ("a2", "b2", "order"),
        ("a3", None, None),
        (None, "b0", None),
    }


def test_the_largest_difference_comes_first_and_counts_what_stands_alone() -> None:
    a = run(layer("x", cycles=100), layer("y", cycles=50), layer("gone", "lut", cycles=70))
    b = run(layer("x", cycles=110), layer("y", cycles=10))
    found = compare(a, b)
    assert [(pair.name, pair.cycles) for pair in found.pairs] == [
        ("gone", -70),
        ("y", -40),
        ("x", 10),
    ]
    assert found.cycles == -100 == sum(pair.cycles or 0 for pair in found.pairs)
    text = found.text()
    assert "only in A: gone (lut)" in text
    assert "-80.0" in text.splitlines()[5]


def test_equal_runs_are_said_to_be_identical() -> None:
    found = compare(run(layer("x")), run(layer("x")))
    assert found.is_identical
    assert found.to_json()["identical"] is True
    assert found.text().endswith("identical: no figure of any layer differs")


@pytest.mark.parametrize(
    "changed",
    [replace(layer("x"), bound="memory"), replace(layer("x"), unit="vector"),
     replace(layer("x"), dram_bytes=65), replace(layer("x"), macs=7)],
)  # fmt: skip
def test_every_figure_counts(changed: LayerFigures) -> None:
    found = compare(run(layer("x")), run(changed))
    assert not found.is_identical
    assert not found.pairs[0].is_equal


def test_without_cycles_bytes_and_macs_are_compared() -> None:
    a = replace(run(layer("x", cycles=None)), cycles=None, milliseconds=None)
    found = compare(a, run(layer("x")))
    assert found.cycles is None
    assert found.pairs[0].cycles is None
    assert "not simulated" in found.text()


def test_saved_json_has_the_figures_of_the_run(
    digits: tuple[Program, Trace], tmp_path: Path
) -> None:
    program, trace = digits
    summary = summarize(program, trace)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(summary.to_json()))
    saved = load_figures(path)
    assert saved == figures_of(summary)
    assert sum(one.cycles or 0 for one in saved.layers) == saved.cycles == trace.cycles
    assert {one.unit for one in saved.layers} >= {"matrix"}


LAYER = {
    "name": "x", "op": "pool", "device": "npu", "bound": None, "cycles": 1, "busy": {"vector": 1},
    "dram_bytes": [1], "macs": 0,
}  # fmt: skip
RUN = {"model": "m", "chip": "c", "cycles": 1, "milliseconds": 1.5, "macs": 0, "layers": [LAYER]}


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("{", "not a JSON file"),
        ("[" * 100_000, "not a JSON file"),
        ("[]", "must be an object, not []"),
        ("{}", "has no 'layers': it is no result of `lepton run`"),
        (json.dumps(RUN | {"layers": 3}), "'layers' must be a list, not 3"),
        (json.dumps(RUN | {"macs": -1}), "'macs' must lie in 0 to 2^63 - 1, not -1"),
        (json.dumps(RUN | {"macs": True}), "'macs' must be a whole number, not true"),
        (json.dumps(RUN | {"milliseconds": "1"}), "'milliseconds' must be a number"),
        (json.dumps(RUN | {"layers": [LAYER | {"cycles": 0.5}]}), "layers[0]: 'cycles' must be"),
        (json.dumps(RUN | {"layers": [LAYER | {"dram_bytes": ["x"]}]}), "must be a whole number"),
        (json.dumps(RUN | {"layers": [LAYER | {"busy": {"a": "b"}}]}), "'busy': 'a' must be"),
    ],
)
def test_what_is_no_result_is_refused(content: str, rule: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(InputError) as refused:
        load_figures(path)
    assert rule in str(refused.value)


def test_a_deep_stack_is_compared_quickly_in_order() -> None:
    layers: Sequence[LayerFigures] = [layer(f"a{n}", cycles=n) for n in range(600)]
    renamed = [replace(one, name=f"b{one.name}") for one in layers]
    found = compare(run(*layers), run(*renamed))
    assert all(pair.matched == "order" and pair.is_equal for pair in found.pairs)
