"""Searches: all placements of a small problem, and better ones of a large problem."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod

import numpy as np

from lepton.runtime.placement.problem import Goal, Problem
from lepton.runtime.placement.values import Placements, values

__all__ = ["MAXIMUM_PLACEMENTS", "all_placements", "count_placements", "improved"]

MAXIMUM_PLACEMENTS = 1 << 17
"""Placements of one block, or of a problem whose blocks depend on each other, that are all tried:
17 operations that two devices can run, or 10 that three can."""

_CHUNK = 1 << 14
_ROUNDS = 60


def count_placements(problem: Problem) -> int:
    """Return how many placements a problem has."""
    return prod(len(choices) for choices in problem.choices)


def all_placements(problem: Problem) -> Iterator[Placements]:
    """Yield all placements, some thousands at a time."""
    radices = [len(choices) for choices in problem.choices]
    total = prod(radices)
    for start in range(0, total, _CHUNK):
        left = np.arange(start, min(start + _CHUNK, total))
        made = np.empty((len(left), len(radices)), np.int8)
        for number, choices in enumerate(problem.choices):
            left, digit = np.divmod(left, len(choices))
            made[:, number] = np.array(choices, np.int8)[digit]
        yield made


def improved(
    problem: Problem, starts: Iterable[Sequence[int]], goal: Goal
) -> tuple[tuple[int, ...], int]:
    """Return the best placement that local search finds from the best of some, and its value.

    A step moves 1, 2, 4, ... operations that follow each other in the order of the schedule to one
    device, as far as they can run there; the best step of all is taken while it gains.
    """
    tried = np.array(list(starts), np.int8)
    worth = values(problem, tried, goal)
    best, value = tried[worth.argmin()], int(worth.min())
    for _ in range(_ROUNDS):
        steps = _steps(problem, best)
        if not len(steps):
            break
        worth = values(problem, steps, goal)
        if worth.min() >= value:
            break
        best, value = steps[worth.argmin()], int(worth.min())
    return tuple(int(device) for device in best), value


def _steps(problem: Problem, placement: Placements) -> Placements:
    """Return the placements that one step leads to."""
    order = np.array(problem.order)
    made: list[Placements] = []
    length = 1
    while length <= len(order):
        for start in range(0, len(order) - length + 1, max(length // 2, 1)):
            moved = order[start : start + length]
            for device in range(len(problem.devices)):
                able = [number for number in moved if device in problem.choices[number]]
                if any(placement[number] != device for number in able):
                    step = placement.copy()
                    step[able] = device
                    made.append(step)
        length *= 2
    return np.array(made, np.int8).reshape(len(made), len(order))
