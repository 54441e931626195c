"""The chip's time in plain loops, one step per cycle: docs/timing.md written out.

Nothing looks ahead: a cycle goes through the phases of section 3 and sees only what has happened.
Numbers in brackets are sections of that page. Sections 10 and 11 are `lepton.cost`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, Flat
from lepton.cost import instruction_costs
from lepton.isa import Instruction, records
from lepton.isa import instructions as isa
from lepton.isa.declaration import SEMAPHORES
from lepton.isa.footprints import Space, ends, footprints, queue_count, queues
from lepton.program import Program
from lepton.trace import RECORD

__all__ = ["Deadlock", "FlatMemory", "Memory", "NaiveTiming", "Request", "naive_timing"]


class Deadlock(Exception):
    """Nothing can happen any more; `args[0]` is the first instruction that was never taken (4)."""


@dataclass
class Request:
    """A request to a memory; `finish` is its tick, None until the memory has decided it."""

    finish: int | None = None

    def finished(self, tick: int) -> bool:
        return self.finish is not None and self.finish <= tick


class Memory(Protocol):
    """A memory as the chip meets it."""

    largest_request: int
    """Bytes."""

    def advance(self, tick: int) -> None:
        """Take every decision of the ticks before `tick`."""
        ...

    def request(self, tick: int, address: int, size: int, is_write: bool) -> Request:
        """Take a request; those of one tick come in order."""
        ...

    def drain(self, tick: int) -> int:
        """Return the tick from `tick` on at which the last write has left the queues."""
        ...


class FlatMemory:
    """Section 13."""

    def __init__(self, memory: Flat, chip: Chip) -> None:
        self.largest_request = min(chip.dma.burst_bytes, memory.burst_bytes)
        self._clock = chip.ticks(memory.clock_mhz)
        self._ticks_per_byte = Fraction(self._clock) / memory.bytes_per_cycle
        self._latency = (memory.read_latency_cycles, memory.write_latency_cycles)
        self._limit = (memory.reads_in_flight, memory.writes_in_flight)
        self._port_free = [0] * memory.ports
        self._finishes: tuple[list[int], list[int]] = ([], [])

    def advance(self, tick: int) -> None:
        """A flat memory has decided all when it takes a request."""

    def request(self, tick: int, address: int, size: int, is_write: bool) -> Request:
        finishes, limit = self._finishes[is_write], self._limit[is_write]
        port = self._port_free.index(min(self._port_free))
        begin = max(tick, self._port_free[port])
        if len(finishes) >= limit:
            begin = max(begin, finishes[-limit])
        begin = _divide_up(begin, self._clock) * self._clock
        hold = size * self._ticks_per_byte
        self._port_free[port] = begin + _divide_up(hold.numerator, hold.denominator)
        finishes.append(self._port_free[port] + self._latency[is_write] * self._clock)
        return Request(finishes[-1])

    def drain(self, tick: int) -> int:
        return tick


@dataclass
class Item:
    """An instruction and what happens to it; `fired` and `cause` are of its last signal."""

    number: int
    instruction: Instruction
    queue: int
    preload: int
    stream: int
    last: int
    drain: int
    banks: dict[tuple[int, int], set[int]] = field(default_factory=dict[tuple[int, int], set[int]])
    """Banks by (space, is write)."""
    requests: list[Request] = field(default_factory=list[Request])
    arrive: int = -1
    dispatch: int = -1
    taken: int = -1
    start: int = -1
    end: int = -1
    retire: int = -1
    fired: int = -1
    cause: int = -1
    cause_queue: int = -1
    bank_cycles: int = 0
    memory_cycles: int = 0

    def __post_init__(self) -> None:
        self.waits = _bits(self.instruction.wait)
        self.signals = _bits(self.instruction.signal)

    def conflicts(self, other: Item) -> bool:
        """Whether both read a common bank, or both write one."""
        return any(used & other.banks.get(kind, set()) for kind, used in self.banks.items())

    def uses(self, bank: int, is_write: bool) -> bool:
        return bank in self.banks.get((Space.SCRATCHPAD, is_write), ())


def _divide_up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def _bits(mask: int) -> list[int]:
    return [bit for bit in range(SEMAPHORES) if mask >> bit & 1]


def _cut(address: int, size: int, burst: int) -> Iterator[tuple[int, int]]:
    """Yield `(offset, bytes)` of the requests of a run."""
    offset = 0
    while offset < size:
        stop = min(size, (address + offset) // burst * burst + burst - address)
        yield offset, stop - offset
        offset = stop


class Semaphores:
    """Section 4."""

    def __init__(self) -> None:
        self._fired: list[list[tuple[int, Item]]] = [[] for _ in range(SEMAPHORES)]
        self._taken = [0] * SEMAPHORES

    def has(self, item: Item) -> bool:
        return all(len(self._fired[bit]) > self._taken[bit] for bit in item.waits)

    def take(self, item: Item) -> None:
        for bit in item.waits:
            cycle, signaller = self._fired[bit][self._taken[bit]]
            self._taken[bit] += 1
            if cycle >= item.fired:
                item.fired, item.cause, item.cause_queue = cycle, signaller.number, signaller.queue

    def fire(self, item: Item, cycle: int) -> None:
        for bit in item.signals:
            self._fired[bit].append((cycle, item))


class Unit:
    """A queue and its unit."""

    def __init__(self, semaphores: Semaphores) -> None:
        self.semaphores = semaphores
        self.queue: list[Item] = []
        self.in_flight: list[Item] = []
        """Taken and not retired."""

    def take(self, cycle: int) -> Item:
        item = self.queue.pop(0)
        self.semaphores.take(item)
        self.in_flight.append(item)
        item.taken = cycle
        return item

    def turn(self, cycle: int) -> bool:
        """Take this cycle's step; return whether there was one."""
        raise NotImplementedError

    def is_done(self, item: Item, cycle: int) -> bool:
        raise NotImplementedError


