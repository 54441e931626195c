"""Undefined behaviour of a program, decided once and without inputs.

Bounds, the rules of semaphores, deadlock, races and uninitialized reads follow from the program
alone: queues work in order and semaphores say which instruction comes behind which, whatever the
timing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.errors import CheckError
from lepton.isa import disassemble_one
from lepton.isa.declaration import SEMAPHORES
from lepton.isa.footprints import (
    Space,
    cores_of,
    ends,
    first_shared,
    footprints,
    queue_count,
    queue_names,
    queues,
    space_of,
)
from lepton.isa.instructions import Halt, WeightFormat, Weights
from lepton.program import Program, ProgramTensor, Region
from lepton.simulator import check_kernels as kernels
from lepton.simulator import check_streams as streams
from lepton.simulator.check_fields import (
    MOST_RUNS,
    MOST_UNITS,
    box_fault,
    field_fault,
    may_replace,
)
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
    table, chip = program.table, program.chip
    boxes = footprints(table, chip.cores)
    queue = queues(table, chip.dma.load_channels, chip.dma.store_channels, chip.cores)
    _check_queues(program, queue)
    _check_fields(program)
    _check_halts(program)
    _check_bounds(program, boxes)
    _check_boxes(program, boxes)
    _check_replaced(program, boxes)
    _check_streams(program)
    _check_semaphores(program, table, queue)
    written = _Written(program, boxes)
    for region in program.regions:
        if region.device == "npu":
            span = (region.start, region.stop)
            order, mine = _check_region(program, table, boxes, queue, span)
            _check_copied_streams(program, mine, order, region.start)
            _check_initialized(program, mine, order, region.start, written)
        else:
            written.host(region)
    for name in program.outputs:
        written.read(program.tensor_by_name[name], "the program returns")


def execution_order(program: Program, region: Region) -> list[int]:
    """Return the instructions of an NPU region in an order that its semaphores allow."""
    table, chip = program.table[region.start : region.stop], program.chip
    queue = queues(table, chip.dma.load_channels, chip.dma.store_channels, chip.cores)
    order, _, _ = _happens_before(chip, table, queue)
    return [region.start + int(index) for index in order]


def _happens_before(chip: Chip, table: I64, queue: I64) -> tuple[I64, I64, int]:
    """Return `happens_before` of a region's part of the table."""
    dma = chip.dma
    count = queue_count(dma.load_channels, dma.store_channels) * chip.cores
    sizes = (count, chip.control.queue_depth, chip.cores, first_shared(chip.cores))
    masks = np.ascontiguousarray(table[:, 1:3])
    return kernels.happens_before(queue, masks, cores_of(table, chip.cores), sizes)


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
    """Raise unless each NPU region ends at a halt and has one for each core."""
    cores = program.chip.cores
    for region in program.regions:
        if region.device != "npu":
            continue
        items = program.decoded[region.start : region.stop]
        halts = [region.start + at for at, item in enumerate(items) if isinstance(item, Halt)]
        if halts[-1:] != [region.stop - 1]:
            raise CheckError(f"{place(program, region.stop - 1)}: ends its region without a halt")
        if len(halts) > cores:
            extra = place(program, halts[0 if cores == 1 else cores - 1])
            raise CheckError(f"{extra}: halts before the end of its region")
        if len(halts) < cores:
            raise CheckError(
                f"{place(program, region.stop - 1)}: ends its region, which halts for "
                f"{len(halts)} of {cores} cores"
            )


def _check_boxes(program: Program, boxes: I64) -> None:
    """Raise for an access of absurdly many pieces, or a write that meets itself."""
    runs = boxes[:, 5] * boxes[:, 7] * boxes[:, 9]
    suspect = (runs > MOST_RUNS) | (runs * boxes[:, 4] > MOST_UNITS)
    suspect |= (runs > 1) & (boxes[:, 2] == 1)
    for row in np.flatnonzero(suspect):
        reason = box_fault(boxes[row])
        if reason:
            raise CheckError(f"{place(program, int(boxes[row, 0]))}: {reason}")


def _check_replaced(program: Program, boxes: I64) -> None:
    """Raise for a write over an operand of the same instruction that it may still have to read."""
    reads, writes = boxes[boxes[:, 2] == 0], boxes[boxes[:, 2] == 1]
    # an instruction writes one box
    written = np.full(len(program.table), -1)
    written[writes[:, 0]] = np.arange(len(writes))
    reads = reads[written[reads[:, 0]] >= 0]
    results = writes[written[reads[:, 0]]]
    near = (reads[:, 1] == results[:, 1]) & (reads[:, 3] < ends(results))
    budget = np.array([RACE_STEPS], np.int64)
    for row in np.flatnonzero(near & (results[:, 3] < ends(reads))):
        index, base = int(reads[row, 0]), int(reads[row, 3])
        if may_replace(program.decoded[index], base):
            continue
        if kernels.boxes_overlap(reads[row], results[row], budget):
            raise CheckError(
                f"{place(program, index)}: writes {_space_name(program, int(reads[row, 1]))} where "
                f"it reads from {base:#x} on; only binary and lut may, element on element"
            )


