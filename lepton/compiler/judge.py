"""What programs cost by what is minimized: estimated, and as the caller measures it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lepton.chip import Chip, Dataflow
from lepton.cost.energy_estimate import estimate_energy
from lepton.cost.estimate import estimate_program
from lepton.errors import CompileError
from lepton.program import Objective, Program

__all__ = ["Evaluate", "Judge", "judge_of", "refuse_objective"]

Evaluate = Callable[[Program], float]
"""Returns what a program takes: cycles, or joules where energy is minimized."""
Score = tuple[float, ...]

_NEAR = 1.02
"""Times the least estimate up to which a program is measured too."""


@dataclass(frozen=True)
class Judge:
    """What a program is judged by.

    Attributes:
        estimate: the cost by closed forms, then what decides between equals.
        evaluate: the caller's measure of programs that are about as good as the best; None where
            the estimate decides.
    """

    estimate: Callable[[Program], Score]
    evaluate: Evaluate | None = None

    def score(self, program: Program) -> Score:
        """Return what decides between programs, less is better."""
        if self.evaluate is None:
            return self.estimate(program)
        return (self.evaluate(program),)

    def is_near(self, estimate: Score, best: Score) -> bool:
        """Return whether a program of this estimate may be better than one of the other."""
        if self.evaluate is None:
            return estimate < best
        return estimate[0] <= _NEAR * best[0]


def _latency(program: Program) -> Score:
    return (estimate_program(program).cycles,)


def _energy(program: Program) -> Score:
    return (estimate_energy(program),)


def _size(program: Program) -> Score:
    stored = len(program.stream) + len(program.constants)
    return stored, estimate_program(program).cycles


_ESTIMATES = {Objective.LATENCY: _latency, Objective.ENERGY: _energy, Objective.SIZE: _size}


def judge_of(objective: Objective, evaluate: Evaluate | None = None) -> Judge:
    """Return the judge of an objective; sizes are exact and not measured by the caller."""
    measure = None if objective == Objective.SIZE else evaluate
    return Judge(_ESTIMATES[objective], measure)


def refuse_objective(objective: Objective, chip: Chip) -> None:
    """Raise CompileError if a chip has no model of what is to be minimized."""
    own, known = chip.array.dataflow, Dataflow.WEIGHT_STATIONARY
    if objective == Objective.ENERGY and own != known:
        raise CompileError(
            f"chip '{chip.name}' has no energy table for its array: actions are counted for "
            f"{known} arrays, not {own} ones; --optimize latency or size"
        )
