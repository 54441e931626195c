"""Which schedules a layer had: what was taken, what limits it, and what came second."""

from __future__ import annotations

import pytest

from lepton.chip import load_chip
from lepton.compiler.choices import Choices
from lepton.compiler.compile import compile_explained
from lepton.compiler.graph import Node, Tensor
from lepton.compiler.isolate import compile_file_explained
from lepton.compiler.options import CompileOptions
from lepton.compiler.schedules import Compiled
from lepton.models import digits_model_path

NANO = load_chip("nano")
DIGITS = digits_model_path()


@pytest.fixture(scope="module")
def made() -> Compiled:
    """The digits network with its schedules, without a search."""
    return compile_explained(DIGITS, NANO, CompileOptions(explain=True, effort=0))


def node() -> Node:
    tensor = Tensor("t", (1, 1, 1, 1), False, 1.0, 0)
    return Node(name="n", inputs=(tensor,), output=tensor)


def test_a_node_that_never_chose_has_no_ranking() -> None:
    choices, one = Choices(NANO), node()
    assert choices.ranking(one) is None
    assert choices.plan(one, (), lambda _: []) is None
    assert choices.ranking(one) is None


def test_plans_rank_by_cost_one_of_each_shape_and_the_last_key_counts() -> None:
    choices, one = Choices(NANO), node()
    plans = [(3.0, "s", "worse"), (2.0, "t", "second"), (1.0, "s", "best")]
    assert choices.plan(one, ("big",), lambda _: plans) == "best"
    found = choices.ranking(one)
    assert found is not None
    assert found == (((1.0, "best"), (2.0, "second")), 0)
    choices.take(one, 5)
    assert choices.plan(one, ("big",), lambda _: plans) == "second"
    assert choices.plan(one, ("small",), lambda _: plans[:1]) == "worse"
    found = choices.ranking(one)
    assert found is not None
    assert found == (((3.0, "worse"),), 0)


def test_every_convolution_has_a_schedule_that_costs_no_more_than_the_runner_up(
    made: Compiled,
) -> None:
    kinds = {item.operator: made.program.operators[item.operator].kind for item in made.schedules}
    convolutions = [
        index
        for index, operator in enumerate(made.program.operators)
        if operator.device == "npu" and operator.kind in ("convolution", "depthwise")
    ]
    combined = {index for index, kind in kinds.items() if kind == "binary"}
    assert sorted(kinds.keys() - combined) == convolutions
    assert all(made.program.operators[index].reason for index in combined)
    for item in made.schedules:
        assert not item.searched
        assert item.cost > 0 and item.unit == "cycles" and "height=" in item.plan
        assert 0 < item.limit_share <= 1
        assert item.limit in ("accumulators", "weight buffer", "scratchpad")
        if item.runner_up_cost is not None:
            assert item.runner_up_cost >= item.cost and item.runner_up != item.plan


def test_explaining_changes_no_byte(made: Compiled) -> None:
    plain = compile_explained(DIGITS, NANO, CompileOptions(effort=0))
    assert plain.schedules == ()
    assert plain.program.to_bytes() == made.program.to_bytes()


def test_the_schedules_come_through_the_child_process(made: Compiled) -> None:
    apart = compile_file_explained(DIGITS, NANO, CompileOptions(explain=True, effort=0))
    assert apart.schedules == made.schedules


def test_a_search_that_finds_better_says_so() -> None:
    found = compile_explained(DIGITS, NANO, CompileOptions(explain=True, effort=1)).schedules
    searched = [item for item in found if item.searched]
    assert searched
    # the runner-up of such a plan is the one that looks best alone
    assert all(item.runner_up_cost is not None for item in searched)
    assert all(item.cost >= (item.runner_up_cost or 0) for item in searched)
