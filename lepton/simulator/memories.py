"""The chip's memories: what the timing kernel keeps of each, and flat memories' answers.

A flat memory answers at once with the tick of its finish. A DRAM's requests are cut into accesses,
each with a ticket, that wait in order of arrival in front of their channel's controller
(`lepton.simulator.channels`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, Dram
from lepton.chip.description import Flat, Memory
from lepton.isa.footprints import queue_count
from lepton.jit import njit
from lepton.program.fetch import fetch_block_bytes
from lepton.simulator.dram_state import (
    ACTIVATES,
    HITS,
    PRECHARGES,
    REFRESHES,
    aligned_rows,
    controller_state,
)
from lepton.simulator.dram_state import READS as DRAM_READS
from lepton.simulator.dram_state import WRITES as DRAM_WRITES
from lepton.simulator.dram_timing import controller_of

__all__ = ["TOTALS", "MemoryState", "burst_of", "cold_memories", "copied", "fill_totals"]
__all__ += ["flat_request"]

I64 = NDArray[np.int64]

# columns of a memory; the first channel of a DRAM is -1 for a flat memory
(FIRST_CHANNEL, ACCESS, TICKS, PORTS, NUMERATOR, DENOMINATOR) = range(6)
(READ_LATENCY, WRITE_LATENCY, READS, WRITES, FLAT_BURST) = range(6, 11)
(READ_BYTES, WRITE_BYTES, CHANNELS) = range(11, 14)
MEMORY_COLUMNS = 14

# columns of a channel: its DRAM, ticks of its clock, oldest and youngest access that has not been
# accepted or -1, accesses that are under way and, if there are any, the cycle of its next step
(C_DRAM, C_TICKS, C_HEAD, C_TAIL, C_OPEN, C_CYCLE) = range(6)
CHANNEL_COLUMNS = 6

# columns of a ticket's access: it arrives in a cycle of its channel; the next that waits or -1
(A_ADDRESS, A_IS_WRITE, A_ARRIVAL, A_NEXT) = range(4)


# totals of a memory, as `lepton.trace.MemoryCounters` has them, and the bins of its profile in use
(TOTAL_READ_BYTES, TOTAL_WRITE_BYTES, TOTAL_HITS, TOTAL_MISSES, TOTAL_ACTIVATES) = range(5)
(TOTAL_PRECHARGES, TOTAL_REFRESHES, TOTAL_WRITES, TOTAL_BINS, TOTALS) = range(5, 10)

_NO_FILTERS = np.zeros((0, 1), np.uint32)


class MemoryState(NamedTuple):
    """All memories of a chip."""

    memories: I64
    """[memories, MEMORY_COLUMNS]"""
    ports: I64
    """[memories, ports] tick at which a flat memory's port is free"""
    flight: I64
    """[memories, 2, slots] finish of reads and writes in flight in a flat memory"""
    heads: I64
    """[memories, 2] next slot of `flight`"""
    configurations: I64
    """[DRAMs, ...] as `lepton.simulator.dram_state` has it; so are the next three"""
    blocks: I64
    """[channels of all DRAMs, ...]"""
    filters: NDArray[np.uint32]
    """[channels, ...]"""
    tickets: I64
    """[tickets, 2]"""
    accesses: I64
    """[tickets, 4] what each ticket is for"""
    channels: I64
    """[channels, CHANNEL_COLUMNS]"""
    parts: int
    """Tickets of one request."""


def _flat_row(memory: Flat, ticks: int) -> I64:
    """Return the columns of a flat memory; its byte time is a fraction of ticks."""
    row = np.zeros(MEMORY_COLUMNS, np.int64)
    per_byte = ticks / memory.bytes_per_cycle
    row[FIRST_CHANNEL], row[TICKS], row[PORTS] = -1, ticks, memory.ports
    row[NUMERATOR], row[DENOMINATOR] = per_byte.numerator, per_byte.denominator
    row[READ_LATENCY] = memory.read_latency_cycles * ticks
    row[WRITE_LATENCY] = memory.write_latency_cycles * ticks
    row[READS], row[WRITES] = memory.reads_in_flight, memory.writes_in_flight
    row[FLAT_BURST] = memory.burst_bytes
    return row


def _tags(chip: Chip) -> int:
    """Return how many requests can be in flight."""
    queues = queue_count(chip.dma.load_channels, chip.dma.store_channels)
    return chip.cores * (queues * chip.dma.outstanding + chip.control.fetch_outstanding)


