"""Small hand-written programs, saved and loaded first, against loops written here."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton.arith.records import RequantizeTable, pack_requantize
from lepton.errors import InputError
from lepton.isa import disassemble
from lepton.program import Program, ProgramTensor, Region, load_program
from lepton.simulator import run_values, simulate_program
from lepton.simulator.check import execution_order
from tests.naive import multiply_q31
from tests.programs import hand_program, tensor

HEIGHT, WIDTH, CHANNELS, COLUMNS = 5, 6, 3, 4
ZERO_POINT, OFM_ZERO_POINT = -7, 11

CONVOLUTION = """
load memory=0 row_bytes=90 rows=1 planes=1 signal=0x1
weights memory=1 address=0x1000 stream_bytes=108 reduction=27 columns=4 signal=0x2
load memory=1 address=0x106c row_bytes=36 rows=1 planes=1 scratchpad=0x400 signal=0x4
matmul wait=0x3 signal=0x8 ifm_row_pitch=18 ifm_pixel_pitch=3 ifm_height=5 ifm_width=6 channels=3 \
kernel_height=3 kernel_width=3 stride_y=2 stride_x=1 dilation_y=1 dilation_x=1 pad_top=1 \
pad_left=1 ofm_height=3 ofm_width=6 columns=4 accumulator_pitch=4 ifm_zero_point=-7
requantize wait=0xc signal=0x10 accumulator_pitch=4 height=3 width=6 channels=4 ofm=0x800 \
ofm_row_pitch=24 ofm_pixel_pitch=4 parameters=0x400 ofm_zero_point=11 minimum=-100 maximum=90
store wait=0x10 memory=0 address=0x200 scratchpad=0x800 row_bytes=72 rows=1 planes=1
halt
"""


def layer(seed: int) -> tuple[NDArray[np.int8], RequantizeTable]:
    """Return weights [3, 3, channels, columns] and the requantizer of a convolution."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(-128, 128, (3, 3, CHANNELS, COLUMNS), dtype=np.int8)
    table = RequantizeTable(
        rng.integers(-3000, 3000, COLUMNS, dtype=np.int32),
        rng.integers(1 << 30, (1 << 31) - 1, COLUMNS, dtype=np.int32),
        rng.integers(-10, -6, COLUMNS, dtype=np.int8),
    )
    return weights, table


def convolution(seed: int) -> tuple[Program, NDArray[np.int8], RequantizeTable]:
    """Return a program of one convolution, through its file, with its weights and requantizer."""
    weights, table = layer(seed)
    made = hand_program(
        CONVOLUTION,
        constants=weights.tobytes() + pack_requantize(table).tobytes(),
        inputs=(tensor("x", (1, HEIGHT, WIDTH, CHANNELS), 0),),
        outputs=(tensor("y", (1, 3, WIDTH, COLUMNS), 0x200),),
    )
    return load_program(made.to_bytes()), weights, table


def expected(
    x: NDArray[np.int8], weights: NDArray[np.int8], table: RequantizeTable
) -> NDArray[np.int8]:
    """Return the 3 x 3 convolution of stride (2, 1) and padding 1, requantized."""
    y = np.zeros((1, 3, WIDTH, COLUMNS), np.int8)
    for oy, ox, n in np.ndindex(3, WIDTH, COLUMNS):
        total = int(table.bias[n])
        for ky, kx, c in np.ndindex(3, 3, CHANNELS):
            iy, ix = 2 * oy - 1 + ky, ox - 1 + kx
            if 0 <= iy < HEIGHT and 0 <= ix < WIDTH:
                total += (int(x[0, iy, ix, c]) - ZERO_POINT) * int(weights[ky, kx, c, n])
        scaled = multiply_q31(total, int(table.multiplier[n]), int(table.shift[n]))
        y[0, oy, ox, n] = max(-100, min(90, scaled + OFM_ZERO_POINT))
    return y


@pytest.mark.parametrize("seed", range(4))
def test_load_matmul_requantize_store(seed: int) -> None:
    program, weights, table = convolution(seed)
    x = np.random.default_rng(seed).integers(-128, 128, (1, 5, 6, 3), dtype=np.int8)
    result = simulate_program(program, {"x": x})
    wanted = expected(x, weights, table)
    np.testing.assert_array_equal(result.outputs["y"], wanted)
    assert len(np.unique(wanted)) > 20, "the example must not saturate"


def test_values_and_timing_do_not_touch_each_other() -> None:
    program, _, _ = convolution(1)
    x = np.ones((1, 5, 6, 3), np.int8)
    both = simulate_program(program, {"x": x})
    values = simulate_program(program, {"x": x}, timing=False)
    timing = simulate_program(program, None)
    assert values.trace is None
    assert timing.outputs == {}
    np.testing.assert_array_equal(values.outputs["y"], both.outputs["y"])
    assert both.trace is not None
    assert timing.trace is not None
    assert timing.trace.cycles == both.trace.cycles
    np.testing.assert_array_equal(timing.trace.records, both.trace.records)


