"""Where every cycle of a run went, layer by layer.

Each cycle of [0, total) belongs to exactly one layer, the first of these that applies:

1. the layer whose instruction occupies the matrix unit;
2. else the layer whose instruction occupies the vector unit;
3. else a layer of transfers alone (a copy, say) whose load or store is under way;
4. else nothing computes, and the cycle is a stall of the layer whose instruction starts next:
   `fetch` before that instruction has been dispatched, `wait_<queue>` for the queue whose signal
   it needed after that;
5. after the last of them `write_back`, of the layer that retires last.

Where the same unit of several cores works at a time, each core's layer has an equal part of it.

So the layers add up to the total exactly, and no layer's array is used above its peak. What runs
hidden behind another layer's computation (prefetched weights) costs a layer nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton.trace import Trace

__all__ = ["BUSY", "Attribution", "attribute", "cause_group", "computing_unit"]

I64 = NDArray[np.int64]

BUSY = ("matrix", "vector", "transfer")
"""Causes that are work, not stalls."""

_FETCH, _WRITE_BACK, _START, _FIRST_QUEUE = 3, 4, 5, 6


@dataclass(frozen=True)
class Attribution:
    """Segments of the timeline, each of one layer and one cause.

    Attributes:
        edges: `[m + 1]` cycles; segment k is [edges[k], edges[k + 1]).
        operator: `[m]` operator of each segment.
        causes: names of the causes; `table` has a column for each.
        table: `[operators, causes]` cycles; its sum is the trace's total.
    """

    edges: I64
    operator: I64
    causes: tuple[str, ...]
    table: I64

    @property
    def cycles(self) -> I64:
        """Cycles `[operators]` of each layer."""
        return self.table.sum(axis=1)


def computing_unit(causes: Mapping[str, int]) -> str:
    """Return the unit that computes a layer, by its cycles per cause: the array if it is used."""
    return next((unit for unit in BUSY if causes.get(unit)), "")


def cause_group(cause: str) -> str:
    """Return what a cause means for a layer: compute, vector, memory, fetch or latency."""
    if cause == "matrix":
        return "compute"
    if cause in ("vector", "fetch"):
        return cause
    waits = cause.removeprefix("wait_").rpartition(".")[2]
    return "latency" if waits in ("matrix", "vector", "start") else "memory"


def _carriers(trace: Trace) -> tuple[I64, I64]:
    """Return the instructions that may own cycles, and the class (index into `BUSY`) of each."""
    queue = trace.records["queue"]
    units = [name.rpartition(".")[2] for name in trace.queues]
    names = np.array([*units, "control"])[queue]
    kind = np.full(len(queue), -1, np.int64)
    kind[names == "matrix"] = 0
    kind[names == "vector"] = 1
    operators = trace.records["operator"]
    alone = ~np.isin(operators, np.unique(operators[kind >= 0]))
    kind[alone & (queue >= 0)] = 2
    chosen = np.flatnonzero(kind >= 0)
    return chosen, kind[chosen]


def _running(starts: I64, ends: I64, at: I64) -> I64:
    """Return the position of the disjoint, ordered interval that covers each time, or -1."""
    found = np.searchsorted(starts, at, "right") - 1
    covered = (found >= 0) & (ends[np.maximum(found, 0)] > at) if len(starts) else found >= 0
    return np.where(covered, found, -1)


def _runners(trace: Trace, mine: I64, at: I64) -> I64:
    """Return which of a queue's instructions runs at each time, or -1."""
    records = trace.records
    mine = mine[records["end"][mine] > records["start"][mine]]
    found = _running(records["start"][mine], records["end"][mine], at)
    return np.where(found >= 0, mine[found], -1) if len(mine) else found


