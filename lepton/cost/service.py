"""What a transfer asks of its memory, in closed form: requests, port cycles and service cycles.

Service is the time for which the transfer, alone and without end, would keep the memory busy. A
transfer's runs are cut into requests as docs/timing.md, 7.2, says; where its runs are many, what
one costs is the mean of at most `_SAMPLED` of them, spread by the golden
ratio so that no stride keeps step with them. docs/estimate.md derives the
rest.
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, Dram
from lepton.chip.description import Flat
from lepton.jit import njit

__all__ = ["MEMORY_COLUMNS", "Walks", "memory_rows", "service"]

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
(BUFFER, TURN_CYCLES, OPEN_CYCLES) = range(15, 18)
"""Units of a channel that are written later; what a batch of them costs besides; what the first
access of a row costs."""
MEMORY_COLUMNS = 18
NO_LIMIT = 1 << 30


class Walks(NamedTuple):
    """The memory side of transfers, `[n]` each, as `transfer_columns` gives it."""

    memory: I64
    address: I64
    run: I64
    rows: I64
    row_stride: I64
    planes: I64
    plane_stride: I64


def _flat_row(chip: Chip, memory: Flat) -> F64:
    row = np.zeros(MEMORY_COLUMNS)
    ratio = chip.array.clock_mhz / memory.clock_mhz
    row[BURST] = min(chip.dma.burst_bytes, memory.burst_bytes)
    row[UNIT], row[UNIT_CYCLES] = float(memory.bytes_per_cycle), float(ratio)
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
    ratio = float(chip.array.clock_mhz / memory.clock_mhz)
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
    turn = memory.tCL - memory.tCWL + memory.tRTRS + memory.tCWL + memory.tWTR_S
    row[TURN_CYCLES], row[OPEN_CYCLES] = turn * ratio, memory.tRCD * ratio
    return row


def memory_rows(chip: Chip) -> F64:
    """Return `[memories, MEMORY_COLUMNS]` of a chip."""
    rows = [
        _dram_row(chip, memory) if isinstance(memory, Dram) else _flat_row(chip, memory)
        for memory in chip.memories
    ]
    return np.stack(rows)


@njit
def _up(size: float, unit: float) -> float:
    """Return how many units hold `size` bytes."""
    return np.ceil(size / unit)


@njit
def _dram_cycles(c: F64, w: Walks, i: int, accesses: float) -> float:
    """Return the service of a transfer of so many accesses, of the kind of its first run."""
    runs = w.rows[i] * w.planes[i]
    stride = gcd(w.row_stride[i] if w.rows[i] > 1 else 0, w.plane_stride[i])
    if w.planes[i] == 1:
        stride = w.row_stride[i]
    each = accesses / runs
    line = c[INTERLEAVE] * c[CHANNELS]
    phases = line // gcd(int(line), stride) if runs > 1 else 1.0
    channels = min(c[CHANNELS], accesses, max(each, 1.0) * phases)
    group = c[GROUP_BYTES]
    is_near = w.run[i] * 2 <= group and runs > 1 and stride % int(group) == 0
    cycles = accesses / channels * (c[NEAR_CYCLES] if is_near else c[UNIT_CYCLES])
    if runs > 1 and stride >= c[ROW_BYTES]:
        step = stride // int(c[ROW_BYTES])
        banks = c[BANKS] // gcd(step, int(c[BANKS]))
        cycles = max(cycles, runs * c[ROW_CYCLES] / banks)
    return cycles


@njit
def service(c: F64, port_bytes: int, w: Walks, out: F64) -> None:
    """Fill `out [n, 3]` with requests, port cycles and service cycles of every transfer."""
    for i in range(len(w.run)):
        runs = w.rows[i] * w.planes[i]
        if w.run[i] == 0 or runs == 0:
            continue
        m = c[w.memory[i]]
        is_dram = m[CHANNELS] > 0
        burst = int(m[BURST])
        count = min(runs, _SAMPLED)
        requests, port, units = 0.0, 0.0, 0.0
        for sample in range(count):
            r = int(sample * _GOLDEN % 1.0 * runs) if runs > count else sample
            at = (
                w.address[i]
                + r % w.rows[i] * w.row_stride[i]
                + r // w.rows[i] * w.plane_stride[i]
            )
            first = min(w.run[i], burst - at % burst)
            whole, last = divmod(w.run[i] - first, burst)
            requests += 1 + whole + (last > 0)
            port += _up(first, port_bytes) + whole * _up(burst, port_bytes) + _up(last, port_bytes)
            if is_dram:
                size = int(m[UNIT])
                units += (at + w.run[i] - 1) // size - at // size + 1
            else:
                units += _up(first, m[UNIT]) + whole * _up(burst, m[UNIT]) + _up(last, m[UNIT])
        share = runs / count
        out[i, 0], out[i, 1] = requests * share, port * share
        if is_dram:
            # accesses of one line that follow each other are one
            span = (w.rows[i] - 1) * w.row_stride[i] + w.run[i]
            lines = w.planes[i] * (span / m[UNIT] + 1)
            out[i, 2] = _dram_cycles(m, w, i, max(min(units * share, lines), 1.0))
        else:
            out[i, 2] = units * share * m[UNIT_CYCLES]
