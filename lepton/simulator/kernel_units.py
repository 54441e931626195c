"""Steps of the queues: transfers, and the matrix and vector unit. See docs/timing.md, 7 to 9."""

from __future__ import annotations

from lepton.cost.columns import (
    W_ADDRESS,
    W_DECODER,
    W_DRAIN,
    W_LAST,
    W_MEMORY,
    W_PLANE_PITCH,
    W_PLANE_STRIDE,
    W_PLANES,
    W_PRELOAD,
    W_QUEUE,
    W_READS,
    W_READS_SUMS,
    W_ROW_PITCH,
    W_ROW_STRIDE,
    W_ROWS,
    W_RUN,
    W_SCRATCHPAD,
    W_STREAM,
    W_WRITES,
    W_WRITES_SUMS,
)
from lepton.jit import njit
from lepton.simulator.channels import send_accesses
from lepton.simulator.kernel_state import (
    BANK,
    END,
    F_DISPATCHED,
    F_STOP,
    I_DONE,
    I_LEFT,
    I_NEXT,
    MEMORY,
    NEVER,
    Q_ACTIVE,
    Q_BEGIN,
    Q_BYTE,
    Q_CORE,
    Q_FREE,
    Q_HEAD,
    Q_HELD,
    Q_LOCAL,
    Q_PLANE,
    Q_ROW,
    Q_SLOT,
    Q_SLOTS,
    Q_STREAMING,
    Q_TAKES,
    Q_WAITING,
    START,
    T_ACCESSES,
    T_FINISH,
    T_MEMORY,
    T_OPEN,
    T_OWNER,
    T_SIZE,
    TAKEN,
    Settings,
    State,
    dispatch_ahead,
    finish_request,
    head_cycle,
    mark_done,
    step_ahead,
)
from lepton.simulator.memories import FIRST_CHANNEL, READ_BYTES, WRITE_BYTES, burst_of, flat_request

__all__ = ["open_tag", "request", "step"]


@njit(allocates=False, inlined=True)
def open_tag(s: State, tag: int, owner: int, m: int, size: int) -> None:
    """Begin requests under a tag; it stays open until `finish_request` closes this part too."""
    s.tags[tag, T_OPEN], s.tags[tag, T_FINISH], s.tags[tag, T_OWNER] = 1, 0, owner
    s.tags[tag, T_MEMORY], s.tags[tag, T_SIZE], s.tags[tag, T_ACCESSES] = m, size, 0