class TransferUnit(Unit):
    """Section 7."""

    def __init__(
        self, semaphores: Semaphores, chip: Chip, memories: list[Memory], ticks: int
    ) -> None:
        super().__init__(semaphores)
        self.compute: tuple[ComputeUnit, ...] = ()
        self._chip = chip
        self._memories = memories
        self._ticks = ticks
        self._free = 0
        self._item: Item | None = None
        self._pieces: list[tuple[int, int, int]] = []
        self._port_free = 0
        self._made: list[Request] = []

    def turn(self, cycle: int) -> bool:
        if self._item is not None:
            return self._request(self._item, cycle)
        if not self.queue or cycle < self._free or not self.semaphores.has(self.queue[0]):
            return False
        self._item = item = self.take(cycle)
        item.start = cycle
        self._port_free = cycle + self._chip.dma.setup_cycles
        self._pieces = list(self._cut_all(item.instruction))
        return True

    def _cut_all(self, it: Instruction) -> Iterator[tuple[int, int, int]]:
        """Yield `(address, scratchpad address, bytes)` of each request (7.2)."""
        assert isinstance(it, isa.Load | isa.Store | isa.Weights)
        burst = self._memories[it.memory].largest_request
        for address, inside, size in _runs(it):
            for offset, count in _cut(address, size, burst):
                yield address + offset, inside + offset, count

    def _request(self, item: Item, cycle: int) -> bool:
        """Make the next request if it can be made in this cycle."""
        slots, tick = self._chip.dma.outstanding, cycle * self._ticks
        if cycle < self._port_free:
            return False
        if len(self._made) >= slots and not self._made[-slots].finished(tick):
            return False
        address, inside, size = self._pieces.pop(0)
        item.memory_cycles += cycle - self._port_free
        port = _divide_up(size, self._chip.scratchpad.port_bytes)
        if self._is_busy(item.instruction, inside, cycle):
            item.bank_cycles += port
            port *= 2
        is_write = isinstance(item.instruction, isa.Store)
        memory = self._memories[item.instruction.memory]  # pyright: ignore[reportAttributeAccessIssue]
        made = memory.request(tick, address, size, is_write)
        self._made.append(made)
        item.requests.append(made)
        self._port_free = cycle + port
        if not self._pieces:
            self._finish(item)
        return True

    def _is_busy(self, it: Instruction, inside: int, cycle: int) -> bool:
        """Whether a unit streams an instruction that keeps the bank's port."""
        if isinstance(it, isa.Weights):
            return False
        bank = inside // self._chip.scratchpad.bank_bytes
        is_write = isinstance(it, isa.Load)
        found = [unit.streams(cycle) for unit in self.compute]
        return any(item is not None and item.uses(bank, is_write) for item in found)

    def _finish(self, item: Item) -> None:
        """Set the end, after the last request (7.3)."""
        item.end, it = self._port_free, item.instruction
        if isinstance(it, isa.Weights):
            decoder = self._chip.weight_buffer.decoder_bytes_per_cycle
            item.end = max(item.end, item.start + _divide_up(it.reduction * it.columns, decoder))
        self._free, self._item = item.end, None

    def is_done(self, item: Item, cycle: int) -> bool:
        if item is self._item or cycle < item.end:
            return False
        tick = cycle * self._ticks
        return all(request.finished(tick) for request in item.requests)


