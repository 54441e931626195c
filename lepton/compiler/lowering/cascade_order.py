"""In which order the members of a cascade work on steps and chunks of channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from lepton.compiler.emit import Box
from lepton.compiler.lowering.cascade_plan import Cascade, CascadePlan
from lepton.compiler.lowering.tiling import input_box, split, stripes

__all__ = ["AHEAD", "DEPTHWISE", "EXPAND", "PROJECT", "Action", "Step", "order", "steps_of"]

EXPAND, DEPTHWISE, PROJECT = range(3)

AHEAD = -1
"""In place of a part: nothing is computed, constants are loaded for later."""


@dataclass(frozen=True)
class Step:
    """One step: a box of the depthwise output, and the rows of its input that it reads."""

    n: int
    pixels: Box
    source: Box
    pad: tuple[int, int]
    top: int
    """Row of the input that lies first in the planes."""
    moved: tuple[int, int]
    """Rows of the planes that go to their start before: the first, counted there, and how many."""
    new: tuple[tuple[int, int], ...]
    """Rows of the input to expand, in parts."""


class Action(NamedTuple):
    """Work of one member on one chunk of channels."""

    member: int
    step: int
    chunk: int
    part: int = 0
    """Of the new rows."""


def steps_of(cascade: Cascade, plan: CascadePlan) -> list[Step]:
    """Return the steps, stripe by stripe, from top to bottom."""
    steps: list[Step] = []
    for n in range(cascade.depthwise.output.shape[0]):
        image = list(_steps(cascade, plan, n))
        steps += _replacing(image, cascade, plan) if plan.chunks_first else image
    return steps


def _steps(cascade: Cascade, plan: CascadePlan, n: int) -> Iterator[Step]:
    """Yield the steps of an image, each with the rows that those before it in its stripe lack."""
    node = cascade.depthwise
    _, oh, ow, _ = node.output.shape
    shape, advance = node.inputs[0].shape[1:3], plan.height * node.window.stride[0]
    top = last = 0
    for pixels in stripes((oh, ow), (plan.height, plan.width)):
        source, *pad = input_box(pixels, node.window, shape, (0, 1))
        moved = (0, 0)
        if pixels.y0 == 0:
            top = last = source.y0
        elif source.y1 - top > plan.rows:
            moved = source.y0 - top, max(last - source.y0, 0)
            top = source.y0
        new = _parts(max(last, source.y0), source.y1, advance)
        last = max(last, source.y1)
        yield Step(n, pixels, source, (pad[0], pad[1]), top, moved, new)


def _replacing(image: list[Step], cascade: Cascade, plan: CascadePlan) -> Iterator[Step]:
    """Yield the steps of an image, each with the rows that no step behind it reads.

    When a step is done with a chunk, these rows of the next chunk can take their place.
    """
    advance = plan.height * cascade.depthwise.window.stride[0]
    ends = [step.source.y0 for step in image[1:]] + [image[-1].source.y1]
    starts = [image[0].source.y0, *ends[:-1]]
    for step, first, last in zip(image, starts, ends, strict=True):
        yield replace(step, top=0, moved=(0, 0), new=_parts(first, last, advance))


def _parts(first: int, last: int, most: int) -> tuple[tuple[int, int], ...]:
    """Return rows [first, last) in parts of at most so many, none if there are none."""
    return tuple((first + y0, first + y1) for y0, y1 in split(max(last - first, 0), most))


def order(cascade: Cascade, plan: CascadePlan, steps: list[Step], chunks: int) -> list[Action]:
    """Return what is done, in program order, so that no unit waits for what was just begun."""
    if plan.chunks_first:
        return list(_chunks_first(steps, chunks))
    return list(_steps_first(cascade, steps, chunks))


def _steps_first(cascade: Cascade, steps: list[Step], chunks: int) -> Iterator[Action]:
    """Yield all chunks of a step before the next step.

    before: of each step, expand all chunks; depthwise all chunks; project all chunks
    after: depthwise of chunk n, expansion of chunk n for the next step, projection of chunk n - 1
    """
    parts = [len(step.new) if cascade.expand else 0 for step in steps] + [0]
    yield from (
        Action(EXPAND, 0, chunk, part) for part in range(parts[0]) for chunk in range(chunks)
    )
    waiting: list[Action] = []
    for step in range(len(steps)):
        following = parts[step + 1]
        for chunk in range(chunks):
            yield Action(DEPTHWISE, step, chunk)
            if following:
                yield Action(EXPAND, step + 1, chunk)
            yield from waiting
            waiting = [Action(PROJECT, step, chunk)] if cascade.project else []
        for part in range(1, following):
            yield from (Action(EXPAND, step + 1, chunk, part) for chunk in range(chunks))
    yield from waiting


def _chunks_first(steps: list[Step], chunks: int) -> Iterator[Action]:
    """Yield all steps of a chunk before the next chunk.

    The next chunk is expanded into the rows that a step was the last to read, and the constants of
    the chunk behind that one are on their way.
    """
    images = [
        [number for number, step in enumerate(steps) if step.n == n] for n in range(steps[-1].n + 1)
    ]
    rounds = [(image, chunk) for image in images for chunk in range(chunks)]

    def expand(step: int, chunk: int) -> Iterator[Action]:
        yield from (Action(EXPAND, step, chunk, part) for part in range(len(steps[step].new)))

    for step in rounds[0][0]:
        yield from expand(step, 0)
    for number, (image, chunk) in enumerate(rounds):
        following = rounds[number + 1 : number + 2]
        for image_ahead, ahead in rounds[number + 2 : number + 3]:
            yield Action(EXPAND, image_ahead[0], ahead, AHEAD)
            yield Action(DEPTHWISE, image_ahead[0], ahead, AHEAD)
        for position, step in enumerate(image):
            yield Action(DEPTHWISE, step, chunk)
            for image_next, chunk_next in following:
                yield from expand(image_next[position], chunk_next)
