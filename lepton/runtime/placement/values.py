"""What many placements of one problem are worth, all at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.runtime.placement.problem import I64, NEVER, Goal, Problem

__all__ = ["Placements", "values"]

Placements = NDArray[np.int8]
"""`[placements, operations]` devices."""

_ROWS = 4096
_COLUMN = {Goal.LATENCY: 0, Goal.ENERGY: 1, Goal.THROUGHPUT: 2}


def values(problem: Problem, placements: Placements, goal: Goal) -> I64:
    """Return `[placements]` values as `lepton.runtime.placement.schedule` defines them.

    `NEVER` and more are worth placements that cannot run or exceed a memory.
    """
    made = np.empty(len(placements), np.int64)
    for first in range(0, len(placements), _ROWS):
        part = np.ascontiguousarray(placements[first : first + _ROWS].T).astype(np.intp)
        column = _Columns(problem, part).run()[_COLUMN[goal]]
        column[_exceeds(problem, part)] = NEVER
        made[first : first + _ROWS] = column
    return made


def _exceeds(problem: Problem, device_of: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which placements put more weights onto a device than it holds."""
    weights = np.array([operation.weight_bytes for operation in problem.operations], np.int64)
    found = np.zeros(device_of.shape[1], np.bool_)
    for number, device in enumerate(problem.devices):
        if device.memory_bytes is not None:
            found |= weights @ (device_of == number) > device.memory_bytes
    return found


class _Columns:
    """The state of a list schedule, one column per placement."""

    def __init__(self, problem: Problem, device_of: NDArray[np.intp]) -> None:
        count, devices = device_of.shape[1], len(problem.devices)
        self._problem, self._device_of = problem, device_of
        self._all = np.arange(count)
        self._finish = np.zeros((len(problem.operations), count), np.int64)
        self._free = np.zeros((devices, count), np.int64)
        self._busy = np.zeros((devices, count), np.int64)
        self._link_free = np.zeros((devices, devices, count), np.int64)
        self._link_busy = np.zeros((devices, devices, count), np.int64)
        self._arrival: dict[int, I64] = {}
        self._energy = np.zeros(count, np.int64)
        self._power = np.array([device.power_mw for device in problem.devices], np.int64)

    def run(self) -> tuple[I64, I64, I64]:
        """Return latencies, energies and periods."""
        for number in self._problem.order:
            self._operation(number)
        period = np.maximum(self._busy.max(0), self._link_busy.max((0, 1)))
        # what cannot run must not look cheap because its device draws nothing
        latency = self._finish.max(0)
        energy = np.where(latency >= NEVER, NEVER, self._energy)
        return latency, energy, period

    def _operation(self, number: int) -> None:
        """Run one operation in every column."""
        problem, mine = self._problem, self._device_of[number]
        ready = np.zeros(len(self._all), np.int64)
        enters = np.full(len(self._all), problem.opens[number])
        for tensor in dict.fromkeys(problem.operations[number].operands):
            source = problem.tensors[tensor].source
            arrival = self._finish[source].copy()
            rows = np.flatnonzero(self._device_of[source] != mine)
            if len(rows):
                enters[rows] = True
                arrival[rows] = self._moved(tensor, rows, mine[rows])
            np.maximum(ready, arrival, out=ready)
        start = np.maximum(ready, self._free[mine, self._all])
        cost = problem.cost[number, mine] + enters * problem.launch[mine]
        self._finish[number] = self._free[mine, self._all] = start + cost
        self._busy[mine, self._all] += cost
        self._energy += cost * self._power[mine]

    def _moved(self, tensor: int, rows: NDArray[np.intp], target: NDArray[np.intp]) -> I64:
        """Move a tensor in some columns to where it is not yet; return when it is there."""
        problem = self._problem
        there = self._arrival.get(tensor)
        if there is None:
            there = self._arrival[tensor] = np.full_like(self._free, -1)
        is_new = there[target, rows] < 0
        late, to = rows[is_new], target[is_new]
        source = problem.tensors[tensor].source
        home = self._device_of[source, late]
        taken = problem.transfer[tensor, home, to]
        start = np.maximum(self._finish[source, late], self._link_free[home, to, late])
        self._link_free[home, to, late] = there[to, late] = start + taken
        self._link_busy[home, to, late] += taken
        self._energy[late] += problem.transfer_pj[tensor, home, to]
        return there[target, rows]
