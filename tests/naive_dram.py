"""The DRAM controller cycle by cycle in plain Python, written from docs/timing.md."""

from __future__ import annotations

from dataclasses import dataclass, field

from lepton.simulator.dram_timing import Arbitration, DramTiming

FAR = -(10**9)


@dataclass
class Request:
    """A request on its way; `merged` are reads that its command answers too."""

    number: int
    line: int
    row: int
    bank: int
    is_write: bool
    merged: list[int] = field(default_factory=list)


@dataclass
class Bank:
    """A bank with its queue."""

    rank: int
    group: int
    queue: list[Request] = field(default_factory=list)
    row: int | None = None
    columns: int = 0


class NaiveChannel:
    """One channel's controller; call `can_accept`, `accept`, then `tick` once per cycle."""

    def __init__(self, timing: DramTiming, arbitration: Arbitration) -> None:
        self.t, self.a = timing, arbitration
        self.two_level = arbitration.kind == "two-level"
        self.now = 0
        self.banks = [
            Bank(b // (timing.banks // timing.ranks), b // timing.banks_per_group)
            for b in range(timing.banks)
        ]
        self.reads: list[Request] = []
        self.writes: list[Request] = []
        self.history: list[tuple[int, str, int]] = []
        self.turn = self.drain = self.refreshes = 0
        self.refreshing: int | None = None
        self.flush = False
        self.done: dict[int, int] = {}
        self.hits = self.activates = self.columns = 0

    def queued(self) -> list[Request]:
        return self.reads + self.writes + [r for bank in self.banks for r in bank.queue]

    def can_accept(self, line: int, is_write: bool) -> bool:
        if self.two_level:
            return len(self.writes if is_write else self.reads) < self.a.queue
        if is_write and any(r.line == line and not r.is_write for r in self.queued()):
            return False
        return len(self.queued()) < self.a.queue

    def accept(self, number: int, line: int, row: int, bank: int, is_write: bool) -> None:
        same = [r for r in self.queued() if r.line == line]
        if is_write or any(r.is_write for r in same):
            self.done[number] = self.now + 1
        if any(r.is_write for r in same):
            return
        if not is_write and same:
            same[0].merged.append(number)
            return
        request = Request(number, line, row, bank, is_write)
        if self.two_level:
            (self.writes if is_write else self.reads).append(request)
        else:
            self.banks[bank].queue.append(request)

    def gap(self, command: str, bank: int, earlier: str, other: int) -> int:
        """Return the cycles from an earlier command on bank `other` to this one."""
        t, same = self.t, bank == other
        here, there = self.banks[bank], self.banks[other]
        rank = here.rank == there.rank
        near = here.group == there.group and t.bank_groups > 1
        pair = (earlier, command)
        if pair in (("R", "R"), ("W", "W")):
            burst = t.burst_cycles
            if rank:
                return max(burst, t.tCCD_L if near else t.tCCD_S)
            return burst + (t.tRTRS if command == "R" else 0)
        if pair == ("R", "W"):
            return t.tCL + t.burst_cycles - t.tCWL + t.tRTRS
        if pair == ("W", "R"):
            after = t.tRTRS - t.tCL if not rank else t.tWTR_L if near else t.tWTR_S
            return t.tCWL + t.burst_cycles + after
        if same:
            return {
                ("A", "R"): t.tRCDRD,
                ("A", "W"): t.tRCDWR,
                ("A", "P"): t.tRAS,
                ("A", "A"): t.tRAS + t.tRP,
                ("P", "A"): t.tRP,
                ("R", "P"): t.tRTP,
                ("W", "P"): t.tCWL + t.burst_cycles + t.tWR,
                ("F", "A"): t.tRFC,
                ("P", "F"): t.tRP,
                ("F", "F"): t.tRFC,
            }.get(pair, FAR)
        if rank and pair == ("A", "A"):
            return t.tRRD_L if near else t.tRRD_S
        return t.tPPD if rank and pair == ("P", "P") else FAR

    def ready(self, command: str, bank: int) -> bool:
        if any(self.now < at + self.gap(command, bank, e, b) for at, e, b in self.history):
            return False
        rank = self.banks[bank].rank
        acts = [at for at, e, b in self.history if e == "A" and self.banks[b].rank == rank]
        return command != "A" or len(acts) < 4 or self.now >= acts[-4] + self.t.tFAW

    def offers(self, number: int) -> list[tuple[str, Request]]:
        """Return the bank's ready commands with their requests, the one it prefers first."""
        bank = self.banks[number]
        if not bank.queue or bank.rank == self.refreshing:
            return []
        if bank.row is None:
            found = [("A", bank.queue[0])]
        else:
            hits = [r for r in bank.queue if r.row == bank.row]
            first = {r.is_write: r for r in reversed(hits)}
            found = [("W" if w else "R", r) for w, r in first.items()]
            found.sort(key=lambda offer: bank.queue.index(offer[1]))
            closes = not hits or bank.columns >= self.a.row_hit_limit
            if bank.queue[0].row != bank.row and closes:
                found.insert(0, ("P", bank.queue[0]))
        return [(c, r) for c, r in found if self.ready(c, number)]

    def choose(self) -> tuple[str, int, Request] | None:
        count = len(self.banks)
        if self.two_level:
            for step in range(1, count + 1):
                number = (self.turn + step) % count
                for command, request in self.offers(number)[:1]:
                    self.turn = number
                    return command, number, request
            return None
        found = [(c, n, r) for n in range(count) for c, r in self.offers(n)]
        return min(found, key=lambda o: (o[0] in "AP", o[2].number), default=None)

    def issue(self, command: str, number: int, request: Request) -> None:
        bank = self.banks[number]
        self.history.append((self.now, command, number))
        if command == "A":
            bank.row, bank.columns = request.row, 0
            self.activates += 1
        elif command == "P":
            bank.row = None
        else:
            self.hits += bank.columns > 0
            self.columns += 1
            bank.columns += 1
            bank.queue.remove(request)
            back = self.now + self.t.tCL + self.t.burst_cycles + self.two_level
            for each in [] if request.is_write else [request.number, *request.merged]:
                self.done[each] = back

    def refresh(self) -> bool:
        """Do what the refresh under way can do; tell if it issued a command."""
        interval = self.t.tREFI // self.t.ranks
        if self.refreshing is None and self.now >= (self.refreshes + 1) * interval - 1:
            self.refreshing = self.refreshes % self.t.ranks
        mine = [n for n, b in enumerate(self.banks) if b.rank == self.refreshing]
        still_open = [n for n in mine if self.banks[n].row is not None]
        for number in still_open:
            if self.ready("P", number):
                self.history.append((self.now, "P", number))
                self.banks[number].row = None
                return True
        if mine and not still_open and all(self.ready("F", n) for n in mine):
            self.history += [(self.now, "F", n) for n in mine]
            self.refreshes += 1
            self.refreshing = None
            return True
        return False

    def move(self) -> None:
        idle = not any(bank.queue for bank in self.banks)
        full = len(self.writes) >= self.a.queue
        enough = 0 if self.flush else self.a.drain_above
        if not self.drain and (full or (idle and len(self.writes) > enough)):
            self.drain = len(self.writes)

        def movable(queue: list[Request]) -> Request | None:
            free = (r for r in queue if len(self.banks[r.bank].queue) < self.a.bank_queue)
            return next(free, None)

        if self.drain:
            write = movable(self.writes)
            if write is None:
                return
            if not any(r.line == write.line and not r.is_write for r in self.queued()):
                self.drain -= 1
                self.writes.remove(write)
                self.banks[write.bank].queue.append(write)
                return
            self.drain = 0
        read = movable(self.reads)
        if read is not None:
            self.reads.remove(read)
            self.banks[read.bank].queue.append(read)

    def tick(self) -> None:
        """Run the commands and the move of the present cycle."""
        first = None
        if self.refresh():
            first = "refresh"
        elif (found := self.choose()) is not None:
            self.issue(*found)
            first = found[0]
        if first and self.t.dual_command:
            found = self.choose()
            if found is not None and (found[0] in "RW") != (first in "RW"):
                self.issue(*found)
        if self.two_level:
            self.move()
        self.now += 1
        keep = self.now - 4 * (self.t.tRFC + self.t.tRAS + self.t.tFAW + self.t.tWR + self.t.tCL)
        self.history = [h for h in self.history if h[0] >= keep]


def naive_replay(
    timing: DramTiming,
    arbitration: Arbitration,
    requests: list[tuple[int, bool, int]],
) -> tuple[list[int], list[int], list[NaiveChannel]]:
    """Send (address, is write, earliest cycle) in order; return cycles and channels."""
    channels = [NaiveChannel(timing, arbitration) for _ in range(timing.channels)]
    accepted: list[int] = []
    now = 0
    while sum(len(channel.done) for channel in channels) < len(requests):
        for _ in range(timing.channels):
            if len(accepted) == len(requests):
                break
            address, is_write, earliest = requests[len(accepted)]
            place = locate(timing, address)
            channel = channels[place["ch"]]
            line = address // timing.access_bytes
            if earliest > now or not channel.can_accept(line, is_write):
                break
            group = place["ra"] * timing.bank_groups + place["bg"]
            bank = group * timing.banks_per_group + place["ba"]
            channel.accept(len(accepted), line, place["ro"], bank, is_write)
            accepted.append(now)
        for channel in channels:
            channel.tick()
        now += 1
    done = {n: at for channel in channels for n, at in channel.done.items()}
    while now <= max(done.values(), default=0):
        for channel in channels:
            channel.tick()
        now += 1
    return accepted, [done[n] for n in range(len(requests))], channels


def locate(timing: DramTiming, address: int) -> dict[str, int]:
    """Return the fields of an address."""
    sizes = {
        "ro": timing.rows,
        "ch": timing.channels,
        "ra": timing.ranks,
        "ba": timing.banks_per_group,
        "bg": timing.bank_groups,
        "co": timing.row_bytes // timing.access_bytes,
    }
    rest = address // timing.access_bytes
    place: dict[str, int] = {}
    for at in range(len(timing.mapping) - 2, -1, -2):
        name = timing.mapping[at : at + 2]
        rest, place[name] = divmod(rest, sizes[name])
    return place
