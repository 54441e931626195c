"""The search for a program: every objective, every split over the cores, every schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from lepton.chip import Chip
from lepton.compiler import graph as ir
from lepton.compiler.allocate import Block
from lepton.compiler.cache import CompilerCache
from lepton.compiler.choices import Choices
from lepton.compiler.compact import compacted
from lepton.compiler.copies import Staging
from lepton.compiler.judge import Judge, judge_of, refuse_objective
from lepton.compiler.options import CompileOptions
from lepton.compiler.refine import Finalist, refined
from lepton.compiler.schedule import Emission, RegionWork
from lepton.compiler.shard import core_of
from lepton.compiler.shorten import shortened
from lepton.compiler.sooner import sooner
from lepton.compiler.stage import can_stage, staged
from lepton.errors import CompileError
from lepton.program import Objective, Program

__all__ = ["Back", "Made", "best_program"]

_SOONER_EFFORT = 2
"""From which blocks move so that loads begin sooner."""


@dataclass(frozen=True)
class Back:
    """How the NPU regions of a model become a program."""

    works: list[RegionWork]
    chip: Chip
    cache: CompilerCache | None
    emit: Callable[[Choices, Staging | None], Emission]
    assemble: Callable[[Emission], Program]


class Made(NamedTuple):
    """A program, and what emits it again."""

    program: Program
    choices: Choices
    staging: Staging | None
    back: Back


def best_program(backs: Sequence[Back], options: CompileOptions) -> Made:
    """Return the best program of several ways to split the work over the cores.

    Raises:
        CompileError: the chip cannot hold a step of the work, whichever way it is split.
    """
    refuse_objective(options.objective, backs[0].chip)
    found: list[Made] = []
    failures: list[CompileError] = []
    for number, back in enumerate(backs):
        own = replace(options, progress=_part_of(options.progress, number, len(backs)))
        try:
            found.append(_best(back, own))
        except CompileError as error:
            failures.append(error)
    if not found:
        raise failures[0]
    return _least(found, judge_of(options.objective, options.evaluate))


def _least(found: Sequence[Made], judge: Judge) -> Made:
    """Return the program of the least score; one alone is not measured."""
    return min(found, key=lambda made: judge.score(made.program)) if len(found) > 1 else found[0]


def _nobody(share: float) -> None:
    """Hear of progress."""


def _part_of(
    progress: Callable[[float], None] | None, number: int, count: int
) -> Callable[[float], None] | None:
    """Return what is told the progress of one of several equal parts."""
    if progress is None or count == 1:
        return progress
    return lambda share: progress((number + share) / count)


def _best(back: Back, options: CompileOptions) -> Made:
    """Return the program that is best by what is minimized.

    Where that is not latency the fastest program is a candidate too: plans that look best alone may
    add up to a slow program, in which standby and leakage cost more than they save.
    """
    objective = options.objective
    judge = judge_of(objective, options.evaluate)
    tried = tuple(dict.fromkeys((objective, Objective.LATENCY)))
    found: list[Made] = []
    for number, each in enumerate(tried):
        progress = _part_of(options.progress, number, len(tried)) or _nobody
        own = judge if each == objective else judge_of(each)
        found.append(_searched(back, each, own, (options.effort, progress)))
    return _least(found, judge)


def _searched(
    back: Back, objective: Objective, judge: Judge, search: tuple[int, Callable[[float], None]]
) -> Made:
    """Return the best program of a search; its effort is given, and who is told its progress."""
    choices = Choices(core_of(back.chip), objective, back.cache)
    stagings: dict[bytes, Staging] = {}
    blocks: dict[bytes, list[Block]] = {}

    def build(staging: Staging | None = None) -> Program:
        emission = back.emit(choices, staging)
        if staging is not None:
            stagings[emission.instructions] = staging
        blocks[emission.instructions] = [b for held in emission.memories for b in held.blocks]
        return back.assemble(emission)

    found = refined(build, _convolutions(back.works), choices, judge, *search)
    if search[0] and objective != Objective.SIZE and len(back.works) == 1 and can_stage(back.chip):
        found = [_with_copies(each, build, choices, judge) for each in found]
    least = found[0] if len(found) == 1 else min(found, key=lambda each: judge.score(each.program))
    choices.restore(least.state)
    program = least.program
    staging = stagings.get(program.instructions)
    if search[0] and objective == Objective.LATENCY:
        program = shortened(program, choices.streams, lambda: build(staging))
    if search[0] and back.works and back.chip.cores == 1:
        places = blocks[program.instructions]
        tried = [(program, places)]
        if search[0] >= _SOONER_EFFORT and objective == Objective.LATENCY:
            moved = sooner(program, places)
            tried += [] if moved is None else [moved]
        found = [compacted(*each) for each in tried]
        program = found[0] if len(found) == 1 else min(found, key=judge.score)
    return Made(program, choices, staging, back)


def _with_copies(
    found: Finalist, build: Callable[[Staging | None], Program], choices: Choices, judge: Judge
) -> Finalist:
    """Return a program with copies of weights if they make it better."""
    choices.restore(found.state)
    tried = [Finalist(staged(found.program, build), choices.state)]
    if choices.divide_alike():
        tried.append(Finalist(staged(found.program, build), choices.state))
    faster = [each for each in tried if each.program is not found.program]
    return min([found, *faster], key=lambda each: judge.score(each.program))


def _convolutions(works: list[RegionWork]) -> list[list[ir.Convolution]]:
    """Return the convolutions in order, the parts of one that cores share together."""
    found: dict[int, list[ir.Convolution]] = {}
    for work in works:
        for number, node in zip(work.operators, work.graph.nodes, strict=True):
            if isinstance(node, ir.Convolution):
                found.setdefault(number, []).append(node)
    return list(found.values())
