"""Search over tiles judged by the whole program."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import lepton
from lepton.chip import load_chip
from lepton.compiler import refine
from lepton.compiler.choices import Choices, Division, DivisionKey
from lepton.compiler.graph import Convolution
from lepton.compiler.judge import Judge
from lepton.cost.estimate import estimate_program
from lepton.errors import CompileError, InputError
from lepton.models import digits_model_path
from lepton.runtime.golden import random_inputs


def test_effort_never_makes_it_slower_and_changes_no_byte():
    plain, searched = (lepton.compile(digits_model_path(), "edge", effort=n) for n in (0, 1))
    assert estimate_program(searched).cycles <= estimate_program(plain).cycles
    inputs = random_inputs(plain, 0)
    first, second = (lepton.simulate(program, inputs).outputs for program in (plain, searched))
    assert first is not None and second is not None
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def test_the_search_is_deterministic():
    first, second = (lepton.compile(digits_model_path(), "nano").to_bytes() for _ in range(2))
    assert first == second


def test_the_number_of_trials_is_bounded(monkeypatch: pytest.MonkeyPatch):
    built = 0
    program = lepton.compile(digits_model_path(), "nano", effort=0)

    def build() -> lepton.Program:
        nonlocal built
        built += 1
        return program

    monkeypatch.setattr(refine, "_INSTRUCTIONS", (0, 5 * len(program.operator_of) + 1))

    nodes = cast(list[list[Convolution]], [[object()] for _ in range(9)])
    found = refine.refined(build, nodes, Choices(load_chip("nano")), Judge(lambda _: (1.0,)), 1)
    assert [each.program for each in found] == [program] and built == 6


_REGION = DivisionKey(0, False)


class _Divided:
    """Stands for a compilation whose programs depend on how the scratchpad is divided."""

    def __init__(self, choices: Choices, cycles: dict[float, float]) -> None:
        self.choices, self.cycles = choices, cycles
        first, *others = (Division(share, False, False) for share in cycles)
        choices.divisions[_REGION] = first
        choices.other_divisions[_REGION] = tuple(others)

    def build(self) -> lepton.Program:
        share = self.choices.divisions[_REGION].share
        if self.cycles[share] < 0:
            raise CompileError("no room")
        made = SimpleNamespace(operator_of=[0], instructions=str(share).encode(), share=share)
        return cast(lepton.Program, made)

    def refined(self, effort: int) -> list[refine.Finalist]:
        judge = Judge(lambda program: (self.cycles[cast(Any, program).share],))
        return refine.refined(self.build, [], self.choices, judge, effort)


def test_the_division_of_least_cost_wins_and_the_first_stays_in_the_running():
    choices = Choices(load_chip("nano"))
    best, first = _Divided(choices, {0.5: 9.0, 0.25: -1.0, 0.75: 7.0, 1.0: 8.0}).refined(1)
    assert cast(Any, best.program).share == 0.75 and cast(Any, first.program).share == 0.5
    for found in (first, best):
        choices.restore(found.state)
        assert choices.divisions[_REGION].share == cast(Any, found.program).share


def test_effort_says_how_many_divisions_are_tried():
    cycles = {0.5: 9.0, 0.25: 9.0, 0.75: 9.0, 1.0: 9.0, 0.125: 7.0}
    for effort, shares in ((0, [0.5]), (1, [0.5]), (2, [0.125, 0.5])):
        found = _Divided(Choices(load_chip("nano")), cycles).refined(effort)
        assert [cast(Any, each.program).share for each in found] == shares


def test_copies_of_weights_are_tried_beside_the_division_that_was_searched_for():
    choices = Choices(load_chip("nano"))
    searched, looks_best = Division(0.375, False, False), Division(0.5, False, False)
    copied = _REGION._replace(leaves_room=True)
    choices.divisions |= {_REGION: searched, copied: looks_best}
    assert choices.divide_alike() and choices.divisions == {_REGION: searched, copied: searched}
    assert not choices.divide_alike()


def test_effort_out_of_range():
    with pytest.raises(InputError, match="effort must be 0 to 3, not 4"):
        lepton.compile(digits_model_path(), "nano", effort=4)
