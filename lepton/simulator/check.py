"""Undefined behaviour of a program, decided once and without inputs.

Bounds, the rules of semaphores, deadlock, races and uninitialized reads follow from the program
alone: queues work in order and semaphores say which instruction comes behind which, whatever the
timing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.errors import CheckError
from lepton.isa import disassemble_one
from lepton.isa.declaration import SEMAPHORES
from lepton.isa.footprints import Space, ends, footprints, queue_count, queue_names, queues
from lepton.isa.instructions import Halt, WeightFormat, Weights
from lepton.program import Program, ProgramTensor, Region
from lepton.simulator import check_kernels as kernels
from lepton.simulator.check_fields import MOST_RUNS, MOST_UNITS, box_fault, field_fault
from lepton.simulator.check_streams import stream_fault
from lepton.simulator.machine import reach

__all__ = ["check", "execution_order", "place"]

I64 = NDArray[np.int64]

RACE_STEPS = 1 << 32
"""Comparisons of runs that the search for races may take; whole networks need a thousandth."""


def check(program: Program) -> None:
    """Raise CheckError if the program has undefined behaviour.

    Raises:
        CheckError: naming the instruction, its source operator and the bytes.
    """
    table = program.table
    boxes = footprints(table)
    dma = program.chip.dma
    queue = queues(table, dma.load_channels, dma.store_channels)
    _check_queues(program, queue)
    _check_fields(program)
    _check_halts(program)
    _check_bounds(program, boxes)
    _check_boxes(program, boxes)
    _check_streams(program)
    _check_semaphores(program, table, queue)
    written = _Written(program, boxes)
    for region in program.regions:
        if region.device == "npu":
            span = (region.start, region.stop)
            order, mine = _check_region(program, table, boxes, queue, span)
            _check_initialized(program, mine, order, region.start, written)
        else:
            written.host(region)
    for name in program.outputs:
        written.read(program.tensor_by_name[name], "the program returns")


def execution_order(program: Program, region: Region) -> list[int]:
    """Return the instructions of an NPU region in an order that its semaphores allow."""
    table = program.table[region.start : region.stop]
    dma = program.chip.dma
    order, _, _ = kernels.happens_before(
        queues(table, dma.load_channels, dma.store_channels),
        table[:, 1],
        table[:, 2],
        queue_count(dma.load_channels, dma.store_channels),
        program.chip.control.queue_depth,
    )
    return [region.start + int(index) for index in order]


def place(program: Program, index: int) -> str:
    """Return how an error names an instruction: number, text and source operator."""
    operator = program.operators[int(program.operator_of[index])]
    text = disassemble_one(program.decoded[index]).split(" ", 1)[0]
    return f"instruction {index} ({text}, operator '{' '.join(operator.name.split())}')"


def _check_queues(program: Program, queue: I64) -> None:
    """Raise for a DMA channel that the chip does not have."""
    missing = np.flatnonzero(queue == -2)
    if len(missing):
        index = int(missing[0])
        raise CheckError(f"{place(program, index)}: the chip has no such DMA channel")


def _check_fields(program: Program) -> None:
    """Raise for field values that are in range on their own but mean nothing together."""
    memories = len(program.chip.memories)
    for index, item in enumerate(program.decoded):
        reason = field_fault(item, memories)
        if reason:
            raise CheckError(f"{place(program, index)}: {reason}")


def _check_halts(program: Program) -> None:
    """Raise unless each NPU region ends at its only halt."""
    ends_at = {region.stop - 1 for region in program.regions if region.device == "npu"}
    for index, item in enumerate(program.decoded):
        if isinstance(item, Halt) and index not in ends_at:
            raise CheckError(f"{place(program, index)}: halts before the end of its region")
    for index in sorted(ends_at):
        if not isinstance(program.decoded[index], Halt):
            raise CheckError(f"{place(program, index)}: ends its region without a halt")


def _check_boxes(program: Program, boxes: I64) -> None:
    """Raise for an access of absurdly many pieces, or a write that meets itself."""
    runs = boxes[:, 5] * boxes[:, 7] * boxes[:, 9]
    suspect = (runs > MOST_RUNS) | (runs * boxes[:, 4] > MOST_UNITS)
    suspect |= (runs > 1) & (boxes[:, 2] == 1)
    for row in np.flatnonzero(suspect):
        reason = box_fault(boxes[row])
        if reason:
            raise CheckError(f"{place(program, int(boxes[row, 0]))}: {reason}")


def _check_streams(program: Program) -> None:
    """Raise for a damaged weight stream; each is decoded once."""
    known: set[tuple[int, ...]] = set()
    for index, item in enumerate(program.decoded):
        if not isinstance(item, Weights) or item.format == WeightFormat.RAW:
            continue
        key = (item.memory, item.address, item.stream_bytes, item.format)
        key += (item.reduction * item.columns,)
        reason = "" if key in known else stream_fault(program, item)
        if reason:
            raise CheckError(f"{place(program, index)}: {reason}")
        known.add(key)


def _check_bounds(program: Program, boxes: I64) -> None:
    """Raise for a box outside of its space, or a store into the constants or the program."""
    chip = program.chip
    sizes = [chip.scratchpad.size_bytes, chip.accumulators.elements, chip.weight_buffer.elements]
    sizes += [memory.size_bytes for memory in chip.memories]
    past = ends(boxes)
    limits = np.array(sizes, np.int64)[boxes[:, 1]]
    outside = np.flatnonzero(past > limits)
    if len(outside):
        row = int(outside[0])
        raise CheckError(
            f"{place(program, int(boxes[row, 0]))}: reaches {past[row]:#x} in "
            f"{_space_name(program, int(boxes[row, 1]))}, which has {limits[row]:#x}"
        )
    segments = [
        (program.constants_memory, program.constants_address, len(program.constants), "constant"),
        (program.program_memory, program.program_address, len(program.stream), "program"),
    ]
    for memory, start, size, name in segments:
        hits = np.flatnonzero(
            (boxes[:, 1] == Space.MEMORY + memory)
            & (boxes[:, 2] == 1)
            & (boxes[:, 3] < start + size)
            & (past > start)
        )
        if len(hits):
            index = int(boxes[hits[0], 0])
            raise CheckError(f"{place(program, index)}: stores into the {name} segment")


def _space_name(program: Program, space: int) -> str:
    names = ["the scratchpad", "the accumulators", "the weight buffer"]
    names += [f"memory '{memory.name}'" for memory in program.chip.memories]
    return names[space]


def _check_semaphores(program: Program, table: I64, queue: I64) -> None:
    """Raise unless each semaphore has one signalling and one waiting queue."""
    dma = program.chip.dma
    names = queue_names(dma.load_channels, dma.store_channels)
    for verb, column in (("signalled", 2), ("awaited", 1)):
        for bit in range(SEMAPHORES):
            users = np.flatnonzero((table[:, column] >> bit) & 1)
            found = np.unique(queue[users])
            if len(found) > 1:
                first = [int(users[queue[users] == q][0]) for q in found[:2]]
                labels = [names[q] if q >= 0 else "control" for q in found[:2]]
                raise CheckError(
                    f"{place(program, first[1])}: semaphore {bit} is {verb} by {labels[1]} and, "
                    f"at instruction {first[0]}, by {labels[0]}; it may be {verb} by one queue only"
                )
            if len(found) and found[0] < 0:
                raise CheckError(
                    f"{place(program, int(users[0]))}: a control instruction has no queue to "
                    "wait or signal from"
                )


def _check_region(
    program: Program, table: I64, boxes: I64, queue: I64, span: tuple[int, int]
) -> tuple[I64, I64]:
    """Check order and races of one region; return a legal order and the region's boxes."""
    start, stop = span
    mine = boxes[(boxes[:, 0] >= start) & (boxes[:, 0] < stop)].copy()
    mine[:, 0] -= start
    rows = table[start:stop]
    dma = program.chip.dma
    count = queue_count(dma.load_channels, dma.store_channels)
    order, clocks, stuck = kernels.happens_before(
        queue[start:stop], rows[:, 1], rows[:, 2], count, program.chip.control.queue_depth
    )
    if stuck >= 0:
        raise CheckError(
            f"{place(program, start + stuck)}: deadlock, it waits for a signal that never comes"
        )
    budget = np.array([RACE_STEPS], np.int64)
    first, second, box = kernels.first_race(queue[start:stop], clocks, mine, budget)
    if budget[0] < 0:
        raise CheckError(
            f"{place(program, start + second)}: its accesses are too scattered to decide whether "
            f"it races with instruction {start + first}"
        )
    if first >= 0:
        space = _space_name(program, int(mine[box, 1]))
        raise CheckError(
            f"{place(program, start + second)}: races with instruction {start + first} for "
            f"{space} at {int(mine[box, 3]):#x}; no semaphore orders them"
        )
    return order, mine


