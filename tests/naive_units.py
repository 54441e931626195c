"""The units in plain Python, a step per turn: sections 4, 7, 8 and 9 of docs/timing.md."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from lepton.chip import Chip
from lepton.isa import Instruction
from lepton.isa import instructions as isa
from lepton.isa.declaration import SEMAPHORES
from tests.naive_banks import SCRATCHPAD
from tests.naive_memory import Memory, Request, cut, divide_up

__all__ = ["ComputeUnit", "Item", "Semaphores", "TransferUnit", "Unit"]


@dataclass
class Item:
    """An instruction and what happens to it; `fired` and `cause` are of its last signal."""

    number: int
    core: int
    instruction: Instruction
    queue: int
    preload: int
    stream: int
    last: int
    drain: int
    banks: dict[tuple[str, bool], set[int]]
    """Banks by memory and whether they are written (8.3)."""
    elements: int = 0
    """Those that the decoder counts, of a `weights` (7.3)."""
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
        return bank in self.banks.get((SCRATCHPAD, is_write), ())


def _bits(mask: int) -> list[int]:
    return [bit for bit in range(SEMAPHORES) if mask >> bit & 1]


class Semaphores:
    """Those of all cores (4, "Several cores" of 2)."""

    def __init__(self, cores: int) -> None:
        self._first_common = 40 if cores > 1 else SEMAPHORES
        self._fired: dict[tuple[int, int], list[tuple[int, Item]]] = defaultdict(list)
        self._taken: dict[tuple[int, int], int] = defaultdict(int)

    def _named(self, item: Item, bits: list[int]) -> list[tuple[int, int]]:
        """Return number and core of what these bits mean to an instruction, core -1 for common."""
        return [(bit, item.core if bit < self._first_common else -1) for bit in bits]

    def has(self, item: Item) -> bool:
        mine = self._named(item, item.waits)
        return all(len(self._fired[name]) > self._taken[name] for name in mine)

    def take(self, item: Item) -> None:
        for name in self._named(item, item.waits):
            cycle, signaller = self._fired[name][self._taken[name]]
            self._taken[name] += 1
            if cycle >= item.fired:
                item.fired, item.cause, item.cause_queue = cycle, signaller.number, signaller.queue

    def fire(self, item: Item, cycle: int) -> None:
        for name in self._named(item, item.signals):
            self._fired[name].append((cycle, item))


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
            for offset, count in cut(address, size, burst):
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
        port = divide_up(size, self._chip.scratchpad.port_bytes)
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
            item.end = max(item.end, item.start + self._decoder_cycles(it, item.elements))
        self._free, self._item = item.end, None

    def _decoder_cycles(self, it: isa.Weights, elements: int) -> int:
        buffer = self._chip.weight_buffer
        if it.format in (isa.WeightFormat.ENTROPY, isa.WeightFormat.ENTROPY_PALETTE):
            return 16 + divide_up(elements, buffer.entropy_lanes)
        return divide_up(elements, buffer.decoder_bytes_per_cycle)

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
            item.bank_cycles = min(item.stream, divide_up(other.end - cycle, 2))
        item.start, item.end = cycle, cycle + item.stream + item.bank_cycles
        self._current, self._waiting = item, None
        return True

    def is_done(self, item: Item, cycle: int) -> bool:
        return item is not self._waiting and cycle >= item.end + item.drain
