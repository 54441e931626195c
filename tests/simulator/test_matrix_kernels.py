"""Exact int8 products against NumPy's integers: every width of tile, sign, zero point, overflow."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from lepton.chip import load_chip
from lepton.errors import CheckError
from lepton.isa import instructions as isa
from lepton.simulator import matrix_kernels as matrix
from lepton.simulator.dot_tile import DEPTH, LANES, TILE_ROWS, dot_tile, has_dot
from lepton.simulator.functional import execute
from lepton.simulator.machine import Machine

Bytes = NDArray[np.uint8]


def machine_with(x: Bytes, weights: Bytes) -> Machine:
    """Return a machine that holds the bytes of both operands."""
    chip = load_chip("edge")
    machine = Machine(
        np.zeros(chip.scratchpad.size_bytes, np.uint8),
        np.zeros(chip.accumulators.elements, np.int32),
        np.zeros(chip.weight_buffer.elements, np.uint8),
        (weights.ravel(),),
    )
    machine.scratchpad[: x.size] = x.ravel()
    execute(machine, weights_of(weights))
    return machine


def weights_of(weights: Bytes, buffer: int = 0) -> isa.Weights:
    depth, columns = weights.shape
    return isa.Weights(stream_bytes=weights.size, reduction=depth, columns=columns, buffer=buffer)


def product_of(x: Bytes, columns: int, **fields: int) -> isa.Matmul:
    """Return the product of all of `x [pixels, depth]` and the start of the weight buffer."""
    pixels, depth = x.shape
    return isa.Matmul(
        ifm_row_pitch=0, ifm_pixel_pitch=depth, ifm_height=1, ifm_width=pixels, channels=depth,
        kernel_height=1, kernel_width=1, stride_y=1, stride_x=1, dilation_y=1, dilation_x=1,
        ofm_height=1, ofm_width=pixels, columns=columns, accumulator_pitch=columns, **fields,
    )  # fmt: skip


def sums_of(machine: Machine, pixels: int, columns: int) -> NDArray[np.int32]:
    return machine.accumulators[: pixels * columns].reshape(pixels, columns)


@pytest.mark.parametrize("is_native", sorted({False, has_dot()}))
@pytest.mark.parametrize("vectors", [1, 4])
def test_a_tile_is_exact_at_the_ends_of_the_bytes(vectors: int, is_native: bool) -> None:
    tile = dot_tile(vectors, is_native)

    @numba.njit
    def multiply(x: Bytes, panels: NDArray[np.int8], sums: NDArray[np.int32]) -> None:
        pitch, steps = x.shape[1], panels.shape[1]
        tile(
            x.ctypes.data, pitch, panels.ctypes.data, steps * LANES * DEPTH, steps,
            sums.ctypes.data,
        )  # fmt: skip

    rng = np.random.default_rng(vectors)
    x = rng.choice(np.array([0, 1, 127, 128, 255], np.uint8), (TILE_ROWS, 36))
    w = rng.choice(np.array([-128, -127, -1, 0, 127], np.int8), (36, vectors * LANES))
    panels = w.reshape(9, DEPTH, vectors, LANES).transpose(2, 0, 3, 1).copy()
    sums = np.zeros((TILE_ROWS, vectors * LANES), np.int32)
    multiply(x, panels.reshape(vectors, 9, LANES * DEPTH), sums)
    np.testing.assert_array_equal(sums, x.astype(np.int32) @ w.astype(np.int32))


@pytest.mark.parametrize("columns", [1, 16, 17, 48, 112, 130])
@pytest.mark.parametrize("signs", [0, 1, 2, 3])
def test_products_of_every_width_and_sign(columns: int, signs: int) -> None:
    rng = np.random.default_rng(columns + signs)
    pixels, depth = int(rng.integers(1, 110)), int(rng.integers(1, 70))
    x, w = (rng.integers(0, 256, size, np.uint8) for size in ((pixels, depth), (depth, columns)))
    zero_points = [int(rng.integers(low, low + 256)) for low in (-128, 0)]
    x_unsigned, w_unsigned = signs & 1, signs >> 1
    made = product_of(
        x, columns, ifm_unsigned=x_unsigned, ifm_zero_point=zero_points[x_unsigned],
        weight_unsigned=w_unsigned, weight_zero_point=zero_points[w_unsigned],
    )  # fmt: skip
    machine = machine_with(x, w)
    execute(machine, made)
    operands = [
        (raw if unsigned else raw.view(np.int8)).astype(np.int64) - zero_points[unsigned]
        for raw, unsigned in ((x, x_unsigned), (w, w_unsigned))
    ]
    np.testing.assert_array_equal(sums_of(machine, pixels, columns), operands[0] @ operands[1])


def test_a_zero_point_that_is_no_byte() -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.integers(0, 256, size, np.uint8) for size in ((7, 33), (33, 20)))
    assert not matrix.can_multiply(33, matrix.Operand(128, -200 + 128), 0)
    machine = machine_with(x, w)
    execute(machine, product_of(x, 20, ifm_zero_point=-200))
    wanted = (x.view(np.int8).astype(np.int64) + 200) @ w.view(np.int8).astype(np.int64)
    np.testing.assert_array_equal(sums_of(machine, 7, 20), wanted)


def test_sums_in_int32_are_taken_only_where_they_fit() -> None:
    zero = matrix.Operand(128, 128)
    deepest = (1 << 31) // (128 * 128)
    assert matrix.can_multiply(deepest - 1, zero, 0)
    assert not matrix.can_multiply(deepest, zero, 0)


@pytest.mark.parametrize(("zero_point", "start"), [(0, 3), (-200, 3), (0, -3)])
def test_an_overflow_says_how_far(zero_point: int, start: int) -> None:
    x, w = np.full((2, 4), 1, np.uint8), np.full((4, 3), 1 if start > 0 else 255, np.uint8)
    total = 4 * (1 - zero_point) * (1 if start > 0 else -1)
    edge = (1 << 31) - 1 if start > 0 else -(1 << 31)
    machine = machine_with(x, w)
    made = product_of(x, 3, ifm_zero_point=zero_point, accumulate=1)
    machine.accumulators[4] = edge - total
    execute(machine, made)
    assert machine.accumulators[4] == edge
    machine.accumulators[4] = edge - total + start
    with pytest.raises(CheckError, match=f"matmul: .* overflows int32 with {abs(edge + start)}$"):
        execute(machine, made)


@pytest.mark.parametrize("first", [0, 25, 100])
def test_weights_that_are_overwritten_are_packed_anew(first: int) -> None:
    rng = np.random.default_rng(first)
    x, w = (rng.integers(0, 256, size, np.uint8) for size in ((9, 8), (8, 13)))
    machine = machine_with(x, w)
    execute(machine, product_of(x, 13))
    machine.memories[0][:] ^= 255
    execute(machine, weights_of(w[:4], buffer=first))
    execute(machine, product_of(x, 13))
    now = machine.weight_buffer[: w.size].view(np.int8).reshape(w.shape)
    wanted = x.view(np.int8).astype(np.int64) @ now.astype(np.int64)
    np.testing.assert_array_equal(sums_of(machine, 9, 13), wanted)
