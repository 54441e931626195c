"""Memories as the timing kernel sees them: bank-level DRAM and plain latency-and-bandwidth devices.

Times are base ticks. A DRAM channel takes requests first come, first served; each bank keeps its
row open; writes wait in a queue and drain together, so that the bus does not turn for each.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, Dram
from lepton.chip.description import Flat
from lepton.jit import njit

__all__ = ["MemoryState", "access", "drain_writes", "memory_state"]

I64 = NDArray[np.int64]
Flag = int | np.int64
"""0 or 1; a constant as np.int64, since Numba compiles a function again for each literal."""

WRITE_QUEUE = 16
"""Writes that a DRAM channel collects before it turns the bus."""

# configuration columns
(KIND, TICKS, CHANNELS, GROUPS, BANKS, ROW, ACCESS, BURST) = range(8)
(CL, CWL, RCD, RP, RAS, WR, RTP, CCD_S, CCD_L, RRD_S, RRD_L, FAW, WTR_S, WTR_L, RFC, REFI) = range(
    8, 24
)
(SHIFT_RO, SHIFT_BA, SHIFT_BG, SHIFT_CO, SHIFT_CH) = range(24, 29)
(PORTS, NUMERATOR, DENOMINATOR, READ_LATENCY, WRITE_LATENCY, READS, WRITES, FLAT_BURST) = range(
    29, 37
)
CONFIGURATION = 37

# bank columns
(OPEN, READY_CAS, READY_PRE, READY_ACT) = range(4)
# channel columns
(LAST_CAS, LAST_GROUP, LAST_IS_WRITE, LAST_ACT, LAST_ACT_GROUP, FAW_SLOT, NEXT_REF, PENDING) = (
    range(8)
)
FAW_TIMES = 8
CHANNEL = 12

# counters
(READ_BYTES, WRITE_BYTES, HITS, MISSES, CONFLICTS, REFRESHES) = range(6)
COUNTERS = 6


class MemoryState(NamedTuple):
    """Configuration and state of all memories; first axis is the memory."""

    configuration: I64
    banks: I64
    """[memories, channels * banks, 4]"""
    channels: I64
    """[memories, channels, CHANNEL]"""
    pending: I64
    """[memories, channels, WRITE_QUEUE] addresses of queued writes"""
    ports: I64
    """[memories, ports] tick at which a flat memory's port is free"""
    flight: I64
    """[memories, 2, slots] completions of reads and writes in flight in a flat memory"""
    heads: I64
    """[memories, 2] next slot of `flight`"""
    counters: I64
    """[memories, COUNTERS]"""


