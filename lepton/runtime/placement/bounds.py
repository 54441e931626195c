"""What no placement beats."""

from __future__ import annotations

import numpy as np

from lepton.runtime.placement.problem import I64, NEVER, Goal, Problem

__all__ = ["bound"]

_ROUNDS = 200


def bound(problem: Problem, goal: Goal) -> int:
    """Return a value that no placement of a problem falls below."""
    if goal is Goal.ENERGY:
        power = np.array([device.power_mw for device in problem.devices], np.int64)
        spent = np.where(problem.cost < NEVER, problem.cost * power, NEVER)
        return int(spent.min(1).sum())
    load = _load_bound(problem.cost)
    return load if goal is Goal.THROUGHPUT else max(load, _path_bound(problem))


def _path_bound(problem: Problem) -> int:
    """Return the longest way through the network if no two operations met on a device or link."""
    finish = np.zeros_like(problem.cost)
    changes = ~np.eye(len(problem.devices), dtype=np.bool_)
    for number, operation in enumerate(problem.operations):
        ready = np.zeros(len(problem.devices), np.int64)
        if problem.opens[number]:
            ready += problem.launch
        for tensor in operation.operands:
            source = problem.tensors[tensor].source
            moved = problem.transfer[tensor] + changes * problem.launch[None, :]
            ready = np.maximum(ready, (finish[source][:, None] + moved).min(0))
        finish[number] = np.minimum(ready + problem.cost[number], NEVER)
    return int(finish.min(1).max(initial=0))


def _load_bound(cost: I64) -> int:
    """Return what the busiest device's work is at least.

    For weights w of the devices that sum to 1 it is the sum over operations of the least
    w[d] cost[d]. The weights grow where operations go, and the best of all rounds counts; they are
    multiples of 2^-20, which keeps the sums whole.
    """
    weights = np.full(cost.shape[1], 1 / max(cost.shape[1], 1))
    best = 0
    for _ in range(_ROUNDS):
        whole = np.floor(weights * (1 << 20)).astype(np.int64)
        priced = np.where(cost < NEVER, np.minimum(cost, NEVER) * whole, np.int64(1) << 62)
        chosen = priced.argmin(1)
        total = sum(int(priced[row, device]) for row, device in enumerate(chosen))
        best = max(best, total >> 20)
        load = np.bincount(
            chosen, weights=cost[np.arange(len(cost)), chosen], minlength=len(weights)
        )
        if not load.max(initial=0):
            return best
        weights = weights * np.exp(0.1 * load / load.max())
        weights /= weights.sum()
    return best
