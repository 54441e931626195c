"""Where one element of a result comes from: its instruction, accumulator and requantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.arith.records import unpack_requantize
from lepton.isa import Instruction, disassemble_one
from lepton.isa import instructions as isa
from lepton.isa.footprints import REQUANTIZE_BYTES, Space, cores_of, footprints, space_of
from lepton.program import Program, ProgramTensor
from lepton.simulator.check import execution_order
from lepton.simulator.functional import execute
from lepton.simulator.machine import Machine, machines_for

__all__ = ["Origin", "Sum"]

Arrays = dict[str, NDArray[Any]]

Axes = tuple[tuple[int, int], ...]
"""Extent and stride of each dimension."""


@dataclass(frozen=True)
class Sum:
    """What the requantizer read and applied for one result.

    Attributes:
        accumulator: the sum of products, zero points taken out, without the bias.
        multiplier: Q31 fraction, or the scale itself in the float modes.
        shift: exponent behind a Q31 fraction, 0 in the float modes.
        scale: what both amount to as a real number.
    """

    accumulator: int
    bias: int
    multiplier: float
    shift: int
    scale: float
    mode: str
    zero_point: int


def _at(base: int, axes: Axes, unit: int) -> tuple[int, ...] | None:
    """Return the coordinates at which a strided block holds address `unit`, None if nowhere."""
    offsets = np.zeros((1,) * len(axes), np.int64)
    for axis, (extent, stride) in enumerate(axes):
        shape = [1] * len(axes)
        shape[axis] = extent
        offsets = offsets + (np.arange(extent) * stride).reshape(shape)
    found = np.argwhere(offsets == unit - base)
    return tuple(int(item) for item in found[0]) if len(found) else None


def _block(i: Any, name: str) -> tuple[int, Axes]:
    """Return base and axes of a tile of an instruction."""
    prefix = "ofm_" if hasattr(i, "ofm_height") else ""
    extents = [getattr(i, f"{prefix}{part}") for part in ("height", "width")] + [i.channels]
    pitches = [getattr(i, f"{name}_{part}_pitch") for part in ("row", "pixel")]
    pitches.append(getattr(i, f"{name}_channel_pitch", 1))
    return getattr(i, name), tuple(zip(extents, pitches, strict=True))


def _source(i: Instruction, unit: int) -> tuple[int, int] | None:
    """Return space and address that a moving instruction took a byte of its result from."""
    if isinstance(i, isa.Copy):
        sides = (Space.SCRATCHPAD, *_block(i, "ifm")), _block(i, "ofm")
    elif isinstance(i, isa.Load | isa.Store):
        extents = (i.planes, i.rows, i.row_bytes)
        outside = i.address, tuple(zip(extents, (i.plane_stride, i.row_stride, 1), strict=True))
        pitches = (i.scratchpad_plane_pitch, i.scratchpad_row_pitch, 1)
        inside = i.scratchpad, tuple(zip(extents, pitches, strict=True))
        if isinstance(i, isa.Store):
            sides = (Space.SCRATCHPAD, *inside), outside
        else:
            sides = (Space.MEMORY + i.memory, *outside), inside
    else:
        return None
    (space, base, axes), result = sides
    where = _at(*result, unit)
    if where is None:
        return None
    return int(space), base + sum(n * stride for n, (_, stride) in zip(where, axes, strict=True))


class Origin:
    """Finds the instruction that computed an element of a tensor, and what it read.

    Args:
        region: number of the NPU region that makes the tensor.
        finish: the last instruction that writes into it.
        values: at least the inputs of the region, by name.
    """

    def __init__(self, program: Program, region: int, finish: int, values: Arrays) -> None:
        self._program, self._values = program, values
        self._region = program.regions[region]
        self._operator = program.operator_of[finish]
        self._order = execution_order(program, self._region)
        self._position = {index: at for at, index in enumerate(self._order)}
        table, cores = program.table, program.chip.cores
        boxes = footprints(table[self._region.start : self._region.stop], cores)
        self._core_of = cores_of(table, cores).tolist()
        self._writes = boxes[boxes[:, 2] == 1]

    def explain(
        self, tensor: ProgramTensor, offset: int
    ) -> tuple[Sum | None, tuple[int, ...], str]:
        """Return the sum behind byte `offset` of a tensor, or the operands; and the instruction."""
        found = self._computed(Space.MEMORY + tensor.memory, tensor.address + offset)
        if found is None:
            return None, (), ""
        index, unit = found
        instruction = self._program.decoded[index]
        text = disassemble_one(instruction)
        if not isinstance(instruction, isa.Requantize | isa.Binary | isa.Lut):
            return None, (), text
        where = _at(*_block(instruction, "ofm"), unit)
        if where is None:
            return None, (), text
        machine = self._machine_before(index)
        if isinstance(instruction, isa.Requantize):
            return _sum(machine, instruction, where), (), text
        return None, _operands(machine, instruction, where), text

    def _computed(self, space: int, unit: int) -> tuple[int, int] | None:
        """Return the instruction of the operator that computed a unit, and where it wrote it."""
        before = len(self._order)
        while True:
            index = self._writer(space, unit, before)
            if index is None:
                return None
            source = _source(self._program.decoded[index], unit)
            if source is None:
                return index, unit
            if self._program.operator_of[index] != self._operator:
                return None
            before, (kind, unit) = self._position[index], source
            is_own = kind < Space.MEMORY
            space = space_of(self._core_of[index], Space(kind)) if is_own else kind

    def _writer(self, space: int, unit: int, before: int) -> int | None:
        """Return the last instruction before a position that writes a unit."""
        mine = self._writes[(self._writes[:, 1] == space) & (self._writes[:, 3] <= unit)]
        latest: int | None = None
        for row in mine.tolist():
            index = self._region.start + row[0]
            at = self._position[index]
            if at >= before or (latest is not None and at < self._position[latest]):
                continue
            axes = ((row[5], row[6]), (row[7], row[8]), (row[9], row[10]), (row[4], 1))
            if _at(row[3], axes, unit) is not None:
                latest = index
        return latest

    def _machine_before(self, index: int) -> Machine:
        """Return the machine as an instruction of the region finds it."""
        program = self._program
        machines = machines_for(program, footprints(program.table, program.chip.cores))
        for name in self._region.inputs:
            tensor = program.tensor_by_name[name]
            content = np.ascontiguousarray(self._values[name])
            if tensor.memory >= 0:
                raw = np.frombuffer(content.tobytes(), np.uint8)
                machines[0].write(tensor.memory, tensor.address, raw)
        for item in self._order[: self._position[index]]:
            execute(machines[self._core_of[item]], program.decoded[item])
        return machines[self._core_of[index]]


def _sum(machine: Machine, i: isa.Requantize, where: tuple[int, ...]) -> Sum:
    """Return what a requantization read and applied for one element."""
    y, x, channel = where
    size = i.channels * REQUANTIZE_BYTES[i.mode]
    content = machine.scratchpad[i.parameters : i.parameters + size]
    table = unpack_requantize(content, i.channels, i.mode)
    at = i.accumulator + (y * i.width + x) * i.accumulator_pitch + channel
    multiplier = float(table.multiplier[channel])
    is_fixed = i.mode == isa.RequantizeMode.Q31
    shift = int(table.shift[channel]) if is_fixed else 0
    return Sum(
        int(machine.accumulators[at]),
        int(table.bias[channel]),
        multiplier,
        shift,
        multiplier * 2.0 ** (shift - 31) if is_fixed else multiplier,
        isa.RequantizeMode(i.mode).name.lower(),
        i.ofm_zero_point,
    )


def _operands(machine: Machine, i: isa.Binary | isa.Lut, where: tuple[int, ...]) -> tuple[int, ...]:
    """Return the codes that an element-wise instruction read for one element."""
    codes: list[int] = []
    for name in ("a", "b") if isinstance(i, isa.Binary) else ("ifm",):
        base, axes = _block(i, name)
        at = base + sum(n * stride for n, (_, stride) in zip(where, axes, strict=True))
        code = int(machine.scratchpad[at])
        is_signed = isinstance(i, isa.Binary) and not getattr(i, f"{name}_unsigned")
        codes.append(code - 256 if is_signed and code > 127 else code)
    return tuple(codes)
