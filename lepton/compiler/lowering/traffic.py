"""Cycles that transfers take of a memory's time, and the energy that they cost, to choose tiles."""

from __future__ import annotations

from copy import copy
from typing import NamedTuple

import numpy as np

from lepton.chip import Chip, Dram
from lepton.cost.action_names import Action
from lepton.cost.elementwise import Number, common_divisor, least, most
from lepton.cost.energy_estimate import prices
from lepton.isa.declaration import WORD_BYTES
from lepton.program import Objective
from lepton.program.fetch import fetch_block_bytes

__all__ = ["PACKED_BYTES", "Traffic"]

PACKED_BYTES = 10
"""Of a packed instruction, about: 7 in long programs of one pattern, 15 in short ones."""


class _Port(NamedTuple):
    """A memory as transfers see it; rates are in bytes per cycle, times in cycles of the NPU."""

    rate: float
    access_bytes: int
    """Of a column access of a DRAM; 0 for a flat memory."""
    sustained: float
    """Rate of a DRAM, refreshes counted."""
    burst_bytes: int
    """Of the longest request."""
    ports: int
    latencies: tuple[float, float]
    """Of a read and a write of a flat memory, once it has begun."""
    in_flight: tuple[int, int]
    """Reads and writes that a flat memory takes from a channel at a time."""
    answer: float
    """Cycles from a load to its first byte."""


class _Path(NamedTuple):
    """What transfers meet on a chip."""

    ports: tuple[_Port, ...]
    burst_bytes: int
    """Of a request of the DMA."""
    port_bytes: int
    """Of the scratchpad."""
    program: int
    """The memory that instructions are fetched from."""
    fetch_bytes: int
    instruction_bytes: int


def _path(chip: Chip) -> _Path:
    control = chip.control
    return _Path(
        tuple(_port(chip, number) for number in range(len(chip.memories))),
        chip.dma.burst_bytes,
        chip.scratchpad.port_bytes,
        chip.memory_index(chip.placement.program),
        fetch_block_bytes(control.fetch_bytes),
        PACKED_BYTES if control.packed else WORD_BYTES,
    )


def _port(chip: Chip, number: int) -> _Port:
    memory, dma = chip.memories[number], chip.dma
    rate, scale = chip.memory_bytes_per_cycle[number], chip.cycles_per_memory_cycle[number]
    if isinstance(memory, Dram):
        answer = memory.tRCD + memory.tCL + memory.burst_cycles
        return _Port(
            rate, memory.access_bytes, rate * (1.0 - memory.tRFC / memory.tREFI), dma.burst_bytes,
            1, (0.0, 0.0), (1, 1), dma.setup_cycles + answer * scale,
        )  # fmt: skip
    latencies = memory.read_latency_cycles * scale, memory.write_latency_cycles * scale
    in_flight = (
        min(memory.reads_in_flight, dma.outstanding),
        min(memory.writes_in_flight, dma.outstanding),
    )
    return _Port(
        rate, 0, rate, min(dma.burst_bytes, memory.burst_bytes), memory.ports, latencies, in_flight,
        dma.setup_cycles + memory.read_latency_cycles * scale,
    )  # fmt: skip


class Traffic:
    """What a piece of work asks of each memory of a chip, by the memory's number.

    Or what each of many pieces asks, where arrays are counted.
    """

    def __init__(self, chip: Chip, objective: Objective = Objective.LATENCY) -> None:
        """Begin without any work; energy is counted only where it is minimized."""
        self.chip = chip
        self.instructions: Number = 0.0
        """That are fetched."""
        self._prices = chip.derived(prices) if objective is Objective.ENERGY else None
        self._moved_pj: Number = 0.0
        self._path = chip.derived(_path)
        count = len(self._path.ports)
        # cycles of each memory: all, those for reads, those for writes
        self._sides: list[list[Number]] = [[0.0] * count, [0.0] * count, [0.0] * count]

    def read(self, memory: int, run_bytes: Number, runs: Number = 1, stride: Number = 0) -> None:
        """Count reads of runs of contiguous bytes, `stride` bytes from one to the next."""
        self._count(memory, run_bytes, runs, stride, 0)

    def write(self, memory: int, run_bytes: Number, runs: Number = 1, stride: Number = 0) -> None:
        """Count writes of runs of contiguous bytes, `stride` bytes from one to the next."""
        self._count(memory, run_bytes, runs, stride, 1)

    def fetch(self, instructions: Number) -> None:
        """Count the fetch of instructions."""
        self.instructions += instructions
        path = self._path
        block = path.fetch_bytes
        self._count(path.program, block, instructions * path.instruction_bytes / block, 0, 0)

    def _count(
        self, memory: int, run_bytes: Number, runs: Number, stride: Number, side: int
    ) -> None:
        """Count reads (side 0) or writes (side 1)."""
        if isinstance(run_bytes, int) and run_bytes <= 0:
            return
        if self._prices is not None:
            self._moved_pj += self._prices.moved_pj(
                memory, run_bytes, runs, stride, is_write=side == 1
            )
        path = self._path
        port = path.ports[memory]
        requests = _pieces(run_bytes, stride, port.burst_bytes)
        if port.access_bytes:
            accesses = _pieces(run_bytes, stride, port.access_bytes)
            longest = cycles = accesses * port.access_bytes / port.sustained
        else:
            cycles = run_bytes / port.rate
            each = port.latencies[side] + run_bytes / requests / port.rate * port.ports
            longest = most(cycles, requests * each / port.in_flight[side])
        fewest = requests * -(-least(run_bytes, path.burst_bytes) // path.port_bytes)
        self._sides[0][memory] += runs * cycles
        self._sides[side + 1][memory] += runs * most(fewest, longest)

    def with_others(self, *others: Traffic) -> Traffic:
        """Return the sum of this and other work."""
        total = copy(self)
        total._sides = [
            [sum(cycles) for cycles in zip(*sides, strict=True)]
            for sides in zip(self._sides, *(other._sides for other in others), strict=True)
        ]
        for other in others:
            total.instructions += other.instructions
            total._moved_pj += other._moved_pj
        return total

    @property
    def cycles(self) -> Number:
        """Cycles of the memory that is busy longest."""
        return most(*(cycles for side in self._sides for cycles in side))

    @property
    def energy_pj(self) -> Number:
        """What memories, their DMA channels and the scratchpad spend, and control on the fetch.

        0 unless energy is minimized.
        """
        if self._prices is None:
            return 0.0
        return self._moved_pj + self.instructions * self._prices.actions[Action.INSTRUCTION]

    @property
    def latency(self) -> float:
        """Cycles until the slowest of the memories answers."""
        used = zip(self._sides[0], self._path.ports, strict=True)
        return max((port.answer for cycles, port in used if np.any(cycles)), default=0.0)


def _pieces(run_bytes: Number, stride: Number, burst: int) -> Number:
    """Return how many pieces a run is cut into, on average, where no piece crosses a burst's edge.

    Runs begin at all multiples of the greatest common divisor of stride and burst; 0 stands for
    runs that begin at edges.
    """
    pieces = (run_bytes + burst - common_divisor(stride, burst)) / burst
    return most(pieces, -(-run_bytes // burst))
