"""Element-wise functions computed tile by tile with the convolution before them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference")

from lepton.chip import load_chip
from lepton.compiler import schedule
from lepton.compiler.allocate import NoRoom
from lepton.compiler.compile import CompileOptions, compile_model
from lepton.compiler.emit import Emitter
from lepton.compiler.graph import Binary, Convolution, Graph
from lepton.compiler.lowering.addition import Addition
from lepton.compiler.lowering.grouping import Group, Groups
from lepton.cost.estimate import estimate_program
from lepton.isa.instructions import Binary as BinaryInstruction
from lepton.isa.instructions import Requantize
from tests.compiler.test_cascade import Chain, compile_bytes, small_chip
from tests.tflite_graphs import tiny_chip

KINDS = ["ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"]


def every_addition(graph: Graph, _: Emitter) -> Groups:
    """Return all pairs of a dense convolution and what is combined with it, whatever they cost."""
    found: Groups = {}
    for number, (node, behind) in enumerate(pairwise(graph.nodes)):
        if isinstance(node, Convolution) and node.groups == 1 and isinstance(behind, Binary):
            found[number] = Group(number, Addition(node, behind), None)
    return found


def residual(chain: Chain, kind: str, kernel: int, stride: int) -> None:
    """Add a convolution and a function of its result and of a tensor that came before it."""
    w = chain.w
    count = chain.end.shape[3] if stride == 1 else w.between(1, 24)
    before = chain.end
    chain.layer("CONV_2D", count, kernel, stride, w.pick("SAME", "SAME", "VALID"))
    made = chain.end
    if kind in ("MAXIMUM", "MINIMUM"):
        operands = [made, w.input(made.shape, made)]
        chain.end = w.operator(kind, operands[:: w.pick(1, -1)], w.same(made, made.shape))
        return
    operands = [made, before if made.shape == before.shape else w.input(made.shape)]
    y = w.fresh(made, made.shape, 1.5)
    options = {"fused_activation_function": w.activation()}
    chain.end = w.operator(kind, operands[:: w.pick(1, -1)], y, **options)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_reference(kind: str, seed: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schedule, "find_groups", every_addition)
    monkeypatch.setattr(schedule, "replanned", lambda group, _: group)
    chain = Chain(seed)
    residual(chain, kind, 1 + 2 * (seed % 2), 1 + seed // 3)
    residual(chain, "ADD", 3, 1)
    program = chain.outputs([small_chip(), tiny_chip(), load_chip("edge")][seed % 3])
    assert [o.reason.split(" '")[0] for o in program.operators[:4]] == ["tile by tile with"] * 4
    kinds = [type(item) for item in program.decoded]
    for at in (at for at, kind in enumerate(kinds) if kind is BinaryInstruction):
        result, sum_of = program.decoded[at - 1], program.decoded[at]
        # in place, behind the requantization of the same tile
        assert isinstance(result, Requantize) and isinstance(sum_of, BinaryInstruction)
        assert result.ofm == sum_of.ofm and sum_of.ofm in (sum_of.a, sum_of.b)
        assert program.operator_of[at] == program.operator_of[at - 1] + 1


def bottleneck(size: int, count: int) -> bytes:
    """Return a convolution whose input is added to its result, between two others."""
    chain = Chain(1)
    chain.x = chain.end = chain.w.input([1, size, size, count])
    chain.layer("CONV_2D", count, 1, 1)
    before = chain.end
    chain.layer("CONV_2D", count, 1, 1)
    y = chain.w.fresh(chain.end, chain.end.shape, 1.5)
    chain.end = chain.w.operator("ADD", [chain.end, before], y, fused_activation_function="NONE")
    chain.layer("CONV_2D", count, 1, 1)
    return chain.w.builder.build([chain.x], [chain.end])


@pytest.mark.parametrize(("name", "gain"), [("edge", 0.96), ("nano", 0.8), ("like-u85-1024", 0.75)])
def test_chosen_where_a_tensor_would_cross_or_the_array_would_wait(
    name: str, gain: float, monkeypatch: pytest.MonkeyPatch
):
    model, chip = bottleneck(64, 32), load_chip(name)
    together = compile_bytes(model, chip)
    assert [bool(o.reason) for o in together.operators[:4]] == [False, True, True, False]
    monkeypatch.setattr(schedule, "find_groups", lambda *_: {})
    apart = compile_bytes(model, chip)
    assert estimate_program(together).cycles < gain * estimate_program(apart).cycles


def test_apart_where_there_is_no_room_for_both(monkeypatch: pytest.MonkeyPatch):
    model, chip = bottleneck(8, 16), load_chip("nano")
    with monkeypatch.context() as patch:
        patch.setattr(schedule, "find_groups", lambda *_: {})
        apart = compile_bytes(model, chip)

    def refuse(*_: object) -> None:
        raise NoRoom("scratchpad", 2, 1)

    assert any(operator.reason for operator in compile_bytes(model, chip).operators)
    monkeypatch.setattr(schedule, "lower_group", refuse)
    assert compile_bytes(model, chip).instructions == apart.instructions


def test_a_result_that_others_read_is_made_as_a_whole():
    chain = Chain(2)
    chain.layer("CONV_2D", 8, 1, 1)
    made = chain.end
    other = chain.w.input(made.shape)
    y = chain.w.fresh(made, made.shape, 1.5)
    total = chain.w.operator("ADD", [made, other], y, fused_activation_function="NONE")
    model = chain.w.builder.build([tensor for tensor, _ in chain.w.inputs.values()], [total, made])
    program = compile_bytes(model, load_chip("nano"))
    assert not any(operator.reason for operator in program.operators)


def test_both_ways_are_searched_and_the_better_one_is_taken(tmp_path: Path):
    path = tmp_path / "net.tflite"
    path.write_bytes(bottleneck(24, 32))
    for name in ("edge", "nano", "like-u55-256"):
        plain, searched = (
            compile_model(path, load_chip(name), CompileOptions(effort=n)) for n in (0, 1)
        )
        assert estimate_program(searched).cycles <= estimate_program(plain).cycles