def _owners(trace: Trace, chosen: I64, kind: I64, edges: I64) -> tuple[I64, I64, I64]:
    """Return edges, and instruction and cause of each segment in which something runs, else -1.

    A segment in which units of several cores run is cut into one for each.
    """
    at = edges[:-1]
    owner, cause = np.full(len(at), -1, np.int64), np.full(len(at), -1, np.int64)
    queue = trace.records["queue"][chosen]
    numbers = [np.unique(queue[kind == one]) for one in range(len(BUSY))]
    parts = np.ones(len(at), np.int64)
    part = np.full((max(1, *map(len, numbers[:-1])), len(at)), -1, np.int64)
    for one, used in enumerate(numbers):
        if not len(used):
            continue
        runs = np.array([_runners(trace, chosen[(kind == one) & (queue == q)], at) for q in used])
        fresh = (owner < 0) & (runs >= 0).any(axis=0)
        # those that run come first, in the order of their queues
        runs = np.take_along_axis(runs, np.argsort(runs < 0, axis=0, kind="stable"), axis=0)
        owner[fresh], cause[fresh] = runs[0][fresh], one
        if BUSY[one] != "transfer":
            parts[fresh] = (runs >= 0).sum(axis=0)[fresh]
            part[: len(runs), fresh] = runs[:, fresh]
    if parts.max(initial=1) == 1:
        return edges, owner, cause
    return _divided(edges, owner, cause, (parts, part))


def _divided(edges: I64, owner: I64, cause: I64, among: tuple[I64, I64]) -> tuple[I64, I64, I64]:
    """Cut segments into so many parts; the k-th row of the other array owns the k-th of each."""
    parts, part = among
    segment = np.repeat(np.arange(len(owner)), parts)
    number = np.arange(len(segment)) - np.repeat(np.cumsum(parts) - parts, parts)
    begins = edges[segment] + (edges[segment + 1] - edges[segment]) * number // parts[segment]
    is_shared = parts[segment] > 1
    owners = np.where(is_shared, part[number * is_shared, segment], owner[segment])
    return np.append(begins, edges[-1]), owners, cause[segment]


def _fill_gaps(trace: Trace, chosen: I64, at: I64, owner: I64, cause: I64) -> None:
    """Give the times at which nothing runs to the instruction that starts next, in place."""
    records = trace.records
    order = chosen[np.argsort(records["start"][chosen], kind="stable")]
    gaps = np.flatnonzero(owner < 0)
    following = np.searchsorted(records["start"][order], at[gaps], "right")
    late = following >= len(order)
    owner[gaps[late]] = int(np.argmax(np.where(records["queue"] < 0, -1, records["retire"])))
    cause[gaps[late]] = _WRITE_BACK
    gaps, ahead = gaps[~late], order[following[~late]]
    owner[gaps] = ahead
    queue = records["cause_queue"][ahead]
    waits = np.where(queue < 0, _START, _FIRST_QUEUE + queue)
    cause[gaps] = np.where(at[gaps] < records["dispatch"][ahead], _FETCH, waits)


def attribute(trace: Trace, operators: int) -> Attribution:
    """Return the attribution of a trace to `operators` operators."""
    causes = (*BUSY, "fetch", "write_back", "wait_start")
    causes += (*(f"wait_{name}" for name in trace.queues), "bank", "memory")
    table = np.zeros((operators, len(causes)), np.int64)
    records = trace.records
    if not len(records) or not trace.cycles:
        return Attribution(np.zeros(1, np.int64), np.zeros(0, np.int64), causes, table)
    chosen, kind = _carriers(trace)
    times = [records[name][chosen] for name in ("dispatch", "start", "end")]
    edges = np.unique(np.concatenate([*times, [0, trace.cycles]]))
    edges = edges[(edges >= 0) & (edges <= trace.cycles)]
    edges, owner, cause = _owners(trace, chosen, kind, edges)
    _fill_gaps(trace, chosen, edges[:-1], owner, cause)
    length = np.diff(edges)
    operator = records["operator"][owner].astype(np.int64)
    np.add.at(table, (operator, cause), length)
    _split_stalls(trace, table, (owner, cause, length))
    return Attribution(edges, operator, causes, table)


def _split_stalls(trace: Trace, table: I64, segments: tuple[I64, I64, I64]) -> None:
    """Move the share of bank and memory stalls out of the busy columns, in place."""
    owner, cause, length = segments
    running = cause < len(BUSY)
    share = np.zeros(len(trace.records), np.int64)
    np.add.at(share, owner[running], length[running])
    kind = np.zeros(len(trace.records), np.int64)
    kind[owner[running]] = cause[running]
    records = trace.records
    occupied = np.maximum(records["end"] - records["start"], 1)
    for column, name in ((-2, "stall_bank"), (-1, "stall_memory")):
        lost = records[name] * share // occupied
        np.add.at(table, (records["operator"], kind), -lost)
        np.add.at(table[:, column], records["operator"], lost)
