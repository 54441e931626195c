"""Fronts and hypervolumes beside plain loops and random points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton.explore.pareto import (
    fronts_in_order,
    hypervolume,
    hypervolume_share,
    non_dominated,
)


def _naive_front(values: np.ndarray) -> list[bool]:
    def is_dominated(row: np.ndarray) -> bool:
        return any((other <= row).all() and (other < row).any() for other in values)

    return [not np.isnan(row).any() and not is_dominated(row) for row in values]


@given(seed=st.integers(0, 1000), count=st.integers(0, 60), objectives=st.integers(1, 4))
def test_front(seed: int, count: int, objectives: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, (count, objectives)).astype(float)
    values[rng.random((count, objectives)) < 0.03] = np.nan
    assert non_dominated(values).tolist() == _naive_front(values)


def test_front_of_many_points() -> None:
    values = np.random.default_rng(0).random((3000, 3))
    assert non_dominated(values).tolist() == _naive_front(values)


@given(seed=st.integers(0, 1000), most=st.integers(0, 50))
def test_fronts_in_order(seed: int, most: int) -> None:
    values = np.random.default_rng(seed).integers(0, 9, (40, 2)).astype(float)
    found = fronts_in_order(values, most).tolist()
    assert len(found) == len(set(found)) == min(most, 40)
    left = set(range(40))
    while found and left:
        front = {n for n, keep in zip(sorted(left), _naive_front(values[sorted(left)]), strict=True)
                 if keep}  # fmt: skip
        part, found = found[: len(front)], found[len(front) :]
        assert set(part) <= front
        left -= front


def test_spread_comes_first() -> None:
    """Of a front of two clusters and its ends, both clusters are seen before one is seen twice."""
    x = np.array([0.0, 1.0, 0.3, 0.31, 0.32, 0.7, 0.71, 0.72])
    order = fronts_in_order(np.stack([x, 1 - x], axis=1), 8).tolist()
    assert set(order[:2]) == {0, 1}
    assert sorted([x[order[2]] < 0.5, x[order[3]] < 0.5]) == [False, True]


@given(seed=st.integers(0, 200), objectives=st.integers(1, 4))
def test_hypervolume(seed: int, objectives: int) -> None:
    """On a grid of whole numbers the volume is the number of cells that a point dominates."""
    rng = np.random.default_rng(seed)
    side = 5
    values = rng.integers(0, side + 1, (int(rng.integers(0, 7)), objectives))
    cells = np.stack(np.meshgrid(*[np.arange(side)] * objectives), axis=-1).reshape(-1, objectives)
    expected = sum(any((row <= cell).all() for row in values) for cell in cells)
    reference = np.full(objectives, float(side))
    assert hypervolume(values.astype(float), reference) == pytest.approx(expected)


def test_share() -> None:
    everything = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    assert hypervolume_share(everything, everything) == 1
    # of 1.1^2 the front leaves out 1, and one end of it 0.11
    assert hypervolume_share(everything[:1], everything) == pytest.approx(0.11 / 0.21)
