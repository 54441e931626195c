"""Calibrations against searches in plain loops."""

from __future__ import annotations

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


@pytest.mark.parametrize(("symmetric", "positive"), [(True, False), (False, True), (False, False)])
def test_entropy_is_the_best_of_an_exhaustive_search(symmetric: bool, positive: bool) -> None:
    values = heavy_tailed(5, 2000)
    values = np.abs(values) if positive else values
    groups = 16 if positive else 8
    found = Entropy(bins=128, stride=4).limits(values, Grid(4, symmetric))
    expected = naive.entropy_limits(values.tolist(), groups, 128, 4)
    assert found == pytest.approx(expected)
    assert max(-found[0], found[1]) < max(-min(values), max(values))


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
