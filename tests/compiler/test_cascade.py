"""Cascades beside LiteRT's reference kernels, and where they are chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference")

from lepton.chip import Chip, load_chip
from lepton.compiler import schedule
from lepton.compiler.compile import CompileOptions, compile_explained, compile_model
from lepton.compiler.emit import Emitter
from lepton.compiler.graph import Convolution, Graph
from lepton.compiler.lowering.cascade_plan import Cascade, CascadePlan
from lepton.compiler.lowering.cascade_search import cascade_plans
from lepton.compiler.lowering.grouping import Group, Groups
from lepton.cost.estimate import estimate_program
from lepton.program import Program, load_program
from lepton.report.why import why_layers, why_text
from lepton.simulator import check, run_values
from tests.conftest import data_path
from tests.tflite_builder import run_reference
from tests.tflite_graphs import tiny_chip
from tests.tflite_writer import Writer


def small_chip() -> Chip:
    """Return a chip whose scratchpad and accumulators hold little of a layer."""
    u55 = load_chip("like-u55-256")
    return replace(
        u55,
        name="small",
        array=replace(u55.array, rows=8, columns=4),
        accumulators=replace(u55.accumulators, size_kib=2),
        weight_buffer=replace(u55.weight_buffer, size_kib=2),
        scratchpad=replace(u55.scratchpad, size_kib=8),
    )


class Chain:
    """Draws convolutions one behind the other."""

    def __init__(self, seed: int) -> None:
        self.w = Writer(seed, "int8")
        self.x = self.end = self.w.input(
            [
                self.w.pick(1, 1, 2),
                self.w.between(5, 15),
                self.w.between(5, 15),
                self.w.pick(3, 8, 13),
            ]
        )

    def layer(self, kind: str, count: int, kernel: int, stride: int, padding: str = "SAME") -> None:
        """Add a convolution of a kind to the end."""
        w, x = self.w, self.end
        if min(x.shape[1:3]) < kernel:
            kernel = 1
        depthwise = kind == "DEPTHWISE_CONV_2D"
        channels = x.shape[3] if depthwise else count
        shape = (1, kernel, kernel, channels) if depthwise else (count, kernel, kernel, x.shape[3])
        weights = w.weights(shape, 3 if depthwise else 0, "int8")
        taps = kernel * kernel * (1 if depthwise else x.shape[3])
        bias = w.bias(x, weights, channels, 60 * taps)
        extents = [
            -(-size // stride) if padding == "SAME" else (size - kernel) // stride + 1
            for size in x.shape[1:3]
        ]
        y = w.fresh(x, [x.shape[0], *extents, channels], 0.6 * math.sqrt(taps))
        options: dict[str, Any] = {"padding": padding, "stride_h": stride, "stride_w": stride}
        options["fused_activation_function"] = w.activation()
        if depthwise:
            options["depth_multiplier"] = 1
        self.end = w.operator(kind, [x, weights, bias], y, **options)

    def cascade(self, kind: str) -> None:
        """Add the members of a cascade: expansion, depthwise, projection, addition by letters."""
        w = self.w
        if "e" in kind:
            count = w.pick(4, 8, 17, 20, 32)
            self.layer("CONV_2D", count, w.pick(1, 1, 3), w.pick(1, 1, 2))
        self.layer(
            "DEPTHWISE_CONV_2D", 0, w.pick(1, 3, 3, 5), w.pick(1, 2), w.pick("SAME", "VALID")
        )
        if "p" in kind:
            self.layer("CONV_2D", w.between(1, 20), 1, 1)
        if "a" in kind:
            shape = self.end.shape
            operands = [self.end, self.x if shape == self.x.shape else w.input(shape)]
            y = w.fresh(self.end, shape, 1.5)
            self.end = w.operator(
                "ADD", operands[:: w.pick(1, -1)], y, fused_activation_function=w.activation()
            )

    def outputs(self, chip: Chip) -> Program:
        """Return the program, after its outputs were found equal to the reference's."""
        model = self.w.builder.build([x for x, _ in self.w.inputs.values()], [self.end])
        made = load_program(compile_bytes(model, chip).to_bytes())
        check(made)
        values = {name: array for name, (_, array) in self.w.inputs.items()}
        (expected,) = run_reference(model, *values.values())
        np.testing.assert_array_equal(run_values(made, values)[made.outputs[0]], expected)
        return made


