"""Cycles that transfers take of a memory's time, and the energy that they cost, to choose tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from lepton.chip import Chip, Dram
from lepton.cost.action_names import Action
from lepton.cost.energy_estimate import prices
from lepton.isa.declaration import WORD_BYTES
from lepton.program.fetch import fetch_block_bytes

__all__ = ["PACKED_BYTES", "Traffic"]

PACKED_BYTES = 10
"""Of a packed instruction, about: 7 in long programs of one pattern, 15 in short ones."""


_Moved = tuple[int, int, float, int, bool]
"""Runs of contiguous bytes: memory, bytes of a run, runs, stride, and whether they are written. A
plain tuple, as hundreds of thousands are made for a network and few are read."""


@dataclass
class Traffic:
    """What a piece of work asks of each memory of a chip, by the memory's number."""

    chip: Chip
    _port: dict[int, float] = field(default_factory=dict[int, float])
    _reads: dict[int, float] = field(default_factory=dict[int, float])
    _writes: dict[int, float] = field(default_factory=dict[int, float])
    _moved: list[_Moved] = field(default_factory=list[_Moved])
    instructions: float = 0.0
    """That are fetched."""

    def read(self, memory: int, run_bytes: int, runs: float = 1, stride: int = 0) -> None:
        """Count reads of runs of contiguous bytes, `stride` bytes from one to the next."""
        self._count(memory, run_bytes, runs, stride, is_write=False)

    def write(self, memory: int, run_bytes: int, runs: float = 1, stride: int = 0) -> None:
        """Count writes of runs of contiguous bytes, `stride` bytes from one to the next."""
        self._count(memory, run_bytes, runs, stride, is_write=True)

    def fetch(self, instructions: float) -> None:
        """Count the fetch of instructions."""
        control = self.chip.control
        block = fetch_block_bytes(control.fetch_bytes)
        each = PACKED_BYTES if control.packed else WORD_BYTES
        memory = self.chip.memory_index(self.chip.placement.program)
        self.read(memory, block, instructions * each / block)
        self.instructions += instructions

    def _count(
        self, memory: int, run_bytes: int, runs: float, stride: int, *, is_write: bool
    ) -> None:
        if run_bytes <= 0 or runs <= 0:
            return
        self._moved.append((memory, run_bytes, runs, stride, is_write))
        device, dma = self.chip.memories[memory], self.chip.dma
        side = self._writes if is_write else self._reads
        rate = self.chip.memory_bytes_per_cycle[memory]
        if isinstance(device, Dram):
            accesses = _pieces(run_bytes, stride, device.access_bytes)
            refreshed = 1.0 - device.tRFC / device.tREFI
            cycles = accesses * device.access_bytes / (rate * refreshed)
            requests = _pieces(run_bytes, stride, dma.burst_bytes)
            in_flight = cycles
        else:
            burst = min(dma.burst_bytes, device.burst_bytes)
            requests = _pieces(run_bytes, stride, burst)
            cycles = run_bytes / rate
            scale = self.chip.cycles_per_memory_cycle[memory]
            latency = device.write_latency_cycles if is_write else device.read_latency_cycles
            limit = device.writes_in_flight if is_write else device.reads_in_flight
            limit = min(limit, dma.outstanding)
            each = latency * scale + run_bytes / requests / rate * device.ports
            in_flight = requests * each / limit
        port = self.chip.scratchpad.port_bytes
        least = requests * -(-min(run_bytes, dma.burst_bytes) // port)
        self._port[memory] = self._port.get(memory, 0.0) + runs * cycles
        side[memory] = side.get(memory, 0.0) + runs * max(cycles, in_flight, least)

    def with_others(self, *others: Traffic) -> Traffic:
        """Return the sum of this and other work."""
        total = Traffic(self.chip)
        for part in (self, *others):
            total._moved += part._moved
            total.instructions += part.instructions
            for mine, its in zip(total._sides(), part._sides(), strict=True):
                for memory, cycles in its.items():
                    mine[memory] = mine.get(memory, 0.0) + cycles
        return total

    def _sides(self) -> tuple[dict[int, float], ...]:
        return self._port, self._reads, self._writes

    @property
    def cycles(self) -> float:
        """Cycles of the memory that is busy longest."""
        return max((cycles for side in self._sides() for cycles in side.values()), default=0.0)

    @property
    def energy_pj(self) -> float:
        """What memories, their DMA channels and the scratchpad spend, and control on the fetch."""
        each = self.chip.derived(prices)
        spent = self.instructions * each.actions[Action.INSTRUCTION]
        for memory, run_bytes, runs, stride, is_write in self._moved:
            spent += each.transfer_pj(memory, run_bytes, runs, stride, is_write=is_write)
            way = Action.STORE_BYTE if is_write else Action.LOAD_BYTE
            spent += run_bytes * runs * each.actions[way]
        return spent

    @property
    def latency(self) -> float:
        """Cycles until the slowest of the memories answers."""
        return max((_latency(self.chip, memory) for memory in self._port), default=0.0)


def _pieces(run_bytes: int, stride: int, burst: int) -> float:
    """Return how many pieces a run is cut into, on average, where no piece crosses a burst's edge.

    Runs begin at all multiples of the greatest common divisor of stride and burst; 0 stands for
    runs that begin at edges.
    """
    return max((run_bytes + burst - math.gcd(stride, burst)) / burst, -(-run_bytes // burst))


def _latency(chip: Chip, number: int) -> float:
    """Return the cycles from a request to its answer in an idle memory."""
    memory = chip.memories[number]
    if isinstance(memory, Dram):
        cycles = memory.tRCD + memory.tCL + memory.burst_cycles
    else:
        cycles = memory.read_latency_cycles
    return chip.dma.setup_cycles + cycles * chip.cycles_per_memory_cycle[number]
