"""Memories in plain Python: what a cycle-by-cycle chip asks of one, and the flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from lepton.chip import Chip, Flat

__all__ = ["FlatMemory", "Memory", "Request", "cut", "divide_up"]


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
