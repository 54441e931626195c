"""A DRAM's organization and timing, the rules between commands, and the address mapping.

All times are cycles of the DRAM's command clock, named as in the JEDEC standards.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Dram
from lepton.errors import ChipError

__all__ = ["FIELDS", "Arbitration", "DramTiming", "Mapping", "Rules", "controller_of", "mapping"]
__all__ += ["rules"]

I64 = NDArray[np.int64]

FIELDS = ("ro", "ch", "ra", "ba", "bg", "co")
"""Address fields: row, channel, rank, bank of a group, bank group, column access of a row."""

NEVER = -(1 << 40)
"""A gap that never binds."""

LONGEST = 1 << 17
"""Cycles that any time between commands is below, so that sums of a few fit in 20 bits."""

MAX_BANKS = 64
MAX_GROUPS = 16
MAX_QUEUE = 64


@dataclass(frozen=True)
class DramTiming:
    """One kind of DRAM behind one controller per channel.

    `controller_of` derives it from a chip's memory. DRAMsim3's configurations need more than a chip
    file can say: rows instead of a size, and an activation delay of their own for writes.
    """

    name: str
    clock_mhz: Fraction
    channels: int
    ranks: int
    bank_groups: int
    banks_per_group: int
    rows: int
    row_bytes: int
    """Bytes that one row of one bank holds, over all devices of the channel."""
    access_bytes: int
    """Bytes of one column command."""
    burst_cycles: int
    mapping: str
    """Address fields from the most significant to the least, e.g. `rochrababgco`."""
    tCL: int
    tCWL: int
    tRCDRD: int
    tRCDWR: int
    tRP: int
    tRAS: int
    tWR: int
    tRTP: int
    tCCD_S: int
    tCCD_L: int
    tRRD_S: int
    tRRD_L: int
    tFAW: int
    tWTR_S: int
    tWTR_L: int
    tRFC: int
    tREFI: int
    tRTRS: int
    """Bubble on the data bus where it changes between ranks or directions."""
    tPPD: int = 0
    dual_command: bool = False
    """A row and a column command may share a cycle (HBM has a bus for each)."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type == "int" and getattr(self, field.name) < 0:
                raise ChipError(f"DRAM {self.name}: {field.name} must not be negative")
            is_gap = field.name == "burst_cycles" or field.name.startswith("t")
            if is_gap and field.name != "tREFI" and getattr(self, field.name) >= LONGEST:
                raise ChipError(
                    f"DRAM {self.name}: {field.name} must be below {LONGEST:,} cycles, "
                    f"not {getattr(self, field.name):,}"
                )
        for name in ("channels", "ranks", "bank_groups", "banks_per_group", "rows"):
            _power_of_two(self, name)
        _power_of_two(self, "access_bytes")
        _power_of_two(self, "row_bytes")
        if self.banks > MAX_BANKS or self.groups > MAX_GROUPS:
            raise ChipError(
                f"DRAM {self.name}: a channel has at most {MAX_GROUPS} bank groups and {MAX_BANKS} "
                f"banks over its ranks, got {self.groups} and {self.banks}"
            )
        if self.refresh_interval < 2 * (self.tRFC + self.tRAS + self.tRP):
            raise ChipError(
                f"DRAM {self.name}: tREFI / ranks must be at least 2 (tRFC + tRAS + tRP)"
            )
        mapping(self)

    @property
    def groups(self) -> int:
        """Bank groups of a channel, over all ranks."""
        return self.ranks * self.bank_groups

    @property
    def banks(self) -> int:
        """Banks of a channel, over all ranks."""
        return self.groups * self.banks_per_group

    @property
    def refresh_interval(self) -> int:
        """Cycles between refreshes of a channel; the ranks take turns."""
        return self.tREFI // self.ranks

    @property
    def bytes_per_cycle(self) -> Fraction:
        """Peak of all channels."""
        return Fraction(self.access_bytes * self.channels, self.burst_cycles)


@dataclass(frozen=True)
class Arbitration:
    """How a channel's controller queues and picks."""

    kind: Literal["two-level", "single"] = "two-level"
    queue: int = 32
    """Reads, and as many writes, that wait for a bank's queue; all requests if `single`."""
    bank_queue: int = 8
    drain_above: int = 8
    """Writes are drained when more than these wait and no bank's queue holds a request."""
    row_hit_limit: int = 4
    """Hits of an open row after which an older request to another row may close it."""

    def __post_init__(self) -> None:
        if self.kind not in ("two-level", "single"):
            raise ChipError(f"DRAM controller must be two-level or single, got {self.kind}")
        for name in ("queue", "bank_queue"):
            if not 1 <= getattr(self, name) <= MAX_QUEUE:
                raise ChipError(f"DRAM controller: {name} must be 1 to {MAX_QUEUE}")
        if self.drain_above < 0 or self.row_hit_limit < 1:
            raise ChipError("DRAM controller: drain_above must be >= 0 and row_hit_limit >= 1")