def _runs(it: isa.Load | isa.Store | isa.Weights) -> Iterator[tuple[int, int, int]]:
    """Yield `(address, scratchpad address, bytes)` of each run (7.2)."""
    if isinstance(it, isa.Weights):
        yield it.address, 0, it.stream_bytes
        return
    rows, planes, size = it.rows, it.planes, it.row_bytes
    if rows == 1 or it.row_stride == it.scratchpad_row_pitch == size:
        rows, size = 1, rows * size
        if planes == 1 or it.plane_stride == it.scratchpad_plane_pitch == size:
            planes, size = 1, planes * size
    for p in range(planes):
        for r in range(rows):
            yield (
                it.address + p * it.plane_stride + r * it.row_stride,
                it.scratchpad + p * it.scratchpad_plane_pitch + r * it.scratchpad_row_pitch,
                size,
            )


class ComputeUnit(Unit):
    """Section 8: the matrix or the vector unit."""

    other: ComputeUnit

    def __init__(self, semaphores: Semaphores, is_matrix: bool) -> None:
        super().__init__(semaphores)
        self._is_matrix = is_matrix
        self._current: Item | None = None
        self._waiting: Item | None = None
        self._start_at = 0

    def streams(self, cycle: int) -> Item | None:
        """Return what streams, as far as the turns up to now have decided."""
        item = self._current
        return item if item is not None and item.start <= cycle < item.end else None

    def turn(self, cycle: int) -> bool:
        moved = self._start(cycle)
        if not self.queue or self._waiting is not None or not self._is_open(cycle):
            return moved
        if not self.semaphores.has(self.queue[0]):
            return moved
        self._waiting = item = self.take(cycle)
        free = 0 if self._current is None else self._current.end
        self._start_at = max(cycle + item.preload, free)
        self._start(cycle)
        return True

    def _is_open(self, cycle: int) -> bool:
        """Whether what streams lets the next one in (8.1)."""
        item = self._current
        if item is None:
            return True
        if self._is_matrix:
            return cycle >= max(item.end - item.last, item.start)
        return cycle >= item.end

    def _start(self, cycle: int) -> bool:
        """Start the instruction that waits, if its time has come (8.2)."""
        item = self._waiting
        if item is None or cycle < self._start_at:
            return False
        other = self.other.streams(cycle)
        if other is not None and item.conflicts(other):
            item.bank_cycles = min(item.stream, _divide_up(other.end - cycle, 2))
        item.start, item.end = cycle, cycle + item.stream + item.bank_cycles
        self._current, self._waiting = item, None
        return True

    def is_done(self, item: Item, cycle: int) -> bool:
        return item is not self._waiting and cycle >= item.end + item.drain


