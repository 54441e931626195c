"""Programs written by hand, in assembly text, for the small chip."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, load_chip
from lepton.isa import assemble, encode_all
from lepton.program import Operator, Program, ProgramTensor, Region

__all__ = ["CONSTANTS", "SRAM", "hand_program", "raw_program", "tensor"]

SRAM, FLASH = 0, 1
"""Memories of the preset `nano`, which all these programs are for."""

CONSTANTS = 0x1000
"""Where the constants are in flash."""

PROGRAM = 0x100000


def tensor(
    name: str, shape: tuple[int, ...], address: int, dtype: str = "int8", memory: int = SRAM
) -> ProgramTensor:
    """Return a tensor of a program; scale and zero point do not matter to the NPU."""
    return ProgramTensor(name, shape, dtype, 0.5, -3, memory, address)


def hand_program(
    text: str,
    *,
    constants: bytes | NDArray[np.uint8] = b"",
    inputs: tuple[ProgramTensor, ...] = (),
    outputs: tuple[ProgramTensor, ...] = (),
    chip: Chip | None = None,
) -> Program:
    """Return the program of one NPU region that `text` spells."""
    stream = encode_all(assemble(text))
    return raw_program(stream, constants, inputs, outputs, chip or load_chip("nano"))


def raw_program(
    stream: bytes,
    constants: bytes | NDArray[np.uint8],
    inputs: tuple[ProgramTensor, ...],
    outputs: tuple[ProgramTensor, ...],
    chip: Chip,
) -> Program:
    """Return the program of one NPU region with these instructions."""
    count = len(stream) // 64
    names = tuple(item.name for item in inputs), tuple(item.name for item in outputs)
    return Program(
        source="hand.onnx",
        golden="onnx",
        chip=chip,
        instructions=stream,
        operator_of=np.zeros(count, np.uint32),
        constants=np.frombuffer(bytes(constants), np.uint8),
        program_address=PROGRAM,
        constants_address=CONSTANTS,
        tensors=(*inputs, *outputs),
        inputs=names[0],
        outputs=names[1],
        operators=(Operator("net/op", "Conv", "npu", 1, 0, 0, ""),),
        regions=(Region("npu", 0, count, names[0], names[1], -1),) if count else (),
        host_models=(),
    )
