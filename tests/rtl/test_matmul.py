"""The matrix unit in Verilog against the simulator: every accumulator, every cycle."""

from __future__ import annotations

import runpy

import numpy as np
import pytest

from lepton.isa.instructions import Matmul, Stationary
from lepton.program import Program
from lepton.simulator.timing import simulate_timing
from tests.rtl.bench import RTL, Shape, matmuls, run_rtl, run_values
from tests.rtl.matmul_cases import edge_fields, placed, program_of, sequence

SHAPES = (
    Shape(rows=4, columns=4, arrays=1, feed_words=1, queue_depth=2),
    Shape(rows=8, columns=8, arrays=1, feed_words=4, queue_depth=8),
    Shape(rows=8, columns=2, arrays=2, feed_words=2, queue_depth=4),
)
each_shape = pytest.mark.parametrize(
    "shape", SHAPES, ids=lambda s: f"{s.rows}x{s.columns}x{s.arrays}-feed{s.feed_words}"
)
PROGRAMS, MATMULS = 14, 8


def assert_equal(program: Program, shape: Shape) -> None:
    """Assert that the RTL did what the simulator says, in values and in cycles."""
    trace = simulate_timing(program)
    machine = run_values(program)
    done = run_rtl(program, trace, machine, shape, trace.cycles + 1)
    mine = trace.records[matmuls(program)]
    assert done.refused == []
    # before it streams, the unit loads its weights: from max(taken, end of the one before) on
    assert done.start == (mine["start"] - mine["stall_preload"]).tolist()
    assert done.streamed == mine["end"].tolist()
    assert done.retire == mine["retire"].tolist()
    items = [program.decoded[index] for index in matmuls(program)]
    retired = zip(mine["retire"].tolist(), items, strict=True)
    assert done.signals == [(at, item.signal) for at, item in retired if item.signal]
    np.testing.assert_array_equal(done.sums, machine.accumulators)


def compare_sequence(shape: Shape, seed: int) -> None:
    """Assert that a random sequence of matmuls runs alike."""
    rng = np.random.default_rng([seed, shape.rows, shape.columns])
    assert_equal(program_of(rng, sequence(rng, shape, MATMULS), shape), shape)


def compare_edges(shape: Shape) -> None:
    """Assert that all edge shapes, in one program, run alike."""
    rng = np.random.default_rng(7)
    items = [placed(rng, fields, shape) for fields in edge_fields(shape)]
    assert None not in items
    assert_equal(program_of(rng, [item for item in items if item], shape), shape)


def test_at_least_200_random_instructions_are_compared() -> None:
    assert len(SHAPES) * PROGRAMS * MATMULS >= 200


def test_bit_positions_are_those_of_the_declaration() -> None:
    made = runpy.run_path(str(RTL / "generate.py"))["isa_fields"]()
    assert (RTL / "isa_fields.vh").read_text() == made


@each_shape
def test_sums_can_be_read_from_the_retirement_on(shape: Shape) -> None:
    rng = np.random.default_rng(3)
    one = Matmul(
        channels=1, ifm_height=1, ifm_width=1, kernel_height=1, kernel_width=1, stride_y=1,
        stride_x=1, dilation_y=1, dilation_x=1, ofm_height=1, ofm_width=1, columns=1,
        accumulator=5, stationary=Stationary.ONES, ifm_zero_point=-256,
    )  # fmt: skip
    program = program_of(rng, [one], shape)
    trace, machine = simulate_timing(program), run_values(program)
    retire = int(trace.records[matmuls(program)[0]]["retire"])
    assert machine.accumulators[5] != 0
    for cycles, expected in ((retire, machine.accumulators[5]), (retire - 1, 0)):
        sums = run_rtl(program, trace, machine, shape, cycles, first=5).sums
        assert sums[0] == expected


@each_shape
@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_random_sequences(shape: Shape, seed: int) -> None:
    compare_sequence(shape, seed)


@each_shape
def test_edge_shapes(shape: Shape) -> None:
    compare_edges(shape)
