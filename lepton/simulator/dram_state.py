"""The state of a DRAM controller, as the kernels of `dram_queues` and `dram_controller` share it.

Each channel has one block of integers. A set of banks or of queue positions is a bit mask; a
queue's positions are in order of age.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.simulator.dram_intrinsics import CYCLE_SHIFT
from lepton.simulator.dram_timing import (
    FIELDS,
    MAX_BANKS,
    MAX_GROUPS,
    MAX_QUEUE,
    Arbitration,
    DramTiming,
    mapping,
    rules,
)

__all__ = ["ControllerState", "aligned_rows", "controller_state"]

I64 = NDArray[np.int64]

LATER = 1 << 50
"""The time of what does not happen."""

_LINE = 8
"""Elements of a cache line: a vector that lies in two of them takes twice as long."""


def _whole_lines(elements: int) -> int:
    """Return at least so many elements, a multiple of a cache line's."""
    return elements + -elements % _LINE


# configuration: scalars, shift and mask of each address field, then the gaps between commands
(GROUPS, BANKS, RANKS, PER_RANK, SINGLE, QUEUE, BANK_QUEUE, DRAIN_ABOVE, HIT_LIMIT) = range(9)
(DUAL, RCD_RD, RCD_WR, RP, RAS, RTP, WRITE_PRE, RFC, REFI, READ_DONE) = range(9, 19)
(GROUP_BITS, BANK_BITS, POSITION_BITS, LINE_MASK, SEQUENCES, HASH_SHIFT, SHIFT) = range(19, 26)
MASK = SHIFT + len(FIELDS)
# a row of gaps per group: from a read (write) there to reads and writes, from a row command
READ_GAPS = _whole_lines(MASK + len(FIELDS))
WRITE_GAPS = READ_GAPS + 2 * MAX_GROUPS**2
ACTIVATE_GAPS = WRITE_GAPS + 2 * MAX_GROUPS**2
WINDOW_GAPS = ACTIVATE_GAPS + MAX_GROUPS**2
PRECHARGE_GAPS = WINDOW_GAPS + MAX_GROUPS**2
# the same rows of gaps, by bank instead of group and as a key has cycles
BANK_GAPS = PRECHARGE_GAPS + MAX_GROUPS**2
ROW, CHANNEL, RANK, BANK, GROUP, _ = range(len(FIELDS))

# a channel's block: scalars and counters
# `BEST` is the next command's key, with its bank's turn after `POINTER`, or `STALE`; `BASE` is the
# cycle, as in a key, from which the banks' keys count
(CLOCK, POINTER, ACTIVE, ALLOWED, BEST, BASE) = range(6)
(REFRESH_AT, REFRESHING, REFRESHES, DRAIN, FLUSH, SEQUENCE) = range(8, 14)
(READS, WRITES, HITS, ACTIVATES, PRECHARGES, MERGED, COUNTERS) = range(14, 21)
# the first of the reads whose completion the latest read command decided, -1 once that is noted
DECIDED = 21
# the banks that may have a choice of commands; those that have one are among them
CHOICES = 22
# the queues of reads and of writes
(VALID, ELIGIBLE, TAIL, COUNT, QUEUE_FIELDS) = range(5)
QUEUES = 24
# per rank: the last four activations and the slot of the oldest
FAW_SLOT, FAW_FIELDS = 4, 5
FAW_TIMES = QUEUES + 2 * QUEUE_FIELDS
# per kind of command and group, the earliest cycle that other banks' commands allow
GATES = _whole_lines(FAW_TIMES + FAW_FIELDS * MAX_GROUPS)
# per bank; a bit of HIT (a request for the open row) or READ counts where WAITING has it too
(OPEN, HIT_COUNT, COLUMN_RD, COLUMN_WR, PRE, ACT, WAITING, HIT, READ) = range(9)
BANK_FIELDS = 16
# a power of two above the gates, so that a mask tells the compiler that a gate is no negative index
BANK_STATE = 256
# per bank the key of its next command: earliest cycle, by gates too and counted from `BASE`, and
# kind, 32 bits, two in an element
NEXT = BANK_STATE + BANK_FIELDS * MAX_BANKS
# per queue and bank; what waits, per queue and position and then per bank and position;
# behind it, where a single queue needs it, the order of arrival
QUEUE_MASKS = NEXT + MAX_BANKS // 2
(LINE, TICKET, HOME, QUEUED_FIELDS) = 0, 1, 2, 4
QUEUED = QUEUE_MASKS + 2 * MAX_BANKS
ENTRY_FIELDS = 2
ENTRIES = QUEUED + 2 * MAX_QUEUE * QUEUED_FIELDS

# kinds of command, the row commands first; several where a bank has a choice
ACTIVATE, PRECHARGE, READ_COMMAND, WRITE_COMMAND, SEVERAL, NOTHING = range(6)

NO_CYCLE = (1 << 22) - 1
"""The cycle, counted from `BASE`, of what does not happen, in a key of 32 bits."""
NO_COMMAND = (NO_CYCLE << CYCLE_SHIFT) | NOTHING
"""The key of a bank that has nothing to do."""
EPOCH = 1 << 20
"""Cycles after which `BASE` moves at the latest; no command delays another by as many.

So cycles from `-EPOCH` to four times as many, counted from `BASE`, fit in a key with turn and kind.
"""
STALE = -1
"""In place of the key of the next command: it is to be found anew."""

