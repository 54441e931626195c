"""Search over the tiles of convolutions, judged by the whole program.

The cost of a plan knows its layer alone. What a tile does to the layers around it, one can only see
in a program: small tiles let the next layer begin early, large ones leave no room to load ahead.
So the convolutions take their next best plans one after the other, then the scratchpad is divided
otherwise, and what makes the program better is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from lepton.compiler.choices import MOST_RANKS, Choices, ChoiceState
from lepton.compiler.graph import Convolution
from lepton.compiler.judge import Judge
from lepton.compiler.lowering.addition import Addition
from lepton.compiler.lowering.cascade_plan import Cascade
from lepton.errors import CompileError
from lepton.program import Program

__all__ = ["Finalist", "refined"]

_INSTRUCTIONS = (0, 10_000, 100_000, 1_000_000)
"""That the trial programs have together, by effort: a million take about half a minute."""

_DIVISIONS = (0, 3, 5, 5)
"""Of the scratchpad that are tried in each region, by effort: each has its plans found anew."""

_FEWEST_TRIALS = 4
"""Fewer find next to nothing, and would have the judge's kernels compiled for it."""


class Finalist(NamedTuple):
    """A program, and the choices that it was emitted with."""

    program: Program
    state: ChoiceState


def refined(
    build: Callable[[], Program],
    nodes: Sequence[Sequence[Convolution]],
    choices: Choices,
    judge: Judge,
    effort: int,
    progress: Callable[[float], None] = lambda _: None,
) -> list[Finalist]:
    """Return the best programs found, of two divisions of the scratchpad and from two beginnings.

    One begins with additions that are computed with convolutions, if there are any, one without.
    Copies of weights, which come later, may turn the order of all round.

    Args:
        build: emits the program with the plans that `choices` has now.
        nodes: the convolutions in order, of each its parts on the cores.
        choices: in which each takes its plan.
        judge: of programs.
        effort: 0 to 3; 0 takes the plans that look best.
        progress: is told the share of the trials that are done.
    """
    program = build()
    trials = _INSTRUCTIONS[effort] // max(len(program.operator_of), 1)
    if trials < _FEWEST_TRIALS:
        return [Finalist(program, choices.state)]
    left = _Trials(trials, progress)
    if Addition not in choices.kinds or choices.adds_apart:
        return _descended(_Search(build, choices, judge, program, left), nodes, effort)
    apart = choices.state._replace(adds_apart=True)
    left.reserve(trials // 2)
    found = _descended(_Search(build, choices, judge, program, left), nodes, effort)
    left.reserve(0)
    choices.restore(apart)
    with suppress(CompileError):
        search = _Search(build, choices, judge, build(), left)
        found += _descended(search, nodes, effort)
    return found


def _descended(
    search: _Search, nodes: Sequence[Sequence[Convolution]], effort: int
) -> list[Finalist]:
    """Return what `refined` does, from one start."""
    search.try_apart()
    while search.sweep(nodes):
        pass
    found = [search.best]
    if search.try_divisions(_DIVISIONS[effort]):
        while search.sweep(nodes):
            pass
        found.insert(0, search.best)
    return found


class _Trials:
    """How many programs may still be tried."""

    def __init__(self, most: int, progress: Callable[[float], None]) -> None:
        self._left, self._most, self._progress = most, most, progress
        self._reserved = 0

    @property
    def left(self) -> int:
        """Programs that may be tried before others are due."""
        return self._left - self._reserved

    def reserve(self, count: int) -> None:
        """Keep so many for later."""
        self._reserved = count

    def take(self) -> None:
        """Use one up."""
        self._progress(1 - self._left / self._most)
        self._left -= 1


class _Search:
    """Coordinate descent within a number of trials."""

    def __init__(
        self,
        build: Callable[[], Program],
        choices: Choices,
        judge: Judge,
        program: Program,
        trials: _Trials,
    ) -> None:
        """Begin with the choices as they are, and the program that they make."""
        self._build, self._choices, self._judge, self._trials = build, choices, judge, trials
        self._program = program
        self._estimate, self._score = judge.estimate(program), judge.score(program)
        self._seen = {program.instructions}

    @property
    def best(self) -> Finalist:
        """The best program so far."""
        return Finalist(self._program, self._choices.state)

    def sweep(self, nodes: Sequence[Sequence[Convolution]]) -> bool:
        """Try other plans of all nodes, near ranks first; return whether any was better."""
        before = self._score
        for rank in range(1, MOST_RANKS):
            for node in nodes:
                self._try(node, rank)
        return self._score < before and self._trials.left > 0

    def try_apart(self) -> None:
        """Compute no layers depth first, for good if that makes the program better."""
        if Cascade not in self._choices.kinds:
            return
        self._choices.apart = True
        self._trials.take()
        if not self._is_better():
            self._choices.apart = False

    def try_divisions(self, most: int) -> bool:
        """Divide the scratchpad otherwise, region by region, where that makes the program better.

        The `most` ways that look best do not count as trials. Return whether any was better.
        """
        divisions, before = self._choices.divisions, self._score
        for region, others in list(self._choices.other_divisions.items()):
            for other in others[:most]:
                taken = divisions[region]
                divisions[region] = other
                if not self._is_better():
                    divisions[region] = taken
        return self._score < before

    def _try(self, parts: Sequence[Convolution], rank: int) -> None:
        """Let a node take another plan, for good if that makes the program better."""
        taken = self._choices.rank(parts[0])
        if self._trials.left <= 0:
            return
        for node in parts:
            self._choices.take(node, 0 if rank == taken else rank)
        self._trials.take()
        if not self._is_better():
            for node in parts:
                self._choices.take(node, taken)

    def _is_better(self) -> bool:
        """Build and judge; keep the program if it is the best so far."""
        try:
            program = self._build()
        except CompileError:
            return False
        if program.instructions in self._seen:
            return False
        self._seen.add(program.instructions)
        estimate = self._judge.estimate(program)
        if not self._judge.is_near(estimate, self._estimate):
            return False
        score = estimate if self._judge.evaluate is None else self._judge.score(program)
        if score >= self._score:
            return False
        self._program, self._estimate, self._score = program, estimate, score
        return True