def _dram_row(chip: Chip, memory: Dram) -> I64:
    """Return the configuration of a DRAM, timings in ticks."""
    row = np.zeros(CONFIGURATION, np.int64)
    ticks = chip.ticks(memory.clock_mhz)
    row[KIND], row[TICKS], row[CHANNELS] = 1, ticks, memory.channels
    row[GROUPS], row[BANKS] = memory.bank_groups, memory.banks_per_group
    row[ROW], row[ACCESS] = memory.row_bytes, memory.access_bytes
    row[BURST] = memory.burst_cycles * ticks
    names = ("CL", "CWL", "RCD", "RP", "RAS", "WR", "RTP", "CCD_S", "CCD_L", "RRD_S", "RRD_L")
    names += ("FAW", "WTR_S", "WTR_L", "RFC", "REFI")
    for offset, name in enumerate(names):
        row[CL + offset] = getattr(memory, f"t{name}") * ticks
    widths = {
        "co": (memory.row_bytes // memory.access_bytes).bit_length() - 1,
        "ch": memory.channels.bit_length() - 1,
        "bg": memory.bank_groups.bit_length() - 1,
        "ba": memory.banks_per_group.bit_length() - 1,
        "ro": 0,
    }
    shift = memory.access_bytes.bit_length() - 1
    columns = {"ro": SHIFT_RO, "ba": SHIFT_BA, "bg": SHIFT_BG, "co": SHIFT_CO, "ch": SHIFT_CH}
    parts = [memory.mapping[start : start + 2] for start in range(0, 10, 2)]
    # the row takes all bits above where it stands, so it must stand on top to be unambiguous
    for part in reversed(parts):
        row[columns[part]] = shift
        shift += widths[part]
    return row


def _flat_row(chip: Chip, memory: Flat) -> I64:
    """Return the configuration of a plain memory; its byte time is a fraction of ticks."""
    row = np.zeros(CONFIGURATION, np.int64)
    ticks = chip.ticks(memory.clock_mhz)
    per_byte = ticks / memory.bytes_per_cycle
    row[TICKS], row[PORTS] = ticks, memory.ports
    row[NUMERATOR], row[DENOMINATOR] = per_byte.numerator, per_byte.denominator
    row[READ_LATENCY] = memory.read_latency_cycles * ticks
    row[WRITE_LATENCY] = memory.write_latency_cycles * ticks
    row[READS], row[WRITES] = memory.reads_in_flight, memory.writes_in_flight
    row[FLAT_BURST] = memory.burst_bytes
    return row


def memory_state(chip: Chip) -> MemoryState:
    """Return the memories of a chip at tick 0: all banks closed, nothing in flight."""
    rows = [
        _dram_row(chip, memory) if isinstance(memory, Dram) else _flat_row(chip, memory)
        for memory in chip.memories
    ]
    configuration = np.array(rows, np.int64)
    count = len(rows)
    channels = int(configuration[:, CHANNELS].max(initial=1)) or 1
    per_channel = configuration[:, GROUPS] * configuration[:, BANKS]
    banks = int((configuration[:, CHANNELS] * per_channel).max(initial=1)) or 1
    flight = int(max(configuration[:, READS].max(), configuration[:, WRITES].max(), 1))
    state = MemoryState(
        configuration,
        np.zeros((count, banks, 4), np.int64),
        np.zeros((count, channels, CHANNEL), np.int64),
        np.zeros((count, channels, WRITE_QUEUE), np.int64),
        np.zeros((count, int(configuration[:, PORTS].max(initial=1)) or 1), np.int64),
        np.zeros((count, 2, flight), np.int64),
        np.zeros((count, 2), np.int64),
        np.zeros((count, COUNTERS), np.int64),
    )
    state.banks[:, :, OPEN] = -1
    far = -(1 << 40)
    state.channels[:, :, LAST_CAS] = far
    state.channels[:, :, LAST_ACT] = far
    state.channels[:, :, FAW_TIMES : FAW_TIMES + 4] = far
    state.channels[:, :, NEXT_REF] = configuration[:, None, REFI]
    return state


@njit(allocates=False)
def _refresh(s: MemoryState, m: int, ch: int, t: int) -> None:
    """Do every refresh that is due on a channel by `t`: all its banks close and wait."""
    c = s.configuration[m]
    per_channel = c[GROUPS] * c[BANKS]
    channel = s.channels[m, ch]
    while channel[NEXT_REF] <= t:
        start = channel[NEXT_REF]
        for b in range(ch * per_channel, (ch + 1) * per_channel):
            bank = s.banks[m, b]
            if bank[OPEN] >= 0:
                start = max(start, bank[READY_PRE] + c[RP])
            bank[OPEN] = -1
        for b in range(ch * per_channel, (ch + 1) * per_channel):
            s.banks[m, b, READY_ACT] = max(s.banks[m, b, READY_ACT], start + c[RFC])
        s.counters[m, REFRESHES] += 1
        channel[NEXT_REF] += c[REFI]


@njit(allocates=False)
def _activate(s: MemoryState, m: int, ch: int, b: int, group: int, row: int, t: int) -> None:
    """Open `row` of bank `b`, closing what is open, as early as the timings from `t` allow."""
    c = s.configuration[m]
    bank = s.banks[m, b]
    channel = s.channels[m, ch]
    act = max(t, bank[READY_ACT])
    if bank[OPEN] >= 0:
        act = max(act, max(t, bank[READY_PRE]) + c[RP])
        s.counters[m, CONFLICTS] += 1
    else:
        s.counters[m, MISSES] += 1
    same = channel[LAST_ACT_GROUP] == group
    act = max(act, channel[LAST_ACT] + (c[RRD_L] if same else c[RRD_S]))
    slot = channel[FAW_SLOT]
    act = max(act, channel[FAW_TIMES + slot] + c[FAW])
    channel[FAW_TIMES + slot] = act
    channel[FAW_SLOT] = (slot + 1) % 4
    channel[LAST_ACT] = act
    channel[LAST_ACT_GROUP] = group
    bank[OPEN] = row
    bank[READY_CAS] = act + c[RCD]
    bank[READY_PRE] = act + c[RAS]


@njit(allocates=False)
def _column(s: MemoryState, m: int, address: int, is_write: Flag, t: int) -> int:
    """Do one access of a DRAM from tick `t` on; return the tick of its last data."""
    c = s.configuration[m]
    ch = (address >> c[SHIFT_CH]) % c[CHANNELS]
    group = (address >> c[SHIFT_BG]) % c[GROUPS]
    b = (ch * c[GROUPS] + group) * c[BANKS] + (address >> c[SHIFT_BA]) % c[BANKS]
    row = address >> c[SHIFT_RO]
    channel = s.channels[m, ch]
    t = -(-t // c[TICKS]) * c[TICKS]
    _refresh(s, m, ch, max(t, channel[LAST_CAS]))
    bank = s.banks[m, b]
    if bank[OPEN] == row:
        s.counters[m, HITS] += 1
    else:
        _activate(s, m, ch, b, group, row, t)
    same = channel[LAST_GROUP] == group
    gap = c[CCD_L] if same else c[CCD_S]
    if channel[LAST_IS_WRITE] and not is_write:
        gap = max(gap, c[CWL] + c[BURST] + (c[WTR_L] if same else c[WTR_S]))
    elif is_write and not channel[LAST_IS_WRITE]:
        gap = max(gap, c[CL] + c[BURST] + 2 * c[TICKS] - c[CWL])
    cas = max(t, bank[READY_CAS], channel[LAST_CAS] + max(gap, c[BURST]))
    channel[LAST_CAS], channel[LAST_GROUP], channel[LAST_IS_WRITE] = cas, group, is_write
    end = cas + (c[CWL] if is_write else c[CL]) + c[BURST]
    bank[READY_PRE] = max(bank[READY_PRE], end + c[WR] if is_write else cas + c[RTP])
    return end


@njit(allocates=False)
def _drain_channel(s: MemoryState, m: int, ch: int, t: int) -> int:
    """Write out a channel's queue; return the tick of the last data."""
    channel = s.channels[m, ch]
    end = t
    for index in range(channel[PENDING]):
        end = max(end, _column(s, m, s.pending[m, ch, index], np.int64(1), t))
    channel[PENDING] = 0
    return end


@njit(allocates=False)
def drain_writes(s: MemoryState, t: int) -> int:
    """Write out all queues of all DRAMs; return the tick of the last data."""
    end = t
    for m in range(len(s.configuration)):
        if s.configuration[m, KIND] == 1:
            for ch in range(s.configuration[m, CHANNELS]):
                end = max(end, _drain_channel(s, m, ch, t))
    return end


@njit(allocates=False)
def _dram_request(s: MemoryState, m: int, address: int, size: int, is_write: Flag, t: int) -> int:
    """Do a request access by access; a write is done when the controller has taken it."""
    c = s.configuration[m]
    end = t
    at = address // c[ACCESS] * c[ACCESS]
    while at < address + size:
        if is_write:
            ch = (at >> c[SHIFT_CH]) % c[CHANNELS]
            channel = s.channels[m, ch]
            s.pending[m, ch, channel[PENDING]] = at
            channel[PENDING] += 1
            if channel[PENDING] == WRITE_QUEUE:
                end = max(end, _drain_channel(s, m, ch, t))
        else:
            end = max(end, _column(s, m, at, np.int64(0), t))
        at += c[ACCESS]
    return end


@njit(allocates=False)
def _flat_request(s: MemoryState, m: int, size: int, is_write: Flag, t: int) -> int:
    """Do a request on the port that is free first, within the limit of requests in flight."""
    c = s.configuration[m]
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


@njit(allocates=False)
def access(s: MemoryState, m: int, address: int, size: int, is_write: Flag, t: int) -> int:
    """Do one request of at most a burst from tick `t`; return the tick at which it is done."""
    s.counters[m, WRITE_BYTES if is_write else READ_BYTES] += size
    if s.configuration[m, KIND] == 1:
        return _dram_request(s, m, address, size, is_write, t)
    return _flat_request(s, m, size, is_write, t)
