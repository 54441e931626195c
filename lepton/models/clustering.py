"""k-means in one dimension: the optimum by dynamic programming, and Lloyd's algorithm."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton.errors import InputError
from lepton.jit import njit

__all__ = ["Start", "cluster_levels", "squared_error"]

Doubles = NDArray[np.float64]
Start = Literal["optimal", "linear", "density", "random"]

ITERATIONS = 300
"""Of Lloyd's algorithm, at most; it converges long before."""


def cluster_levels(
    values: ArrayLike,
    clusters: int,
    *,
    importance: ArrayLike | None = None,
    start: Start = "optimal",
    seed: int = 0,
) -> Doubles:
    """Return ascending levels for numbers: minimize sum_i h_i (x_i - level(x_i))^2.

    `optimal` finds the least error of all. The others improve a start by Lloyd's algorithm, which
    ends in a local minimum: `linear` spaces levels evenly from the least to the greatest number,
    `density` puts them at evenly spaced quantiles, `random` takes numbers drawn.

    Source: dynamic programming: Wang and Song, Ckmeans.1d.dp, The R Journal 3(2), 2011; its rows by
    divide and conquer, as the best first member never moves left. Starts: Han et al., Deep
    Compression, ICLR 2016, section 3.2. Lloyd, Least squares quantization in PCM, IEEE Trans.
    Information Theory 28(2), 1982.

    Args:
        values: the numbers, of any shape.
        clusters: at most so many levels; fewer where there are fewer distinct numbers.
        importance: h, one weight for each number, not negative; 1 without it.
        start: see above.
        seed: of `random`.

    Raises:
        InputError: no numbers, no clusters, or importances that do not fit.
    """
    points, weights = _distinct(values, importance)
    if clusters < 1:
        raise InputError(f"clusters must be at least 1, not {clusters}")
    if clusters >= len(points):
        return points
    if start == "optimal":
        centred = points - np.average(points, weights=weights)
        firsts = _optimal_firsts(centred, weights, clusters)
        return _means(points, weights, _bounds(firsts, clusters, len(points)))
    return _lloyd(points, weights, _started(points, weights, clusters, (start, seed)))


def squared_error(values: ArrayLike, levels: Doubles) -> float:
    """Return sum (x - nearest level)^2."""
    flat = np.asarray(values, np.float64).reshape(-1)
    nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, flat)]
    return float(np.square(flat - nearest).sum())


def _distinct(values: ArrayLike, importance: ArrayLike | None) -> tuple[Doubles, Doubles]:
    """Return the distinct numbers in order, and the sum of each one's importances."""
    flat = np.asarray(values, np.float64).reshape(-1)
    weights = np.ones(flat.size) if importance is None else np.asarray(importance, np.float64)
    weights = weights.reshape(-1)
    if not flat.size:
        raise InputError("there are no values to cluster")
    if weights.size != flat.size or (weights < 0).any() or not weights.any():
        raise InputError("importance needs one number for each value, not negative, not all zero")
    points, place = np.unique(flat, return_inverse=True)
    sums = np.zeros(len(points))
    np.add.at(sums, place, weights)
    return points[sums > 0], sums[sums > 0]


def _started(points: Doubles, weights: Doubles, clusters: int, how: tuple[Start, int]) -> Doubles:
    """Return the levels that Lloyd's algorithm starts from."""
    start, seed = how
    if start == "linear":
        return np.linspace(points[0], points[-1], clusters)
    if start == "random":
        drawn = np.random.default_rng(seed).choice(
            len(points), clusters, replace=False, p=weights / weights.sum()
        )
        return np.sort(points[drawn])
    if start != "density":
        raise InputError(f"start must be optimal, linear, density or random, not '{start}'")
    shares = (np.arange(clusters) + 0.5) / clusters * weights.sum()
    return points[np.minimum(np.searchsorted(np.cumsum(weights), shares), len(points) - 1)]


def _lloyd(points: Doubles, weights: Doubles, levels: Doubles) -> Doubles:
    """Move levels to the means of their members until none changes; empty ones stay."""
    for _ in range(ITERATIONS):
        cuts = np.searchsorted(points, (levels[1:] + levels[:-1]) / 2)
        moved = _means(points, weights, np.array([0, *cuts, len(points)]), levels)
        if np.array_equal(moved, levels):
            break
        levels = moved
    return np.unique(levels)


def _means(
    points: Doubles, weights: Doubles, bounds: NDArray[Any], otherwise: Doubles | float = 0.0
) -> Doubles:
    """Return the mean of each run of points between bounds."""
    mass = np.diff(np.concatenate([[0.0], np.cumsum(weights)])[bounds])
    moment = np.diff(np.concatenate([[0.0], np.cumsum(weights * points)])[bounds])
    return np.where(mass > 0, moment / np.where(mass > 0, mass, 1), otherwise)


def _bounds(firsts: NDArray[np.int32], clusters: int, count: int) -> NDArray[np.int64]:
    """Return where the clusters of the optimum begin and end."""
    bounds = [count]
    for row in range(clusters - 1, -1, -1):
        bounds.append(int(firsts[row, bounds[-1]]))
    return np.array(bounds[::-1])


@njit
def _optimal_firsts(points: Doubles, weights: Doubles, clusters: int) -> NDArray[np.int32]:
    """Return the first member `[clusters, n + 1]` of the last of q + 1 clusters of j points.

    D[q, j] = min_i D[q - 1, i] + error(i .. j - 1), of which the best i does not fall with j.
    """
    count = len(points)
    mass, moment, square = np.zeros(count + 1), np.zeros(count + 1), np.zeros(count + 1)
    for i in range(count):
        mass[i + 1] = mass[i] + weights[i]
        moment[i + 1] = moment[i] + weights[i] * points[i]
        square[i + 1] = square[i] + weights[i] * points[i] * points[i]
    firsts = np.zeros((clusters, count + 1), np.int32)
    before, row = np.zeros(count + 1), np.zeros(count + 1)
    for j in range(1, count + 1):
        before[j] = square[j] - moment[j] * moment[j] / mass[j]
    # intervals of j yet to do, each with the least and the greatest first member
    stack = np.empty((128, 4), np.int64)
    for q in range(1, clusters):
        stack[0] = (0, count, 0, count)
        top = 1
        while top > 0:
            top -= 1
            low, high, least, greatest = stack[top]
            middle = (low + high) // 2
            best, first = np.inf, least
            for i in range(least, min(greatest, middle) + 1):
                error = 0.0
                if i < middle:
                    sums = moment[middle] - moment[i]
                    error = square[middle] - square[i] - sums * sums / (mass[middle] - mass[i])
                if before[i] + error < best:
                    best, first = before[i] + error, i
            row[middle], firsts[q, middle] = best, first
            if middle > low:
                stack[top] = (low, middle - 1, least, first)
                top += 1
            if middle < high:
                stack[top] = (middle + 1, high, first, greatest)
                top += 1
        before[:] = row
    return firsts
