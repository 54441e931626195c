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
from lepton.compiler.block_kernels import place
from lepton.compiler.blocks import Blocks, most_alive
from lepton.compiler.memory_map import check_room
from lepton.compiler.synchronize import semaphores
from lepton.cost.estimate import Estimate, estimate_program
from lepton.errors import CompileError
from lepton.isa import COLUMNS, encode_table
from lepton.program import Arena, Program

__all__ = ["SCRATCHPAD", "compacted", "search_places"]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

SCRATCHPAD = "scratchpad"
"""Name of its arena."""

_CLOSE = 1.05
"""Of the lower bound, that the bytes taken should not exceed."""
_CLOSEST = 1.02
"""Of the lower bound, at which a search ends."""
_SHARES_APART = (1.1, 1.0, 0.75, 0.5, 0.25, 0.0)
"""Of the parameters alive at once, that have room in banks of their own: what is tried."""
_SLOWER = 1.001
"""Of the cycles, that a program may take whose blocks have moved."""
_STEPS = 300
_COMPARISONS = 10_000_000
"""Steps of a search, and comparisons of two blocks, at most."""


def compacted(program: Program, blocks: Sequence[Block]) -> Program:
    """Return the program with its blocks moved together, unless that makes it slower.

    Its arena of the scratchpad says what its blocks take, and what they need at least.

    Args:
        program: the program.
        blocks: of its scratchpad.
    """
    known = Blocks.of(program.table, blocks)
    found = estimate_program(program)
    lives = known.lives(found)
    bound = known.bound_bytes(lives)
    best = program, known, found
    if known.peak_bytes > _CLOSE * bound:
        limit = _SLOWER * found.cycles
        for addresses in _candidates(program, known, lives, bound):
            trial, moved = _moved(program, known, addresses)
            if trial is None:
                continue
            estimate = estimate_program(trial)
            if estimate.cycles < limit:
                best, limit = (trial, moved, estimate), estimate.cycles
            if estimate.cycles <= found.cycles:
                break
    return _with_arena(*best)


def _with_arena(program: Program, blocks: Blocks, found: Estimate) -> Program:
    """Return the program with what its scratchpad takes and needs."""
    bound = blocks.bound_bytes(blocks.lives(found))
    return replace(program, arenas=(Arena(SCRATCHPAD, blocks.peak_bytes, bound), *program.arenas))


def _candidates(program: Program, blocks: Blocks, lives: F64, bound: int) -> Iterator[I64]:
    """Yield addresses for the blocks: with ever less room for parameters in banks of their own."""
    scratchpad = program.chip.scratchpad
    bank = scratchpad.size_bytes // scratchpad.banks
    apart = most_alive(blocks.sizes * blocks.are_parameters, lives[:, 2], lives[:, 3])
    for share in _SHARES_APART:
        room = -(-int(share * apart) // TILE_ALIGN) * TILE_ALIGN
        base = -(-room // bank) * bank
        addresses, taken = search_places(blocks, lives, (room, base), bound)
        reach = int((addresses + blocks.sizes).max(initial=0))
        if taken <= _CLOSE * bound and reach <= scratchpad.size_bytes:
            yield addresses


def search_places(
    blocks: Blocks, lives: F64, stretches: tuple[int, int], bound: int
) -> tuple[I64, int]:
    """Return addresses for all blocks and how many bytes they take.

    Large blocks choose first. While that takes much more than the bound, blocks that lie highest,
    and some others, are let choose earlier: what takes no more is kept.

    Args:
        blocks: what to place.
        lives: as `Blocks.lives`.
        stretches: bytes for parameters from 0 on; where everything else begins.
        bound: bytes that are needed at least.
    """
    sizes, apart = blocks.sizes, blocks.are_parameters & (stretches[0] > 0)
    ends = np.array([*stretches, TILE_ALIGN], np.int64)
    rng = np.random.default_rng(0)
    order = np.lexsort((lives[:, 2], -sizes))
    addresses, trial = np.zeros_like(sizes), np.zeros_like(sizes)
    taken = place(order, sizes, lives, apart, ends, addresses)
    steps = min(_STEPS, _COMPARISONS // max(len(sizes) ** 2, 1))
    while steps and taken > _CLOSEST * bound:
        steps -= 1
        other = _earlier(order, addresses + sizes, rng)
        found = place(other, sizes, lives, apart, ends, trial)
        if found <= taken:
            order, taken = other, found
            addresses, trial = trial, addresses
    return addresses, int(taken)


def _earlier(order: I64, tops: I64, rng: np.random.Generator) -> I64:
    """Return an order in which one block, every other time the highest, chooses earlier."""
    place_of = (
        int(np.flatnonzero(order == tops.argmax())[0])
        if rng.random() < 0.5
        else int(rng.integers(len(order)))
    )
    made = np.delete(order, place_of)
    return np.insert(made, rng.integers(place_of + 1), order[place_of])


def _moved(program: Program, blocks: Blocks, addresses: I64) -> tuple[Program | None, Blocks]:
    """Return the program with its blocks at new addresses; none if it has no room any more."""
    table, moved = blocks.moved(program.table, addresses)
    numbers: dict[tuple[int, int], int] = {}
    try:
        for region in program.regions:
            if region.device == "npu":
                part = table[region.start : region.stop]
                wait, signal = semaphores(part, program.chip, numbers)
                part[:, COLUMNS["wait"]], part[:, COLUMNS["signal"]] = wait, signal
        made = replace(program, instructions=encode_table(table))
        end = program.program_address + len(made.stream)
        check_room(program.chip, program.program_memory, end)
    except CompileError:
        return None, moved
    return made, moved
