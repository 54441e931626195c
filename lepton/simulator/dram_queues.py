"""The controller's queues: what a request goes through before a command is issued for it."""

from __future__ import annotations

from lepton.jit import njit
from lepton.simulator.dram_state import (
    ACT, ACTIVE, BANK, BANK_QUEUE, BANKS, COLUMN_RD, COLUMN_WR, COUNT, DRAIN, DRAIN_AT, ELIGIBLE,
    END, FILTER, GROUP, HIT, HIT_COUNT, HIT_LIMIT, LATER, MASK, MERGED, OPEN, PER_GROUP, PRE,
    QUEUE, RANK, READ, READ_AT, ROW, ROW_AT, SEQUENCE, SHIFT, SINGLE, TAIL, VALID, WAITING,
    WRITE_AT, CLOCK, FLUSH, STALE, BEST_BANK, RETURN, GROUPS, RANKS, ControllerState, lowest,
)  # fmt: skip

__all__ = ["accept", "bank_of", "has_room", "offer_bank", "remove", "schedule", "wants_schedule"]


@njit
def bank_of(s: ControllerState, line: int) -> int:
    """Return the bank of an address, numbered over its channel."""
    c = s.configuration
    rank = (line >> c[SHIFT + RANK]) & c[MASK + RANK]
    group = (line >> c[SHIFT + GROUP]) & c[MASK + GROUP]
    bank = (line >> c[SHIFT + BANK]) & c[MASK + BANK]
    return (rank * (c[GROUPS] // c[RANKS]) + group) * c[PER_GROUP] + bank


@njit
def row_of(s: ControllerState, line: int) -> int:
    c = s.configuration
    return (line >> c[SHIFT + ROW]) & c[MASK + ROW]


@njit
def _slot(line: int) -> int:
    """Return an address's counter in the filters."""
    return ((line >> 5) ^ (line >> 17)) & (FILTER - 1)


@njit
def find(s: ControllerState, ch: int, line: int, is_write: int) -> int:
    """Return the ticket of the queued request of an address, or -1."""
    if s.filters[ch * 2 + is_write, _slot(line)] == 0:
        return -1
    b = ch * s.configuration[BANKS] + bank_of(s, line)
    waiting = s.banks[b, WAITING]
    waiting &= ~s.banks[b, READ] if is_write else s.banks[b, READ]
    while waiting:
        at = lowest(waiting)
        if s.lines[b, at] == line:
            return s.tickets[b, at]
        waiting &= waiting - 1
    k = ch * 2 + is_write
    queued = s.queues[k, VALID]
    while queued:
        at = lowest(queued)
        if s.queue_lines[k, at] == line:
            return s.queue_tickets[k, at]
        queued &= queued - 1
    return -1


@njit
def offer_bank(s: ControllerState, b: int) -> None:
    """Set what the bank can do next, by its own timings: a row command, a read, a write."""
    bank = s.banks
    bank[b, ROW_AT] = bank[b, READ_AT] = bank[b, WRITE_AT] = LATER
    waiting, hit = bank[b, WAITING], bank[b, HIT]
    if waiting == 0:
        return
    if bank[b, OPEN] < 0:
        bank[b, ROW_AT] = bank[b, ACT]
        return
    if hit & (waiting & -waiting) == 0 and (
        hit == 0 or bank[b, HIT_COUNT] >= s.configuration[HIT_LIMIT]
    ):
        bank[b, ROW_AT] = bank[b, PRE]
    if hit & bank[b, READ]:
        bank[b, READ_AT] = bank[b, COLUMN_RD]
    if hit & ~bank[b, READ]:
        bank[b, WRITE_AT] = bank[b, COLUMN_WR]


@njit
def _compact(s: ControllerState, b: int) -> None:
    """Move a bank's requests to the first positions."""
    waiting, hit, read = s.banks[b, WAITING], s.banks[b, HIT], s.banks[b, READ]
    to = hits = reads = 0
    while waiting:
        at = lowest(waiting)
        s.lines[b, to], s.tickets[b, to] = s.lines[b, at], s.tickets[b, at]
        s.sequence[b, to] = s.sequence[b, at]
        hits |= (hit >> at & 1) << to
        reads |= (read >> at & 1) << to
        to += 1
        waiting &= waiting - 1
    s.banks[b, WAITING] = -1 if to == 64 else (1 << to) - 1
    s.banks[b, HIT], s.banks[b, READ], s.banks[b, END] = hits, reads, to


@njit
def _push(s: ControllerState, ch: int, local: int, line: int, ticket: int, is_write: int) -> None:
    """Put a request at the end of a bank's queue."""
    b = ch * s.configuration[BANKS] + local
    if s.banks[b, END] == s.lines.shape[1]:
        _compact(s, b)
    at = s.banks[b, END]
    s.banks[b, END] = at + 1
    s.lines[b, at], s.tickets[b, at] = line, ticket
    s.sequence[b, at] = s.channels[ch, SEQUENCE]
    s.channels[ch, SEQUENCE] += 1
    bit = 1 << at
    s.banks[b, WAITING] |= bit
    if not is_write:
        s.banks[b, READ] |= bit
    if s.banks[b, OPEN] == row_of(s, line):
        s.banks[b, HIT] |= bit
    s.channels[ch, ACTIVE] |= 1 << local
    offer_bank(s, b)


@njit
def population(mask: int) -> int:
    count = 0
    while mask:
        mask &= mask - 1
        count += 1
    return count


@njit
def remove(s: ControllerState, ch: int, local: int, at: int) -> None:
    """Take a request out of a bank's queue."""
    c = s.configuration
    b = ch * c[BANKS] + local
    waiting = s.banks[b, WAITING]
    bit = 1 << at
    is_write = 0 if s.banks[b, READ] & bit else 1
    s.filters[ch * 2 + is_write, _slot(s.lines[b, at])] -= 1
    if c[SINGLE]:
        s.queues[ch * 2, COUNT] -= 1
    else:
        s.queues[ch * 2, ELIGIBLE] |= s.queue_masks[ch * 2, local]
        s.queues[ch * 2 + 1, ELIGIBLE] |= s.queue_masks[ch * 2 + 1, local]
    waiting &= ~bit
    s.banks[b, WAITING] = waiting
    s.banks[b, HIT] &= ~bit
    s.banks[b, READ] &= ~bit
    if waiting == 0:
        s.channels[ch, ACTIVE] &= ~(1 << local)
        s.banks[b, END] = 0


@njit
def _enqueue(s: ControllerState, k: int, local: int, line: int, ticket: int) -> None:
    """Put a transaction at the end of a queue."""
    if s.queues[k, TAIL] == 64:
        _compact_queue(s, k)
    at = s.queues[k, TAIL]
    s.queues[k, TAIL] = at + 1
    s.queues[k, COUNT] += 1
    bit = 1 << at
    s.queue_lines[k, at], s.queue_tickets[k, at], s.queue_banks[k, at] = line, ticket, local
    s.queues[k, VALID] |= bit
    s.queue_masks[k, local] |= bit
    c = s.configuration
    if population(s.banks[(k >> 1) * c[BANKS] + local, WAITING]) < c[BANK_QUEUE]:
        s.queues[k, ELIGIBLE] |= bit


@njit
def _compact_queue(s: ControllerState, k: int) -> None:
    """Move a queue's transactions to the first positions."""
    valid, eligible = s.queues[k, VALID], s.queues[k, ELIGIBLE]
    s.queue_masks[k, :] = 0
    to = kept = 0
    while valid:
        at = lowest(valid)
        s.queue_lines[k, to], s.queue_tickets[k, to] = s.queue_lines[k, at], s.queue_tickets[k, at]
        s.queue_banks[k, to] = s.queue_banks[k, at]
        s.queue_masks[k, s.queue_banks[k, to]] |= 1 << to
        kept |= (eligible >> at & 1) << to
        to += 1
        valid &= valid - 1
    s.queues[k, VALID] = -1 if to == 64 else (1 << to) - 1
    s.queues[k, ELIGIBLE], s.queues[k, TAIL] = kept, to


@njit
def starts_drain(s: ControllerState, ch: int) -> bool:
    """Tell if the writes are to be drained from now on."""
    c = s.configuration
    reads, writes = s.queues[ch * 2, COUNT], s.queues[ch * 2 + 1, COUNT]
    if s.channels[ch, DRAIN] > 0:
        return False
    low = 1 if s.channels[ch, FLUSH] else c[DRAIN_AT]
    return writes >= c[QUEUE] or (reads == 0 and writes >= low)


@njit
def wants_schedule(s: ControllerState, ch: int) -> bool:
    """Tell if `schedule` would do something."""
    if s.configuration[SINGLE]:
        return False
    if starts_drain(s, ch):
        return True
    return s.queues[ch * 2 + (s.channels[ch, DRAIN] > 0), ELIGIBLE] != 0


@njit
def schedule(s: ControllerState, ch: int) -> int:
    """Move the oldest transaction whose bank's queue has room there; return the bank or -1."""
    if starts_drain(s, ch):
        s.channels[ch, DRAIN] = s.queues[ch * 2 + 1, COUNT]
    is_write = 1 if s.channels[ch, DRAIN] > 0 else 0
    k = ch * 2 + is_write
    if s.queues[k, ELIGIBLE] == 0:
        return -1
    at = lowest(s.queues[k, ELIGIBLE])
    if is_write and find(s, ch, s.queue_lines[k, at], 0) >= 0:
        s.channels[ch, DRAIN] = 0
        is_write = 0
        k = ch * 2
        if s.queues[k, ELIGIBLE] == 0:
            return -1
        at = lowest(s.queues[k, ELIGIBLE])
    s.channels[ch, DRAIN] -= is_write
    bit = 1 << at
    local = s.queue_banks[k, at]
    s.queues[k, VALID] &= ~bit
    s.queues[k, ELIGIBLE] &= ~bit
    s.queues[k, COUNT] -= 1
    s.queue_masks[k, local] &= ~bit
    if s.queues[k, VALID] == 0:
        s.queues[k, TAIL] = 0
    _push(s, ch, local, s.queue_lines[k, at], s.queue_tickets[k, at], is_write)
    c = s.configuration
    if population(s.banks[ch * c[BANKS] + local, WAITING]) == c[BANK_QUEUE]:
        s.queues[ch * 2, ELIGIBLE] &= ~s.queue_masks[ch * 2, local]
        s.queues[ch * 2 + 1, ELIGIBLE] &= ~s.queue_masks[ch * 2 + 1, local]
    return local


@njit
def has_room(s: ControllerState, ch: int, line: int, is_write: int) -> bool:
    """Tell if the channel takes a request now."""
    c = s.configuration
    if c[SINGLE]:
        if is_write and find(s, ch, line, 0) >= 0:
            return False
        return s.queues[ch * 2, COUNT] < c[QUEUE]
    return s.queues[ch * 2 + is_write, COUNT] < c[QUEUE]


@njit
def accept(s: ControllerState, ch: int, line: int, is_write: int, ticket: int) -> None:
    """Take a request at the channel's present cycle; `has_room` must hold.

    A write is done the cycle after. So is a read of an address that a queued write is for; a read
    of an address that is queued to be read shares that read's command.
    """
    now = s.channels[ch, CLOCK]
    s.link[ticket] = -1
    if is_write:
        s.done[ticket] = now + 1
    writing = find(s, ch, line, 1)
    if writing >= 0:
        s.counters[ch, MERGED] += 1
        s.done[ticket] = now + 1
        return
    if not is_write:
        s.done[ticket] = -1
        reading = find(s, ch, line, 0)
        if reading >= 0:
            s.counters[ch, MERGED] += 1
            s.link[ticket] = s.link[reading]
            s.link[reading] = ticket
            return
    s.filters[ch * 2 + is_write, _slot(line)] += 1
    local = bank_of(s, line)
    if s.configuration[SINGLE]:
        s.queues[ch * 2, COUNT] += 1
        _push(s, ch, local, line, ticket, is_write)
        s.channels[ch, STALE] = 1
    else:
        _enqueue(s, ch * 2 + is_write, local, line, ticket)
