"""Many plans at a time are estimated as each by itself is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ai_edge_litert", reason="the model is written as a TFLite file")

from lepton.chip import Chip, load_chip
from lepton.compiler.compile import CompileOptions, compile_model
from lepton.compiler.lowering import cascade_search, plan
from lepton.program import Objective
from tests.compiler.test_cascade import Chain, small_chip


def beside_one_by_one(costs: Callable[..., Any], counted: list[int], last: bool) -> Any:
    """Return a function of plans like `costs`, which asks for each plan by itself, too.

    `last` says whether the plans are the last argument; else they are the last but one.
    """
    at = -1 if last else -2

    def both(*arguments: Any) -> Any:
        plans: Sequence[Any] = arguments[at]
        together = costs(*arguments)
        for number, cost in enumerate(together):
            alone = list(arguments)
            alone[at] = [plans[number]]
            assert costs(*alone) == pytest.approx(cost, rel=1e-12)
        counted.append(len(plans))
        return together

    return both


def dram_chip() -> Chip:
    edge = load_chip("edge")
    return replace(edge, scratchpad=replace(edge.scratchpad, size_kib=16))


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("chip", [small_chip(), dram_chip()], ids=lambda chip: chip.name)
def test_plans_cost_together_what_each_costs_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chip: Chip, objective: Objective
) -> None:
    dense: list[int] = []
    cascades: list[int] = []
    costs = beside_one_by_one(plan.estimated_costs, dense, False)
    monkeypatch.setattr(plan, "estimated_costs", costs)
    costs = beside_one_by_one(cascade_search.cascade_costs, cascades, True)
    monkeypatch.setattr(cascade_search, "cascade_costs", costs)
    chain = Chain(7)
    chain.x = chain.end = chain.w.input([1, 40, 40, 8])
    chain.layer("CONV_2D", 24, 3, 1)
    chain.cascade("ep")
    chain.layer("CONV_2D", 40, 3, 2)
    path = tmp_path / "chain.tflite"
    inputs = [x for x, _ in chain.w.inputs.values()]
    path.write_bytes(chain.w.builder.build(inputs[1:], [chain.end]))
    compile_model(path, chip, CompileOptions(effort=0, optimize=objective))
    assert max(dense) > 10
    assert max(cascades) > 1