def compile_bytes(model: bytes, chip: Chip) -> Program:
    """Return the program of the bytes of a TFLite file, without a search."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.tflite"
        path.write_bytes(model)
        return compile_model(path, chip, CompileOptions(effort=0))


class Forced:
    """In place of the choice by estimate: every cascade of a kind, with a plan by number."""

    def __init__(self, kind: str, number: int, chunks_first: bool) -> None:
        self.kind, self.number, self.chunks_first = kind, number, chunks_first
        self.plans: list[CascadePlan] = []

    def find(self, graph: Graph, emitter: Emitter) -> Groups:
        found: Groups = {}
        for at, node in enumerate(graph.nodes):
            if not isinstance(node, Convolution) or not 1 < node.groups == node.output.shape[3]:
                continue
            first = at - int("e" in self.kind)
            members = dict(zip(self.kind, graph.nodes[first:], strict=False))
            cascade = Cascade(*(cast(Any, members.get(letter)) for letter in "edpa"))
            found[first] = self.plan(Group(first, cascade, ANY), emitter)
        return found

    def plan(self, group: Group, emitter: Emitter) -> Group:
        assert isinstance(group.chain, Cascade)
        plans = list(cascade_plans(group.chain, emitter))
        if self.chunks_first:
            plans = [plan for plan in plans if plan.chunks_first]
        chosen = plans[self.number % len(plans)]
        self.plans.append(chosen)
        return replace(group, plan=chosen)


ANY = CascadePlan(0, 0, 0, False)


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that forces a kind of cascades with plans by number."""

    def force(kind: str, number: int, *, chunks_first: bool = False) -> Forced:
        choice = Forced(kind, number, chunks_first)
        monkeypatch.setattr(schedule, "find_groups", choice.find)
        monkeypatch.setattr(schedule, "replanned", choice.plan)
        return choice

    yield force


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["edp", "ed", "dp", "edpa", "dpa"])
def test_equal_to_the_reference(kind: str, seed: int, forced: Any):
    chain = Chain(seed)
    chain.cascade(kind)
    choice = forced(kind, 7 * seed)
    program = chain.outputs(small_chip() if seed % 2 else tiny_chip())
    assert choice.plans
    assert set(program.operator_of) == set(range(len(kind)))
    assert all(o.reason.startswith("depth first with '") for o in program.operators[: len(kind)])


@pytest.mark.parametrize("seed", range(4))
def test_plans_with_chunks_outermost(seed: int, forced: Any):
    chain = Chain(seed)
    chain.layer("CONV_2D", 20, 1, 1)
    chain.layer("DEPTHWISE_CONV_2D", 0, 3, 1 + seed % 2)
    choice = forced("ed", seed, chunks_first=True)
    chain.outputs(small_chip())
    assert choice.plans


@pytest.mark.parametrize("seed", range(4))
def test_neighbours_that_stay_in_the_scratchpad(seed: int, forced: Any):
    chain = Chain(seed)
    chain.layer("CONV_2D", 6, 1, 1)
    chain.cascade("edp")
    chain.layer("CONV_2D", 5, 1, 1)
    assert forced("edp", seed).plans == []
    chain.outputs(load_chip("edge"))


def blocks(seed: int, size: int, count: int) -> bytes:
    """Return an inverted residual of `count` channels at `size` x `size` pixels."""
    chain = Chain(seed)
    chain.x = chain.end = chain.w.input([1, size, size, count])
    chain.layer("CONV_2D", 6 * count, 1, 1)
    chain.layer("DEPTHWISE_CONV_2D", 0, 3, 1)
    chain.layer("CONV_2D", count, 1, 1)
    return chain.w.builder.build([chain.x], [chain.end])


def test_chosen_where_the_wide_tensors_would_cross(monkeypatch: pytest.MonkeyPatch):
    model, chip = blocks(1, 28, 16), load_chip("like-u55-256")
    together = compile_bytes(model, chip)
    assert {o.reason != "" for o in together.operators if o.kind != "halt"} == {True}
    monkeypatch.setattr(schedule, "find_groups", lambda *_: {})
    apart = compile_bytes(model, chip)
    assert estimate_program(together).cycles < 0.6 * estimate_program(apart).cycles


def test_layers_that_go_together_say_what_they_would_cost_apart(tmp_path: Path):
    path = tmp_path / "block.tflite"
    path.write_bytes(blocks(1, 28, 16))
    made = compile_explained(path, load_chip("like-u55-256"), CompileOptions(explain=True))
    assert [item.layers for item in made.schedules] == [3, 3, 3]
    (one,) = {
        (item.plan, item.cost, item.runner_up, item.runner_up_cost) for item in made.schedules
    }
    assert "height=" in one[0] and "cost" not in one[0]
    assert one[3] is not None and one[3] >= one[1] > 0 and one[2]
    text = why_text(why_layers(made.program, estimate_program(made.program), made.schedules))
    assert " cycles for 3 layers, " in text and "fills" not in text


def test_left_alone_where_they_stay_inside():
    program = compile_bytes(blocks(1, 7, 8), load_chip("edge"))
    assert {operator.reason for operator in program.operators} == {""}


def test_computed_apart_where_the_whole_program_says_so():
    path, chip = (
        data_path("mobilenet/mobilenet_v1_0.25_128_quant.tflite"),
        load_chip("like-u85-1024"),
    )
    plain, searched = (compile_model(path, chip, CompileOptions(effort=n)) for n in (0, 1))
    assert any(operator.reason for operator in plain.operators)
    assert estimate_program(searched).cycles < estimate_program(plain).cycles
