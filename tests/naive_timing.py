"""The chip's time in plain loops, one step per cycle: docs/timing.md written out.

Nothing looks ahead: a cycle goes through the phases of section 3 and sees only what has happened.
Numbers in brackets are sections of that page.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, Flat
from lepton.isa import Instruction, records
from lepton.isa import instructions as isa
from lepton.isa.footprints import queue_count, queues
from lepton.program import Program
from lepton.trace import RECORD
from tests.naive_banks import banks_of
from tests.naive_costs import cost_of
from tests.naive_matrix import Cost, matmul_cost
from tests.naive_memory import DramMemory, FlatMemory, Memory, Request, cut, divide_up
from tests.naive_sparsity import Block, known_weights, packed_cost
from tests.naive_stream import stored_lengths
from tests.naive_units import ComputeUnit, Item, Semaphores, TransferUnit, Unit

__all__ = ["Deadlock", "NaiveTiming", "instruction_cost", "naive_timing"]


class Deadlock(Exception):
    """Nothing can happen any more; `args[0]` is the first instruction that was never taken (4)."""


class NaiveCore:
    """A core with its stream of a region: fetch (5), dispatch (6), queues and their units."""

    def __init__(
        self, program: Program, items: list[Item], semaphores: Semaphores, memories: list[Memory]
    ) -> None:
        chip = self._chip = program.chip
        self._items, self._semaphores = items, semaphores
        self._program_memory = memories[program.program_memory]
        self._ticks = chip.ticks(chip.array.clock_mhz)
        self._block = max(chip.control.fetch_bytes // 64, 1) * 64
        lengths, first = stored_lengths(program), items[0].number
        self._address = program.program_address + sum(lengths[:first])
        self._length = lengths[first : first + len(items)]
        self._fetched_bytes = self._dispatched_bytes = 0
        self._dispatched = self._retired = 0
        self._arriving: list[tuple[list[Item], list[Request]]] = []
        matrix, vector = ComputeUnit(semaphores, True), ComputeUnit(semaphores, False)
        matrix.other, vector.other = vector, matrix
        channels = chip.dma.load_channels + chip.dma.store_channels
        transfers = [
            TransferUnit(semaphores, chip, memories, self._ticks) for _ in range(channels + 1)
        ]
        for unit in transfers:
            unit.compute = (matrix, vector)
        self._units: list[Unit] = [*transfers, matrix, vector]
        self._first_queue = items[0].core * len(self._units)

    @property
    def has_ended(self) -> bool:
        return self._retired == len(self._items)

    @property
    def awaits(self) -> bool:
        """Whether something of it is in flight."""
        return bool(self._arriving) or any(unit.in_flight for unit in self._units)

    def effects(self, cycle: int) -> bool:
        """Let groups arrive and instructions retire."""
        tick, moved = cycle * self._ticks, False
        for group in list(self._arriving):
            items, requests = group
            if all(request.finished(tick) for request in requests):
                self._arriving.remove(group)
                moved = True
                for item in items:
                    item.arrive = cycle
        for unit in self._units:
            while unit.in_flight and unit.is_done(unit.in_flight[0], cycle):
                item = unit.in_flight.pop(0)
                item.retire, moved = cycle, True
                self._retired += 1
                self._semaphores.fire(item, cycle)
        return moved

    def fetch(self, cycle: int) -> bool:
        """Ask for the next group, if there is room for it (5)."""
        whole = sum(self._length)
        if self._fetched_bytes == whole:
            return False
        room = self._block * self._chip.control.fetch_outstanding
        if self._fetched_bytes - self._dispatched_bytes >= room:
            return False
        size = min(self._block, whole - self._fetched_bytes)
        address, items, end = self._address + self._fetched_bytes, list[Item](), 0
        for item, length in zip(self._items, self._length, strict=True):
            end += length
            if self._fetched_bytes < end <= self._fetched_bytes + size:
                items.append(item)
        requests = [
            self._program_memory.request(cycle * self._ticks, address + offset, count, False)
            for offset, count in cut(address, size, self._program_memory.largest_request)
        ]
        self._arriving.append((items, requests))
        self._fetched_bytes += size
        return True

    def dispatch(self, cycle: int) -> bool:
        """Move the next instruction into its queue, if it is there and has room (6)."""
        if self._dispatched == len(self._items):
            return False
        item = self._items[self._dispatched]
        if item.arrive < 0:
            return False
        if item.queue < 0:
            item.taken = item.start = item.end = item.retire = cycle
            self._retired += 1
        else:
            queue = self._units[item.queue - self._first_queue].queue
            if len(queue) == self._chip.control.queue_depth:
                return False
            queue.append(item)
        item.dispatch = cycle
        self._dispatched_bytes += self._length[self._dispatched]
        self._dispatched += 1
        return True

    def turns(self, cycle: int) -> bool:
        """Let each queue take its step."""
        return any([unit.turn(cycle) for unit in self._units])


class NaiveRegion:
    """One NPU region, cycle by cycle."""

    def __init__(self, program: Program, items: list[Item], memories: list[Memory]) -> None:
        chip = program.chip
        self._items, self._memories = items, memories
        self._ticks = chip.ticks(chip.array.clock_mhz)
        semaphores = Semaphores(chip.cores)
        streams = [[item for item in items if item.core == core] for core in range(chip.cores)]
        self._cores = [NaiveCore(program, stream, semaphores, memories) for stream in streams]

    def run(self, cycle: int) -> int:
        """Return the cycle at which a region that begins at `cycle` ends (12)."""
        while True:
            for memory in self._memories:
                memory.advance(cycle * self._ticks)
            moved = False
            for phase in (NaiveCore.effects, NaiveCore.fetch, NaiveCore.dispatch, NaiveCore.turns):
                for core in self._cores:
                    moved |= phase(core, cycle)
            if all(core.has_ended for core in self._cores):
                break
            if not moved and not any(core.awaits for core in self._cores):
                raise Deadlock(next(item.number for item in self._items if item.taken < 0))
            cycle += 1
        drained = max(memory.drain(cycle * self._ticks) for memory in self._memories)
        return divide_up(drained, self._ticks)


@dataclass(frozen=True)
class NaiveTiming:
    """What `naive_timing` finds; `attribution` is where each queue's cycles went."""

    records: NDArray[np.void]
    cycles: int
    regions: tuple[tuple[int, int], ...]
    attribution: list[dict[str, int]]


