"""The critical path: without a gap from the first cycle to the last, and made of real causes."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

import lepton
from lepton.chip import load_chip
from lepton.models import digits_model_path
from lepton.program import Program
from lepton.report.critical_path import critical_path, path_cycles
from lepton.report.summary import summarize
from lepton.simulator import simulate_timing
from lepton.trace import Trace


@pytest.fixture(
    scope="module",
    params=[("nano", 1), ("edge", 1), ("like-u85-1024", 1), ("nano", 2), ("edge", 4)],
)
def run(request: pytest.FixtureRequest) -> tuple[Program, Trace]:
    name, cores = request.param
    chip = dataclasses.replace(load_chip(name), cores=cores)
    program = lepton.compile(digits_model_path(), chip=chip)
    return program, simulate_timing(program)


def test_steps_follow_each_other_and_add_up(run: tuple[Program, Trace]) -> None:
    program, trace = run
    reached = 0
    for step in critical_path(program, trace):
        assert step.start == reached < step.end
        reached = step.end
    assert reached == trace.cycles


def test_steps_lie_within_what_they_name(run: tuple[Program, Trace]) -> None:
    program, trace = run
    for step in critical_path(program, trace):
        record = trace.records[step.instruction]
        if step.kind == "run":
            assert record["start"] <= step.start and step.end <= record["end"]
        if step.kind == "complete":
            assert (record["end"], record["retire"]) == (step.start, step.end)
        if step.kind == "preload":
            assert (record["taken"], record["start"]) == (step.start, step.end)


def test_the_digits_network_waits_for_its_weights_in_flash() -> None:
    program = lepton.compile(digits_model_path(), chip="nano")
    trace = simulate_timing(program)
    assert critical_path(program, trace)[0].kind == "fetch"
    spent: dict[str, int] = {}
    for causes in path_cycles(program, trace).values():
        for cause, cycles in causes.items():
            spent[cause] = spent.get(cause, 0) + cycles
    assert max(spent, key=lambda cause: spent[cause]) == "weights"
    assert spent["weights"] > trace.cycles // 2


def test_the_summary_adds_up(run: tuple[Program, Trace]) -> None:
    program, trace = run
    summary = summarize(program, trace)
    assert sum(sum(r.critical_path.values()) for r in summary.layers) == trace.cycles
    for layer in summary.layers:
        if layer.next_bound is not None:
            assert layer.next_bound in trace.queues
            spent = Counter[str]()
            for cause, cycles in layer.critical_path.items():
                spent[cause.split(".")[-1]] += cycles
            assert layer.next_bound.split(".")[-1] not in {
                first for first, _ in spent.most_common(1)
            }
