"""What a transfer asks of its memory, in closed form: requests, port cycles and service cycles.

Service is the time for which the transfer, alone and without end, would keep the memory busy. A
transfer's runs are cut into requests as docs/timing.md, 7.2, says; where its runs are many, what
one costs is the mean of at most `_SAMPLED` of them, spread by the golden
ratio so that no stride keeps step with them. docs/estimate.md derives the
rest.
"""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, Dram
from lepton.chip.description import Flat
from lepton.jit import njit

__all__ = ["MEMORY_COLUMNS", "memory_rows", "service"]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

_SAMPLED = 16
_GOLDEN = (5**0.5 - 1) / 2

# columns of a memory: times are NPU cycles, sizes bytes
(BURST, UNIT, UNIT_CYCLES, CAPACITY, READ_LATENCY, WRITE_LATENCY, READS, WRITES) = range(8)
"""Longest request; what is read at once and the time of that; units that are served side by side;
latencies behind the service; requests in flight."""
(CHANNELS, INTERLEAVE, NEAR_CYCLES, GROUP_BYTES, ROW_BYTES, ROW_CYCLES, BANKS) = range(8, 15)
"""Of a DRAM: bytes of consecutive addresses in one channel; time of a unit in the bank group of
the one before, and the bytes over which all groups are visited; bytes of consecutive addresses
that need no other row; time of a bank from one row to the next; how many take turns."""
(BUFFER, OPEN_CYCLES) = range(15, 17)
"""Units of a channel that are written later; what opening a row takes."""
MEMORY_COLUMNS = 17
NO_LIMIT = 1 << 30

# columns of `lepton.cost.work.WALK`
(MEMORY, ADDRESS, RUN, ROWS, ROW_STRIDE, PLANES, PLANE_STRIDE) = range(7)


def _flat_row(chip: Chip, memory: Flat) -> F64:
    row = np.zeros(MEMORY_COLUMNS)
    ratio = float(chip.array.clock_mhz) / float(memory.clock_mhz)
    row[BURST] = min(chip.dma.burst_bytes, memory.burst_bytes)
    row[UNIT], row[UNIT_CYCLES] = float(memory.bytes_per_cycle), ratio
    row[CAPACITY] = memory.ports
    row[READ_LATENCY] = memory.read_latency_cycles * ratio
    row[WRITE_LATENCY] = memory.write_latency_cycles * ratio
    row[READS], row[WRITES] = memory.reads_in_flight, memory.writes_in_flight
    return row


def _bytes_below(memory: Dram) -> dict[str, int]:
    """Return for each address field the bytes that the fields below it span."""
    sizes = {
        "ch": memory.channels, "ra": memory.ranks, "ba": memory.banks_per_group,
        "bg": memory.bank_groups, "co": memory.row_bytes // memory.access_bytes, "ro": 1,
    }  # fmt: skip
    below: dict[str, int] = {}
    span = memory.access_bytes
    for at in range(len(memory.mapping) - 2, -1, -2):
        field = memory.mapping[at : at + 2]
        below[field] = span
        span *= sizes[field]
    return below