class _Written:
    """Which bytes of the memories, and which tensors of the host, hold a value by now."""

    def __init__(self, program: Program, boxes: I64) -> None:
        self._program = program
        self.memories = [np.zeros(size, np.uint8) for size in reach(program, boxes)]
        self._host: set[str] = set()
        start = program.constants_address
        self.memories[program.constants_memory][start : start + len(program.constants)] = 1
        for name in program.inputs:
            self._write(program.tensor_by_name[name])

    def _write(self, tensor: ProgramTensor) -> None:
        if tensor.memory < 0:
            self._host.add(tensor.name)
        else:
            span = slice(tensor.address, tensor.address + tensor.size_bytes)
            self.memories[tensor.memory][span] = 1

    def read(self, tensor: ProgramTensor, who: str) -> None:
        """Raise unless a whole tensor holds a value."""
        span = slice(tensor.address, tensor.address + tensor.size_bytes)
        known = (
            tensor.name in self._host
            if tensor.memory < 0
            else bool(self.memories[tensor.memory][span].all())
        )
        if not known:
            name = " ".join(tensor.name.split())
            raise CheckError(f"{who} tensor '{name}', which nothing has written")

    def host(self, region: Region) -> None:
        """Read the inputs of a host region and write its outputs."""
        for name in region.inputs:
            tensor = self._program.tensor_by_name[name]
            self.read(tensor, f"host region {region.host_model} reads")
        for name in region.outputs:
            self._write(self._program.tensor_by_name[name])


def _check_initialized(
    program: Program, boxes: I64, order: I64, start: int, written: _Written
) -> None:
    """Raise for a read of units that nothing wrote before, in any legal order.

    The chip's own memories are cold at the start of a region, the others keep what they hold.
    """
    chip = program.chip
    sizes = [chip.scratchpad.size_bytes, chip.accumulators.elements, chip.weight_buffer.elements]
    cold = [np.zeros(size, np.uint8) for size in sizes]
    for space, marks in enumerate((*cold, *written.memories)):
        mine = boxes[boxes[:, 1] == space]
        row, at = kernels.first_unwritten(mine, order, marks)
        if row >= 0:
            index = start + int(mine[row, 0])
            raise CheckError(
                f"{place(program, index)}: reads {at:#x} of {_space_name(program, space)}, which "
                "nothing has written"
            )
