"""Memories in plain Python: what a cycle-by-cycle chip asks of one, and the flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from lepton.chip import Chip, Dram, Flat
from lepton.simulator.dram_timing import controller_of
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
    """The latest finish of those of its parts that are decided."""

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
    siblings: list[int]
    """Accesses of the request that are not done."""


class DramMemory:
    """Section 14: a first-in, first-out queue in front of every channel's controller."""

    def __init__(self, memory: Dram, chip: Chip) -> None:
        self.largest_request = chip.dma.burst_bytes
        self._timing, arbitration = controller_of(memory)
        self._clock = chip.ticks(memory.clock_mhz)
        self._channels = [NaiveChannel(self._timing, arbitration) for _ in range(memory.channels)]
        self._waiting: list[list[_Access]] = [[] for _ in self._channels]
        self._under_way: list[dict[int, _Access]] = [{} for _ in self._channels]
        self._count = 0

    def request(self, tick: int, address: int, size: int, is_write: bool) -> Request:
        made, siblings = Request(), list[int]()
        first = address // self._timing.access_bytes
        for line in range(first, (address + size - 1) // self._timing.access_bytes + 1):
            at = line * self._timing.access_bytes
            ch = locate(self._timing, at)["ch"]
            siblings.append(self._count)
            access = _Access(self._count, at, is_write, tick, made, siblings)
            self._waiting[ch].append(access)
            self._count += 1
        return made

    def advance(self, tick: int) -> None:
        for number, channel in enumerate(self._channels):
            while channel.now * self._clock < tick:
                self._cycle(number, channel)

    def _cycle(self, number: int, channel: NaiveChannel) -> None:
        waiting, under_way = self._waiting[number], self._under_way[number]
        if waiting and waiting[0].arrival <= channel.now * self._clock:
            place = locate(self._timing, waiting[0].address)
            line = waiting[0].address // self._timing.access_bytes
            if channel.can_accept(line, waiting[0].is_write):
                access = waiting.pop(0)
                group = place["ra"] * self._timing.bank_groups + place["bg"]
                bank = group * self._timing.banks_per_group + place["ba"]
                channel.accept(access.number, line, place["ro"], bank, access.is_write)
                under_way[access.number] = access
        channel.tick()
        for done in [n for n in under_way if n in channel.done]:
            access = under_way.pop(done)
            access.siblings.remove(done)
            finish = channel.done[done] * self._clock
            made = access.request
            made.latest = max(made.latest, finish)
            if not access.siblings:
                made.finish = made.latest

    def drain(self, tick: int) -> int:
        self.advance(tick)
        end = tick
        for number, channel in enumerate(self._channels):
            channel.flush = True
            while any(request.is_write for request in channel.queued()):
                self._cycle(number, channel)
                end = max(end, channel.now * self._clock)
            channel.flush = False
        return end
