"""The event loop: fetch, dispatch, queues, semaphores, transfers, units.

Actions are taken in the order of their times; ties go to the lower actor: fetch, dispatch, then
the queues by number. Every time that an actor records lies on an edge of the NPU clock.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.isa.declaration import SEMAPHORES
from lepton.jit import njit
from lepton.simulator.dram import FLAT_BURST, KIND, MemoryState, access, drain_writes

__all__ = ["TRACE", "WORK", "Settings", "run_region"]

I64 = NDArray[np.int64]
NEVER = 1 << 62

TRACE = (
    "dispatch", "start", "end", "retire", "fetch", "semaphore", "cause", "bank", "memory",
)  # fmt: skip
"""Columns of the trace, in cycles, but `cause`: the queue whose signal came last, or -1."""
(DISPATCH, START, END, RETIRE, FETCH, SEMAPHORE, CAUSE, BANK, MEMORY) = range(len(TRACE))


class Settings(NamedTuple):
    """Scalars of the chip and of the region."""

    ticks: int
    """Base ticks of an NPU cycle."""
    queues: int
    transfer_queues: int
    """Queues below this number move bytes; the last of them is the weight decoder's."""
    queue_depth: int
    burst_bytes: int
    outstanding: int
    setup_cycles: int
    port_bytes: int
    bank_bytes: int
    decoder_bytes: int
    program_memory: int
    program_address: int
    word_bytes: int
    fetch_bytes: int
    fetch_outstanding: int
    start: int
    stop: int


WORK = (
    "queue", "wait", "signal", "preload", "stream", "last", "drain", "reads", "writes", "memory",
    "address", "run", "rows", "row_stride", "planes", "plane_stride", "scratchpad", "expanded",
)  # fmt: skip
"""Columns of the work array, per instruction: its queue; the semaphores it waits for and signals;
cycles as in `lepton.cost.InstructionCosts`; masks of the scratchpad banks it reads and writes; and
of a transfer the memory, the walk through it, the scratchpad address and the decoded bytes."""
(
    W_QUEUE,
    W_WAIT,
    W_SIGNAL,
    W_PRELOAD,
    W_STREAM,
    W_LAST,
    W_DRAIN,
    W_READS,
    W_WRITES,
    W_MEMORY,
    W_ADDRESS,
    W_RUN,
    W_ROWS,
    W_ROW_STRIDE,
    W_PLANES,
    W_PLANE_STRIDE,
    W_SCRATCHPAD,
    W_EXPANDED,
) = range(len(WORK))

# columns of the queues' state
(HEAD, COUNT, ACTIVE, PLANE, ROW, BYTE, REQUESTS, FREE, SHADOW, DONE, RETIRED) = range(11)
(BUSY_END, BUSY_READS, BUSY_WRITES) = range(11, 14)
QUEUE_COLUMNS = 14
# columns of the semaphores' state
(PRODUCED, CONSUMED, PRODUCER) = range(3)


class _State(NamedTuple):
    """Mutable arrays of the loop; times are ticks."""

    q: I64
    """[queues, QUEUE_COLUMNS] FREE: when the unit may start its next instruction; SHADOW: when the
    next may begin to preload; ACTIVE: transfer under way or -1, with its position; DONE: its latest
    completion; RETIRED: the last retirement; BUSY: what runs, until when, on which banks"""
    fifo: I64
    """[queues, depth] dispatched instructions"""
    slots: I64
    """[queues, outstanding] completions of requests in flight"""
    next: I64
    """[2 + queues + 1] next action of fetch, dispatch and each queue; last: when room came"""
    semaphores: I64
    """[semaphores, 3]"""
    signals: I64
    """[semaphores, most] ticks of the signals"""


