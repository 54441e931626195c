"""The rules that make a program consistent."""

from __future__ import annotations

from itertools import pairwise

from lepton.errors import ProgramError
from lepton.isa import WORD_BYTES
from lepton.program.records import Program

__all__ = ["validate"]


def validate(program: Program) -> None:
    """Raise ProgramError for anything that points outside of what the file holds."""
    count, rest = divmod(len(program.instructions), WORD_BYTES)
    if rest:
        raise ProgramError(f"the instruction stream ends inside a word, {rest} bytes too many")
    if len(program.operator_of) != count:
        raise ProgramError("operator_of must have one entry per instruction")
    if count and int(program.operator_of.max()) >= len(program.operators):
        raise ProgramError("an instruction names an operator that does not exist")
    if len(program.tensor_by_name) != len(program.tensors):
        raise ProgramError("two tensors have the same name")
    _ = program.decoded
    _validate_memory(program)
    _validate_regions(program, count)
    for name in (*program.inputs, *program.outputs):
        if name not in program.tensor_by_name:
            raise ProgramError(f"'{name}' is listed as an input or output but does not exist")


def _validate_regions(program: Program, count: int) -> None:
    """Raise ProgramError unless the regions cover the `count` instructions and name what is."""
    stop = 0
    for region in program.regions:
        for name in (*region.inputs, *region.outputs):
            if name not in program.tensor_by_name:
                raise ProgramError(f"a region uses tensor '{name}', which does not exist")
        if region.device == "npu":
            if region.start != stop or not region.start < region.stop <= count:
                raise ProgramError("the NPU regions must cover the instructions in order")
            stop = region.stop
        elif not 0 <= region.host_model < len(program.host_models):
            raise ProgramError("a host region names a graph that does not exist")
    if stop != count:
        raise ProgramError("the NPU regions must cover the instructions in order")


def _validate_memory(program: Program) -> None:
    """Raise ProgramError unless segments and tensors lie inside their memories, inputs apart."""
    memories = program.chip.memories
    segments = [
        ("program", program.program_memory, program.program_address, len(program.stream)),
        ("constants", program.constants_memory, program.constants_address, len(program.constants)),
    ]
    spans: list[tuple[str, int, int, int]] = []
    for tensor in program.tensors:
        if tensor.memory >= len(memories):
            raise ProgramError(f"tensor '{tensor.name}' is in memory {tensor.memory}, which is not")
        if tensor.memory >= 0:
            spans.append((tensor.name, tensor.memory, tensor.address, tensor.size_bytes))
    for name, memory, address, size in (*segments, *spans):
        limit = memories[memory].size_bytes
        if address + size > limit:
            raise ProgramError(
                f"'{name}' ends at {address + size:#x}, beyond the {limit:#x} bytes of memory "
                f"'{memories[memory].name}'"
            )
    # other tensors may share their place: they live one after the other
    inputs = [span for span in spans if span[0] in program.inputs]
    _refuse_overlap([*segments, *inputs])
    for span in spans:
        for segment in segments:
            _refuse_overlap([segment, span])


def _refuse_overlap(spans: list[tuple[str, int, int, int]]) -> None:
    """Raise ProgramError if two of the `(name, memory, address, size)` share a byte."""
    filled = sorted((span[1:] + span[:1] for span in spans if span[3]), key=lambda span: span[:2])
    for (memory, start, size, first), (other, after, _, second) in pairwise(filled):
        if memory == other and after < start + size:
            names = {"program": "the program", "constants": "the constants"}
            ordered = sorted((first, second), key=lambda name: name in names)
            raise ProgramError(f"'{ordered[0]}' overlaps {names.get(ordered[1], repr(ordered[1]))}")
