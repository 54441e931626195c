"""Points that no other is better than in every objective, and the volume that they dominate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["fronts_in_order", "hypervolume", "hypervolume_share", "non_dominated"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

_BLOCK = 512


def non_dominated(values: F64) -> Mask:
    """Return which rows of `[n, objectives]`, all minimized, no other row dominates.

    Of equal rows all stay. A row with NaN never does, nor does it dominate.
    """
    found = np.zeros(len(values), np.bool_)
    sound = np.flatnonzero(~np.isnan(values).any(axis=1))
    # who dominates a row comes before it in this order, or is equal
    order = sound[np.lexsort(values[sound].T[::-1])]
    front = np.zeros((0, values.shape[1]))
    for start in range(0, len(order), _BLOCK):
        rows = values[order[start : start + _BLOCK]]
        left = ~_dominated(rows, front)
        mine = np.flatnonzero(left)
        mine = mine[~_dominated(rows[mine], rows[mine])]
        found[order[start + mine]] = True
        front = np.concatenate([front, np.unique(rows[mine], axis=0)])
    return found


def _dominated(rows: F64, by: F64) -> Mask:
    """Return which rows another set of rows dominates."""
    dominated = np.zeros(len(rows), np.bool_)
    for start in range(0, len(by), _BLOCK):
        other = by[start : start + _BLOCK]
        left = np.flatnonzero(~dominated)
        as_good = np.ones((len(left), len(other)), np.bool_)
        better = np.zeros_like(as_good)
        for column in range(rows.shape[1]):
            mine, theirs = rows[left, column][:, None], other[None, :, column]
            as_good &= theirs <= mine
            better |= theirs < mine
        dominated[left] = (as_good & better).any(axis=1)
    return dominated


def fronts_in_order(values: F64, most: int) -> I64:
    """Return the rows of the first front, then of the next without it, until there are so many.

    Within a front rows are spread: those far from their neighbours come first.
    """
    left = np.flatnonzero(~np.isnan(values).any(axis=1))
    chosen: list[I64] = []
    count = 0
    while len(left) and count < most:
        mask = non_dominated(values[left])
        front = left[mask]
        chosen.append(front[_by_spread(values[front])])
        count += len(front)
        left = left[~mask]
    return np.concatenate([np.zeros(0, np.int64), *chosen])[:most]


def _by_spread(values: F64) -> I64:
    """Return the order in which each row is farthest from those before it; the best come first.

    Distances are of logarithms where all values of an objective have one sign, so that a front that
    spans decades is covered evenly.
    """
    scaled = np.empty_like(values)
    for column, own in enumerate(values.T):
        one_sign = (own > 0).all() or (own < 0).all()
        seen = np.log(np.abs(own)) if one_sign else own
        span = seen.max() - seen.min()
        scaled[:, column] = (seen - seen.min()) / span if span else 0.0
    order = list(dict.fromkeys(values.argmin(axis=0).tolist()))
    nearest = np.full(len(values), np.inf)
    for row in order:
        nearest = np.minimum(nearest, np.abs(scaled - scaled[row]).max(axis=1))
    nearest[order] = -1.0
    while len(order) < len(values):
        row = int(nearest.argmax())
        order.append(row)
        nearest = np.minimum(nearest, np.abs(scaled - scaled[row]).max(axis=1))
        nearest[order] = -1.0
    return np.array(order, np.int64)


def hypervolume(values: F64, reference: F64) -> float:
    """Return the volume that rows `[n, objectives]` dominate below a reference, all minimized."""
    inside = values[(values < reference).all(axis=1)]
    return _volume(inside[non_dominated(inside)], reference)


def _volume(front: F64, reference: F64) -> float:
    """Slice the volume along the last objective."""
    if not len(front):
        return 0.0
    if front.shape[1] == 1:
        return float(reference[0] - front.min())
    order = np.argsort(front[:, -1], kind="stable")
    levels = np.append(front[order, -1], reference[-1])
    total = 0.0
    for number in range(len(order)):
        height = levels[number + 1] - levels[number]
        if height > 0:
            below = front[order[: number + 1], :-1]
            total += height * _volume(below[non_dominated(below)], reference[:-1])
    return float(total)


def hypervolume_share(found: F64, everything: F64) -> float:
    """Return the hypervolume of some rows over that of all, from the worst of the whole front.

    Objectives are scaled to the front, so that none outweighs another.
    """
    front = everything[non_dominated(everything)]
    low, high = front.min(axis=0), front.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    reference = np.full(front.shape[1], 1.1)
    sound = found[~np.isnan(found).any(axis=1)]
    return hypervolume((sound - low) / span, reference) / hypervolume(
        (front - low) / span, reference
    )