def _check_streams(program: Program) -> None:
    """Raise for a damaged weight stream of the constant segment; each is decoded once."""
    known: set[tuple[int, ...]] = set()
    for index, item in enumerate(program.decoded):
        if not isinstance(item, Weights) or item.format == WeightFormat.RAW:
            continue
        key = (item.address, item.stream_bytes, item.format, item.reduction * item.columns)
        if streams.is_constant(program, item) and key not in known:
            start = item.address - program.constants_address
            content = program.constants[start : start + item.stream_bytes]
            _refuse_stream(program, index, content)
            known.add(key)


def _check_copied_streams(program: Program, boxes: I64, order: I64, start: int) -> None:
    """Raise for a damaged stream elsewhere, one that is no copy, and one behind its matmul."""
    misplaced = streams.misplaced_matmul(program, start + order)
    if misplaced >= 0:
        raise CheckError(
            f"{place(program, misplaced)}: multiplies by weights that come behind it in the "
            "program; a chip that skips zeros takes those before it"
        )
    copied = [
        index
        for index in sorted(start + order)
        if isinstance(item := program.decoded[index], Weights)
        and item.format != WeightFormat.RAW
        and not streams.is_constant(program, item)
    ]
    if not copied:
        return
    mine = boxes.copy()
    mine[:, 0] += start
    copies = streams.Copies(program, mine, start + order)
    known: set[tuple[bytes, int, int]] = set()
    for index in copied:
        sources = copies.sources(index)
        reason = streams.copy_fault(program, index, sources)
        if reason:
            raise CheckError(f"{place(program, index)}: {reason}")
        item = program.decoded[index]
        assert isinstance(item, Weights)
        shape = (item.format, item.reduction * item.columns)
        content = program.constants[sources]
        if (content.tobytes(), *shape) not in known:
            _refuse_stream(program, index, content)
            known.add((content.tobytes(), *shape))


def _refuse_stream(program: Program, index: int, content: NDArray[np.uint8]) -> None:
    """Raise unless a decoder can expand a stream."""
    item = program.decoded[index]
    assert isinstance(item, Weights)
    reason = streams.stream_fault(program, item, content)
    if reason:
        raise CheckError(f"{place(program, index)}: {reason}")


def _check_bounds(program: Program, boxes: I64) -> None:
    """Raise for a box outside of its space, or a store into the constants or the program."""
    chip = program.chip
    limits = np.zeros(space_of(chip.cores, Space.SCRATCHPAD), np.int64)
    for space, size in _core_spaces(chip):
        limits[space] = size
    for number, memory in enumerate(chip.memories):
        limits[Space.MEMORY + number] = memory.size_bytes
    past = ends(boxes)
    limits = limits[boxes[:, 1]]
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


def _core_spaces(chip: Chip) -> list[tuple[int, int]]:
    """Return number and size of the spaces that each core has to itself."""
    sizes = [chip.scratchpad.size_bytes, chip.accumulators.elements, chip.weight_buffer.elements]
    own = (Space.SCRATCHPAD, Space.ACCUMULATORS, Space.WEIGHT_BUFFER)
    return [
        (space_of(core, space), size)
        for core in range(chip.cores)
        for space, size in zip(own, sizes, strict=True)
    ]


def _space_name(program: Program, space: int) -> str:
    names = ["the scratchpad", "the accumulators", "the weight buffer"]
    own = len(names)
    names += [f"memory '{memory.name}'" for memory in program.chip.memories]
    if space < len(names):
        return names[space]
    core, kind = divmod(space - space_of(1, Space.SCRATCHPAD), own)
    return f"{names[kind]} of core {core + 1}"


def _check_semaphores(program: Program, table: I64, queue: I64) -> None:
    """Raise unless each semaphore has one signalling and one waiting queue."""
    dma, cores = program.chip.dma, program.chip.cores
    names = queue_names(dma.load_channels, dma.store_channels, cores)
    core_of = cores_of(table, cores)
    every = [(bit, core) for bit in range(first_shared(cores)) for core in range(cores)]
    every += [(bit, -1) for bit in range(first_shared(cores), SEMAPHORES)]
    for verb, column in (("signalled", 2), ("awaited", 1)):
        for bit, core in every:
            users = np.flatnonzero((table[:, column] >> bit) & 1)
            if cores > 1 and core >= 0:
                users = users[core_of[users] == core]
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
    order, clocks, stuck = _happens_before(program.chip, table[start:stop], queue[start:stop])
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
    every = [(space, np.zeros(size, np.uint8)) for space, size in _core_spaces(program.chip)]
    every += [(Space.MEMORY + number, marks) for number, marks in enumerate(written.memories)]
    for space, marks in every:
        mine = boxes[boxes[:, 1] == space]
        row, at = kernels.first_unwritten(mine, order, marks)
        if row >= 0:
            index = start + int(mine[row, 0])
            raise CheckError(
                f"{place(program, index)}: reads {at:#x} of {_space_name(program, space)}, which "
                "nothing has written"
            )
