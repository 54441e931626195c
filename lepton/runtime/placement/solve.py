"""Solve a placement problem: exactly where it is a chain of small blocks, else with a bound."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from lepton.errors import InputError
from lepton.runtime.placement.baselines import baselines, heft
from lepton.runtime.placement.blocks import block_problem, joints
from lepton.runtime.placement.bounds import bound
from lepton.runtime.placement.problem import NEVER, Goal, Problem, pinned
from lepton.runtime.placement.search import (
    MAXIMUM_PLACEMENTS,
    all_placements,
    count_placements,
    improved,
)
from lepton.runtime.placement.values import values

__all__ = ["Solution", "solve"]

Placement = tuple[int, ...]


@dataclass(frozen=True)
class Solution:
    """A placement and how good it can at most be.

    Attributes:
        placement: the device of every operation.
        value: what the goal minimizes, of this placement.
        bound: what no placement falls below; the value itself where the method is exact.
        method: how it was found, for the user.
    """

    placement: Placement
    value: int
    bound: int
    method: str

    @property
    def gap(self) -> float:
        """How far the value may be from the best, as a share of the bound."""
        return 0.0 if self.value == self.bound else self.value / max(self.bound, 1) - 1


def solve(problem: Problem, goal: Goal = Goal.LATENCY) -> Solution:
    """Return the best placement that is found; never worse than the baselines.

    Raises:
        InputError: the memories cannot hold the network.
    """
    made = None if goal is Goal.THROUGHPUT else _solve_chain(problem, goal)
    if made is not None and made.value == made.bound:
        return made
    if count_placements(problem) <= MAXIMUM_PLACEMENTS:
        return _enumerated(problem, goal)
    starts = [*baselines(problem), heft(problem)]
    least = bound(problem, goal)
    if made is not None:
        starts.append(made.placement)
        least = max(least, made.bound)
    placement, value = improved(problem, starts, goal)
    return Solution(placement, value, least, "HEFT and local search")


def _enumerated(problem: Problem, goal: Goal) -> Solution:
    """Try all placements."""
    best, value = None, NEVER
    for chunk in all_placements(problem):
        worth = values(problem, chunk, goal)
        if worth.min() < value:
            best, value = chunk[worth.argmin()], int(worth.min())
    if best is None:
        raise InputError("the memories of the devices do not hold the network's weights")
    return Solution(tuple(best.tolist()), value, value, "all placements tried")


class _Way(NamedTuple):
    """The best way through a block, or a chain of them, between two devices."""

    value: int
    bound: int
    placement: Placement


_Ways = dict[tuple[int, int], _Way]
"""By the devices of the first and the last operation."""


def _solve_chain(problem: Problem, goal: Goal) -> Solution | None:
    """Solve block by block; None if there is one block only, or the result exceeds a memory."""
    found = joints(problem)
    if len(found) < 2:
        return None
    cost = problem.cost[0]
    power = [device.power_mw if goal is Goal.ENERGY else 1 for device in problem.devices]
    ways: _Ways = {}
    for device in problem.choices[0]:
        spent = int(cost[device]) * power[device]
        ways[device, device] = _Way(spent, spent, (device,))
    for first, last in pairwise(found):
        ways = _joined(ways, _block_ways(block_problem(problem, first, last), goal))
    best = min(ways.values(), key=lambda way: way.value)
    worth = int(values(problem, np.array([best.placement], np.int8), goal)[0])
    least = min(way.bound for way in ways.values())
    if worth >= NEVER:
        return None
    method = "dynamic programming over blocks"
    return Solution(best.placement, worth, worth if least >= best.value else least, method)


def _joined(ways: _Ways, block: _Ways) -> _Ways:
    """Return the best ways through a chain and one more block."""
    made: _Ways = {}
    least: dict[tuple[int, int], int] = {}
    for (start, middle), way in ways.items():
        for (entry, end), step in block.items():
            if entry != middle:
                continue
            key = start, end
            value = way.value + step.value
            least[key] = min(least.get(key, NEVER), way.bound + step.bound)
            if key not in made or value < made[key].value:
                made[key] = _Way(value, 0, (*way.placement, *step.placement[1:]))
    return {key: way._replace(bound=least[key]) for key, way in made.items()}


def _block_ways(block: Problem, goal: Goal) -> _Ways:
    """Return the best way through a block for each pair of devices of its ends."""
    if count_placements(block) > MAXIMUM_PLACEMENTS:
        return _searched_ways(block, goal)
    made: _Ways = {}
    unlimited = _without_limits(block)
    for chunk in all_placements(block):
        worth = values(unlimited, chunk, goal)
        ends = chunk[:, 0].astype(np.intp) * len(block.devices) + chunk[:, -1]
        for end in np.unique(ends).tolist():
            rows = np.flatnonzero(ends == end)
            row = rows[worth[rows].argmin()]
            value, key = int(worth[row]), divmod(int(end), len(block.devices))
            if value < NEVER and (key not in made or value < made[key].value):
                made[key] = _Way(value, value, tuple(chunk[row].tolist()))
    return made


def _searched_ways(block: Problem, goal: Goal) -> _Ways:
    """Return good ways through a large block, with bounds."""
    made: _Ways = {}
    unlimited = _without_limits(block)
    for start in block.choices[0]:
        for end in block.choices[-1]:
            ends = pinned(unlimited, {0: start, len(block.operations) - 1: end})
            placement, value = improved(ends, [*baselines(ends), heft(ends)], goal)
            if value < NEVER:
                made[start, end] = _Way(value, bound(ends, goal), placement)
    return made


def _without_limits(problem: Problem) -> Problem:
    """Return a problem without limits of memory."""
    devices = tuple(replace(device, memory_bytes=None) for device in problem.devices)
    return replace(problem, devices=devices)