def _parts(chip: Chip) -> int:
    """Return the most accesses that one request of the DMA, or one fetch, can take."""
    drams = [memory for memory in chip.memories if isinstance(memory, Dram)]
    smallest = min((dram.access_bytes for dram in drams), default=1)
    fetched = fetch_block_bytes(chip.control.fetch_bytes)
    bursts = fetched // chip.dma.burst_bytes + 2
    longest = max(chip.dma.burst_bytes // smallest + 2, fetched // smallest + 2 * bursts)
    return longest if drams else 1


def _stacked(blocks: list[I64]) -> I64:
    """Return the blocks of all DRAMs' channels, the narrower ones filled up with zeros."""
    width = max((block.shape[1] for block in blocks), default=1)
    made = aligned_rows(sum(len(block) for block in blocks), width)
    row = 0
    for block in blocks:
        made[row : row + len(block), : block.shape[1]] = block
        row += len(block)
    return made


@lru_cache(maxsize=16)
def _cold_state(
    listed: tuple[Memory, ...], clocks: tuple[int, ...], parts: int, tags: int
) -> MemoryState:
    """Return the memories at tick 0, whose clocks take these ticks."""
    drams = [memory for memory in listed if isinstance(memory, Dram)]
    states = [controller_state(*controller_of(memory), 0) for memory in drams]
    rows: list[I64] = []
    channels: list[list[int]] = []
    for memory, ticks in zip(listed, clocks, strict=True):
        if isinstance(memory, Flat):
            rows.append(_flat_row(memory, ticks))
            continue
        row = np.zeros(MEMORY_COLUMNS, np.int64)
        row[FIRST_CHANNEL], row[CHANNELS] = len(channels), memory.channels
        row[ACCESS] = memory.access_bytes
        rows.append(row)
        channels += [[drams.index(memory), ticks, -1, -1, 0, 0]] * memory.channels
    memories = np.array(rows, np.int64)
    count = len(rows)
    flight = int(max(memories[:, READS].max(), memories[:, WRITES].max(), 1))
    tickets = tags * parts if drams else 0
    return MemoryState(
        memories,
        np.zeros((count, int(memories[:, PORTS].max(initial=1)) or 1), np.int64),
        np.zeros((count, 2, flight), np.int64),
        np.zeros((count, 2), np.int64),
        _stacked([state.configuration[None] for state in states]),
        _stacked([state.blocks for state in states]),
        np.concatenate([state.filters for state in states]) if states else _NO_FILTERS,
        np.zeros((tickets, 2), np.int64),
        np.zeros((tickets, 4), np.int64),
        np.array(channels, np.int64).reshape(-1, CHANNEL_COLUMNS),
        parts,
    )


def cold_memories(chip: Chip) -> MemoryState:
    """Return the memories of a chip at tick 0, not to be changed: nothing open, nothing moves."""
    return _cold_state(chip.memories, chip.memory_ticks, _parts(chip), _tags(chip))


@njit(inlined=True)
def copied(cold: MemoryState) -> MemoryState:
    """Return memories that can be changed; a ticket and its access mean nothing before its use."""
    return MemoryState(
        cold.memories.copy(), cold.ports.copy(), cold.flight.copy(), cold.heads.copy(),
        cold.configurations, cold.blocks.copy(), cold.filters.copy(),
        np.empty_like(cold.tickets), np.empty_like(cold.accesses), cold.channels.copy(), cold.parts,
    )  # fmt: skip


@njit(allocates=False, inlined=True)
def fill_totals(s: MemoryState, bins: I64, totals: I64) -> None:
    """Fill in `[memories, TOTALS]` after a run."""
    for m in range(len(totals)):
        row = totals[m]
        row[TOTAL_READ_BYTES] = s.memories[m, READ_BYTES]
        row[TOTAL_WRITE_BYTES] = s.memories[m, WRITE_BYTES]
        for at in range(bins.shape[1]):
            if bins[m, at] != 0:
                row[TOTAL_BINS] = at + 1
        first = s.memories[m, FIRST_CHANNEL]
        for ch in range(first, first + s.memories[m, CHANNELS]):
            block = s.blocks[ch]
            row[TOTAL_HITS] += block[HITS]
            row[TOTAL_MISSES] += block[DRAM_READS] + block[DRAM_WRITES] - block[HITS]
            row[TOTAL_ACTIVATES] += block[ACTIVATES]
            row[TOTAL_PRECHARGES] += block[PRECHARGES]
            row[TOTAL_REFRESHES] += block[REFRESHES]
            row[TOTAL_WRITES] += block[DRAM_WRITES]


@njit(allocates=False, inlined=True)
def burst_of(memories: I64, m: int, burst: int) -> int:
    """Return the bytes of whose multiples no request crosses one."""
    return min(burst, memories[m, FLAT_BURST]) if memories[m, FIRST_CHANNEL] < 0 else burst


@njit(allocates=False, inlined=True)
def flat_request(s: MemoryState, m: int, size: int, is_write: int, t: int) -> int:
    """Do a request on the port that is free first, within the limit of requests in flight."""
    c = s.memories[m]
    limit = c[WRITES] if is_write else c[READS]
    latency = c[WRITE_LATENCY] if is_write else c[READ_LATENCY]
    slot = s.heads[m, is_write]
    port = 0
    for other in range(1, c[PORTS]):
        if s.ports[m, other] < s.ports[m, port]:
            port = other
    start = max(t, s.ports[m, port], s.flight[m, is_write, slot])
    start = -(-start // c[TICKS]) * c[TICKS]
    busy = -(-size * c[NUMERATOR] // c[DENOMINATOR])
    s.ports[m, port] = start + busy
    end = start + latency + busy
    s.flight[m, is_write, slot] = end
    s.heads[m, is_write] = (slot + 1) % limit
    return end
