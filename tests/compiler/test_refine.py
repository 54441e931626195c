"""Search over tiles judged by the whole program."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

import lepton
from lepton.chip import load_chip
from lepton.compiler import refine
from lepton.compiler.choices import Choices
from lepton.compiler.graph import Convolution
from lepton.compiler.judge import Judge
from lepton.cost.estimate import estimate_program
from lepton.errors import InputError
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
    assert found is program and built == 6


def test_effort_out_of_range():
    with pytest.raises(InputError, match="effort must be 0 to 3, not 4"):
        lepton.compile(digits_model_path(), "nano", effort=4)
