"""The state that instructions act on: memories, scratchpad, weight buffer, accumulators."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lepton.errors import CheckError
from lepton.isa.footprints import Space, ends
from lepton.program import Program
from lepton.simulator.matrix_kernels import Packed

__all__ = ["Machine", "machines_for", "reach"]

MAXIMUM_REACH_BYTES = 8 << 30


@dataclass(frozen=True)
class Machine:
    """The bytes of a core and its memories; each array is as large as the program reaches.

    Attributes:
        packed: parts of the weight buffer as a product reads them, by first element, rows,
            columns and sign; gone once their elements are overwritten.
    """

    scratchpad: NDArray[np.uint8]
    accumulators: NDArray[np.int32]
    weight_buffer: NDArray[np.uint8]
    memories: tuple[NDArray[np.uint8], ...]
    packed: dict[tuple[int, int, int, int], Packed] = field(default_factory=dict)

    def write_weights(self, start: int, content: NDArray[np.uint8]) -> None:
        """Put elements into the weight buffer."""
        stop = start + len(content)
        self.weight_buffer[start:stop] = content
        for key in list(self.packed):
            if key[0] < stop and start < key[0] + key[1] * key[2]:
                del self.packed[key]

    def read(self, memory: int, address: int, size: int) -> NDArray[np.uint8]:
        """Return a copy of `size` bytes of a memory."""
        return self.memories[memory][address : address + size].copy()

    def write(self, memory: int, address: int, content: NDArray[np.uint8]) -> None:
        """Put bytes into a memory."""
        self.memories[memory][address : address + len(content)] = content


def reach(program: Program, boxes: NDArray[np.int64]) -> list[int]:
    """Return the bytes of each memory that the program's tensors, segments and boxes reach.

    Raises:
        CheckError: more than can be simulated, before anything of that size is allocated.
    """
    found = [0] * len(program.chip.memories)
    for tensor in program.tensors:
        if tensor.memory >= 0:
            found[tensor.memory] = max(found[tensor.memory], tensor.address + tensor.size_bytes)
    constants = program.constants_memory
    end = program.constants_address + len(program.constants)
    found[constants] = max(found[constants], end)
    last = ends(boxes)
    for memory in range(len(found)):
        mine = last[boxes[:, 1] == Space.MEMORY + memory]
        found[memory] = max(found[memory], int(mine.max(initial=0)))
    if sum(found) > MAXIMUM_REACH_BYTES:
        raise CheckError(
            f"the program reaches {sum(found)} bytes of memory, more than the "
            f"{MAXIMUM_REACH_BYTES} that can be simulated"
        )
    return found


def machines_for(program: Program, boxes: NDArray[np.int64]) -> list[Machine]:
    """Return a machine for each core, with the program's constants in place and all else zero.

    They share the memories.
    """
    chip = program.chip
    memories = tuple(np.zeros(size, np.uint8) for size in reach(program, boxes))
    machines = [
        Machine(
            np.zeros(chip.scratchpad.size_bytes, np.uint8),
            np.zeros(chip.accumulators.elements, np.int32),
            np.zeros(chip.weight_buffer.elements, np.uint8),
            memories,
        )
        for _ in range(chip.cores)
    ]
    machines[0].write(program.constants_memory, program.constants_address, program.constants)
    return machines
