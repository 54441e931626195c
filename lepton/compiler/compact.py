"""Blocks of the scratchpad move together: the bytes that a program touches are those it needs.

A ring reuses its bytes as late as possible, and so touches all that it has. When the program is
known, so is how long each block lives, and blocks that are never alive together may lie on each
other. Parameters stay in banks of their own, so that the vector unit reads them beside the array.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lepton.compiler.allocate import TILE_ALIGN, Block
from lepton.compiler.blocks import Blocks, beside_bytes, most_alive
from lepton.compiler.held import Held
from lepton.compiler.placement import search_places
from lepton.program import SCRATCHPAD, Arena, Program

__all__ = ["compacted"]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

_CLOSE = 1.05
"""Of the lower bound, that the bytes taken should not exceed."""
_AIMS = ((1.1, 1.03), (1.1, 1.045), (1.0, 1.03), (0.75, 1.03), (0.5, 1.03), (0.0, 1.03))
"""What is tried: how much room parameters have in banks of their own, of the most that are alive at
once, and the share of the lower bound at which a search for places ends."""
_SLOWER = 1.001
"""Of the cycles, that a program may take whose blocks have moved."""
_PHASES = 16
"""Places of the edges of banks among the blocks that are tried if that is not to be had."""
_SLOWER_FOR_ROOM = 1.01
"""Of the cycles, that a program may take then: on fewer banks, more accesses meet in one."""
_ROUNDS = 3
"""Times that blocks move at most: with their places, their times change."""


def compacted(program: Program, blocks: Sequence[Block]) -> Program:
    """Return the program with its blocks moved together, unless that makes it slower.

    Its arena of the scratchpad says what its blocks take, and what they need at least.

    Args:
        program: the program.
        blocks: of its scratchpad.
    """
    held = Held.of(program, blocks)
    cycles = held.estimate.cycles
    for _ in range(_ROUNDS):
        if held.blocks.peak_bytes <= _CLOSE * held.bound_bytes:
            break
        before = held
        held = _closer(held, _SLOWER * cycles, _candidates(held))
        if held is before:
            held = _closer(held, _SLOWER_FOR_ROOM * cycles, _phases(held))
        if held is before:
            break
    arena = Arena(SCRATCHPAD, held.blocks.peak_bytes, held.bound_bytes)
    return replace(held.program, arenas=(arena, *program.arenas))


def _closer(held: Held, limit: float, candidates: Iterator[I64]) -> Held:
    """Return the fastest of the programs with other places that takes so many cycles at most.

    The first that is no slower than before is taken.
    """
    best = held
    for addresses in candidates:
        trial = held.moved(addresses)
        if trial is None or trial.estimate.cycles > limit:
            continue
        best, limit = trial, trial.estimate.cycles - 1
        if limit < held.estimate.cycles:
            break
    return best


def _candidates(held: Held) -> Iterator[I64]:
    """Yield addresses for the blocks: with ever less room for parameters in banks of their own."""
    blocks, lives, bound = held.blocks, held.lives, held.bound_bytes
    scratchpad = held.program.chip.scratchpad
    bank = scratchpad.size_bytes // scratchpad.banks
    apart = most_alive(blocks.sizes * blocks.are_parameters, lives[:, 2], lives[:, 3])
    for share, aim in _AIMS:
        edge = -(-int(share * apart) // TILE_ALIGN) * TILE_ALIGN
        most = int(aim * bound)
        floors = _floors(blocks, lives, edge, most)
        addresses, taken = search_places(blocks.sizes, lives, floors, (most, TILE_ALIGN))
        # the edge lies between two banks
        begin = -edge % bank
        if taken <= _CLOSE * bound and begin + taken <= scratchpad.size_bytes:
            yield begin + addresses


def _phases(held: Held) -> Iterator[I64]:
    """Yield addresses as close together as may be, with the banks' edges at several places."""
    scratchpad = held.program.chip.scratchpad
    floors, most = np.zeros_like(held.blocks.sizes), int(_CLOSE * held.bound_bytes)
    goal = (held.bound_bytes, TILE_ALIGN)
    addresses, taken = search_places(held.blocks.sizes, held.lives, floors, goal)
    if taken > most:
        return
    bank = scratchpad.size_bytes // scratchpad.banks
    step = max(bank // _PHASES // TILE_ALIGN, 1) * TILE_ALIGN
    for begin in range(0, min(bank, step * _PHASES), step):
        if begin + taken <= scratchpad.size_bytes:
            yield begin + addresses


def _floors(blocks: Blocks, lives: F64, edge: int, aim: int) -> I64:
    """Return where the room of each block begins: at the edge, or as far below as it must.

    All that is alive beside it, parameters left out, must have room between its floor and the aim.
    """
    others = ~blocks.are_parameters
    beside = beside_bytes(blocks.sizes * others, lives[:, 2], lives[:, 3])
    floors = np.clip(aim - beside, 0, edge) // TILE_ALIGN * TILE_ALIGN
    return np.where(others, floors, 0)
