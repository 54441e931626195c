"""Quantizers against their formulas in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton.errors import InputError
from lepton.models.quantization import (
    Binary,
    Codebook,
    IntegerWeights,
    PowersOfTwo,
    RangeGrid,
    Scheme,
    Standardized,
    Uniform,
    dynamic_grid,
)
from lepton.models.quantization.quantizers import code_limits
from tests.naive_quantization import affine_code, nearest

ONE = np.array(1, np.float32)


def drawn(seed: int, shape: tuple[int, ...] = (5, 4, 3)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_symmetric_codes_are_of_the_narrow_range() -> None:
    assert [code_limits(bits, True) for bits in (2, 5, 8)] == [(-1, 1), (-15, 15), (-127, 127)]
    assert [code_limits(bits, False) for bits in (1, 8, 16)] == [
        (-1, 0), (-128, 127), (-32768, 32767)
    ]  # fmt: skip


@pytest.mark.parametrize("bits", [0, 17])
def test_bits_outside_the_range_are_refused(bits: int) -> None:
    with pytest.raises(InputError, match=f"bits must be 1 to 16, not {bits}"):
        Scheme(bits).fit([1.0])
    with pytest.raises(InputError, match="at least 2 bits"):
        Uniform.of_step(1.0, 1)


def test_a_step_rounds_halves_to_even() -> None:
    grid = Uniform.of_step(0.5, 4)
    assert grid.quantize([0.25, 0.75, 1.25, -0.25, 9.0, -9.0]).tolist() == [0, 2, 2, 0, 7, -7]
    assert grid.dequantize([2, -7]).tolist() == [1.0, -3.5]


@given(st.integers(0, 10_000), st.integers(2, 16), st.booleans(), st.sampled_from([None, 0, 1]))
def test_uniform_equals_its_formula(
    seed: int, bits: int, symmetric: bool, axis: int | None
) -> None:
    values = drawn(seed) + np.float32(seed % 3)
    grid = Scheme(bits, symmetric, axis).fit(values)
    assert isinstance(grid, Uniform)
    codes, limits = grid.quantize(values), code_limits(bits, symmetric)
    for index in np.ndindex(values.shape):
        channel = () if axis is None else index[axis]
        scale, zero_point = grid.scale[channel], int(grid.zero_point[channel])
        row = values if axis is None else values.take(channel, axis)
        least, greatest = min(float(row.min()), 0), max(float(row.max()), 0)
        if symmetric:
            step = max(-least, greatest) / limits[1]
        else:
            step = (greatest - least) / (2**bits - 1)
        assert scale == pytest.approx(step, rel=1e-6)
        assert codes[index] == affine_code(float(values[index]), float(scale), zero_point, limits)
        assert grid.dequantize(codes)[index] == np.float32(codes[index] - zero_point) * scale
    error = np.abs(grid.dequantize(codes) - values).max()
    # float32 holds a code of 16 bits to 2^-9
    assert error <= grid.scale.max() * (0.5 + 0.5 * (not symmetric) + 2**-8)
    np.testing.assert_array_equal(grid.quantize(grid.dequantize(codes)), codes)


def test_zero_is_exact_on_every_uniform_grid() -> None:
    for low, high in ((2.0, 5.0), (-3.0, -1.0), (0.0, 0.0)):
        grid = Uniform.of_limits((low, high), 8, symmetric=False)
        assert grid.dequantize(grid.quantize(0.0)) == 0


def test_range_form_hits_both_ends() -> None:
    grid = RangeGrid(np.array(0.7, np.float32), np.array(3.1, np.float32), 0, 31)
    values = np.linspace(0, 4, 57, dtype=np.float32)
    codes = grid.quantize(values)
    for x, code in zip(values, codes, strict=True):
        expected = round(float((x - np.float32(0.7)) / (np.float32(3.1) - np.float32(0.7)) * 31))
        assert code == min(max(expected, 0), 31)
    assert grid.dequantize([0, 31]).tolist() == [np.float32(0.7), np.float32(3.1)]
    flat = RangeGrid(ONE, ONE, 0, 3)
    assert flat.dequantize(flat.quantize([1.0])).tolist() == [1.0]


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_dynamic_step_is_the_range_over_all_codes(bits: int) -> None:
    values = drawn(bits, (200,)) + np.float32(10)
    grid = dynamic_grid(values, bits)
    step = np.float32((float(values.max()) - float(values.min())) / 2**bits)
    assert grid.scale == step
    codes = grid.quantize(values)
    assert codes.min() == -(2 ** (bits - 1))
    assert codes.max() == 2 ** (bits - 1) - 1
    assert np.abs(grid.dequantize(codes) - values).max() <= 1.01 * step
    first = round(float(values.min()) / float(step) + 0.5)
    assert grid.dequantize(codes.min()) == np.float32(first * float(step))


@pytest.mark.parametrize("bits", [1, 3, 8, 16])
@pytest.mark.parametrize("value", [3.0, 0.3, -0.7, 0.0, 1e7, -3e38, 1e-40])
def test_a_constant_is_exact_on_its_dynamic_grid(value: float, bits: int) -> None:
    # (max - min) / 2^bits is 0, and no number may be off by more than that
    grid = dynamic_grid([value, value], bits)
    codes = grid.quantize([value, value])
    assert codes.tolist() == [-(2 ** (bits - 1))] * 2
    assert grid.dequantize(codes).tolist() == [np.float32(value)] * 2
    assert grid.scale > 0


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
@pytest.mark.parametrize(
    ("low", "high"),
    [(1e7, 1e7 + 1), (-1e7 - 4, -1e7), (1e30, 1.0000002e30), (-3e38, 3e38), (0, 1e-45), (5, 6)],
)
def test_a_narrow_range_far_from_zero_is_off_by_a_step_at_most(
    low: float, high: float, bits: int
) -> None:
    values = np.linspace(low, high, 41).astype(np.float32)
    grid = dynamic_grid(values, bits)
    step = (float(values.max()) - float(values.min())) / 2**bits
    codes = grid.quantize(values)
    first = math.floor(float(values.min()) / float(grid.scale) + 0.5)
    for x, code in zip(values.astype(np.float64), codes, strict=True):
        exact = round(x / float(grid.scale)) - round(first + 0.0)
        # the first level is at min / q or up to one step above
        assert abs(int(code) + 2 ** (bits - 1) - min(max(exact, 0), 2**bits - 1)) <= 1
    # one rounding to float32 for the level, one for the step
    slack = np.spacing(np.abs(values).max()) + 2 ** (bits + 1) * np.spacing(grid.scale)
    made = grid.dequantize(codes).astype(np.float64)
    assert np.abs(made - values).max() <= step + slack


def test_numbers_that_no_grid_holds_are_refused() -> None:
    nan = float("nan")
    for bad in ([1.0, nan], [float("inf"), 0.0]):
        for fit in (
            lambda x: dynamic_grid(x, 8),
            lambda x: Standardized.of_values(x, 4),
            lambda x: PowersOfTwo.of_values(x, 4),
            Binary.of_values,
            Scheme().fit,
            lambda x: IntegerWeights.of_values(x, 5, None),
        ):
            with pytest.raises(
                InputError, match="numbers to quantize hold NaN or infinite numbers"
            ):
                fit(bad)
    with pytest.raises(InputError, match="scales of weights hold NaN"):
        IntegerWeights(np.zeros(2, np.int8), np.array(nan, np.float32))
    with pytest.raises(InputError, match="empty array"):
        dynamic_grid([], 8)
    with pytest.raises(InputError, match="a step must be positive, not nan"):
        Uniform.of_step(nan, 4)
    for limits in ((2.0, 0.0), (nan, 1.0), (0.0, float("inf"))):
        match = f"a range must be finite and go up, not from {limits[0]:g} to {limits[1]:g}"
        with pytest.raises(InputError, match=match):
            Uniform.of_limits(limits, 8, symmetric=False)
        with pytest.raises(InputError, match=match):
            RangeGrid(np.array(limits[0], np.float32), np.array(limits[1], np.float32), 0, 3)


def test_standardized_codes_count_deviations() -> None:
    values = drawn(3, (4, 50))
    grid = Standardized.of_values(values, 4, axis=0)
    for channel, row in enumerate(values.astype(np.float64)):
        mean = sum(row) / 50
        deviation = (sum((x - mean) ** 2 for x in row) / 50) ** 0.5
        assert grid.mean[channel] == pytest.approx(mean, abs=1e-6)
        assert grid.deviation[channel] == pytest.approx(deviation, rel=1e-6)
        expected = [max(-7, min(7, round((x - mean) / deviation))) for x in row]
        assert grid.quantize(values)[channel].tolist() == expected
        levels = grid.dequantize(grid.quantize(values))[channel]
        np.testing.assert_allclose(levels, np.array(expected) * deviation + mean, atol=1e-5)
    assert Standardized.of_values([2.0, 2.0], 4).quantize([2.0]).tolist() == [0]


def test_codebook_takes_the_nearest_level() -> None:
    levels = np.array([-1.0, -0.25, 0.0, 0.5, 2.0], np.float32)
    values = np.linspace(-2, 3, 201)
    codes = Codebook(levels).quantize(values)
    assert codes.tolist() == [nearest(levels.tolist(), x) for x in values]
    assert Codebook(levels).dequantize(codes).tolist() == levels[codes].tolist()
    with pytest.raises(InputError, match="ascending"):
        Codebook(levels[::-1])


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_powers_of_two_take_the_nearest_level(bits: int) -> None:
    values = drawn(bits, (300,))
    grid = PowersOfTwo.of_values(values, bits)
    high = 2 ** (bits - 1) - 1
    positive = [0.0] + [2.0 ** (grid.exponent - high + c) for c in range(1, high + 1)]
    assert grid.dequantize(range(high + 1)).tolist() == positive
    for x, code in zip(values, grid.quantize(values), strict=True):
        assert code == np.sign(x) * nearest(positive, abs(x))
    peak = np.abs(values).max()
    assert 2.0**grid.exponent * 3 / 4 <= peak < 2.0**grid.exponent * 3 / 2


def test_binary_has_the_level_of_least_error() -> None:
    values = drawn(9, (3, 40))
    grid = Scheme(1, axis=0).fit(values)
    assert isinstance(grid, Binary)
    for channel, row in enumerate(values):
        codes = [1 if x >= 0 else -1 for x in row]
        assert grid.quantize(values)[channel].tolist() == codes
        tried = np.linspace(0, 2, 2001)
        errors = [
            sum((x - c * level) ** 2 for x, c in zip(row, codes, strict=True)) for level in tried
        ]
        assert grid.scale[channel] == pytest.approx(tried[int(np.argmin(errors))], abs=1e-3)
