"""The DRAM controller's queues: where a request waits until a command is issued for it.

Masks that change nothing tell the compiler that an index is not negative, which saves it a test.

Kernel arguments: `c` configuration, `m` the channel's block, `f` its filters, `k` the tickets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.jit import njit
from lepton.simulator.dram_banks import offer
from lepton.simulator.dram_intrinsics import (
    KIND_MASK,
    count_of,
    key_at,
    length_of,
    likely,
    lowest,
    rotated,
    unlikely,
)
from lepton.simulator.dram_state import (
    ACTIVE,
    ALLOWED,
    BANK,
    BANK_BITS,
    BANK_FIELDS,
    BANK_QUEUE,
    BANK_STATE,
    BEST,
    CLOCK,
    COUNT,
    DONE,
    DRAIN,
    DRAIN_ABOVE,
    ELIGIBLE,
    ENTRIES,
    ENTRY_FIELDS,
    FILTER,
    FILTER_BITS,
    FLUSH,
    GROUP,
    GROUP_BITS,
    HASH_SHIFT,
    HIT,
    HOME,
    LINE,
    LINK,
    MASK,
    MAX_BANKS,
    MAX_QUEUE,
    MERGED,
    NEXT,
    OPEN,
    POSITION_BITS,
    QUEUE,
    QUEUE_FIELDS,
    QUEUE_MASKS,
    QUEUED,
    QUEUED_FIELDS,
    QUEUES,
    RANK,
    READ,
    READ_COMMAND,
    ROW,
    SEQUENCE,
    SEQUENCES,
    SHIFT,
    SINGLE,
    STALE,
    TAIL,
    TICKET,
    VALID,
    WAITING,
)

__all__ = [
    "enter",
    "entries_of",
    "position_of",
    "remove",
    "room",
    "row_of",
    "schedule",
    "starts_drain",
]

I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]


@njit(allocates=False, inlined=True)
def _bank_of(c: I64, line: int) -> int:
    """Return the bank of an address, numbered over its channel."""
    rank = (line >> c[SHIFT + RANK]) & c[MASK + RANK]
    group = (line >> c[SHIFT + GROUP]) & c[MASK + GROUP]
    bank = (line >> c[SHIFT + BANK]) & c[MASK + BANK]
    return ((((rank << c[GROUP_BITS]) | group) << c[BANK_BITS]) | bank) & (MAX_BANKS - 1)


@njit(allocates=False, inlined=True)
def position_of(c: I64, local: int) -> int:
    """Return the number of the first position of a bank's queue."""
    return (local << c[POSITION_BITS]) & (MAX_BANKS * MAX_QUEUE - 1)


@njit(allocates=False, inlined=True)
def entries_of(c: I64, local: int) -> int:
    """Return where in a channel's block a bank's queue is."""
    return ENTRIES + position_of(c, local) * ENTRY_FIELDS


@njit(allocates=False, inlined=True)
def row_of(c: I64, line: int) -> int:
    """Return the row of an address."""
    return (line >> c[SHIFT + ROW]) & c[MASK + ROW]


@njit(allocates=False, inlined=True)
def _hash(c: I64, line: int) -> int:
    """Return an address's place in the filters: neighbours in a channel get neighbouring ones."""
    line >>= c[HASH_SHIFT]
    return (line ^ (line >> 11)) & (FILTER - 1)


@njit(allocates=False, inlined=True)
def _one(is_write: int) -> int:
    """Return what a queued request adds to its place in the filters."""
    return 1 << (is_write * FILTER_BITS)


@njit(allocates=False, inlined=True)
def _queued(is_write: int, at: int) -> int:
    """Return where in a channel's block a position of a queue of reads or of writes is."""
    return QUEUED + (is_write * MAX_QUEUE + at) * QUEUED_FIELDS


@njit(allocates=False, inlined=True)
def _has_room(c: I64, m: I64, local: int) -> int:
    """Return all bits set if a bank's queue has room, else none: no branch to mispredict."""
    return (count_of(m[BANK_STATE + local * BANK_FIELDS + WAITING]) - c[BANK_QUEUE]) >> 63


@njit(allocates=False, inlined=True)
def _find(c: I64, m: I64, f: U32, line: int, is_write: int) -> int:
    """Return the ticket of the request of an address that waits in a queue, or -1."""
    if (f[_hash(c, line)] >> (is_write * FILTER_BITS)) & ((1 << FILTER_BITS) - 1) == 0:
        return -1
    local = _bank_of(c, line)
    b = BANK_STATE + local * BANK_FIELDS
    entry = entries_of(c, local)
    waiting = m[b + WAITING] & (~m[b + READ] if is_write else m[b + READ])
    while waiting:
        at = entry + lowest(waiting) * ENTRY_FIELDS
        if m[at + LINE] == line:
            return m[at + TICKET]
        waiting &= waiting - 1
    queued = m[QUEUES + is_write * QUEUE_FIELDS + VALID]
    while queued:
        at = _queued(is_write, lowest(queued))
        if m[at + LINE] == line:
            return m[at + TICKET]
        queued &= queued - 1
    return -1