@njit(allocates=False, inlined=True)
def request(
    c: Settings, s: State, tag: int, address: int, size: int, is_write: int, cycle: int
) -> None:
    """Send a request of one burst at most to the tag's memory."""
    m = s.tags[tag, T_MEMORY]
    tick = cycle * c.ticks
    memories = s.memories.memories
    memories[m, WRITE_BYTES if is_write else READ_BYTES] += size
    if memories[m, FIRST_CHANNEL] < 0:
        s.tags[tag, T_OPEN] += 1
        end = flat_request(s.memories, m, size, is_write, tick)
        finish_request(c, s, tag, (end + c.ticks - 1) // c.ticks)
        return
    known = s.tags[tag, T_ACCESSES]
    count = send_accesses(c, s, tag, known, m, address, size, is_write, tick)
    s.tags[tag, T_ACCESSES] += count
    s.tags[tag, T_OPEN] += count


@njit(allocates=False, inlined=True)
def _take(c: Settings, s: State, q: int, cycle: int) -> int:
    """Take the head of a queue; the room it leaves may be what dispatch waits for."""
    i = s.q[q, Q_HEAD]
    s.q[q, Q_HEAD] = s.i[i, I_NEXT]
    s.q[q, Q_HELD] -= 1
    s.i[i, TAKEN] = cycle
    core = s.q[q, Q_CORE]
    waiting, stop = s.front[core, F_DISPATCHED], s.front[core, F_STOP]
    if s.next[c.cores + core] == NEVER and waiting < stop and s.i[waiting, W_QUEUE] == q:
        dispatch_ahead(c, s, core, cycle + 1)
    return i


@njit(allocates=False, inlined=True)
def _take_transfer(c: Settings, s: State, q: int, cycle: int) -> None:
    """Take a transfer; its first request follows after the set-up."""
    i = _take(c, s, q, cycle)
    s.q[q, Q_ACTIVE] = i
    s.q[q, Q_PLANE] = s.q[q, Q_ROW] = s.q[q, Q_BYTE] = 0
    s.q[q, Q_FREE] = cycle + c.setup_cycles
    s.i[i, START] = cycle
    s.i[i, I_LEFT] = 1


@njit(allocates=False, inlined=True)
def _bank_busy(c: Settings, s: State, q: int, address: int, cycle: int, column: int) -> bool:
    """Return whether a unit of the queue's core streams from or to the bank of `address`."""
    bank = address // c.bank_bytes
    matrix = q - s.q[q, Q_LOCAL] + c.transfer_queues
    for unit in range(matrix, matrix + 2):
        i = s.q[unit, Q_STREAMING]
        if i >= 0 and s.q[unit, Q_FREE] > cycle and s.i[i, column] >> bank & 1:
            return True
    return False


@njit(allocates=False, inlined=True)
def _advance(s: State, q: int, i: int, size: int) -> bool:
    """Move past a request; return whether the transfer has no more."""
    s.q[q, Q_BYTE] += size
    if s.q[q, Q_BYTE] < s.i[i, W_RUN]:
        return False
    s.q[q, Q_BYTE] = 0
    s.q[q, Q_ROW] += 1
    if s.q[q, Q_ROW] < s.i[i, W_ROWS]:
        return False
    s.q[q, Q_ROW] = 0
    s.q[q, Q_PLANE] += 1
    return s.q[q, Q_PLANE] >= s.i[i, W_PLANES]


@njit(allocates=False, inlined=True)
def _send(c: Settings, s: State, q: int, cycle: int) -> None:
    """Send one request of the transfer under way; end it behind the last one."""
    i = s.q[q, Q_ACTIVE]
    m = s.i[i, W_MEMORY]
    offset = s.q[q, Q_BYTE]
    address = (
        s.i[i, W_ADDRESS]
        + offset
        + s.q[q, Q_ROW] * s.i[i, W_ROW_STRIDE]
        + s.q[q, Q_PLANE] * s.i[i, W_PLANE_STRIDE]
    )
    burst = burst_of(s.memories.memories, m, c.burst_bytes)
    size = min(s.i[i, W_RUN] - offset, burst - address % burst)
    s.i[i, MEMORY] += cycle - s.q[q, Q_FREE]
    cycles = (size + c.port_bytes - 1) // c.port_bytes
    is_store = 1 if s.i[i, W_READS] else 0
    if s.q[q, Q_LOCAL] < c.transfer_queues - 1:
        inside = (
            s.i[i, W_SCRATCHPAD]
            + offset
            + s.q[q, Q_ROW] * s.i[i, W_ROW_PITCH]
            + s.q[q, Q_PLANE] * s.i[i, W_PLANE_PITCH]
        )
        if _bank_busy(c, s, q, inside, cycle, W_READS if is_store else W_WRITES):
            s.i[i, BANK] += cycles
            cycles *= 2
    s.q[q, Q_FREE] = cycle + cycles
    slot = s.q[q, Q_SLOT]
    s.q[q, Q_SLOT] = slot + 1 if slot + 1 < c.outstanding else 0
    s.q[q, Q_SLOTS + slot] = -1
    s.i[i, I_LEFT] += 1
    tag = q * c.outstanding + slot
    open_tag(s, tag, i, m, size)
    if _advance(s, q, i, size):
        _end_transfer(c, s, q, i)
    request(c, s, tag, address, size, is_store, cycle)
    finish_request(c, s, tag, 0)


@njit(allocates=False, inlined=True)
def _end_transfer(c: Settings, s: State, q: int, i: int) -> None:
    """Free the queue's unit behind the last request, which is still in flight."""
    s.q[q, Q_ACTIVE] = -1
    s.q[q, Q_FREE] = max(s.q[q, Q_FREE], s.i[i, START] + s.i[i, W_DECODER])
    s.i[i, END] = s.q[q, Q_FREE]
    s.i[i, I_DONE] = max(s.i[i, I_DONE], s.q[q, Q_FREE])
    s.i[i, I_LEFT] -= 1


@njit(allocates=False, inlined=True)
def _lost(c: Settings, s: State, i: int, q: int, cycle: int) -> int:
    """Return the cycles lost to the other unit if it uses the same port of a bank."""
    other = q + 2 * (c.transfer_queues - s.q[q, Q_LOCAL]) + 1
    j = s.q[other, Q_STREAMING]
    if j < 0 or s.q[other, Q_FREE] <= cycle:
        return 0
    shared = (
        (s.i[i, W_READS] & s.i[j, W_READS])
        | (s.i[i, W_WRITES] & s.i[j, W_WRITES])
        | (s.i[i, W_READS_SUMS] & s.i[j, W_READS_SUMS])
        | (s.i[i, W_WRITES_SUMS] & s.i[j, W_WRITES_SUMS])
    )
    if not shared:
        return 0
    return min(s.i[i, W_STREAM], (s.q[other, Q_FREE] - cycle + 1) // 2)


@njit(allocates=False, inlined=True)
def _start(c: Settings, s: State, q: int, cycle: int) -> None:
    """Let the instruction that waits in a unit stream."""
    i = s.q[q, Q_WAITING]
    lost = _lost(c, s, i, q, cycle)
    end = cycle + s.i[i, W_STREAM] + lost
    s.q[q, Q_WAITING], s.q[q, Q_STREAMING], s.q[q, Q_FREE] = -1, i, end
    s.q[q, Q_TAKES] = max(end - s.i[i, W_LAST], cycle) if s.i[i, W_LAST] else end
    s.i[i, START], s.i[i, END], s.i[i, BANK] = cycle, end, lost
    s.i[i, I_DONE] = end + s.i[i, W_DRAIN]
    mark_done(c, s, i)


@njit(allocates=False, inlined=True)
def _step_unit(c: Settings, s: State, q: int, cycle: int) -> None:
    """Start what waits to stream, take what can be taken, start it if it needs no preload."""
    if s.q[q, Q_WAITING] >= 0:
        _start(c, s, q, cycle)
    if s.q[q, Q_TAKES] > cycle or head_cycle(s, q) > cycle:
        return
    i = _take(c, s, q, cycle)
    s.q[q, Q_WAITING] = i
    s.q[q, Q_BEGIN] = max(cycle + s.i[i, W_PRELOAD], s.q[q, Q_FREE])
    if s.q[q, Q_BEGIN] == cycle:
        _start(c, s, q, cycle)


@njit(allocates=False, inlined=True)
def step(c: Settings, s: State, q: int, cycle: int) -> None:
    """Take the next step of a queue and set the tick of the one after."""
    if s.q[q, Q_LOCAL] >= c.transfer_queues:
        _step_unit(c, s, q, cycle)
    elif s.q[q, Q_ACTIVE] >= 0:
        _send(c, s, q, cycle)
    else:
        _take_transfer(c, s, q, cycle)
    step_ahead(c, s, q)
    if s.next[c.first_queue + q] <= cycle * c.ticks:
        s.next[c.first_queue + q] = (cycle + 1) * c.ticks
