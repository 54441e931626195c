"""What decided about each layer: the rule of the host, the resource of the NPU, the runner-up."""

from __future__ import annotations

import json

import pytest

from lepton.chip import load_chip
from lepton.compiler.compile import compile_explained
from lepton.compiler.options import CompileOptions
from lepton.compiler.schedules import Schedule
from lepton.cost.estimate import estimate_program
from lepton.models import digits_model_path
from lepton.program import Objective
from lepton.report.why import Why, why_layers, why_text


@pytest.fixture(scope="module")
def layers() -> tuple[Why, ...]:
    """Those of the digits network on nano."""
    made = compile_explained(
        digits_model_path(), load_chip("nano"), CompileOptions(explain=True, effort=0)
    )
    return why_layers(made.program, estimate_program(made.program), made.schedules)


def test_the_host_has_its_rule(layers: tuple[Why, ...]) -> None:
    host = [why for why in layers if why.operator.device == "host"]
    assert host
    for why in host:
        assert (why.unit, why.bound, why.estimated_cycles, why.schedule) == ("", "host", None, None)
        assert why.decided_by == why.operator.reason


def test_the_npu_has_unit_bound_and_the_queue_it_occupies(layers: tuple[Why, ...]) -> None:
    convolutions = [why for why in layers if why.operator.kind == "convolution"]
    assert convolutions
    for why in convolutions:
        assert why.unit == "matrix"
        assert why.bound in ("compute", "vector", "memory", "fetch", "latency")
        assert why.decided_by in ("matrix", "vector", "weights", "load0", "load1", "store0")
        assert (why.occupied_cycles or 0) > 0 and (why.estimated_cycles or 0) > 0
        assert why.schedule is not None


def test_json_is_plain_and_names_the_cost_model(layers: tuple[Why, ...]) -> None:
    made = json.loads(json.dumps([why.to_json() for why in layers]))
    chosen = [item["schedule"] for item in made if item["schedule"]]
    assert chosen
    assert {item["cost_model"] for item in chosen} == {
        "the planner's closed forms of the layer alone"
    }
    assert set(made[0]) == {
        "unit", "bound", "estimated_cycles", "decided_by", "occupied_cycles", "reason", "schedule",
    }  # fmt: skip


def test_the_text_shows_the_runner_up_and_what_it_costs(layers: tuple[Why, ...]) -> None:
    text = why_text(layers)
    assert "optimized for latency: plans are compared by cycles" in text
    assert "optimized for size: plans are compared by bytes" in why_text(layers, Objective.SIZE)
    assert "cycles of layers are estimated" in text
    assert "occupies the" in text and "fills" in text
    one = next(why for why in layers if why.schedule is not None)
    schedule = Schedule(
        one.index, "height=2", 1, 100, "pJ", True, "scratchpad", 0.5, "height=1", 90
    )
    shown = why_text([Why(one.index, one.operator, "matrix", "compute", 7, "matrix", 6, schedule)])
    assert "height=2: 100 pJ, better in the whole program; fills 50 % of the scratchpad" in shown
    assert "runner-up height=1: 90 pJ (-10.0 %)" in shown
    alone = Schedule(one.index, "height=2", 1, 100, "cycles", False, "scratchpad", 0.5, "", None)
    shown = why_text([Why(one.index, one.operator, "matrix", "compute", 7, "matrix", 6, alone)])
    assert "cheapest" in shown and "no other plan fits" in shown
