"""State of a DRAM controller: arrays that the kernels of `dram_queues`, `dram_controller` share."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from lepton.simulator.dram_timing import FIELDS, Arbitration, DramTiming, mapping, rules

__all__ = ["ControllerState", "controller_state", "lowest"]

I64 = NDArray[np.int64]

LATER = 1 << 60
"""The time of what does not happen."""

# configuration
(GROUPS, PER_GROUP, BANKS, RANKS, SINGLE, QUEUE, BANK_QUEUE, DRAIN_AT, HIT_LIMIT, DUAL) = range(10)
(RCD_RD, RCD_WR, RP, RAS, RTP, WRITE_PRE, FAW, RFC, REFI, READ_DONE, RETURN) = range(10, 21)
SHIFT = 21
MASK = SHIFT + len(FIELDS)
CONFIGURATION = MASK + len(FIELDS)
ROW, _, RANK, BANK, GROUP, _ = range(len(FIELDS))

# channel
(CLOCK, POINTER, ACTIVE, STALE, BEST_AT, BEST_BANK, BEST_KIND, REFRESHES, REFRESHING) = range(9)
(DRAIN, FLUSH, SEQUENCE, CHANNEL) = range(9, 13)
(READS, WRITES, HITS, ACTIVATES, PRECHARGES, MERGED, COUNTERS) = range(7)

# transaction queue, one of reads and one of writes
(VALID, ELIGIBLE, TAIL, COUNT, QUEUE_FIELDS) = range(5)

# bank
(OPEN, HIT_COUNT, COLUMN_RD, COLUMN_WR, PRE, ACT, WAITING, HIT, READ, END) = range(10)
(ROW_AT, READ_AT, WRITE_AT, ROW_GATE, GATE, BANK_FIELDS) = range(10, 16)

FILTER = 4096
"""Counters of queued requests by hash of address."""


class ControllerState(NamedTuple):
    """One memory's controller; a channel's banks, queues and ranks are consecutive rows."""

    configuration: I64
    column: I64
    activate: I64
    precharge: I64
    channels: I64
    """[channels, CHANNEL]"""
    counters: I64
    """[channels, COUNTERS]"""
    gates: I64
    """[channels, 4 * groups] earliest activation, precharge, read, write by bank group"""
    faw: I64
    """[channels * ranks, 5] last four activations, next slot"""
    banks: I64
    """[channels * banks, BANK_FIELDS]"""
    lines: I64
    """[channels * banks, positions] addresses that wait in the bank's queue"""
    tickets: I64
    sequence: I64
    queues: I64
    """[channels * 2, QUEUE_FIELDS]"""
    queue_lines: I64
    """[channels * 2, 64]"""
    queue_tickets: I64
    queue_banks: I64
    queue_masks: I64
    """[channels * 2, banks] positions of each bank's transactions"""
    filters: NDArray[np.uint8]
    """[channels * 2, FILTER]"""
    link: I64
    """[tickets] next read that the same column command answers, or -1"""
    done: I64
    """[tickets] cycle of completion, -1 before it is known"""


@intrinsic
def lowest(typingcontext: Any, mask: Any) -> Any:
    """Return the index of the lowest bit of a mask that is not zero."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


def _configuration(timing: DramTiming, arbitration: Arbitration) -> I64:
    single = arbitration.kind == "single"
    row = np.zeros(CONFIGURATION, np.int64)
    row[GROUPS], row[PER_GROUP] = timing.groups, timing.banks_per_group
    row[BANKS], row[RANKS], row[SINGLE] = timing.banks, timing.ranks, single
    row[QUEUE], row[HIT_LIMIT] = arbitration.queue, arbitration.row_hit_limit
    row[BANK_QUEUE] = arbitration.queue if single else arbitration.bank_queue
    row[DRAIN_AT], row[DUAL] = arbitration.drain_at, timing.dual_command
    row[RCD_RD], row[RCD_WR], row[RP] = timing.tRCDRD, timing.tRCDWR, timing.tRP
    row[RAS], row[RTP], row[FAW] = timing.tRAS, timing.tRTP, timing.tFAW
    row[RFC], row[REFI] = timing.tRFC, timing.refresh_interval
    row[WRITE_PRE] = timing.tCWL + timing.burst_cycles + timing.tWR
    row[RETURN] = 0 if single else 1
    row[READ_DONE] = timing.tCL + timing.burst_cycles + row[RETURN]
    bits = mapping(timing)
    row[SHIFT:MASK], row[MASK:CONFIGURATION] = bits.shifts, bits.masks
    return row


def controller_state(
    timing: DramTiming, arbitration: Arbitration, tickets: int
) -> ControllerState:
    """Return a controller at cycle 0: all banks closed, nothing queued."""
    configuration = _configuration(timing, arbitration)
    channels, groups, banks = timing.channels, timing.groups, timing.banks
    positions = min(64, 2 * int(configuration[BANK_QUEUE]))
    gaps = rules(timing)
    state = ControllerState(
        configuration,
        *gaps,
        np.zeros((channels, CHANNEL), np.int64),
        np.zeros((channels, COUNTERS), np.int64),
        np.zeros((channels, 4 * groups), np.int64),
        np.full((channels * timing.ranks, 5), -LATER, np.int64),
        np.zeros((channels * banks, BANK_FIELDS), np.int64),
        *(np.zeros((channels * banks, positions), np.int64) for _ in range(3)),
        np.zeros((channels * 2, QUEUE_FIELDS), np.int64),
        *(np.zeros((channels * 2, 64), np.int64) for _ in range(3)),
        np.zeros((channels * 2, banks), np.int64),
        np.zeros((channels * 2, FILTER), np.uint8),
        np.full(tickets, -1, np.int64),
        np.full(tickets, -1, np.int64),
    )
    state.faw[:, 4] = 0
    state.channels[:, STALE] = 1
    state.channels[:, POINTER] = 0
    state.channels[:, REFRESHING] = -1
    state.banks[:, OPEN] = -1
    state.banks[:, ROW_AT : WRITE_AT + 1] = LATER
    group = np.arange(channels * banks) % banks // timing.banks_per_group
    state.banks[:, ROW_GATE] = state.banks[:, GATE] = group
    return state
