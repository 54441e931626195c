"""Loads begin sooner: blocks move to where nobody keeps their bytes for long.

A ring gives a block the bytes that have been free for longest, and still what is loaded may have to
wait for what was there. On a scratchpad without end it would not: those times say which blocks wait
and how much sooner each could be alive. Some places let it, at the cost of others, which are tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lepton.compiler.allocate import TILE_ALIGN, Block
from lepton.compiler.held import Held
from lepton.compiler.placement import search_places
from lepton.program import Program

__all__ = ["sooner"]

F64 = NDArray[np.float64]

_GAIN = 1.0005
"""Of the cycles with a scratchpad without end, below which nothing is tried."""
_WINDOWS = (500, 2000, 8000)
"""Cycles that all blocks together are let live sooner."""
_SHARES = (1.0, 0.5, 0.25)
"""Of the time that a single block waits, by which it is let live sooner: the first with room."""
_LEAST_WAIT = 8
"""Cycles that a block waits which is tried alone."""
_BLOCKS = 96
"""That are tried alone, at most; those that wait longest."""


def sooner(program: Program, blocks: Sequence[Block]) -> tuple[Program, list[Block]] | None:
    """Return a faster program with its blocks at other places, and these; none if none is found.

    Args:
        program: the program.
        blocks: of its scratchpad.
    """
    held = Held.of(program, blocks)
    free = _without_end(held)
    if free is None or held.estimate.cycles < _GAIN * free.estimate.cycles:
        return None
    wanted, best = free.lives[:, 2], held
    for window in _WINDOWS:
        best = _faster(best, _moved(held, np.maximum(wanted, held.lives[:, 2] - window)))
    waits = held.lives[:, 2] - wanted
    for block in np.argsort(-waits, kind="stable")[:_BLOCKS].tolist():
        if waits[block] <= _LEAST_WAIT:
            break
        for share in _SHARES:
            starts = best.lives[:, 2].copy()
            starts[block] = max(wanted[block], starts[block] - share * waits[block])
            trial = _moved(best, starts)
            if trial is not None:
                best = _faster(best, trial)
                break
    if best is held:
        return None
    return best.program, [Block(*row) for row in best.blocks.placed.tolist()]


def _faster(held: Held, trial: Held | None) -> Held:
    """Return the faster of two programs."""
    if trial is None or trial.estimate.cycles >= held.estimate.cycles:
        return held
    return trial


def _without_end(held: Held) -> Held | None:
    """Return the program with every block at bytes of its own, on as many banks as that takes."""
    lengths = -(-held.blocks.sizes // TILE_ALIGN) * TILE_ALIGN
    ends = np.cumsum(lengths)
    chip = held.program.chip
    times = -(-int(ends[-1]) // chip.scratchpad.size_bytes)
    scratchpad = replace(
        chip.scratchpad,
        size_kib=chip.scratchpad.size_kib * times,
        banks=chip.scratchpad.banks * times,
    )
    program = replace(held.program, chip=replace(chip, scratchpad=scratchpad))
    return replace(held, program=program).moved(ends - lengths)


def _moved(held: Held, starts: F64) -> Held | None:
    """Return the program with room for blocks that live from these cycles on, if there is any."""
    lives = held.lives.copy()
    lives[:, 2] = np.minimum(starts, lives[:, 2])
    room = held.program.chip.scratchpad.size_bytes
    sizes = held.blocks.sizes
    addresses, taken = search_places(sizes, lives, np.zeros_like(sizes), (room, TILE_ALIGN))
    return held.moved(addresses) if taken <= room else None
