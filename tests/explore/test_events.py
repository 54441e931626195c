"""The event tier: what a compilation and a simulation of their own give."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

import lepton
from lepton.chip import load_chip
from lepton.explore.events import EventTier
from lepton.explore.space import Setting, Workload
from tests.explore.spaces import front_of, grid


def _tier() -> EventTier:
    workload = grid().workloads[0]
    return EventTier([Workload("digits", workload.model)], [front_of("digits")])


def test_runs_are_those_of_lepton() -> None:
    tier = _tier()
    nano = load_chip("nano")
    wide = replace(nano, array=replace(nano.array, columns=32))
    for chip, optimize in ((nano, "latency"), (wide, "latency"), (nano, "energy")):
        run = tier.run(0, chip, Setting(optimize=optimize))
        program = lepton.compile("digits", chip, effort=0, optimize=optimize)
        result = lepton.simulate(program)
        assert result.trace is not None
        assert result.energy is not None
        assert run.cycles == result.trace.cycles
        assert run.joules == pytest.approx(result.energy.joules, rel=1e-12)
        assert run.read_bytes == sum(memory.read_bytes for memory in result.trace.memories)


def test_chips_that_are_too_small_say_why() -> None:
    nano = load_chip("nano")
    flash = replace(nano.memories[1], size_mib=Fraction(1, 128))
    run = _tier().run(0, replace(nano, memories=(nano.memories[0], flash)), Setting())
    assert "bytes" in run.failure
    assert run.cycles == 0
