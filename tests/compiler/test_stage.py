"""Weights that wait in the activations' memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lepton
from lepton.chip import load_chip
from lepton.compiler.allocate import Lifetime, place_lifetimes
from lepton.compiler.copies import PIECE_BYTES, Copy, Lanes, is_copy, with_copies
from lepton.compiler.stage import can_stage
from lepton.isa.declaration import Instruction
from lepton.isa.instructions import Load, Matmul, Store, WeightFormat, Weights
from lepton.runtime.golden import random_inputs

CHIP = load_chip("like-u55-256")


def convolution(index: int, source: str, inputs: int, outputs: int) -> tuple[list, list]:
    """Return the node and the constants of a 3 x 3 convolution on bytes."""
    rng = np.random.default_rng(index)
    values = {
        f"w{index}": np.rint(rng.normal(0, 20, (outputs, inputs, 3, 3))).astype(np.int8),
        f"ws{index}": np.float32(0.01),
        f"wz{index}": np.int8(0),
        f"s{index}": np.float32(1.0),
        f"z{index}": np.uint8(128),
    }
    previous = (f"s{index - 1}", f"z{index - 1}")
    names = [source, *previous, f"w{index}", f"ws{index}", f"wz{index}", f"s{index}", f"z{index}"]
    node = helper.make_node("QLinearConv", names, [f"c{index}"], pads=[1, 1, 1, 1])
    return [node], [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items()]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a network that is bound by activations first and by weights then."""
    nodes, constants = convolution(1, "x", 8, 16)
    nodes.append(helper.make_node("MaxPool", ["c1"], ["p"], kernel_shape=[8, 8], strides=[8, 8]))
    for index, source, inputs, outputs in ((2, "p", 16, 160), (3, "c2", 160, 32)):
        more, values = convolution(index, source, inputs, outputs)
        nodes, constants = nodes + more, constants + values
    constants += [
        numpy_helper.from_array(np.asarray(np.float32(1.0)), "s0"),
        numpy_helper.from_array(np.asarray(np.uint8(128)), "z0"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 8, 64, 64])
    y = helper.make_tensor_value_info("c3", TensorProto.UINT8, [1, 32, 8, 8])
    graph = helper.make_graph(nodes, "late_weights", [x], [y], constants)
    path = tmp_path_factory.mktemp("stage") / "late_weights.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path


def test_copies_make_it_faster_and_change_no_byte(model: Path):
    plain, staged = (lepton.compile(model, CHIP, effort=effort) for effort in (0, 1))
    constants = CHIP.memory_index(CHIP.placement.constants)
    moved = [
        item for item in staged.decoded if isinstance(item, Weights) and item.memory != constants
    ]
    assert any(item.format == WeightFormat.ENTROPY for item in moved) and not any(
        isinstance(i, Weights) and i.memory != constants for i in plain.decoded
    )
    inputs = random_inputs(plain, 0)
    first, second = (lepton.simulate(program, inputs) for program in (plain, staged))
    assert first.trace is not None and second.trace is not None
    assert second.trace.cycles < 0.9 * first.trace.cycles
    assert first.outputs is not None and second.outputs is not None
    for name, value in first.outputs.items():
        np.testing.assert_array_equal(value, second.outputs[name])


def test_only_chips_with_channels_to_spare_and_a_memory_for_constants():
    assert can_stage(CHIP)
    assert not can_stage(replace(CHIP, dma=replace(CHIP.dma, load_channels=1)))
    assert not can_stage(load_chip("edge"))


def test_pieces_go_through_their_places_in_turn():
    block = Weights(memory=1, address=4096, stream_bytes=1300, buffer=0, reduction=65, columns=20)
    program: list[Instruction] = [Matmul() for _ in range(40)]
    program[20] = program[30] = replace(block, format=WeightFormat.RAW)
    dispatch = np.arange(40.0) * 100
    copy = Copy((20, 30), 1300, (0.0, 50.0, 5000.0), 0)
    made, operators = with_copies(program, [7] * 40, dispatch, [(copy, 64)], Lanes(CHIP, 2048, 0))
    halves = [item for item in made if is_copy(item, CHIP)]
    assert len(halves) == 6 and operators == [7] * 46
    held: dict[int, int] = {}
    stored: dict[int, int] = {}
    for item in made:
        if isinstance(item, Load):
            assert item.scratchpad not in held and 2048 <= item.scratchpad < 2048 + 2 * PIECE_BYTES
            held[item.scratchpad] = item.address
        elif isinstance(item, Store):
            stored[item.address] = held.pop(item.scratchpad)
        elif isinstance(item, Weights):
            assert (item.memory, item.address) == (0, 64)
            assert stored == {64: 4096, 576: 4608, 1088: 5120}
    assert not held


def test_lifetimes_go_around_what_is_there():
    there = [(Lifetime("a", 100, 0, 3), 0), (Lifetime("b", 100, 4, 9), 64)]
    wanted = [Lifetime("c", 64, 2, 5), Lifetime("d", 64, 4, 5)]
    assert place_lifetimes(wanted, 256, 64, there) == {"c": 192, "d": 0}
