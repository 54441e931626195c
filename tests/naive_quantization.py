"""Quantizers and calibrations in plain loops over numbers, from the formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = [
    "affine_code",
    "best_of_all",
    "divergence",
    "entropy_limits",
    "mean_square_limits",
    "nearest",
    "percentile",
    "rounded_error",
]


def half_even(x: float) -> int:
    """Round to the nearest integer, halves to even."""
    return round(x)


def affine_code(x: float, scale: float, zero_point: int, limits: tuple[int, int]) -> int:
    """Return one code, computed in float32."""
    code = half_even(float(np.float32(x) / np.float32(scale))) + zero_point
    return min(max(code, limits[0]), limits[1])


def nearest(levels: Sequence[float], x: float) -> int:
    """Return the index of the nearest level, the first of equals."""
    distances = [abs(float(level) - float(x)) for level in levels]
    return distances.index(min(distances))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile, interpolated linearly."""
    ordered = sorted(values)
    place = percent / 100 * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def grid_of(
    limits: tuple[float, float], bits: int, symmetric: bool
) -> tuple[float, int, tuple[int, int]]:
    """Return step, zero point, and the least and the greatest code of a grid over a range."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    most = 2 ** (bits - 1) - 1
    if symmetric:
        step = np.float32(2 * max(-low, high) / (2 * most))
        return float(step) or 1.0, 0, (-most, most)
    step = float(np.float32((high - low) / (2**bits - 1))) or 1.0
    return step, -most - 1 - half_even(low / step), (-most - 1, most)


def rounded_error(
    values: Sequence[float], limits: tuple[float, float], bits: int, symmetric: bool = True
) -> float:
    """Return the squared error of a grid over a range."""
    step, zero_point, ends = grid_of(limits, bits, symmetric)
    error = 0.0
    for x in values:
        code = affine_code(x, step, zero_point, ends)
        error += (x - float(np.float32(code - zero_point) * np.float32(step))) ** 2
    return error


def mean_square_limits(
    values: Sequence[float], bits: int, candidates: int, symmetric: bool = True
) -> tuple[float, float]:
    """Return the shrunken extremes of least error, by trying every candidate."""
    tried = []
    for candidate in range(1, candidates + 1):
        part = candidate / candidates
        limits = (min(values) * part, max(values) * part)
        tried.append((rounded_error(values, limits, bits, symmetric), -candidate, limits))
    return min(tried)[2]


def divergence(counts: Sequence[int], kept: int, groups: int) -> float:
    """Return KL(P || Q) of a histogram whose first bins are kept."""
    p = [float(count) for count in counts[:kept]]
    p[-1] += sum(counts[kept:])
    q = [0.0] * kept
    for group in range(groups):
        members = [j for j in range(kept) if j * groups // kept == group]
        filled = [j for j in members if counts[j] > 0]
        for j in filled:
            q[j] = sum(counts[i] for i in members) / len(filled)
    total_p, total_q = sum(p), sum(q)
    found = 0.0
    for mass, model in zip(p, q, strict=True):
        if mass > 0 and model == 0:
            return math.inf
        if mass > 0:
            found += mass / total_p * math.log((mass / total_p) / (model / total_q))
    return found


def entropy_limits(
    values: Sequence[float], groups: int, bins: int, stride: int
) -> tuple[float, float]:
    """Return the range of least divergence, by trying every candidate."""
    width = max(abs(x) for x in values) / bins
    counts = [0] * bins
    for x in values:
        counts[min(int(abs(x) / width), bins - 1)] += 1
    candidates = range(bins, groups - 1, -stride)
    best = min(candidates, key=lambda kept: (divergence(counts, kept, groups), -kept))
    return max(min(values), -best * width), min(max(values), best * width)


def best_of_all(values: Sequence[float], clusters: int) -> float:
    """Return the least squared error of any split of ordered numbers into clusters."""
    from itertools import combinations

    ordered = sorted(values)
    least = math.inf
    for cuts in combinations(range(1, len(ordered)), clusters - 1):
        error = 0.0
        for start, stop in zip((0, *cuts), (*cuts, len(ordered)), strict=True):
            part = ordered[start:stop]
            mean = sum(part) / len(part)
            error += sum((x - mean) ** 2 for x in part)
        least = min(least, error)
    return least
