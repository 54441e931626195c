"""What a program is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.isa import WORD_BYTES, Instruction, decode_all, pack, records_of
from lepton.program.names import one_line
from lepton.program.objective import Objective

__all__ = [
    "MAXIMUM_TENSOR_ELEMENTS",
    "SCRATCHPAD",
    "Arena",
    "Operator",
    "Program",
    "ProgramTensor",
    "Region",
]

T = TypeVar("T")

MAXIMUM_TENSOR_ELEMENTS = 1 << 30

SCRATCHPAD = "scratchpad"
"""Name of its arena."""


@dataclass(frozen=True)
class ProgramTensor:
    """A tensor that crosses the edge of a region, and where it lives between regions."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int
    memory: int
    """Index of the memory, or -1 for a tensor that only the host sees."""
    address: int

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Operator:
    """An operator of the source model, as the reports name it."""

    name: str
    kind: str
    device: Literal["npu", "host"]
    macs: int
    weight_bytes: int
    """Raw weights of the operator."""
    stored_bytes: int
    """What the constant segment holds of it."""
    reason: str
    """Why it runs on the host, the rule that failed; on the NPU the layers that go with it."""


@dataclass(frozen=True)
class Region:
    """A stretch of the network that one device runs at a time."""

    device: Literal["npu", "host"]
    start: int
    stop: int
    """Instructions [start, stop) of an NPU region; 0, 0 on the host."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    host_model: int
    """Index of the ONNX graph of a host region, -1 on the NPU."""


@dataclass(frozen=True)
class Arena:
    """What the compiler placed of the activations in a memory; docs/design.md defines both."""

    memory: str
    """Name of the memory, or `SCRATCHPAD`."""
    peak_bytes: int
    bound_bytes: int
    """What is alive at once at some time, which no placement can do without."""


@dataclass(frozen=True)
class Program:
    """What crosses from the compiler to the simulator.

    Attributes:
        instructions: the encoded stream, a multiple of 64 bytes.
        operator_of: `[n] uint32`, the operator each instruction came from.
        constants: the read-only segment, at `constants_address` of its memory.
        host_models: ONNX graphs of the host regions, as bytes.
        golden: whose arithmetic the program follows.
        arenas: of the scratchpad and the memories of activations; none where nobody reckoned.
    """

    source: str
    golden: Literal["onnx", "tflite"]
    chip: Chip
    instructions: bytes
    operator_of: NDArray[np.uint32]
    constants: NDArray[np.uint8]
    program_address: int
    constants_address: int
    tensors: tuple[ProgramTensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operators: tuple[Operator, ...]
    regions: tuple[Region, ...]
    host_models: tuple[bytes, ...]
    arenas: tuple[Arena, ...] = ()
    objective: Objective = Objective.LATENCY
    """What the compiler minimized."""

    def __repr__(self) -> str:
        """Return one line: what is inside would fill a thousand."""
        kinds = [region.device for region in self.regions]
        return (
            f"<Program of {one_line(self.source)} for chip {one_line(self.chip.name)}: "
            f"{len(self.instructions) // WORD_BYTES} instructions, {len(self.constants)} bytes of "
            f"constants, {kinds.count('npu')} NPU and {kinds.count('host')} host regions>"
        )

    @cached_property
    def _packed(self) -> tuple[bytes, NDArray[np.int64]]:
        if self.chip.control.packed:
            return pack(self.instructions)
        count = len(self.instructions) // WORD_BYTES
        return self.instructions, np.arange(1, count + 1) * WORD_BYTES

    @property
    def stream(self) -> bytes:
        """The instructions as they lie in memory."""
        return self._packed[0]

    @property
    def stream_ends(self) -> NDArray[np.int64]:
        """[instructions] where each ends in the stream."""
        return self._packed[1]

    @cached_property
    def _derived(self) -> dict[object, object]:
        return {}

    def derived(self, function: Callable[[Program], T]) -> T:
        """Return what a function of the package makes of this program, reckoned once."""
        if function not in self._derived:
            self._derived[function] = function(self)
        return cast(T, self._derived[function])

    @cached_property
    def decoded(self) -> list[Instruction]:
        """The instructions as objects."""
        return decode_all(self.instructions)

    @cached_property
    def table(self) -> NDArray[np.int64]:
        """The instructions as `lepton.isa.records_of` gives them."""
        return records_of(self.instructions)

    @cached_property
    def tensor_by_name(self) -> dict[str, ProgramTensor]:
        return {tensor.name: tensor for tensor in self.tensors}

    @property
    def constants_memory(self) -> int:
        return self.chip.memory_index(self.chip.placement.constants)

    @property
    def program_memory(self) -> int:
        return self.chip.memory_index(self.chip.placement.program)

    def to_bytes(self) -> bytes:
        """Return the file's bytes."""
        from lepton.program.container import program_bytes

        return program_bytes(self)

    def save(self, path: str | Path) -> None:
        """Write the program file; a partial file never stands under the final name.

        Raises:
            ProgramError: the file cannot be written.
        """
        from lepton.program.files import atomic_write

        atomic_write(Path(path), self.to_bytes())