FILTER = 1024
"""Counters of queued requests by a hash of their address, of reads and above them of writes."""
FILTER_BITS = 16
"""Bits of a counter."""

(LINK, DONE) = range(2)


class ControllerState(NamedTuple):
    """The controllers of one memory's channels."""

    configuration: I64
    blocks: I64
    """[channels, what the banks' queues take]"""
    filters: NDArray[np.uint32]
    """[channels, FILTER]"""
    tickets: I64
    """[tickets, 2]: next read that the same command answers or -1; cycle of completion or -1"""


def _by_bank(timing: DramTiming, gaps: I64) -> I64:
    """Return gaps to bank groups as gaps to banks, 32 bits each as in keys, two in an element."""
    group = np.minimum(np.arange(MAX_BANKS) // timing.banks_per_group, MAX_GROUPS - 1)
    by_bank = np.maximum(gaps.reshape(-1, MAX_GROUPS)[:, group], -EPOCH) << CYCLE_SHIFT
    return by_bank.astype(np.int32).ravel().view(np.int64)


def _positions(timing: DramTiming, configuration: I64) -> int:
    """Return the positions in all banks' queues of a channel."""
    return timing.banks << int(configuration[POSITION_BITS])


@cache
def _configuration(timing: DramTiming, arbitration: Arbitration) -> I64:
    """Return the kernel's view of a memory and its controller."""
    single = arbitration.kind == "single"
    row = np.zeros(READ_GAPS, np.int64)
    row[GROUPS], row[BANKS], row[RANKS] = timing.groups, timing.banks, timing.ranks
    row[PER_RANK] = timing.banks // timing.ranks
    row[SINGLE], row[QUEUE] = single, arbitration.queue
    row[BANK_QUEUE] = arbitration.queue if single else arbitration.bank_queue
    row[DRAIN_ABOVE], row[HIT_LIMIT] = arbitration.drain_above, arbitration.row_hit_limit
    row[DUAL], row[RCD_RD], row[RCD_WR] = timing.dual_command, timing.tRCDRD, timing.tRCDWR
    row[RP], row[RAS], row[RTP] = timing.tRP, timing.tRAS, timing.tRTP
    row[RFC], row[REFI] = timing.tRFC, timing.refresh_interval
    row[WRITE_PRE] = timing.tCWL + timing.burst_cycles + timing.tWR
    row[READ_DONE] = timing.tCL + timing.burst_cycles + (0 if single else 1)
    row[GROUP_BITS] = timing.bank_groups.bit_length() - 1
    row[BANK_BITS] = timing.banks_per_group.bit_length() - 1
    row[POSITION_BITS] = min(6, int(row[BANK_QUEUE]).bit_length() + 1)
    row[LINE_MASK] = -timing.access_bytes
    row[SEQUENCES] = ENTRIES + _positions(timing, row) * ENTRY_FIELDS
    bits = mapping(timing)
    fields = zip(FIELDS, bits.shifts, bits.masks, strict=True)
    within = [shift for name, shift, mask in fields if mask and name != "ch"]
    row[HASH_SHIFT] = min(within)
    row[SHIFT:MASK], row[MASK : MASK + len(FIELDS)] = bits.shifts, bits.masks
    gaps = rules(timing)
    by_group = np.concatenate([table.ravel() for table in gaps])
    parts = np.concatenate([row, by_group, _by_bank(timing, by_group)])
    made = aligned_rows(1, _whole_lines(len(parts)))[0]
    made[: len(parts)] = parts
    return made


def aligned_rows(rows: int, columns: int) -> I64:
    """Return zeros; rows of as many elements as whole lines have begin with a cache line."""
    made = np.zeros(rows * columns + _LINE, np.int64)
    first = -made.ctypes.data // made.itemsize % _LINE
    return made[first : first + rows * columns].reshape(rows, columns)


def controller_state(timing: DramTiming, arbitration: Arbitration, tickets: int) -> ControllerState:
    """Return controllers at cycle 0: all banks closed, nothing queued.

    `tickets` numbers tell requests apart; a number may be used again once it is done.
    """
    configuration = _configuration(timing, arbitration)
    sequences = _positions(timing, configuration) if configuration[SINGLE] else 0
    columns = _whole_lines(int(configuration[SEQUENCES]) + sequences)
    blocks = aligned_rows(timing.channels, columns)
    blocks[:, ALLOWED], blocks[:, REFRESHING] = -1, -1
    blocks[:, BEST] = NO_COMMAND
    blocks[:, REFRESH_AT] = min(timing.refresh_interval - 1, EPOCH)
    blocks[:, DECIDED] = -1
    blocks[:, FAW_TIMES:GATES] = -EPOCH
    blocks[:, FAW_TIMES + FAW_SLOT : GATES : FAW_FIELDS] = 0
    banks = blocks[:, BANK_STATE:NEXT].reshape(timing.channels, MAX_BANKS, BANK_FIELDS)
    banks[:, :, OPEN] = -1
    blocks[:, NEXT:QUEUE_MASKS] = (NO_COMMAND << 32) | NO_COMMAND
    return ControllerState(
        configuration,
        blocks,
        np.zeros((timing.channels, FILTER), np.uint32),
        # each is written as its request is taken
        np.empty((tickets, 2), np.int64),
    )