def test_every_cycle_is_attributed() -> None:
    trace = simulate_program(convolution(2)[0], None).trace
    assert trace is not None
    for causes in trace.attribution().values():
        assert sum(causes.values()) == trace.cycles
        assert min(causes.values()) >= 0


def test_runs_leave_nothing_behind() -> None:
    program, weights, table = convolution(3)
    first = np.full((1, 5, 6, 3), 100, np.int8)
    second = np.full((1, 5, 6, 3), -100, np.int8)
    run_values(program, {"x": first})
    outputs = run_values(program, {"x": second})
    np.testing.assert_array_equal(outputs["y"], expected(second, weights, table))


def test_instructions_run_in_an_order_that_semaphores_allow() -> None:
    text = "fill wait=1 height=1 width=1 channels=1\nload memory=0 scratchpad=1 signal=1"
    program = hand_program(text)
    assert execution_order(program, program.regions[0]) == [1, 0]
    assert disassemble(program.decoded).startswith("fill wait=0x1")


def test_a_tile_walks_three_strides() -> None:
    text = """
    load memory=0 address=2 row_bytes=3 rows=2 planes=2 row_stride=5 plane_stride=20 \
scratchpad=0x10 scratchpad_row_pitch=4 scratchpad_plane_pitch=8 signal=1
    fill height=2 width=2 channels=1 ofm=0x13 ofm_row_pitch=8 ofm_pixel_pitch=4 value=255 signal=2
    store wait=3 memory=0 address=0x100 scratchpad=0x10 row_bytes=16 rows=1 planes=1
    halt
    """
    x = np.arange(64, dtype=np.int8)
    program = hand_program(
        text, inputs=(tensor("x", (64,), 0),), outputs=(tensor("y", (2, 2, 4), 0x100),)
    )
    y = simulate_program(program, {"x": x}, timing=False).outputs["y"]
    assert y.tolist() == [
        [[2, 3, 4, -1], [7, 8, 9, -1]],
        [[22, 23, 24, -1], [27, 28, 29, -1]],
    ]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "input 'x' is missing"),
        ({"x": 0, "z": 0}, "input 'z' does not exist; the program takes x"),
        (
            {"x": np.zeros((5, 6, 3), np.int8)},
            "input 'x' must have shape [1, 5, 6, 3], not [5, 6, 3]",
        ),
        ({"x": np.zeros((1, 5, 6, 3), np.uint8)}, "input 'x' must be int8, not uint8"),
        (
            {"x": np.zeros((1, 5, 6, 3), object)},
            "input 'x' must be an array of numbers, not object",
        ),
    ],
)
def test_wrong_inputs(inputs: dict[str, Any], message: str) -> None:
    program, _, _ = convolution(0)
    with pytest.raises(InputError) as caught:
        run_values(program, inputs)
    assert str(caught.value) == message


def with_host(program: Program) -> Program:
    """Return the program with its output handed to a host region that makes float `z` of it."""
    z = ProgramTensor("z", (1, 3, WIDTH, COLUMNS), "float32", None, 0, -1, 0)
    return dataclasses.replace(
        program,
        tensors=(*program.tensors, z),
        outputs=("z",),
        regions=(*program.regions, Region("host", 0, 0, ("y",), ("z",), 0)),
        host_models=(b"graph",),
    )


def test_host_regions_run_on_what_the_npu_stored() -> None:
    program, weights, table = convolution(1)
    x = np.full((1, 5, 6, 3), 9, np.int8)

    def run_host(index: int, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        assert index == 0
        return {"z": arrays["y"].astype(np.float32) / 2}

    outputs = run_values(with_host(program), {"x": x}, run_host)
    np.testing.assert_array_equal(outputs["z"], expected(x, weights, table) / np.float32(2))


def test_host_regions_need_a_host_runner() -> None:
    program, _, _ = convolution(1)
    with pytest.raises(InputError, match="has host regions, and no host runner was given"):
        run_values(with_host(program), {"x": np.zeros((1, 5, 6, 3), np.int8)})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_float_inputs_must_be_finite(value: float) -> None:
    program = hand_program("halt", inputs=(tensor("x", (2,), 0, dtype="float32"),))
    with pytest.raises(InputError, match="input 'x' holds NaN or infinite values"):
        run_values(program, {"x": np.array([0, value], np.float32)})


def test_a_kept_tensor_is_returned() -> None:
    program, _, _ = convolution(1)
    x = np.full((1, 5, 6, 3), 9, np.int8)
    kept = run_values(program, {"x": x}, keep=("x", "y"))
    np.testing.assert_array_equal(kept["x"], x)
