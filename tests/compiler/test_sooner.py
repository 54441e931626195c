"""Blocks that move so that loads begin sooner: the same bytes in fewer cycles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lepton
from lepton.chip import load_chip
from lepton.compiler import compact, search
from lepton.compiler.allocate import TILE_ALIGN, Block
from lepton.compiler.compile import CompileOptions, compile_model
from lepton.compiler.held import Held
from lepton.compiler.sooner import sooner
from lepton.cost.estimate import estimate_program
from lepton.program import Program
from lepton.runtime.golden import random_inputs
from lepton.simulator.timing import simulate_timing
from tests.compiler.test_stage import convolution

U55 = load_chip("like-u55-256")


def chain(path: Path, channels: Sequence[int], size: int) -> Path:
    """Write convolutions of 3 x 3 in a row over images of `size` pixels square."""
    nodes, constants = [], []
    for index, (inputs, outputs) in enumerate(pairwise(channels), 1):
        more, values = convolution(index, "x" if index == 1 else f"c{index - 1}", inputs, outputs)
        nodes, constants = nodes + more, constants + values
    for name, value in (("s0", np.float32(1.0)), ("z0", np.uint8(128))):
        constants.append(numpy_helper.from_array(np.asarray(value), name))
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, channels[0], size, size])
    shape = [1, channels[-1], size, size]
    y = helper.make_tensor_value_info(f"c{len(channels) - 1}", TensorProto.UINT8, shape)
    graph = helper.make_graph(nodes, "chain", [x], [y], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chain(tmp_path_factory.mktemp("sooner") / "chain.onnx", (16, 64, 64, 64, 16), 24)


@pytest.fixture
def found(model: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Program, Sequence[Block]]:
    """Return the program of the search before its blocks move, and these."""
    seen: list[tuple[Program, Sequence[Block]]] = []

    def spy(program: Program, blocks: Sequence[Block]) -> Program:
        seen.append((program, blocks))
        return program

    monkeypatch.setattr(search, "compacted", spy)
    compile_model(model, U55, CompileOptions(effort=1))
    return seen[0]


def test_loads_begin_sooner_and_nothing_else_changes(found: tuple[Program, Sequence[Block]]):
    program, _ = found
    made = sooner(*found)
    assert made is not None
    faster, blocks = made
    lepton.check(faster)
    assert estimate_program(faster).cycles < 0.99 * estimate_program(program).cycles
    assert simulate_timing(faster).cycles < 0.99 * simulate_timing(program).cycles
    inputs = random_inputs(program, 0)
    ours, theirs = (lepton.simulate(each, inputs).outputs["c4"] for each in (program, faster))
    assert (ours == theirs).all()
    # the blocks are those of the program: each address that it touches is in one
    assert Held.of(faster, blocks).estimate.cycles == estimate_program(faster).cycles
    assert all(block.address % TILE_ALIGN == 0 for block in blocks)


def test_effort_2_begins_loads_sooner(model: Path):
    one, two = (lepton.compile(model, U55, effort=effort) for effort in (1, 2))
    assert simulate_timing(two).cycles < 0.99 * simulate_timing(one).cycles


def test_where_nothing_waits_nothing_moves(model: Path, monkeypatch: pytest.MonkeyPatch):
    """With room for every block, the ring never comes round."""
    roomy = replace(U55, scratchpad=replace(U55.scratchpad, size_kib=4096, banks=256))
    seen: list[tuple[Program, Sequence[Block]]] = []
    monkeypatch.setattr(search, "compacted", lambda *each: seen.append(each) or each[0])
    compile_model(model, roomy, CompileOptions(effort=1))
    assert sooner(*seen[0]) is None


def test_banks_of_few_bytes_leave_blocks_aligned(found: tuple[Program, Sequence[Block]]):
    """Edges of banks of 128 bytes are tried 16 bytes apart, not at every byte."""
    program, blocks = found
    scratchpad = program.chip.scratchpad
    tiny = replace(scratchpad, banks=scratchpad.size_bytes // 128)
    held = Held.of(replace(program, chip=replace(program.chip, scratchpad=tiny)), blocks)
    tried = list(compact._phases(held))
    assert 1 <= len(tried) <= 128 // TILE_ALIGN
    assert all((addresses % TILE_ALIGN == 0).all() for addresses in tried)
