"""Which bytes of the scratchpad are live when, from the instructions' footprints and times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton.errors import CheckError
from lepton.isa.footprints import Space, ends, footprints, space_of
from lepton.program import Program
from lepton.trace import Trace

__all__ = ["Occupancy", "fullest_core", "occupancy", "touched_bytes"]

I64 = NDArray[np.int64]


def _boxes(program: Program, core: int) -> I64:
    """Return the boxes of a core's scratchpad."""
    boxes = footprints(program.table, program.chip.cores)
    return boxes[boxes[:, 1] == space_of(core, Space.SCRATCHPAD)]


def touched_bytes(program: Program) -> int:
    """Return how many different bytes of its scratchpad the core reads or writes that needs most.

    Raises:
        CheckError: an instruction reaches beyond the scratchpad.
    """
    return max(_touched(program, core) for core in range(program.chip.cores))


def fullest_core(program: Program) -> int:
    """Return the core that reads or writes most different bytes of its scratchpad."""
    return max(range(program.chip.cores), key=lambda core: _touched(program, core))


def _touched(program: Program, core: int) -> int:
    """Return how many different bytes of its scratchpad a core reads or writes."""
    boxes = _boxes(program, core)
    touched = np.zeros(program.chip.scratchpad.size_bytes, np.bool_)
    if ends(boxes).max(initial=0) > len(touched):
        raise CheckError("an instruction reaches beyond the scratchpad; `lepton check` names it")
    for base, run, n0, s0, n1, s1, n2, s2 in np.unique(boxes[:, 3:], axis=0).tolist():
        shape, strides = (n0, n1, n2, run), (s0, s1, s2, 1)
        np.lib.stride_tricks.as_strided(touched[base:], shape, strides)[...] = True
    return int(np.count_nonzero(touched))


@dataclass(frozen=True)
class Occupancy:
    """Rectangles of live bytes, all `[k]`: from the first write to the last read before the next.

    Attributes:
        low: first byte.
        high: one past the last byte.
        start: cycle at which the first writer starts.
        end: cycle at which the last reader ends.
        operator: operator of the first writer.
        writer: the first writer, an instruction.
    """

    low: I64
    high: I64
    start: I64
    end: I64
    operator: I64
    writer: I64

    def live_bytes(self) -> tuple[I64, I64]:
        """Return cycles and the live bytes from each of them on."""
        size = self.high - self.low
        times = np.concatenate([self.start, self.end])
        change = np.concatenate([size, -size])
        edges, index = np.unique(times, return_inverse=True)
        steps = np.zeros(len(edges), np.int64)
        np.add.at(steps, index, change)
        return edges, np.cumsum(steps)

    @property
    def peak_bytes(self) -> int:
        """Most bytes live at once."""
        return int(self.live_bytes()[1].max(initial=0))


def _hulls(boxes: I64) -> tuple[I64, I64]:
    """Return the first and one past the last byte of every box."""
    high = boxes[:, 3] + boxes[:, 4]
    for count in (5, 7, 9):
        high = high + (boxes[:, count] - 1) * boxes[:, count + 1]
    return boxes[:, 3], high


def _events(boxes: I64, trace: Trace) -> dict[str, I64]:
    """Return one row per box and elementary cell, ordered by cell and time, reads first."""
    low, high = _hulls(boxes)
    bounds = np.unique(np.concatenate([low, high]))
    first, last = np.searchsorted(bounds, low), np.searchsorted(bounds, high)
    count = last - first
    box = np.repeat(np.arange(len(boxes)), count)
    offset = np.arange(len(box)) - np.repeat(np.cumsum(count) - count, count)
    cell = first[box] + offset
    instruction = boxes[box, 0]
    start, end = trace.records["start"][instruction], trace.records["retire"][instruction]
    write = boxes[box, 2]
    order = np.lexsort((write, start, cell))
    made = {"cell": cell, "write": write, "start": start, "end": np.maximum(end, start)}
    made["instruction"] = instruction
    made["operator"] = trace.records["operator"][instruction]
    made = {name: column[order] for name, column in made.items()}
    return made | {"bounds": bounds}


def _merge(parts: tuple[I64, ...]) -> tuple[I64, ...]:
    """Join rectangles that lie on each other with equal times and operator."""
    low, _, start, end, operator, _ = parts
    order = np.lexsort((low, operator, end, start))
    low, high, start, end, operator, writer = (column[order] for column in parts)
    joins = (low[1:] == high[:-1]) & (start[1:] == start[:-1])
    joins &= (end[1:] == end[:-1]) & (operator[1:] == operator[:-1])
    first = np.flatnonzero(np.concatenate([[True], ~joins]))
    last = np.concatenate([first[1:], [len(low)]]) - 1
    return low[first], high[last], start[first], end[first], operator[first], writer[first]


def occupancy(program: Program, trace: Trace, core: int = 0) -> Occupancy:
    """Return the live rectangles of a run in a core's scratchpad, each box taken as its hull.

    A write after a read begins a new rectangle; a write that nobody reads lives as long as its
    instruction.
    """
    boxes = _boxes(program, core)
    if not len(boxes):
        none = np.zeros(0, np.int64)
        return Occupancy(none, none, none, none, none, none)
    e = _events(boxes, trace)
    begins = np.ones(len(e["cell"]), bool)
    same = e["cell"][1:] == e["cell"][:-1]
    begins[1:] = ~same | ((e["write"][1:] == 1) & (e["write"][:-1] == 0))
    first = np.flatnonzero(begins)
    cell, start = e["cell"][first], e["start"][first]
    end = np.maximum.reduceat(e["end"], first)
    # what is overwritten in place is not there twice
    again = cell[1:] == cell[:-1]
    end[:-1] = np.where(again, np.minimum(end[:-1], start[1:]), end[:-1])
    parts = (
        e["bounds"][cell],
        e["bounds"][cell + 1],
        start,
        end,
        e["operator"][first],
        e["instruction"][first],
    )
    return Occupancy(*_merge(parts))