class NaiveRegion:
    """One NPU region, cycle by cycle."""

    def __init__(self, program: Program, items: list[Item], memories: list[Memory]) -> None:
        chip = self._chip = program.chip
        self._items, self._memories = items, memories
        self._program_memory = memories[program.program_memory]
        self._address = program.program_address
        self._ticks = chip.ticks(chip.array.clock_mhz)
        self._group = max(chip.control.fetch_bytes // 64, 1)
        self._fetched = self._dispatched = self._retired = 0
        self._arriving: list[tuple[list[Item], list[Request]]] = []
        self._semaphores = Semaphores()
        matrix, vector = ComputeUnit(self._semaphores, True), ComputeUnit(self._semaphores, False)
        matrix.other, vector.other = vector, matrix
        channels = chip.dma.load_channels + chip.dma.store_channels
        transfers = [
            TransferUnit(self._semaphores, chip, memories, self._ticks) for _ in range(channels + 1)
        ]
        for unit in transfers:
            unit.compute = (matrix, vector)
        self._units: list[Unit] = [*transfers, matrix, vector]

    def run(self, cycle: int) -> int:
        """Return the cycle at which a region that begins at `cycle` ends (12)."""
        while True:
            for memory in self._memories:
                memory.advance(cycle * self._ticks)
            moved = self._effects(cycle)
            moved |= self._fetch(cycle)
            moved |= self._dispatch(cycle)
            for unit in self._units:
                moved |= unit.turn(cycle)
            if self._retired == len(self._items):
                break
            if not moved and not self._arriving and not any(u.in_flight for u in self._units):
                raise Deadlock(next(item.number for item in self._items if item.taken < 0))
            cycle += 1
        drained = max(memory.drain(cycle * self._ticks) for memory in self._memories)
        return _divide_up(drained, self._ticks)

    def _effects(self, cycle: int) -> bool:
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

    def _fetch(self, cycle: int) -> bool:
        """Ask for the next group, if there is room for it (5)."""
        if self._fetched == len(self._items):
            return False
        room = self._group * self._chip.control.fetch_outstanding
        if self._fetched - self._dispatched >= room:
            return False
        items = self._items[self._fetched : self._fetched + self._group]
        address, size = self._address + 64 * items[0].number, 64 * len(items)
        requests = [
            self._program_memory.request(cycle * self._ticks, address + offset, count, False)
            for offset, count in _cut(address, size, self._program_memory.largest_request)
        ]
        self._arriving.append((items, requests))
        self._fetched += len(items)
        return True

    def _dispatch(self, cycle: int) -> bool:
        """Move the next instruction into its queue, if it is there and has room (6)."""
        if self._dispatched == len(self._items):
            return False
        item = self._items[self._dispatched]
        if item.arrive < 0:
            return False
        if item.queue < 0:
            item.taken = item.start = item.end = item.retire = cycle
            self._retired += 1
        elif len(self._units[item.queue].queue) < self._chip.control.queue_depth:
            self._units[item.queue].queue.append(item)
        else:
            return False
        item.dispatch = cycle
        self._dispatched += 1
        return True


@dataclass(frozen=True)
class NaiveTiming:
    """What `naive_timing` finds; `attribution` is where each queue's cycles went."""

    records: NDArray[np.void]
    cycles: int
    regions: tuple[tuple[int, int], ...]
    attribution: list[dict[str, int]]


def _items(program: Program) -> list[Item]:
    """Return the instructions with their costs and banks (8.3)."""
    chip, decoded = program.chip, program.decoded
    table = records(decoded)
    queue = queues(table, chip.dma.load_channels, chip.dma.store_channels)
    costs = np.stack(instruction_costs(table, chip), axis=1).tolist()
    items = [Item(n, decoded[n], int(queue[n]), *costs[n]) for n in range(len(decoded))]
    bank = {
        int(Space.SCRATCHPAD): chip.scratchpad.bank_bytes,
        int(Space.ACCUMULATORS): chip.accumulators.bank_elements,
    }
    boxes = footprints(table)
    for box, end in zip(boxes.tolist(), ends(boxes).tolist(), strict=True):
        number, space, is_write, base = box[:4]
        if space in bank:
            used = items[number].banks.setdefault((space, is_write), set())
            used.update(range(base // bank[space], (end - 1) // bank[space] + 1))
    return items


def _stalls(item: Item, free: int) -> dict[str, int]:
    """Return the stalls between `free` and the start (15)."""
    until = {
        "fetch": item.arrive,
        "dispatch": item.dispatch,
        "semaphore": item.fired if item.waits else item.taken,
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
    """Return the timing of a program whose memories are flat, or are given.

    Raises:
        Deadlock: the program deadlocks.
    """
    chip, items = program.chip, _items(program)
    if memories is None:
        memories = [FlatMemory(m, chip) for m in chip.memories if isinstance(m, Flat)]
    assert len(memories) == len(chip.memories), "a DRAM needs a memory of its own"
    cycle, spans = 0, list[tuple[int, int]]()
    out = np.zeros(len(items), RECORD)
    count = queue_count(chip.dma.load_channels, chip.dma.store_channels)
    causes: list[dict[str, int]] = [{} for _ in range(count)]
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
