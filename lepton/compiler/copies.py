"""Copies of weights from the memory of the constants to that of the activations, in a program.

A copy goes piece by piece through the scratchpad, on a load and a store channel of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.isa.declaration import Instruction
from lepton.isa.instructions import Load, Store, Weights

__all__ = ["PIECE_BYTES", "Copy", "Lanes", "Staging", "is_copy", "with_copies"]

F64 = NDArray[np.float64]

PIECE_BYTES = 512
"""Bytes that are copied at a time; there are two places for them in the scratchpad."""


@dataclass(frozen=True)
class Copy:
    """A block of weights that is copied."""

    uses: tuple[int, ...]
    """Numbers of the instructions that stream it into the weight buffer."""
    size: int
    """Bytes of the stream."""
    times: tuple[float, ...]
    """Cycles at which its pieces are to be loaded."""
    rank: int
    """Among those that ask for room: 0 is served first."""


@dataclass(frozen=True)
class Staging:
    """The copies of a model of one region."""

    copies: tuple[Copy, ...] = ()
    """In the order of their first use."""
    dispatch: F64 | None = None
    """`[n]`, when each instruction is expected to be dispatched; None where nothing is copied."""


def is_copy(item: Instruction, chip: Chip) -> bool:
    """Return whether an instruction of a program with copies is half of one."""
    if isinstance(item, Load):
        return item.channel == chip.dma.load_channels - 1
    return isinstance(item, Store) and item.channel == chip.dma.store_channels - 1


@dataclass(frozen=True)
class Lanes:
    """What copies of a program go through."""

    chip: Chip
    scratchpad: int
    """Address of the two places for pieces."""
    memory: int
    """Where the copies are."""

    def piece(self, number: int, source: int, target: int, size: int) -> tuple[Load, Store]:
        """Return the two halves of the copy of a piece."""
        chip = self.chip
        place = self.scratchpad + number % 2 * PIECE_BYTES
        shape = {"scratchpad": place, "row_bytes": size, "rows": 1, "planes": 1}
        memory = chip.memory_index(chip.placement.constants)
        load = Load(channel=chip.dma.load_channels - 1, memory=memory, address=source, **shape)
        channel = chip.dma.store_channels - 1
        return load, Store(channel=channel, memory=self.memory, address=target, **shape)


def with_copies(
    instructions: Sequence[Instruction],
    operator_of: Sequence[int],
    dispatch: F64,
    copies: Sequence[tuple[Copy, int]],
    lanes: Lanes,
) -> tuple[list[Instruction], list[int]]:
    """Return the instructions with copies among them, and their operators.

    Args:
        instructions: of a region, without semaphores.
        operator_of: their operators.
        dispatch: `[n]`, when each is expected to be dispatched.
        copies: blocks in the order of their first use, and the addresses to copy them to.
        lanes: what the copies go through.
    """
    changed = list(instructions)
    extra: list[tuple[int, Instruction]] = []
    # numbers of the instructions before which pieces are stored; two places are free at first
    stored = [0, 0]
    for copy, target in copies:
        first = instructions[copy.uses[0]]
        assert isinstance(first, Weights)
        for index, at in enumerate(copy.times):
            done = index * PIECE_BYTES
            size = min(PIECE_BYTES, copy.size - done)
            piece = lanes.piece(len(stored), first.address + done, target + done, size)
            # a place is free when the piece before the last has been stored
            load = max(_before(dispatch, at, copy), stored[-2])
            store = max(_before(dispatch, at + 1.1 * size + 128, copy), load, stored[-1])
            extra += [(load, piece[0]), (store, piece[1])]
            stored.append(store)
        for use in copy.uses:
            changed[use] = replace(changed[use], memory=lanes.memory, address=target)
    return _merged(changed, operator_of, sorted(extra, key=lambda item: item[0]))


def _before(dispatch: F64, at: float, copy: Copy) -> int:
    """Return the instruction that is dispatched at a time, at the latest the copy's first use."""
    return min(int(np.searchsorted(dispatch, at)), copy.uses[0])


def _merged(
    instructions: Sequence[Instruction],
    operator_of: Sequence[int],
    extra: Sequence[tuple[int, Instruction]],
) -> tuple[list[Instruction], list[int]]:
    """Return the instructions with each extra one before the one of its number."""
    made: list[Instruction] = []
    operators: list[int] = []
    at = 0
    for number, item in enumerate(instructions):
        while at < len(extra) and extra[at][0] == number:
            made.append(extra[at][1])
            operators.append(operator_of[number])
            at += 1
        made.append(item)
        operators.append(operator_of[number])
    return made, operators
