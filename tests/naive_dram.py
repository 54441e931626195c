"""A DRAM channel's controller, cycle by cycle: section 14 of docs/timing.md written out.

Every command is looked at again in every later cycle that it may hold up; nothing is derived ahead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from lepton.simulator.dram_timing import Arbitration, DramTiming

__all__ = ["NaiveChannel", "Place", "locate", "naive_replay"]

ACTIVATE, PRECHARGE, READ, WRITE, REFRESH = "activate", "precharge", "read", "write", "refresh"
COLUMN = (READ, WRITE)
BANK, GROUP, RANK, OTHER_RANK = "bank", "group", "rank", "other rank"
"""How two banks lie to each other: one bank, of one group, of one rank, of two."""

Gaps = dict[tuple[str, str], dict[str, int]]


def gaps_of(t: DramTiming) -> Gaps:
    """Return the table "Gaps", by the commands and how their banks lie to each other."""
    burst = t.burst_cycles
    column = {
        BANK: max(burst, t.tCCD_L), GROUP: max(burst, t.tCCD_L), RANK: max(burst, t.tCCD_S),
    }  # fmt: skip
    turn = t.tCL + burst - t.tCWL + t.tRTRS
    answer = t.tCWL + burst
    gaps: Gaps = {
        (ACTIVATE, READ): {BANK: t.tRCDRD},
        (ACTIVATE, WRITE): {BANK: t.tRCDWR},
        (ACTIVATE, PRECHARGE): {BANK: t.tRAS},
        (ACTIVATE, ACTIVATE): {BANK: t.tRAS + t.tRP, GROUP: t.tRRD_L, RANK: t.tRRD_S},
        (PRECHARGE, ACTIVATE): {BANK: t.tRP},
        (PRECHARGE, REFRESH): dict.fromkeys((BANK, GROUP, RANK), t.tRP),
        (PRECHARGE, PRECHARGE): dict.fromkeys((GROUP, RANK), t.tPPD),
        (READ, PRECHARGE): {BANK: t.tRTP},
        (WRITE, PRECHARGE): {BANK: t.tCWL + burst + t.tWR},
        (READ, READ): column | {OTHER_RANK: burst + t.tRTRS},
        (WRITE, WRITE): column | {OTHER_RANK: burst},
        (READ, WRITE): dict.fromkeys((BANK, GROUP, RANK, OTHER_RANK), turn),
        (WRITE, READ): {
            BANK: answer + t.tWTR_L, GROUP: answer + t.tWTR_L, RANK: answer + t.tWTR_S,
            OTHER_RANK: answer + t.tRTRS - t.tCL,
        },
        (REFRESH, ACTIVATE): dict.fromkeys((BANK, GROUP, RANK), t.tRFC),
        (REFRESH, REFRESH): dict.fromkeys((BANK, GROUP, RANK), t.tRFC),
    }  # fmt: skip
    if t.bank_groups == 1:  # the short values hold, for the bank itself too
        gaps[READ, READ][BANK] = gaps[WRITE, WRITE][BANK] = column[RANK]
        gaps[WRITE, READ][BANK] = gaps[WRITE, READ][RANK]
    return gaps


@dataclass(frozen=True)
class Place:
    """Where an address lies."""

    channel: int
    rank: int
    group: int
    """Over all ranks."""
    bank: int
    """Over the channel."""
    row: int


def locate(t: DramTiming, address: int) -> Place:
    """Return the place of an address ("Addresses")."""
    values = {
        "co": t.row_bytes // t.access_bytes, "bg": t.bank_groups, "ba": t.banks_per_group,
        "ra": t.ranks, "ch": t.channels, "ro": t.rows,
    }  # fmt: skip
    rest, found = address // t.access_bytes, dict[str, int]()
    names = [t.mapping[at : at + 2] for at in range(0, len(t.mapping), 2)]
    for name in reversed(names):
        found[name] = rest % values[name]
        rest //= values[name]
    group = found["ra"] * t.bank_groups + found["bg"]
    bank = group * t.banks_per_group + found["ba"]
    return Place(found["ch"], found["ra"], group, bank, found["ro"])


@dataclass
class Transaction:
    """An accepted request; `readers` are the reads that its command answers."""

    number: int
    address: int
    """A multiple of the access."""
    is_write: bool
    place: Place
    readers: list[int] = field(default_factory=list[int])


@dataclass(frozen=True)
class Command:
    """An issued command; a refresh names the first bank of its rank."""

    cycle: int
    kind: str
    bank: int


@dataclass
class Bank:
    """A bank with its queue; `row` is the open one."""

    number: int
    rank: int
    group: int
    queue: list[Transaction] = field(default_factory=list[Transaction])
    row: int | None = None
    columns: int = 0
    """Column commands since the activation."""


class NaiveChannel:
    """A channel; in a cycle `accept` may be called, and then `step` once."""

    def __init__(self, timing: DramTiming, arbitration: Arbitration) -> None:
        self.t, self.a = timing, arbitration
        self.two_level = arbitration.kind == "two-level"
        self.now = 0
        self.flush = False
        self.done: dict[int, int] = {}
        """Cycles in which accesses are done, as far as that is decided."""
        per_rank = timing.bank_groups * timing.banks_per_group
        self.banks = [
            Bank(number, number // per_rank, number // timing.banks_per_group)
            for number in range(timing.ranks * per_rank)
        ]
        self.reads: list[Transaction] = []
        self.writes: list[Transaction] = []
        self.hits = self.activates = self.columns = self.refreshes = 0
        self._gaps = gaps_of(timing)
        self._memory = max(timing.tFAW, *(n for row in self._gaps.values() for n in row.values()))
        """Cycles after which a command holds up nothing any more."""
        self._history: list[Command] = []
        self._served = 0
        self._moves_left = 0
        self._due: list[int] = []
        self._refreshing: int | None = None

    # --- acceptance

    def queued(self) -> list[Transaction]:
        """Return what is accepted and has no column command yet."""
        return self.reads + self.writes + [x for bank in self.banks for x in bank.queue]

    def accept(self, number: int, address: int, is_write: bool) -> bool:
        """Accept an access in this cycle, or refuse it."""
        address -= address % self.t.access_bytes
        same = [x for x in self.queued() if x.address == address]
        if not self._has_room(is_write, same):
            return False
        merges = any(x.is_write for x in same)
        if is_write or merges:
            self.done[number] = self.now + 1
        if merges:
            return True
        if same and not is_write:
            same[0].readers.append(number)
            return True
        made = Transaction(number, address, is_write, locate(self.t, address))
        if not is_write:
            made.readers.append(number)
        if not self.two_level:
            self.banks[made.place.bank].queue.append(made)
        elif is_write:
            self.writes.append(made)
        else:
            self.reads.append(made)
        return True

    def _has_room(self, is_write: bool, same: list[Transaction]) -> bool:
        if self.two_level:
            return len(self.writes if is_write else self.reads) < self.a.queue
        if is_write and any(not x.is_write for x in same):
            return False
        return len(self.queued()) < self.a.queue

    # --- a cycle after acceptance

    def step(self) -> None:
        """Go through the other three steps of this cycle."""
        self._fall_due()
        first = self._refresh() or self._serve(None)
        if first and self.t.dual_command:
            self._serve(first)
        if self.two_level:
            self._move()
        self.now += 1
        self._history = [c for c in self._history if self.now - c.cycle <= self._memory]

    def _fall_due(self) -> None:
        """Let a refresh fall due, and the next one begin if none is under way."""
        interval = self.t.tREFI // self.t.ranks
        if (self.now + 1) % interval == 0:
            self._due.append(((self.now + 1) // interval - 1) % self.t.ranks)
        if self._refreshing is None and self._due:
            self._refreshing = self._due.pop(0)

    def _refresh(self) -> str:
        """Issue a command for the refresh under way, if one is ready; return it."""
        mine = [bank for bank in self.banks if bank.rank == self._refreshing]
        still_open = [bank for bank in mine if bank.row is not None]
        for bank in still_open:
            if self._is_ready(PRECHARGE, bank):
                self._issue(PRECHARGE, bank)
                return PRECHARGE
        if not mine or still_open or not self._is_ready(REFRESH, mine[0]):
            return ""
        self._issue(REFRESH, mine[0])
        self._refreshing = None
        return REFRESH

    def _serve(self, first: str | None) -> str:
        """Search for a command, issue it if it may share the cycle with the first; return it."""
        found = self._turn() if self.two_level else self._first_come()
        if found is None:
            return ""
        kind, bank, transaction = found
        if first is None or (kind in COLUMN) != (first in COLUMN):
            self._issue(kind, bank, transaction)
        return kind

    # --- which command

    def _turn(self) -> tuple[str, Bank, Transaction] | None:
        order = [(self._served + 1 + n) % len(self.banks) for n in range(len(self.banks))]
        for number in order:
            for kind, transaction in self._offers(self.banks[number]):
                self._served = number
                return kind, self.banks[number], transaction
        return None

    def _first_come(self) -> tuple[str, Bank, Transaction] | None:
        ready = [(k, bank, x) for bank in self.banks for k, x in self._offers(bank)]
        return min(ready, key=lambda r: (r[0] not in COLUMN, r[2].number), default=None)

    def _offers(self, bank: Bank) -> Iterator[tuple[str, Transaction]]:
        """Yield the ready commands of a bank, the one that it offers first."""
        if not bank.queue or bank.rank == self._refreshing:
            return
        oldest = bank.queue[0]
        if bank.row is None:
            if self._is_ready(ACTIVATE, bank):
                yield ACTIVATE, oldest
            return
        hits = [x for x in bank.queue if x.place.row == bank.row]
        may_close = not hits or bank.columns >= self.a.row_hit_limit
        if oldest.place.row != bank.row and may_close and self._is_ready(PRECHARGE, bank):
            yield PRECHARGE, oldest
        seen: set[str] = set()
        for transaction in hits:
            kind = WRITE if transaction.is_write else READ
            if kind not in seen and self._is_ready(kind, bank):
                yield kind, transaction
            seen.add(kind)

    # --- gaps

    def _relation(self, one: Bank, other: Bank) -> str:
        if one is other:
            return BANK
        if one.rank != other.rank:
            return OTHER_RANK
        return GROUP if one.group == other.group and self.t.bank_groups > 1 else RANK

    def _is_ready(self, kind: str, bank: Bank) -> bool:
        """Whether this cycle respects every gap."""
        activates = 0
        for earlier in self._history:
            other = self.banks[earlier.bank]
            gap = self._gaps.get((earlier.kind, kind), {}).get(self._relation(other, bank))
            since = self.now - earlier.cycle
            if gap is not None and since < gap:
                return False
            is_near = other.rank == bank.rank and since < self.t.tFAW
            activates += earlier.kind == ACTIVATE and is_near
        return kind != ACTIVATE or activates < 4

    # --- what commands do

    def _issue(self, kind: str, bank: Bank, transaction: Transaction | None = None) -> None:
        self._history.append(Command(self.now, kind, bank.number))
        if kind == PRECHARGE:
            bank.row = None
        elif kind == REFRESH:
            self.refreshes += 1
        elif kind == ACTIVATE and transaction is not None:
            bank.row, bank.columns = transaction.place.row, 0
            self.activates += 1
        elif transaction is not None:
            self.columns += 1
            self.hits += bank.columns > 0
            bank.columns += 1
            bank.queue.remove(transaction)
            back = self.now + self.t.tCL + self.t.burst_cycles + (1 if self.two_level else 0)
            self.done |= dict.fromkeys(transaction.readers, back)

    # --- moves into a bank's queue

    def _move(self) -> None:
        if self._moves_left == 0 and self._may_drain():
            self._moves_left = len(self.writes)
        if self._moves_left == 0:
            self._move_oldest(self.reads)
            return
        write = self._movable(self.writes)
        if write is None:
            return
        if any(x.address == write.address and not x.is_write for x in self.queued()):
            self._moves_left = 0
            self._move_oldest(self.reads)
            return
        self._move_oldest(self.writes)
        self._moves_left -= 1

    def _may_drain(self) -> bool:
        if len(self.writes) >= self.a.queue:
            return True
        least = 0 if self.flush else self.a.drain_above
        return not any(bank.queue for bank in self.banks) and len(self.writes) > least

    def _movable(self, waiting: list[Transaction]) -> Transaction | None:
        for transaction in waiting:
            if len(self.banks[transaction.place.bank].queue) < self.a.bank_queue:
                return transaction
        return None

    def _move_oldest(self, waiting: list[Transaction]) -> None:
        transaction = self._movable(waiting)
        if transaction is not None:
            waiting.remove(transaction)
            self.banks[transaction.place.bank].queue.append(transaction)


def naive_replay(
    timing: DramTiming,
    arbitration: Arbitration,
    requests: list[tuple[int, bool, int]],
) -> tuple[list[int], list[int], list[NaiveChannel]]:
    """Send (address, is write, earliest cycle) in order, in a cycle at most as many as channels.

    Return the cycles of acceptance, those of completion, and the channels.
    """
    channels = [NaiveChannel(timing, arbitration) for _ in range(timing.channels)]
    accepted: list[int] = []
    now = 0
    while sum(len(channel.done) for channel in channels) < len(requests):
        for _ in range(timing.channels):
            if len(accepted) == len(requests):
                break
            address, is_write, earliest = requests[len(accepted)]
            channel = channels[locate(timing, address).channel]
            if earliest > now or not channel.accept(len(accepted), address, is_write):
                break
            accepted.append(now)
        for channel in channels:
            channel.step()
        now += 1
    done = {number: at for channel in channels for number, at in channel.done.items()}
    while now <= max(done.values(), default=0):
        for channel in channels:
            channel.step()
        now += 1
    return accepted, [done[number] for number in range(len(requests))], channels