def instruction_cost(item: Instruction, chip: Chip, block: Block | None) -> Cost:
    """Return preload, stream, last and drain; `naive_matrix` walks what is not the default.

    `block` is what a matmul reads that can be packed.
    """
    if not isinstance(item, isa.Matmul):
        return cost_of(item, chip)
    usual = chip.array.is_pipelined and not chip.array.deals_pixels
    cost = cost_of(item, chip) if usual else matmul_cost(item, chip)
    if block is None:
        return cost
    packed = packed_cost(item, block, chip)
    (_, stream, _, _), (_, packed_stream, _, _) = cost, packed
    return packed if packed_stream < stream else cost


def _items(program: Program) -> list[Item]:
    """Return the instructions with their costs and banks."""
    chip, decoded = program.chip, program.decoded
    channels = (chip.dma.load_channels, chip.dma.store_channels)
    of_core, queue = queue_count(*channels), queues(records(decoded), *channels).tolist()
    core, made, known = 0, list[Item](), known_weights(program)
    for number, item in enumerate(decoded):
        at = queue[number] + core * of_core if queue[number] >= 0 else -1
        cost = instruction_cost(item, chip, known.blocks.get(number))
        made.append(Item(number, core, item, at, *cost, banks=banks_of(item, chip)))
        if isinstance(item, isa.Weights):
            made[-1].elements = known.elements.get(number, item.reduction * item.columns)
        if isinstance(item, isa.Halt):
            core = (core + 1) % chip.cores
    return made


def _stalls(item: Item, free: int) -> dict[str, int]:
    """Return the stalls between `free` and the start (15)."""
    until = {
        "fetch": item.arrive,
        "dispatch": item.dispatch,
        "semaphore": item.fired,
        "preload": item.start,
    }
    stalls: dict[str, int] = {}
    for name, cycle in until.items():
        reached = min(max(cycle, free), item.start)
        stalls[name], free = reached - free, reached
    return stalls


def _record(
    items: list[Item], begin: int, out: NDArray[np.void], causes: list[dict[str, int]]
) -> None:
    """Add a region's records and where its units' cycles went."""
    free = [begin] * len(causes)
    for item in items:
        row = out[item.number]
        row["instruction"], row["queue"], row["dispatch"] = item.number, item.queue, item.dispatch
        row["arrive"], row["taken"] = item.arrive, item.taken
        row["start"], row["end"], row["retire"] = item.start, item.end, item.retire
        row["cause"], row["cause_queue"] = item.cause, item.cause_queue
        if item.queue < 0:
            continue
        stalls = _stalls(item, free[item.queue])
        free[item.queue] = item.end
        stalls |= {"bank": item.bank_cycles, "memory": item.memory_cycles}
        unit = causes[item.queue]
        for name, cycles in stalls.items():
            row[f"stall_{name}"] = cycles
            unit[name] = unit.get(name, 0) + cycles
        lost = item.bank_cycles + item.memory_cycles
        unit["busy"] = unit.get("busy", 0) + item.end - item.start - lost


def naive_timing(program: Program, memories: list[Memory] | None = None) -> NaiveTiming:
    """Return the timing of a program, on memories that are given or on the chip's own.

    Raises:
        Deadlock: the program deadlocks.
    """
    chip, items = program.chip, _items(program)
    if memories is None:
        memories = [
            FlatMemory(m, chip) if isinstance(m, Flat) else DramMemory(m, chip)
            for m in chip.memories
        ]
    cycle, spans = 0, list[tuple[int, int]]()
    out = np.zeros(len(items), RECORD)
    count = queue_count(chip.dma.load_channels, chip.dma.store_channels)
    causes: list[dict[str, int]] = [{} for _ in range(count * chip.cores)]
    for region in program.regions:
        if region.device == "npu":
            mine = items[region.start : region.stop]
            end = NaiveRegion(program, mine, memories).run(cycle)
            _record(mine, cycle, out, causes)
            spans.append((cycle, end))
            cycle = end
    out["operator"] = program.operator_of
    for unit in causes:
        unit["idle"] = cycle - sum(unit.values())
    return NaiveTiming(out, cycle, tuple(spans), causes)
