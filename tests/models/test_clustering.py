"""One-dimensional k-means against every split there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton.errors import InputError
from lepton.models.clustering import Start, cluster_levels, squared_error
from tests.naive_quantization import best_of_all

STARTS: tuple[Start, ...] = ("linear", "density", "random")


@given(
    st.lists(st.integers(-20, 20).map(lambda x: x / 4), min_size=1, max_size=11),
    st.integers(1, 5),
)
def test_the_optimum_is_the_best_of_all_splits(values: list[float], clusters: int) -> None:
    levels = cluster_levels(values, clusters)
    assert len(levels) == min(clusters, len(set(values)))
    assert (np.diff(levels) > 0).all()
    least = best_of_all(values, min(clusters, len(values)))
    assert squared_error(values, levels) == pytest.approx(least, abs=1e-9)


@given(st.integers(0, 10_000))
def test_importance_counts_as_repetition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, counts = rng.standard_normal(9), rng.integers(0, 4, 9)
    counts[0] = 1
    weighted = cluster_levels(values, 3, importance=counts)
    np.testing.assert_allclose(weighted, cluster_levels(np.repeat(values, counts), 3))


@pytest.mark.parametrize("start", STARTS)
def test_every_start_ends_in_a_fixed_point_no_better_than_the_optimum(start: Start) -> None:
    values = np.random.default_rng(1).laplace(size=3000)
    levels = cluster_levels(values, 8, start=start, seed=4)
    nearest = [int(np.argmin(np.abs(levels - x))) for x in values]
    for number, level in enumerate(levels):
        members = [x for x, index in zip(values, nearest, strict=True) if index == number]
        assert level == pytest.approx(np.mean(members), abs=1e-9)
    optimum = squared_error(values, cluster_levels(values, 8))
    assert optimum <= squared_error(values, levels) * (1 + 1e-12)


def test_starts_are_where_they_are_said_to_be() -> None:
    from lepton.models.clustering import _started

    points = np.array([0.0, 1, 2, 3, 10])
    ones = np.ones(5)
    assert _started(points, ones, 3, ("linear", 0)).tolist() == [0, 5, 10]
    # shares 5/6, 15/6 and 25/6 of five points
    assert _started(points, ones, 3, ("density", 0)).tolist() == [0, 2, 10]
    drawn = _started(points, ones, 3, ("random", 7))
    assert set(drawn) <= set(points)
    np.testing.assert_array_equal(drawn, _started(points, ones, 3, ("random", 7)))


def test_refusals() -> None:
    with pytest.raises(InputError, match="no values to cluster"):
        cluster_levels([], 2)
    with pytest.raises(InputError, match="clusters must be at least 1, not 0"):
        cluster_levels([1, 2], 0)
    with pytest.raises(InputError, match="importance needs one number for each value"):
        cluster_levels([1, 2], 1, importance=[1, -1])
    with pytest.raises(InputError, match="start must be optimal"):
        cluster_levels([1, 2, 3], 2, start="best")  # pyright: ignore[reportArgumentType]