def _dram_row(chip: Chip, memory: Dram) -> F64:
    row = np.zeros(MEMORY_COLUMNS)
    ratio = float(chip.array.clock_mhz) / float(memory.clock_mhz)
    below = _bytes_below(memory)
    burst = memory.burst_cycles
    lost = (memory.tRP + memory.tRFC + memory.tRCD) / (memory.tREFI // memory.ranks)
    row[BURST], row[UNIT] = chip.dma.burst_bytes, memory.access_bytes
    row[UNIT_CYCLES] = max(burst, memory.tCCD_S) * ratio
    row[NEAR_CYCLES] = max(burst, memory.tCCD_L if memory.bank_groups > 1 else burst) * ratio
    row[GROUP_BYTES] = below["bg"] * memory.bank_groups
    row[CAPACITY] = 1 - lost
    row[READ_LATENCY], row[WRITE_LATENCY] = (memory.tCL + 2) * ratio, ratio
    row[READS] = row[WRITES] = NO_LIMIT
    row[CHANNELS], row[INTERLEAVE] = memory.channels, below["ch"]
    row[ROW_BYTES] = below["co"] * (memory.row_bytes // memory.access_bytes)
    row[ROW_CYCLES] = (memory.tRAS + memory.tRP) * ratio
    row[BANKS] = memory.banks_per_group * memory.ranks
    row[BUFFER] = memory.queue
    row[OPEN_CYCLES] = memory.tRCD * ratio
    return row


def memory_rows(chip: Chip) -> F64:
    """Return `[memories, MEMORY_COLUMNS]` of a chip."""
    rows = [
        _dram_row(chip, memory) if isinstance(memory, Dram) else _flat_row(chip, memory)
        for memory in chip.memories
    ]
    return np.stack(rows)


@njit(inlined=True)
def _up(size: float, unit: float) -> float:
    """Return how many units hold `size` bytes."""
    return np.ceil(size / unit)


@njit(inlined=True)
def _dram_cycles(c: F64, w: I64, accesses: float) -> float:
    """Return the service of a transfer of so many accesses."""
    runs = w[ROWS] * w[PLANES]
    stride = gcd(w[ROW_STRIDE] if w[ROWS] > 1 else 0, w[PLANE_STRIDE] if w[PLANES] > 1 else 0)
    line = int(c[INTERLEAVE] * c[CHANNELS])
    phases = line // gcd(line, stride) if runs > 1 else 1
    channels = min(c[CHANNELS], accesses, max(accesses / runs, 1.0) * phases)
    group = int(c[GROUP_BYTES])
    is_near = runs > 1 and 2 * w[RUN] <= group and stride % group == 0
    cycles = accesses / channels * (c[NEAR_CYCLES] if is_near else c[UNIT_CYCLES])
    if runs > 1 and stride >= c[ROW_BYTES]:
        banks = int(c[BANKS])
        visited = banks // gcd(stride // int(c[ROW_BYTES]), banks)
        cycles = max(cycles, runs * c[ROW_CYCLES] / visited)
    return cycles


@njit(inlined=True)
def _requests(m: F64, port_bytes: int, w: I64, out: F64) -> float:
    """Fill in requests and port cycles; return the units that a memory reads or writes for them."""
    runs = w[ROWS] * w[PLANES]
    burst, unit, run = int(m[BURST]), m[UNIT], w[RUN]
    count = min(runs, _SAMPLED)
    units = 0.0
    for sample in range(count):
        r = int(sample * _GOLDEN % 1.0 * runs) if runs > count else sample
        at = w[ADDRESS] + r % w[ROWS] * w[ROW_STRIDE] + r // w[ROWS] * w[PLANE_STRIDE]
        first = min(run, burst - at % burst)
        whole, last = divmod(run - first, burst)
        out[0] += 1 + whole + (last > 0)
        out[1] += _up(first, port_bytes) + whole * _up(burst, port_bytes) + _up(last, port_bytes)
        if m[CHANNELS] > 0:
            units += (at + run - 1) // int(unit) - at // int(unit) + 1
        else:
            units += _up(first, unit) + whole * _up(burst, unit) + _up(last, unit)
    out[0] *= runs / count
    out[1] *= runs / count
    return units * runs / count


@njit
def service(memories: F64, port_bytes: int, walks: I64, out: F64) -> None:
    """Fill `out [n, 3]` with requests, port cycles and service cycles of every transfer.

    Args:
        memories: `[memories, MEMORY_COLUMNS]`.
        port_bytes: of a port of the scratchpad.
        walks: `[n, ...]` as `lepton.cost.columns.WALK` has them.
        out: zeros.
    """
    for i in range(len(walks)):
        w = walks[i]
        if w[RUN] == 0 or w[ROWS] * w[PLANES] == 0:
            continue
        m = memories[w[MEMORY]]
        units = _requests(m, port_bytes, w, out[i])
        if m[CHANNELS] > 0:
            # accesses of one line that follow each other are one
            span = (w[ROWS] - 1) * w[ROW_STRIDE] + w[RUN]
            lines = w[PLANES] * (span / m[UNIT] + 1)
            out[i, 2] = _dram_cycles(m, w, max(min(units, lines), 1.0))
        else:
            out[i, 2] = units * m[UNIT_CYCLES]