@njit(allocates=False, inlined=True)
def _compact_bank(c: I64, m: I64, local: int) -> None:
    """Move a bank's requests to the first positions."""
    b = BANK_STATE + local * BANK_FIELDS
    entry, sequence = entries_of(c, local), c[SEQUENCES] + position_of(c, local)
    waiting, hit, read = m[b + WAITING], m[b + HIT], m[b + READ]
    to = hits = reads = 0
    while waiting:
        at = lowest(waiting)
        for field in range(ENTRY_FIELDS):
            m[entry + to * ENTRY_FIELDS + field] = m[entry + at * ENTRY_FIELDS + field]
        if unlikely(c[SINGLE] != 0):
            m[sequence + to] = m[sequence + at]
        hits |= (hit >> at & 1) << to
        reads |= (read >> at & 1) << to
        to += 1
        waiting &= waiting - 1
    m[b + WAITING] = (2 << (to - 1)) - 1
    m[b + HIT], m[b + READ] = hits, reads


@njit(allocates=False, inlined=True)
def _push(c: I64, m: I64, local: int, line: int, ticket: int, is_write: int) -> bool:
    """Put a request at the end of a bank's queue; tell if that may change what the bank offers.

    While a refresh holds a bank back it offers nothing.
    """
    b = BANK_STATE + local * BANK_FIELDS
    if unlikely(length_of(m[b + WAITING]) >> c[POSITION_BITS] != 0):
        _compact_bank(c, m, local)
    at = length_of(m[b + WAITING]) & (MAX_QUEUE - 1)
    entry = entries_of(c, local) + at * ENTRY_FIELDS
    m[entry + LINE], m[entry + TICKET] = line, ticket
    if unlikely(c[SINGLE] != 0):
        m[c[SEQUENCES] + position_of(c, local) + at] = m[SEQUENCE]
        m[SEQUENCE] += 1
    waiting, bit = m[b + WAITING], 1 << at
    hits = int(m[b + OPEN] == row_of(c, line))
    m[b + WAITING] = waiting | bit
    m[b + HIT] = (m[b + HIT] & ~bit) | (hits << at)
    m[b + READ] = (m[b + READ] & ~bit) | ((1 - is_write) << at)
    if waiting != 0 and (not hits or key_at(m, NEXT, local) & KIND_MASK == READ_COMMAND + is_write):
        return False
    m[ACTIVE] |= 1 << local
    if likely((m[ALLOWED] >> local) & 1 != 0):
        offer(c, m, local)
        return True
    return False


@njit(allocates=False, inlined=True)
def remove(c: I64, m: I64, f: U32, local: int, at: int, is_write: int) -> None:
    """Take a request out of a bank's queue.

    Then there is room for all that wait for it; before, either for all or for none.
    """
    f[_hash(c, m[entries_of(c, local) + at * ENTRY_FIELDS + LINE])] -= _one(is_write)
    if unlikely(c[SINGLE] != 0):
        m[QUEUES + COUNT] -= 1
    else:
        m[QUEUES + ELIGIBLE] |= m[QUEUE_MASKS + local]
        m[QUEUES + QUEUE_FIELDS + ELIGIBLE] |= m[QUEUE_MASKS + MAX_BANKS + local]
    m[BANK_STATE + local * BANK_FIELDS + WAITING] &= ~(1 << at)


@njit(allocates=False, inlined=True)
def _compact_queue(m: I64, q: int, is_write: int) -> None:
    """Move a queue's transactions to one position after the other, from the oldest on."""
    eligible, after = m[q + ELIGIBLE], m[q + TAIL]
    masks = QUEUE_MASKS + is_write * MAX_BANKS
    m[masks : masks + MAX_BANKS] = 0
    valid = rotated(m[q + VALID], after)
    to, moved, kept = after, 0, 0
    while valid:
        at = (lowest(valid) + after) & (MAX_QUEUE - 1)
        old, new = _queued(is_write, at), _queued(is_write, to)
        for field in (LINE, TICKET, HOME):
            m[new + field] = m[old + field]
        m[masks + m[new + HOME]] |= 1 << to
        moved |= 1 << to
        kept |= (eligible >> at & 1) << to
        to = (to + 1) & (MAX_QUEUE - 1)
        valid &= valid - 1
    m[q + VALID], m[q + ELIGIBLE], m[q + TAIL] = moved, kept, to


