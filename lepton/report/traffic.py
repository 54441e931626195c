"""Bytes that each operator moves to and from the external memories, and the compulsory ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.isa.declaration import BY_MNEMONIC
from lepton.isa.encoding import COLUMNS
from lepton.program import Program, ProgramTensor

__all__ = ["boundary_tensors", "instruction_bytes", "operator_traffic"]
__all__ += ["read_within", "weight_stream_bytes"]

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
    table = program.table
    chosen = np.flatnonzero(_opcode(table, "weights"))
    start = table[chosen, COLUMNS["address"]]
    stop = start + table[chosen, COLUMNS["stream_bytes"]]
    operator = program.operator_of[chosen].astype(np.int64)
    made = np.zeros(len(program.operators), np.int64)
    reached = 0
    for row in np.lexsort((chosen, start)).tolist():
        made[operator[row]] += max(int(stop[row]) - max(int(start[row]), reached), 0)
        reached = max(reached, int(stop[row]))
    return made


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