def controller_of(memory: Dram) -> tuple[DramTiming, Arbitration]:
    """Return a chip's DRAM as its controllers see it."""
    shared = {field.name for field in fields(DramTiming)} & {item.name for item in fields(memory)}
    row_of_banks = memory.channels * memory.ranks * memory.bank_groups * memory.banks_per_group
    timing = DramTiming(
        rows=memory.size_bytes // (row_of_banks * memory.row_bytes),
        tRCDRD=memory.tRCD,
        tRCDWR=memory.tRCD,
        dual_command=memory.commands_per_cycle == 2,
        **{name: getattr(memory, name) for name in shared},
    )
    arbitration = Arbitration(queue=memory.queue, bank_queue=memory.bank_queue)
    return timing, arbitration


class Mapping(NamedTuple):
    """Shift and mask of each field of `FIELDS` in an address."""

    shifts: tuple[int, ...]
    masks: tuple[int, ...]


class Rules(NamedTuple):
    """Least cycles between two commands of a channel, by bank group over all ranks."""

    column: I64
    """[2, MAX_GROUPS, 2, MAX_GROUPS]: from a read (write) in a group to a read (write) in one."""
    activate: I64
    """[MAX_GROUPS, MAX_GROUPS]: from an activation in a group to another bank's in a group."""
    window: I64
    """[MAX_GROUPS, MAX_GROUPS]: from the fourth last activation of a group's rank to a group's."""
    precharge: I64
    """[MAX_GROUPS, MAX_GROUPS]: from a precharge in a group to another bank's in a group."""


def _power_of_two(timing: DramTiming, name: str) -> None:
    value = getattr(timing, name)
    if value < 1 or value & (value - 1):
        raise ChipError(f"DRAM {timing.name}: {name} must be a power of two, got {value}")


def mapping(timing: DramTiming) -> Mapping:
    """Return where each address field lies.

    Raise `ChipError` unless the mapping names each field once.
    """
    order = [timing.mapping[at : at + 2] for at in range(0, len(timing.mapping), 2)]
    if sorted(order) != sorted(FIELDS):
        raise ChipError(
            f"DRAM {timing.name}: mapping must name each of {' '.join(FIELDS)} once, "
            f"got {timing.mapping}"
        )
    sizes = {
        "ro": timing.rows,
        "ch": timing.channels,
        "ra": timing.ranks,
        "ba": timing.banks_per_group,
        "bg": timing.bank_groups,
        "co": timing.row_bytes // timing.access_bytes,
    }
    shift = timing.access_bytes.bit_length() - 1
    shifts: dict[str, int] = {}
    for field in reversed(order):
        shifts[field] = shift
        shift += sizes[field].bit_length() - 1
    return Mapping(tuple(shifts[f] for f in FIELDS), tuple(sizes[f] - 1 for f in FIELDS))


def _column_gaps(t: DramTiming) -> dict[tuple[int, int], tuple[int, int, int]]:
    """Return gaps by (first is a write, second is one): same group, same rank, other rank."""
    burst = t.burst_cycles
    same = (max(burst, t.tCCD_L), max(burst, t.tCCD_S))
    turn = t.tCL + burst - t.tCWL + t.tRTRS
    write = t.tCWL + burst
    return {
        (0, 0): (*same, burst + t.tRTRS),
        (0, 1): (turn, turn, turn),
        (1, 0): (write + t.tWTR_L, write + t.tWTR_S, write + t.tRTRS - t.tCL),
        (1, 1): (*same, burst),
    }


def rules(timing: DramTiming) -> Rules:
    """Return the gaps between commands; a group alone in its rank uses the short ones."""
    groups, per_rank = timing.groups, timing.bank_groups
    column = np.full((2, MAX_GROUPS, 2, MAX_GROUPS), NEVER, np.int64)
    activate, window, precharge = (
        np.full((MAX_GROUPS, MAX_GROUPS), NEVER, np.int64) for _ in range(3)
    )
    gaps = _column_gaps(timing)
    for a in range(groups):
        for b in range(groups):
            same_rank = a // per_rank == b // per_rank
            near = 0 if a == b and per_rank > 1 else 1 if same_rank else 2
            for (first, second), gap in gaps.items():
                column[first, a, second, b] = gap[near]
            if same_rank:
                activate[a, b] = (timing.tRRD_L, timing.tRRD_S)[near]
                window[a, b], precharge[a, b] = timing.tFAW, timing.tPPD
    return Rules(column, activate, window, precharge)