@njit(allocates=False, inlined=True)
def _enqueue(c: I64, m: I64, line: int, ticket: int, is_write: int) -> None:
    """Put a transaction at the end of the queue of reads or of writes.

    The positions are a ring: from the next free one on, they are in order of age.
    """
    q = QUEUES + is_write * QUEUE_FIELDS
    if unlikely((m[q + VALID] >> m[q + TAIL]) & 1 != 0):
        _compact_queue(m, q, is_write)
    at = m[q + TAIL] & (MAX_QUEUE - 1)
    m[q + TAIL] = (at + 1) & (MAX_QUEUE - 1)
    m[q + COUNT] += 1
    local = _bank_of(c, line)
    queued = _queued(is_write, at)
    m[queued + LINE], m[queued + TICKET], m[queued + HOME] = line, ticket, local
    bit = 1 << at
    m[q + VALID] |= bit
    m[QUEUE_MASKS + is_write * MAX_BANKS + local] |= bit
    m[q + ELIGIBLE] |= bit & _has_room(c, m, local)


@njit(allocates=False, inlined=True)
def _oldest(m: I64, q: int) -> int:
    """Return the position of a queue's oldest transaction whose bank's queue has room."""
    after = m[q + TAIL]
    return (lowest(rotated(m[q + ELIGIBLE], after)) + after) & (MAX_QUEUE - 1)


@njit(allocates=False, inlined=True)
def starts_drain(c: I64, m: I64) -> bool:
    """Tell if the writes are to be drained from now on."""
    writes = m[QUEUES + QUEUE_FIELDS + COUNT]
    if m[DRAIN] > 0:
        return False
    if writes >= c[QUEUE]:
        return True
    return writes > 0 and m[ACTIVE] == 0 and (writes > c[DRAIN_ABOVE] or m[FLUSH] != 0)


@njit(allocates=False, inlined=True)
def schedule(c: I64, m: I64, f: U32) -> int:
    """Move the oldest transaction whose bank's queue has room there.

    Return its bank, or -1 if what the banks offer is as before.
    A write waits until a read of its address has left; the drain then ends, and a read moves.
    """
    is_write = 0
    # without writes there is no drain either
    if m[QUEUES + QUEUE_FIELDS + COUNT]:
        if starts_drain(c, m):
            m[DRAIN] = m[QUEUES + QUEUE_FIELDS + COUNT]
        is_write = 1 if m[DRAIN] > 0 else 0
    q = QUEUES + is_write * QUEUE_FIELDS
    if m[q + ELIGIBLE] == 0:
        return -1
    at = _oldest(m, q)
    if is_write and _find(c, m, f, m[_queued(1, at) + LINE], 0) >= 0:
        m[DRAIN] = 0
        is_write, q = 0, QUEUES
        if m[q + ELIGIBLE] == 0:
            return -1
        at = _oldest(m, q)
    m[DRAIN] -= is_write
    queued = _queued(is_write, at)
    local = m[queued + HOME] & (MAX_BANKS - 1)
    kept = ~(1 << at)
    m[q + COUNT] -= 1
    m[q + ELIGIBLE] &= kept
    m[QUEUE_MASKS + is_write * MAX_BANKS + local] &= kept
    m[q + VALID] &= kept
    changes = _push(c, m, local, m[queued + LINE], m[queued + TICKET], is_write)
    has_room = _has_room(c, m, local)
    m[QUEUES + ELIGIBLE] &= ~m[QUEUE_MASKS + local] | has_room
    m[QUEUES + QUEUE_FIELDS + ELIGIBLE] &= ~m[QUEUE_MASKS + MAX_BANKS + local] | has_room
    return local if changes else -1


@njit(allocates=False, inlined=True)
def room(c: I64, m: I64, f: U32, line: int, is_write: int) -> bool:
    """Tell if the channel takes a request now."""
    if likely(c[SINGLE] == 0):
        return m[QUEUES + is_write * QUEUE_FIELDS + COUNT] < c[QUEUE]
    return m[QUEUES + COUNT] < c[QUEUE] and not (is_write and _find(c, m, f, line, 0) >= 0)


@njit(allocates=False, inlined=True)
def enter(c: I64, m: I64, f: U32, k: I64, line: int, is_write: int, ticket: int) -> None:
    """Take a request at the channel's present cycle; `room` must hold.

    A write is done the cycle after. So is a read of an address that a queued write is for; a read
    of an address that a queued read is for shares that read's command.
    """
    k[ticket, LINK], k[ticket, DONE] = -1, m[CLOCK] + 1 if is_write else -1
    place = _hash(c, line)
    if unlikely(f[place] != 0):
        if _find(c, m, f, line, 1) >= 0:
            m[MERGED] += 1
            k[ticket, DONE] = m[CLOCK] + 1
            return
        first = -1 if is_write else _find(c, m, f, line, 0)
        if first >= 0:
            m[MERGED] += 1
            k[ticket, LINK] = k[first, LINK]
            k[first, LINK] = ticket
            return
    f[place] += _one(is_write)
    if unlikely(c[SINGLE] != 0):
        m[QUEUES + COUNT] += 1
        _push(c, m, _bank_of(c, line), line, ticket, is_write)
        m[BEST] = STALE
    else:
        _enqueue(c, m, line, ticket, is_write)
