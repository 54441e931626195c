"""Calibrations against searches in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lepton.errors import InputError
from lepton.models.quantization import (
    Calibration,
    Entropy,
    Grid,
    MeanSquare,
    MinMax,
    Percentile,
    Scheme,
    Uniform,
)
from tests import naive_quantization as naive


def heavy_tailed(seed: int, count: int = 400) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(3, count).astype(np.float32).astype(np.float64)


def test_minmax_takes_the_extremes() -> None:
    values = heavy_tailed(0)
    assert MinMax().limits(values, Grid(8, False)) == (min(values), max(values))


@pytest.mark.parametrize("percent", [90.0, 99.5, 100.0])
def test_percentile_interpolates(percent: float) -> None:
    values = heavy_tailed(1)
    low, high = Percentile(percent).limits(values, Grid(8, False))
    assert low == pytest.approx(naive.percentile(values.tolist(), 100 - percent))
    assert high == pytest.approx(naive.percentile(values.tolist(), percent))
    bound = naive.percentile([abs(x) for x in values], percent)
    assert Percentile(percent).limits(values, Grid(8, True)) == pytest.approx((-bound, bound))
    with pytest.raises(InputError, match="percent must be above 50"):
        Percentile(50)


@pytest.mark.parametrize(("seed", "bits"), [(2, 2), (3, 3), (4, 5)])
def test_mean_square_is_the_best_of_an_exhaustive_search(seed: int, bits: int) -> None:
    values = heavy_tailed(seed, 120)
    found = MeanSquare(40).limits(values, Grid(bits, True))
    assert found == naive.mean_square_limits(values.tolist(), bits, 40)
    least = naive.rounded_error(values.tolist(), found, bits)
    assert least < naive.rounded_error(values.tolist(), (min(values), max(values)), bits)


@pytest.mark.parametrize("shift", [-2.0, 0.0, 1.5, 20.0])
@pytest.mark.parametrize(("seed", "bits"), [(2, 2), (3, 3), (4, 5)])
def test_mean_square_of_affine_codes_is_the_best_of_an_exhaustive_search(
    seed: int, bits: int, shift: float
) -> None:
    values = (heavy_tailed(seed, 120) + shift).astype(np.float32).astype(np.float64)
    found = MeanSquare(40).limits(values, Grid(bits, False))
    assert found == naive.mean_square_limits(values.tolist(), bits, 40, symmetric=False)
    whole = (min(values), max(values))
    least = naive.rounded_error(values.tolist(), found, bits, symmetric=False)
    assert least <= naive.rounded_error(values.tolist(), whole, bits, symmetric=False)
    if bits < 5 and shift != 20:
        assert found != whole
    assert found[0] != -found[1]


@pytest.mark.parametrize(("symmetric", "positive"), [(True, False), (False, True), (False, False)])
def test_entropy_is_the_best_of_an_exhaustive_search(symmetric: bool, positive: bool) -> None:
    values = heavy_tailed(5, 2000)
    values = np.abs(values) if positive else values
    groups = 16 if positive else 8
    found = Entropy(bins=128, stride=4).limits(values, Grid(4, symmetric))
    expected = naive.entropy_limits(values.tolist(), groups, 128, 4)
    assert found == pytest.approx(expected)
    assert max(-found[0], found[1]) < max(-min(values), max(values))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [6, 7, 8])
def test_entropy_has_two_bins_for_each_code_at_least(bits: int, symmetric: bool) -> None:
    values = heavy_tailed(5, 2000)
    groups = 2 ** (bits - 1)
    found = Entropy(bins=48, stride=2).limits(values, Grid(bits, symmetric))
    finer = max(math.ceil(2 * groups / 48), 1)
    expected = naive.entropy_limits(values.tolist(), groups, 48 * finer, 2 * finer)
    assert found == pytest.approx(expected)


def test_entropy_clips_at_16_bits() -> None:
    # of 65,536 bins the first half has 1 and 9 in turn, which two bins for a code would level
    places = (np.arange(33_000) + 0.5) / 65_536
    values = np.repeat(places, np.where(np.arange(33_000) % 2, 9, 1))
    assert Entropy().limits(np.append(values, 1.0), Grid(16, True)) == (values.min(), 0.5)


def test_divergence_is_zero_where_nothing_is_merged_or_clipped() -> None:
    assert naive.divergence([4, 4, 2, 2], 4, 4) == 0
    assert naive.divergence([4, 4, 2, 2], 4, 2) == 0
    assert naive.divergence([4, 2, 2, 2], 4, 2) > 0


@pytest.mark.parametrize("calibration", [MinMax(), Percentile(99), MeanSquare(), Entropy(256, 4)])
def test_channels_are_calibrated_one_by_one(calibration: Calibration) -> None:
    values = heavy_tailed(6, 600).reshape(3, 200) * [[1], [10], [0.1]]
    grid = Scheme(4, axis=0, calibration=calibration).fit(values)
    assert isinstance(grid, Uniform)
    for channel, row in enumerate(values):
        alone = Scheme(4, calibration=calibration).fit(row)
        assert isinstance(alone, Uniform)
        assert grid.scale[channel] == alone.scale


@pytest.mark.parametrize("calibration", [MinMax(), Percentile(99), MeanSquare(), Entropy()])
def test_constant_values_are_calibrated(calibration: Calibration) -> None:
    for value in (0.0, 2.5):
        grid = Scheme(8, False, calibration=calibration).fit([value] * 5)
        assert grid.dequantize(grid.quantize(value)) == pytest.approx(value, rel=1e-2)
    with pytest.raises(InputError, match="empty"):
        Scheme(calibration=calibration).fit([])
    with pytest.raises(InputError, match="NaN or infinite"):
        Scheme(calibration=calibration).fit([1.0, np.nan])


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="candidates must be at least 1, not 0"):
        MeanSquare(0)
    with pytest.raises(InputError, match="bins must be at least 1, not 0"):
        Entropy(0)
    with pytest.raises(InputError, match="stride must be at least 1, not -4"):
        Entropy(64, -4)