@njit
def _edge(t: int, ticks: int) -> int:
    """Return the first NPU clock edge not before `t`."""
    return -(-t // ticks) * ticks


@njit
def _waits_known(s: _State, mask: int) -> bool:
    """Return whether each semaphore of the mask has a signal not taken yet."""
    for bit in range(SEMAPHORES):
        if mask >> bit == 0:
            return True
        if mask >> bit & 1 and s.semaphores[bit, CONSUMED] >= s.semaphores[bit, PRODUCED]:
            return False
    return True


@njit
def _ready(s: _State, mask: int) -> tuple[int, int]:
    """Return the latest signal of the mask and the queue it came from."""
    latest, cause = 0, -1
    for bit in range(SEMAPHORES):
        if mask >> bit == 0:
            break
        if mask >> bit & 1:
            t = s.signals[bit, s.semaphores[bit, CONSUMED]]
            if t >= latest:
                latest, cause = t, s.semaphores[bit, PRODUCER]
    return latest, cause


@njit
def _take(s: _State, mask: int) -> None:
    for bit in range(SEMAPHORES):
        if mask >> bit & 1:
            s.semaphores[bit, CONSUMED] += 1


@njit
def _fire(s: _State, mask: int, queue: int, t: int) -> None:
    for bit in range(SEMAPHORES):
        if mask >> bit & 1:
            s.signals[bit, s.semaphores[bit, PRODUCED]] = t
            s.semaphores[bit, PRODUCED] += 1
            s.semaphores[bit, PRODUCER] = queue


@njit
def _next_action(c: Settings, w: I64, s: _State, trace: I64, q: int) -> int:
    """Return when queue `q` can act next, NEVER if something else must happen first."""
    if s.q[q, ACTIVE] >= 0:
        slot = s.q[q, REQUESTS] % c.outstanding
        return max(s.q[q, FREE], s.slots[q, slot])
    if s.q[q, COUNT] == 0:
        return NEVER
    i = s.fifo[q, s.q[q, HEAD]]
    if not _waits_known(s, w[i, W_WAIT]):
        return NEVER
    latest, _ = _ready(s, w[i, W_WAIT])
    earliest = s.q[q, FREE] if q < c.transfer_queues else s.q[q, SHADOW]
    return max(earliest, latest, trace[i, DISPATCH] * c.ticks)


@njit
def _attribute(
    c: Settings, s: _State, row: I64, q: int, start: int, waited: tuple[int, int]
) -> None:
    """Split the gap before `start` into waiting for fetch and waiting for a signal."""
    free = s.q[q, FREE]
    gap_from = max(free, min(row[DISPATCH] * c.ticks, start))
    row[FETCH] = max(gap_from - free, 0) // c.ticks
    row[SEMAPHORE] = max(start - max(gap_from, free), 0) // c.ticks
    row[CAUSE] = waited[1]
    row[START] = start // c.ticks


@njit
def _conflict(c: Settings, w: I64, s: _State, i: int, q: int, start: int, cycles: int) -> int:
    """Return the cycles lost to units that already use the same port of a bank at `start`."""
    lost = 0
    for other in range(c.transfer_queues, c.queues):
        if other == q or s.q[other, BUSY_END] <= start:
            continue
        shared = (s.q[other, BUSY_READS] & w[i, W_READS]) | (
            s.q[other, BUSY_WRITES] & w[i, W_WRITES]
        )
        if shared:
            remaining = (s.q[other, BUSY_END] - start) // c.ticks
            lost = max(lost, min(cycles, -(-remaining // 2)))
    return lost


@njit
def _retire(c: Settings, w: I64, s: _State, trace: I64, i: int, q: int, t: int) -> None:
    """Record the retirement, in order within the queue, and fire the signals."""
    t = max(t, s.q[q, RETIRED])
    s.q[q, RETIRED] = t
    trace[i, RETIRE] = t // c.ticks
    if w[i, W_SIGNAL]:
        _fire(s, w[i, W_SIGNAL], q, t)
        for other in range(c.queues):
            s.next[2 + other] = min(s.next[2 + other], _next_action(c, w, s, trace, other))


@njit
def _compute(c: Settings, w: I64, s: _State, trace: I64, q: int, t: int) -> None:
    """Start the instruction at the head of a unit's queue."""
    i = _pop(s, q, c.queue_depth, t)
    waited = _ready(s, w[i, W_WAIT])
    _take(s, w[i, W_WAIT])
    start = max(t + w[i, W_PRELOAD] * c.ticks, s.q[q, FREE])
    row = trace[i]
    exposed = max(start - max(t, s.q[q, FREE]), 0)
    _attribute(c, s, row, q, start - exposed, waited)
    lost = _conflict(c, w, s, i, q, start, w[i, W_STREAM])
    row[BANK] = lost
    end = start + (w[i, W_STREAM] + lost) * c.ticks
    row[END] = end // c.ticks
    s.q[q, FREE] = end
    s.q[q, SHADOW] = max(end - w[i, W_LAST] * c.ticks, t) if w[i, W_LAST] else end
    s.q[q, BUSY_END], s.q[q, BUSY_READS], s.q[q, BUSY_WRITES] = end, w[i, W_READS], w[i, W_WRITES]
    _retire(c, w, s, trace, i, q, end + w[i, W_DRAIN] * c.ticks)


@njit
def _pop(s: _State, q: int, depth: int, t: int) -> int:
    """Take the head of a queue; the room it leaves may be what dispatch waits for."""
    i = s.fifo[q, s.q[q, HEAD]]
    s.q[q, HEAD] = (s.q[q, HEAD] + 1) % depth
    s.q[q, COUNT] -= 1
    s.next[-1] = t
    return i


@njit
def _begin_transfer(c: Settings, w: I64, s: _State, trace: I64, q: int, t: int) -> None:
    """Take a transfer from the queue; its first request follows after the set-up."""
    i = _pop(s, q, c.queue_depth, t)
    waited = _ready(s, w[i, W_WAIT])
    _take(s, w[i, W_WAIT])
    _attribute(c, s, trace[i], q, t, waited)
    s.q[q, ACTIVE] = i
    s.q[q, PLANE], s.q[q, ROW], s.q[q, BYTE] = 0, 0, 0
    s.q[q, FREE] = t + c.setup_cycles * c.ticks
    s.q[q, DONE] = t


@njit
def _request_size(c: Settings, memories: MemoryState, m: int, address: int, left: int) -> int:
    """Return the bytes of the next request: up to a burst boundary."""
    burst = c.burst_bytes
    if memories.configuration[m, KIND] == 0:
        burst = min(burst, memories.configuration[m, FLAT_BURST])
    return min(left, burst - address % burst)


@njit
def _bank_busy(c: Settings, s: _State, address: int, t: int, column: int) -> bool:
    """Return whether a unit that runs at `t` uses the port of the bank that holds `address`."""
    bit = 1 << (address // c.bank_bytes)
    for other in range(c.transfer_queues, c.queues):
        if s.q[other, BUSY_END] > t and s.q[other, column] & bit:
            return True
    return False


@njit
def _advance(w: I64, s: _State, i: int, q: int, size: int) -> bool:
    """Move past a request; return whether the transfer has no more."""
    s.q[q, REQUESTS] += 1
    s.q[q, BYTE] += size
    if s.q[q, BYTE] < w[i, W_RUN]:
        return False
    s.q[q, BYTE] = 0
    s.q[q, ROW] += 1
    if s.q[q, ROW] < w[i, W_ROWS]:
        return False
    s.q[q, ROW] = 0
    s.q[q, PLANE] += 1
    return s.q[q, PLANE] >= w[i, W_PLANES]


@njit
def _transfer(
    c: Settings, w: I64, s: _State, trace: I64, memories: MemoryState, bins: I64, q: int, t: int
) -> None:
    """Send one request of the transfer under way; finish it behind the last one."""
    i = s.q[q, ACTIVE]
    row = trace[i]
    offset = s.q[q, BYTE] + s.q[q, ROW] * w[i, W_ROW_STRIDE] + s.q[q, PLANE] * w[i, W_PLANE_STRIDE]
    address = w[i, W_ADDRESS] + offset
    m = w[i, W_MEMORY]
    is_store = 1 if w[i, W_READS] else 0
    size = _request_size(c, memories, m, address, w[i, W_RUN] - s.q[q, BYTE])
    row[MEMORY] += (t - s.q[q, FREE]) // c.ticks
    cycles = -(-size // c.port_bytes)
    if q < c.transfer_queues - 1 and _bank_busy(
        c, s, w[i, W_SCRATCHPAD], t, BUSY_READS if is_store else BUSY_WRITES
    ):
        row[BANK] += cycles
        cycles *= 2
    end = _edge(access(memories, m, address, size, is_store, t), c.ticks)
    _count(bins, m, end // c.ticks, size)
    s.slots[q, s.q[q, REQUESTS] % c.outstanding] = end
    s.q[q, DONE] = max(s.q[q, DONE], end)
    s.q[q, FREE] = t + cycles * c.ticks
    if not _advance(w, s, i, q, size):
        return
    s.q[q, ACTIVE] = -1
    done = max(s.q[q, DONE], s.q[q, FREE])
    if w[i, W_EXPANDED]:
        expand = -(-w[i, W_EXPANDED] // c.decoder_bytes) * c.ticks
        earliest = row[START] * c.ticks + expand
        s.q[q, FREE] = max(s.q[q, FREE], earliest)
        done = max(done, earliest)
    row[END] = s.q[q, FREE] // c.ticks
    _retire(c, w, s, trace, i, q, done)


@njit
def _count(bins: I64, m: int, cycle: int, size: int) -> None:
    """Add bytes to the bandwidth profile; halve its resolution when it is full."""
    width = bins[-1, 0]
    count = bins.shape[1]
    while cycle // width >= count:
        for row in range(len(bins) - 1):
            for index in range(count // 2):
                bins[row, index] = bins[row, 2 * index] + bins[row, 2 * index + 1]
            bins[row, count // 2 :] = 0
        width *= 2
        bins[-1, 0] = width
    bins[m, cycle // width] += size


@njit
def _fetch(
    c: Settings, memories: MemoryState, fetch: I64, arrivals: I64, bins: I64, t: int
) -> None:
    """Request the next bytes of the program."""
    first = fetch[0]
    per_request = c.fetch_bytes // c.word_bytes
    last = min(first + per_request, c.stop)
    address = c.program_address + first * c.word_bytes
    size = (last - first) * c.word_bytes
    at, end = address, t
    while at < address + size:
        part = _request_size(c, memories, c.program_memory, at, address + size - at)
        end = max(end, access(memories, c.program_memory, at, part, np.int64(0), t))
        at += part
    end = _edge(end, c.ticks)
    _count(bins, c.program_memory, end // c.ticks, size)
    for i in range(first, last):
        arrivals[i - c.start] = end
    fetch[0] = last
    fetch[1] = t + c.ticks


@njit
def _schedule_front(
    c: Settings, w: I64, s: _State, fetch: I64, arrivals: I64, dispatched: I64
) -> None:
    """Set the times of the next fetch and the next dispatch."""
    buffered = c.fetch_bytes // c.word_bytes * c.fetch_outstanding
    s.next[0] = NEVER
    if fetch[0] < c.stop and fetch[0] - dispatched[0] < buffered:
        s.next[0] = max(fetch[1], dispatched[1])
    s.next[1] = NEVER
    i = dispatched[0]
    if i < c.stop and i < fetch[0]:
        q = w[i, W_QUEUE]
        if q < 0 or s.q[q, COUNT] < c.queue_depth:
            t = max(arrivals[i - c.start], dispatched[1])
            s.next[1] = max(t, s.next[-1]) if dispatched[2] else t


@njit
def _dispatch(c: Settings, w: I64, s: _State, trace: I64, dispatched: I64, t: int) -> None:
    """Move the next instruction to its queue."""
    i = dispatched[0]
    q = w[i, W_QUEUE]
    trace[i, DISPATCH] = t // c.ticks
    if q >= 0:
        s.fifo[q, (s.q[q, HEAD] + s.q[q, COUNT]) % c.queue_depth] = i
        s.q[q, COUNT] += 1
        s.next[2 + q] = min(s.next[2 + q], _next_action(c, w, s, trace, q))
    else:
        trace[i, START] = trace[i, END] = trace[i, RETIRE] = t // c.ticks
    dispatched[0] = i + 1
    dispatched[1] = t + c.ticks


@njit
def _act(
    c: Settings, w: I64, s: _State, trace: I64, memories: MemoryState, bins: I64, q: int, t: int
) -> None:
    """Take the next action of a queue and set the time of the one after."""
    if q >= c.transfer_queues:
        _compute(c, w, s, trace, q, t)
    elif s.q[q, ACTIVE] >= 0:
        _transfer(c, w, s, trace, memories, bins, q, t)
    else:
        _begin_transfer(c, w, s, trace, q, t)
    s.next[2 + q] = _next_action(c, w, s, trace, q)


@njit
def _new_state(c: Settings, most_signals: int, base: int) -> _State:
    """Return the state of an idle chip at tick `base`."""
    queues = np.zeros((c.queues, QUEUE_COLUMNS), np.int64)
    queues[:, ACTIVE] = -1
    for column in (FREE, SHADOW, DONE, RETIRED):
        queues[:, column] = base
    actions = np.full(2 + c.queues + 1, NEVER, np.int64)
    actions[-1] = base
    semaphores = np.zeros((SEMAPHORES, 3), np.int64)
    semaphores[:, PRODUCER] = -1
    return _State(
        queues,
        np.zeros((c.queues, c.queue_depth), np.int64),
        np.full((c.queues, c.outstanding), base, np.int64),
        actions,
        semaphores,
        np.zeros((SEMAPHORES, most_signals), np.int64),
    )


@njit
def run_region(
    c: Settings, w: I64, memories: MemoryState, trace: I64, bins: I64, most_signals: int, base: int
) -> tuple[int, int]:
    """Run instructions [start, stop) from cycle `base`.

    Returns:
        The cycle at which all has retired and every write has left, and the first instruction
        that could not run because of a deadlock, or -1.
    """
    s = _new_state(c, most_signals, base * c.ticks)
    fetch = np.array([c.start, base * c.ticks], np.int64)
    dispatched = np.array([c.start, base * c.ticks, 0], np.int64)
    arrivals = np.zeros(c.stop - c.start, np.int64)
    while True:
        _schedule_front(c, w, s, fetch, arrivals, dispatched)
        actor = int(np.argmin(s.next[:-1]))
        t = s.next[actor]
        if t == NEVER:
            break
        if actor == 0:
            _fetch(c, memories, fetch, arrivals, bins, t)
        elif actor == 1:
            _dispatch(c, w, s, trace, dispatched, t)
            dispatched[2] = 0
        else:
            _act(c, w, s, trace, memories, bins, actor - 2, t)
        waiting = dispatched[0] < min(c.stop, fetch[0])
        queue = w[dispatched[0], W_QUEUE] if waiting else -1
        if queue >= 0 and s.q[queue, COUNT] >= c.queue_depth:
            dispatched[2] = 1
    end = max(s.q[:, RETIRED].max(), dispatched[1] - c.ticks)
    end = _edge(drain_writes(memories, end), c.ticks)
    stuck = dispatched[0] if dispatched[0] < c.stop else -1
    for q in range(c.queues):
        if s.q[q, COUNT] > 0:
            head = s.fifo[q, s.q[q, HEAD]]
            stuck = head if stuck < 0 else min(stuck, head)
    return end // c.ticks, stuck
