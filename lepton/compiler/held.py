"""A program with the blocks of its scratchpad and its times; the same with the blocks elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lepton.compiler.allocate import Block
from lepton.compiler.blocks import Blocks
from lepton.compiler.memory_map import check_room
from lepton.compiler.synchronize import semaphores
from lepton.cost.estimate import Estimate, estimate_program
from lepton.errors import CompileError
from lepton.isa import COLUMNS, encode_table
from lepton.program import Program

__all__ = ["Held"]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Held:
    """A program, the blocks of its scratchpad, and its times."""

    program: Program
    blocks: Blocks
    estimate: Estimate

    @classmethod
    def of(cls, program: Program, blocks: Sequence[Block]) -> Held:
        """Return a program with the blocks that its scratchpad has."""
        return cls(program, Blocks.of(program.table, blocks), estimate_program(program))

    @cached_property
    def lives(self) -> F64:
        return self.blocks.lives(self.estimate)

    @cached_property
    def bound_bytes(self) -> int:
        return self.blocks.bound_bytes(self.lives)

    def moved(self, addresses: I64) -> Held | None:
        """Return the program with its blocks at new addresses; none if it has no room any more."""
        program = self.program
        table, blocks = self.blocks.moved(program.table, addresses)
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
            return None
        return Held(made, blocks, estimate_program(made))
