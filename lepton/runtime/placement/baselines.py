"""What others do: devices in an order of priority, and one device with a fallback."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from lepton.errors import InputError
from lepton.runtime.placement.problem import Goal, Problem
from lepton.runtime.placement.schedule import ListSchedule
from lepton.runtime.placement.values import values

__all__ = ["baselines", "best_single", "greedy", "heft"]

Placement = tuple[int, ...]


def greedy(problem: Problem, priority: Sequence[int]) -> Placement:
    """Return the placement in which each device, by priority, claims all that it can run.

    This is how execution providers and delegates are chosen: no cost is asked for. What exceeds a
    memory goes to the next device.

    Raises:
        InputError: the memories do not hold the weights in this way.
    """
    left = [device.memory_bytes for device in problem.devices]
    made: list[int] = []
    for operation, choices in zip(problem.operations, problem.choices, strict=True):
        ranked = [device for device in priority if device in choices]
        room = [device for device in ranked if _holds(left[device], operation.weight_bytes)]
        if not room:
            raise InputError(f"no device has memory left for '{operation.name}'")
        limit = left[room[0]]
        if limit is not None:
            left[room[0]] = limit - operation.weight_bytes
        made.append(room[0])
    return tuple(made)


def _holds(left: int | None, size_bytes: int) -> bool:
    return left is None or left >= size_bytes


def baselines(problem: Problem) -> list[Placement]:
    """Return the placements of all priorities that the memories hold.

    Raises:
        InputError: they hold none.
    """
    found: list[Placement] = []
    fault = InputError("there are no devices")
    for priority in permutations(range(len(problem.devices))):
        try:
            found.append(greedy(problem, priority))
        except InputError as error:
            fault = error
    if not found:
        raise fault
    return list(dict.fromkeys(found))


def best_single(problem: Problem, goal: Goal) -> Placement:
    """Return the best placement on one device, with the others for what it cannot run.

    Raises:
        InputError: the memories hold the weights in none of these ways.
    """
    found = baselines(problem)
    worth = values(problem, np.array(found, np.int8), goal)
    return found[int(worth.argmin())]


def heft(problem: Problem) -> Placement:
    """Return the placement that runs each operation where it ends first; memories are ignored."""
    made = ListSchedule(problem)
    for number in problem.order:
        choices = problem.choices[number]
        made.add(number, min(choices, key=lambda device: made.finish_on(number, device)))
    return tuple(made.device_of[number] for number in range(len(problem.operations)))
