"""Programs whose blocks move together: the same bytes in fewer places, and no slower."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import lepton
from lepton.chip import load_chip
from lepton.compiler.allocate import Lifetime
from lepton.compiler.emit import Location
from lepton.compiler.memory_map import arenas_of
from lepton.cost.estimate import estimate_program
from lepton.models.vision import detector_head, images
from lepton.program import SCRATCHPAD, Arena, Program
from lepton.report.names import arena_text
from lepton.report.occupancy import touched_bytes
from lepton.report.summary import summarize
from lepton.runtime.golden import random_inputs
from tests.compiler.test_stage import convolution


@pytest.fixture(scope="module", params=["edge", "nano"])
def programs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Program, Program]:
    """Return the programs of a small network without and with a search."""
    nodes, constants = [], []
    for index, inputs, outputs in ((1, 8, 32), (2, 32, 16), (3, 16, 64), (4, 64, 8)):
        more, values = convolution(index, "x" if index == 1 else f"c{index - 1}", inputs, outputs)
        nodes, constants = nodes + more, constants + values
    for name, value in (("s0", np.float32(1.0)), ("z0", np.uint8(128))):
        constants.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 8, 24, 24])
    y = helper.make_tensor_value_info("c4", TensorProto.UINT8, [1, 8, 24, 24])
    graph = helper.make_graph(nodes, "chain", [x], [y], constants)
    path: Path = tmp_path_factory.mktemp("compact") / "chain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    plain, moved = (lepton.compile(path, request.param, effort=effort) for effort in (0, 1))
    return plain, moved


def test_outputs_are_the_same_and_nothing_is_undefined(programs: tuple[Program, Program]):
    plain, moved = programs
    lepton.check(moved)
    inputs = random_inputs(plain, 0)
    ours, theirs = (lepton.simulate(program, inputs).outputs["c4"] for program in programs)
    assert (ours == theirs).all()


def test_the_scratchpad_is_taken_up_to_5_percent_more_than_it_must(
    programs: tuple[Program, Program],
):
    plain, moved = programs
    arena = moved.arenas[0]
    assert arena.memory == SCRATCHPAD
    assert arena.bound_bytes <= arena.peak_bytes <= 1.05 * arena.bound_bytes
    assert touched_bytes(moved) <= arena.peak_bytes < touched_bytes(plain)
    assert estimate_program(moved).cycles <= 1.001 * estimate_program(plain).cycles
    assert [arena.memory for arena in plain.arenas].count(SCRATCHPAD) == 0


def test_reports_say_what_is_needed(programs: tuple[Program, Program]):
    plain, moved = programs
    summary = summarize(moved)
    assert summary.scratchpad_bound_bytes == moved.arenas[0].bound_bytes
    assert summary.arenas == moved.arenas
    assert summarize(plain).scratchpad_bound_bytes is None
    assert arena_text(Arena("sram", 2048, 1000)) == "sram 2.0 KiB of at least 1,000 B"


def test_memories_hold_what_crosses_always_and_the_rest_by_steps():
    chip = load_chip("like-u55-256")
    memory = chip.memory_index(chip.placement.activations[0])
    name = chip.memories[memory].name
    crossing = {"x": Location(memory, 0), "elsewhere": Location(memory + 1, 0)}
    first = [
        (Lifetime("a", 100, 0, 2), Location(memory, 64)),
        (Lifetime("b", 50, 2, 3), Location(memory, 192)),
        (Lifetime("c", 60, 3, 4), Location(memory, 64)),
    ]
    second = [(Lifetime("d", 120, 0, 1), Location(memory, 64))]
    found = arenas_of(chip, crossing, {"x": 30, "elsewhere": 9}, [first, second])
    assert found[0] == Arena(name, 242, 30 + 150)


def test_a_program_may_take_1_percent_longer_on_fewer_banks(tmp_path: Path):
    """Two blocks of the detector's beginning are in use at once, and fill three banks by turns."""
    path = tmp_path / "detector.onnx"
    onnx.save(detector_head(), path)
    samples = images(160, 2)
    moved = lepton.compile(path, "edge", calibration=samples)
    plain = lepton.compile(path, "edge", calibration=samples, effort=0)
    arena = moved.arenas[0]
    assert arena.peak_bytes <= 1.05 * arena.bound_bytes < touched_bytes(plain)
    assert estimate_program(moved).cycles <= 1.01 * estimate_program(plain).cycles
