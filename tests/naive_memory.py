"""Memories in plain Python: what a cycle-by-cycle chip asks of one, and the flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from lepton.chip import Chip, Dram, Flat
from lepton.simulator.dram_timing import Arbitration, DramTiming
from tests.naive_dram import NaiveChannel, locate

__all__ = ["DramMemory", "FlatMemory", "Memory", "Request", "cut", "divide_up"]


def divide_up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def cut(address: int, size: int, burst: int) -> Iterator[tuple[int, int]]:
    """Yield `(offset, bytes)` of the requests of a run."""
    offset = 0
    while offset < size:
        stop = min(size, (address + offset) // burst * burst + burst - address)
        yield offset, stop - offset
        offset = stop


@dataclass
class Request:
    """A request to a memory; `finish` is its tick, None until the memory has decided it."""

    finish: int | None = None
    latest: int = 0
    """The latest finish of those of its accesses that are decided."""
    open: int = 0
    """Accesses that are not decided."""

    def decide(self, tick: int) -> None:
        """Let one of its accesses be done at a tick."""
        self.latest, self.open = max(self.latest, tick), self.open - 1
        if not self.open:
            self.finish = self.latest

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
        begin = divide_up(begin, self._clock) * self._clock
        hold = size * self._ticks_per_byte
        self._port_free[port] = begin + divide_up(hold.numerator, hold.denominator)
        finishes.append(self._port_free[port] + self._latency[is_write] * self._clock)
        return Request(finishes[-1])

    def drain(self, tick: int) -> int:
        return tick


@dataclass
class _Access:
    """An access of a request, waiting for its channel or under way."""

    number: int
    address: int
    is_write: bool
    arrival: int
    request: Request


def _controllers(m: Dram) -> tuple[DramTiming, Arbitration]:
    """Return what section 14 makes of a memory of a chip file."""
    banks = m.channels * m.ranks * m.bank_groups * m.banks_per_group
    timing = DramTiming(
        name=m.name, clock_mhz=m.clock_mhz, channels=m.channels, ranks=m.ranks,
        bank_groups=m.bank_groups, banks_per_group=m.banks_per_group,
        rows=m.size_bytes // (banks * m.row_bytes), row_bytes=m.row_bytes,
        access_bytes=m.access_bytes, burst_cycles=m.burst_cycles, mapping=m.mapping, tCL=m.tCL,
        tCWL=m.tCWL, tRCDRD=m.tRCD, tRCDWR=m.tRCD, tRP=m.tRP, tRAS=m.tRAS, tWR=m.tWR, tRTP=m.tRTP,
        tCCD_S=m.tCCD_S, tCCD_L=m.tCCD_L, tRRD_S=m.tRRD_S, tRRD_L=m.tRRD_L, tFAW=m.tFAW,
        tWTR_S=m.tWTR_S, tWTR_L=m.tWTR_L, tRFC=m.tRFC, tREFI=m.tREFI, tRTRS=m.tRTRS, tPPD=m.tPPD,
        dual_command=m.commands_per_cycle == 2,
    )  # fmt: skip
    return timing, Arbitration("two-level", m.queue, m.bank_queue, 8, 4)


class DramMemory:
    """Section 14: a first-in, first-out queue in front of every channel's controller."""

    def __init__(self, memory: Dram, chip: Chip) -> None:
        self.largest_request = chip.dma.burst_bytes
        self._timing, arbitration = _controllers(memory)
        self._clock = chip.ticks(memory.clock_mhz)
        self._channels = [NaiveChannel(self._timing, arbitration) for _ in range(memory.channels)]
        self._waiting: list[list[_Access]] = [[] for _ in self._channels]
        self._under_way: list[list[_Access]] = [[] for _ in self._channels]
        self._count = 0

    def request(self, tick: int, address: int, size: int, is_write: bool) -> Request:
        made, step = Request(), self._timing.access_bytes
        for at in range(address // step * step, address + size, step):
            access = _Access(self._count, at, is_write, tick, made)
            self._waiting[locate(self._timing, at).channel].append(access)
            self._count += 1
            made.open += 1
        return made

    def advance(self, tick: int) -> None:
        for number, channel in enumerate(self._channels):
            while channel.now * self._clock < tick:
                self._cycle(number, channel)

    def _cycle(self, number: int, channel: NaiveChannel) -> None:
        """Run a channel's present cycle, and note which accesses it has decided."""
        waiting, under_way = self._waiting[number], self._under_way[number]
        if waiting and waiting[0].arrival <= channel.now * self._clock:
            first = waiting[0]
            if channel.accept(first.number, first.address, first.is_write):
                under_way.append(waiting.pop(0))
        channel.step()
        for access in list(under_way):
            done = channel.done.get(access.number)
            if done is not None:
                under_way.remove(access)
                access.request.decide(done * self._clock)

    def drain(self, tick: int) -> int:
        self.advance(tick)
        end = tick
        for number, channel in enumerate(self._channels):
            channel.flush = True
            while any(queued.is_write for queued in channel.queued()):
                self._cycle(number, channel)
                end = max(end, channel.now * self._clock)
            channel.flush = False
        return end
