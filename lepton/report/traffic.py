"""Bytes that each operator moves to and from the external memories, and the compulsory ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.isa.declaration import BY_MNEMONIC
from lepton.isa.encoding import COLUMNS
from lepton.isa.footprints import footprints
from lepton.isa.instructions import Weights
from lepton.program import Program, ProgramTensor
from lepton.simulator.check_streams import Copies, is_constant

__all__ = ["boundary_tensors", "instruction_bytes", "operator_traffic"]
__all__ += ["read_within", "weight_stream_bytes", "weight_stream_spans"]

I64 = NDArray[np.int64]


def _opcode(table: I64, mnemonic: str) -> NDArray[np.bool_]:
    return table[:, 0] == BY_MNEMONIC[mnemonic].opcode


def instruction_bytes(table: I64) -> I64:
    """Return the bytes `[n]` that each record of `lepton.isa.records` moves; 0 if none."""
    moved = table[:, COLUMNS["row_bytes"]] * table[:, COLUMNS["rows"]] * table[:, COLUMNS["planes"]]
    streamed = table[:, COLUMNS["stream_bytes"]]
    is_copy = _opcode(table, "load") | _opcode(table, "store")
    return np.where(is_copy, moved, np.where(_opcode(table, "weights"), streamed, 0))


def operator_traffic(program: Program) -> I64:
    """Return `[operators, memories, 2]`: bytes read and written by each operator's transfers."""
    table = program.table
    made = np.zeros((len(program.operators), len(program.chip.memories), 2), np.int64)
    size = instruction_bytes(table)
    moves = np.flatnonzero(size)
    operator = program.operator_of[moves].astype(np.int64)
    memory = table[moves, COLUMNS["memory"]]
    np.add.at(
        made, (operator, memory, _opcode(table, "store")[moves].astype(np.int64)), size[moves]
    )
    return made


def weight_stream_bytes(program: Program) -> I64:
    """Return `[operators]`: stored bytes of each one's weight streams, each byte once.

    Bytes that several operators read count for the first.
    """
    made = np.zeros(len(program.operators), np.int64)
    reached = 0
    for start, stop, operator in sorted(weight_stream_spans(program)):
        made[operator] += max(stop - max(start, reached), 0)
        reached = max(reached, stop)
    return made


def weight_stream_spans(program: Program) -> list[tuple[int, int, int]]:
    """Return `[start, stop)` in the constant segment and operator of each stream that is read.

    Streams that are read from a copy elsewhere are those that were copied.
    """
    every = [
        (index, item) for index, item in enumerate(program.decoded) if isinstance(item, Weights)
    ]
    spans: list[tuple[int, int, int]] = []
    for index, item in every:
        if is_constant(program, item):
            start = item.address - program.constants_address
            spans.append((start, start + item.stream_bytes, int(program.operator_of[index])))
    if len(spans) == len(every):
        return spans
    boxes = footprints(program.table, program.chip.cores)
    # instructions that touch the same bytes are in the order of the program
    copies = Copies(program, boxes, np.arange(len(program.decoded)))
    for index, item in every:
        if not is_constant(program, item):
            start = int(copies.sources(index)[0])
            if start >= 0:
                spans.append((start, start + item.stream_bytes, int(program.operator_of[index])))
    return spans


def read_within(program: Program, memory: int, address: int, size: int) -> int:
    """Return the bytes that transfers read from a span of a memory, at most `size`."""
    table = program.table
    start = table[:, COLUMNS["address"]]
    chosen = (_opcode(table, "load") | _opcode(table, "weights")) & (start >= address)
    chosen &= (start < address + size) & (table[:, COLUMNS["memory"]] == memory)
    return min(int(instruction_bytes(table)[chosen].sum()), size)


def boundary_tensors(program: Program) -> tuple[list[ProgramTensor], list[ProgramTensor]]:
    """Return the tensors that the NPU must read from outside, and those it must write for others.

    Network inputs and what the host made; network outputs and what the host reads. A tensor from
    one NPU region to the next is not compulsory: it might have stayed on the chip.
    """
    npu = [region for region in program.regions if region.device == "npu"]
    host = [region for region in program.regions if region.device == "host"]
    made = {name for region in npu for name in region.outputs}
    wanted = {name for region in host for name in region.inputs} | set(program.outputs)
    read = {name for region in npu for name in region.inputs} - made
    tensors = [tensor for tensor in program.tensors if tensor.memory >= 0]
    return (
        [tensor for tensor in tensors if tensor.name in read],
        [tensor for tensor in tensors if tensor.name in made & wanted],
    )
