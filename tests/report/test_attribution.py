"""Every cycle belongs to one layer: against a loop over cycles."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton.program import Program
from lepton.report.attribution import BUSY, attribute, cause_group
from lepton.trace import RECORD, Trace

QUEUES = ("load0", "store0", "weights", "matrix", "vector")
CORES = 3
SHARED = tuple(f"{core}.{name}" for core in range(CORES) for name in QUEUES)
OPERATORS = 4
TIMES = ("dispatch", "start", "end", "retire", "stall_bank", "stall_memory")


@st.composite
def traces(draw: st.DrawFn, queues: tuple[str, ...] = QUEUES) -> Trace:
    """A trace whose units run their instructions one after the other, with gaps."""
    count = draw(st.integers(1, 14))
    records = np.zeros(count, RECORD)
    free = [0] * len(queues)
    for index in range(count):
        queue = draw(st.integers(-1, len(queues) - 1))
        dispatch = draw(st.integers(0, 6)) + (free[queue] if queue >= 0 else 0)
        start = dispatch + draw(st.integers(0, 5))
        length = draw(st.integers(0, 9)) if queue >= 0 else 0
        end = start + length
        if queue >= 0:
            free[queue] = end
        bank = draw(st.integers(0, length))
        row = records[index]
        row["instruction"], row["operator"] = index, draw(st.integers(0, OPERATORS - 1))
        row["queue"], row["dispatch"], row["start"], row["end"] = queue, dispatch, start, end
        row["retire"] = end + draw(st.integers(0, 3))
        row["cause_queue"] = draw(st.integers(-1, len(queues) - 1))
        row["stall_bank"] = bank
        row["stall_memory"] = draw(st.integers(0, length - bank))
    cycles = int(records["retire"].max()) + draw(st.integers(0, 4))
    return Trace(records, queues, cycles, ((0, cycles),), (), 64, 10**9)


def naive_owners(trace: Trace) -> list[list[int]]:
    """The layers that divide each cycle, by the rules of the module's docstring."""
    rows = list(trace.records)
    units = [name.split(".")[-1] for name in trace.queues]
    name = ["control" if r["queue"] < 0 else units[r["queue"]] for r in rows]
    computes = {int(r["operator"]) for r, n in zip(rows, name, strict=True) if n in BUSY}
    carriers: list[tuple[int, int]] = []
    for i, (r, n) in enumerate(zip(rows, name, strict=True)):
        if n in BUSY:
            carriers.append((BUSY.index(n), i))
        elif n != "control" and int(r["operator"]) not in computes:
            carriers.append((2, i))
    owners: list[list[int]] = []
    for cycle in range(trace.cycles):
        running = [
            (kind, int(rows[i]["queue"]), i)
            for kind, i in carriers
            if rows[i]["start"] <= cycle < rows[i]["end"]
        ]
        ahead = [(int(rows[i]["start"]), i) for _, i in carriers if rows[i]["start"] > cycle]
        if running:
            kind = min(running)[0]
            chosen = [i for other, _, i in sorted(running) if other == kind]
            chosen = chosen[:1] if BUSY[kind] == "transfer" else chosen
        elif ahead:
            chosen = [min(ahead)[1]]
        else:
            retire = [-1 if r["queue"] < 0 else int(r["retire"]) for r in rows]
            chosen = [retire.index(max(retire))]
        owners.append([int(rows[i]["operator"]) for i in chosen])
    return owners


@given(traces())
def test_every_cycle_has_the_owner_of_the_rules(trace: Trace) -> None:
    spent = attribute(trace, OPERATORS)
    owners = [owner for (owner,) in naive_owners(trace)]
    assert spent.cycles.tolist() == np.bincount(owners, minlength=OPERATORS).tolist()
    assert spent.table.sum() == trace.cycles
    assert (spent.table >= 0).all()
    assert np.repeat(spent.operator, np.diff(spent.edges)).tolist() == owners


@given(traces(SHARED))
def test_cores_that_work_at_a_time_divide_the_cycle_among_their_layers(trace: Trace) -> None:
    # six times as long, so that whole cycles fall to each of one, two or three cores
    records = trace.records.copy()
    for name in TIMES:
        records[name] *= math.factorial(CORES)
    longer = dataclasses.replace(trace, records=records, cycles=trace.cycles * 6)
    expected = [Fraction(0)] * OPERATORS
    for owners in naive_owners(trace):
        for owner in owners:
            expected[owner] += Fraction(6, len(owners))
    spent = attribute(longer, OPERATORS)
    assert spent.cycles.tolist() == expected
    assert spent.table.sum() == longer.cycles
    # and with lengths that cannot be divided, to the last cycle
    spent = attribute(trace, OPERATORS)
    assert spent.table.sum() == trace.cycles
    assert (spent.table >= 0).all()
    assert (np.diff(spent.edges) >= 0).all()


def test_a_trace_of_nothing_has_no_cycles() -> None:
    trace = Trace(np.zeros(0, RECORD), QUEUES, 0, (), (), 64, 10**9)
    assert attribute(trace, 2).cycles.tolist() == [0, 0]


def test_causes_of_a_wait() -> None:
    records = np.zeros(2, RECORD)
    records["operator"], records["queue"] = [0, 1], [0, 3]
    records["dispatch"], records["start"] = [0, 3], [0, 10]
    records["end"], records["retire"] = [8, 14], [10, 15]
    records["cause_queue"] = [-1, 0]
    records["instruction"] = [0, 1]
    trace = Trace(records, QUEUES, 16, ((0, 16),), (), 64, 10**9)
    spent = attribute(trace, 2)
    found = dict(zip(spent.causes, spent.table[1].tolist(), strict=True))
    assert {cause: cycles for cause, cycles in found.items() if cycles} == {
        "matrix": 4,
        "write_back": 2,
        "wait_load0": 2,
    }
    first = dict(zip(spent.causes, spent.table[0].tolist(), strict=True))
    # operator 0 is a transfer alone: [0, 8) is its own work
    assert first["transfer"] == 8


@pytest.mark.parametrize(
    ("cause", "group"),
    [
        ("matrix", "compute"),
        ("vector", "vector"),
        ("bank", "memory"),
        ("wait_load1", "memory"),
        ("write_back", "memory"),
        ("wait_matrix", "latency"),
        ("wait_3.vector", "latency"),
        ("wait_1.weights", "memory"),
        ("fetch", "fetch"),
    ],
)
def test_groups_of_causes(cause: str, group: str) -> None:
    assert cause_group(cause) == group


def test_real_runs_add_up(run: tuple[Program, Trace]) -> None:
    program, trace = run
    spent = attribute(trace, len(program.operators))
    assert spent.table.sum() == trace.cycles
    assert (spent.table >= 0).all()
