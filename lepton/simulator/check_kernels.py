"""Order, overlap and coverage of instructions, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.cost.dependences import semaphore
from lepton.isa.declaration import SEMAPHORES
from lepton.jit import njit

__all__ = ["boxes_overlap", "first_race", "first_unwritten", "happens_before", "runs_overlap"]

I64 = NDArray[np.int64]


@njit
def happens_before(  # noqa: C901 (a compiled loop)
    queue: I64, masks: I64, core_of: I64, sizes: tuple[int, int, int, int]
) -> tuple[I64, I64, int]:
    """Run the queues of a region without time.

    Args:
        queue: `[n]`.
        masks: `[n, 2]` semaphores that each waits for, and signals.
        core_of: `[n]`, ascending.
        sizes: queues of all cores, depth of each, cores, first semaphore they have in common.

    Returns:
        A legal order of execution `[n]`, the vector clocks `[n, queues]` (how many instructions of
        each queue come before the end of this one, itself included), and the first instruction
        that can never run, or -1.
    """
    n = len(queue)
    queues, depth, cores, first_shared = sizes
    order = np.empty(n, np.int64)
    clocks = np.zeros((n, queues), np.int64)
    fifo = np.zeros((queues, depth), np.int64)
    head = np.zeros(queues, np.int64)
    count = np.zeros(queues, np.int64)
    latest = np.full(queues, -1, np.int64)
    ran = np.zeros(queues, np.int64)
    given = np.zeros(cores * SEMAPHORES, np.int64)
    taken = np.zeros(cores * SEMAPHORES, np.int64)
    most = 1
    for i in range(n):
        for bit in range(SEMAPHORES):
            if masks[i, 1] >> bit & 1:
                b = semaphore(bit, core_of[i], first_shared)
                given[b] += 1
                most = max(most, given[b])
    given[:] = 0
    givers = np.zeros((cores * SEMAPHORES, most), np.int64)
    dispatched = np.searchsorted(core_of, np.arange(cores))
    stops = np.searchsorted(core_of, np.arange(cores), "right")
    done = 0
    progress = True
    while progress:
        progress = False
        for core in range(cores):
            while dispatched[core] < stops[core]:
                i = int(dispatched[core])
                q = queue[i]
                if q < 0:
                    order[done] = i
                    done += 1
                elif count[q] < depth:
                    fifo[q, (head[q] + count[q]) % depth] = i
                    count[q] += 1
                else:
                    break
                dispatched[core] += 1
                progress = True
        for q in range(queues):
            while count[q] > 0:
                i = int(fifo[q, head[q]])
                core = core_of[i]
                if not _may_run(int(masks[i, 0]), core, first_shared, given, taken):
                    break
                clock = clocks[i]
                if latest[q] >= 0:
                    for other in range(queues):
                        clock[other] = clocks[latest[q], other]
                for bit in range(SEMAPHORES):
                    if masks[i, 0] >> bit & 1:
                        b = semaphore(bit, core, first_shared)
                        giver = givers[b, taken[b]]
                        taken[b] += 1
                        for other in range(queues):
                            clock[other] = max(clock[other], clocks[giver, other])
                ran[q] += 1
                clock[q] = ran[q]
                for bit in range(SEMAPHORES):
                    if masks[i, 1] >> bit & 1:
                        b = semaphore(bit, core, first_shared)
                        givers[b, given[b]] = i
                        given[b] += 1
                latest[q] = i
                head[q] = (head[q] + 1) % depth
                count[q] -= 1
                order[done] = i
                done += 1
                progress = True
    stuck = -1
    for core in range(cores):
        if dispatched[core] < stops[core] and stuck < 0:
            stuck = int(dispatched[core])
    for q in range(queues):
        if count[q] > 0:
            i = fifo[q, head[q]]
            stuck = i if stuck < 0 or i < stuck else stuck
    return order[:done], clocks, stuck


@njit(inlined=True)
def _may_run(mask: int, core: int, first_shared: int, given: I64, taken: I64) -> bool:
    """Return whether every semaphore of a core's mask has a signal left."""
    for bit in range(SEMAPHORES):
        if mask >> bit & 1:
            b = semaphore(bit, core, first_shared)
            if taken[b] >= given[b]:
                return False
    return True


@njit
def _end(box: I64) -> int:
    """Return one past the last unit of a box."""
    reach = (box[5] - 1) * box[6] + (box[7] - 1) * box[8] + (box[9] - 1) * box[10]
    return box[3] + box[4] + reach


@njit(inlined=True)
def _line_meets(base: int, run: int, count: int, stride: int, start: int, stop: int) -> bool:
    """Return whether one of `count` runs, `stride` apart from `base` on, meets [start, stop)."""
    if stride == 0 or count == 1:
        return base < stop and base + run > start
    # the first run that ends behind `start`; runs begin later and later
    index = max((start - base - run) // stride + 1, 0)
    return index < count and base + index * stride < stop


@njit(inlined=True)
def _run_meets(box: I64, start: int, stop: int, budget: I64) -> bool:
    """Return whether a run of `box` meets [start, stop); takes its steps off the budget."""
    if box[3] >= stop or _end(box) <= start:
        return False
    longest = 5
    for low in (7, 9):
        if box[low] > box[longest]:
            longest = low
    first = 7 if longest == 5 else 5
    second = 7 if longest == 9 else 9
    for i in range(box[first]):
        for j in range(box[second]):
            budget[0] -= 1
            base = box[3] + i * box[first + 1] + j * box[second + 1]
            if _line_meets(base, box[4], box[longest], box[longest + 1], start, stop):
                return True
    return False


@njit
def boxes_overlap(a: I64, b: I64, budget: I64) -> bool:
    """Return whether two boxes of one space share a unit, exactly.

    `budget [1]` is how many steps may be taken; below 0 the answer is True, whatever it is.
    """
    if a[3] >= _end(b) or b[3] >= _end(a):
        return False
    few, many = (a, b) if a[5] * a[7] * a[9] <= b[5] * b[7] * b[9] else (b, a)
    for i in range(few[5]):
        for j in range(few[7]):
            for k in range(few[9]):
                at = few[3] + i * few[6] + j * few[8] + k * few[10]
                budget[0] -= 1
                if budget[0] < 0 or _run_meets(many, at, at + few[4], budget):
                    return True
    return False


@njit
def runs_overlap(box: I64) -> bool:
    """Return whether two runs of one box share a unit, exactly; its runs must be few enough."""
    starts = np.empty(box[5] * box[7] * box[9], np.int64)
    count = 0
    for i in range(box[5]):
        for j in range(box[7]):
            for k in range(box[9]):
                starts[count] = i * box[6] + j * box[8] + k * box[10]
                count += 1
    starts.sort()
    for index in range(1, count):  # noqa: SIM110 (compiled)
        if starts[index] - starts[index - 1] < box[4]:
            return True
    return False


@njit(inlined=True)
def _first_box(boxes: I64, n: int) -> I64:
    """Return `[n + 1]`: where each instruction's boxes begin."""
    first = np.zeros(n + 1, np.int64)
    for row in range(len(boxes)):
        first[boxes[row, 0] + 1] += 1
    for i in range(n):
        first[i + 1] += first[i]
    return first


@njit
def first_race(  # noqa: C901 (a compiled loop)
    queue: I64, clocks: I64, boxes: I64, budget: I64
) -> tuple[int, int, int]:
    """Return two unordered instructions that touch the same unit, one writing, and the box.

    `(-1, -1, -1)` if there are none. `clocks` are those of `happens_before`; `budget [1]` counts
    down the steps taken, and below 0 the two are those that could not be decided.
    """
    n = len(queue)
    queues = clocks.shape[1]
    first = _first_box(boxes, n)
    members = np.zeros((queues, n), np.int64)
    sizes = np.zeros(queues, np.int64)
    for i in range(n):
        q = queue[i]
        if q >= 0:
            members[q, sizes[q]] = i
            sizes[q] += 1
    for j in range(n):
        q = queue[j]
        if q < 0:
            continue
        for other in range(queues):
            if other == q:
                continue
            position = clocks[j, other]
            # instructions of the other queue past `position` are not before j; those whose clock
            # holds j come after it, and so do all behind them
            while position < sizes[other]:
                i = members[other, position]
                if clocks[i, q] >= clocks[j, q]:
                    break
                position += 1
                if i > j:
                    continue
                for a in range(first[i], first[i + 1]):
                    for b in range(first[j], first[j + 1]):
                        if boxes[a, 1] != boxes[b, 1] or not (boxes[a, 2] or boxes[b, 2]):
                            continue
                        if boxes_overlap(boxes[a], boxes[b], budget):
                            return i, j, b
    return -1, -1, -1


@njit(inlined=True)
def _mark(box: I64, written: NDArray[np.uint8]) -> None:
    """Mark every unit of a box."""
    for i in range(box[5]):
        for j in range(box[7]):
            for k in range(box[9]):
                at = box[3] + i * box[6] + j * box[8] + k * box[10]
                written[at : at + box[4]] = 1


@njit(inlined=True)
def _unwritten(box: I64, written: NDArray[np.uint8]) -> int:
    """Return the first unit of a box that is not marked, or -1."""
    for i in range(box[5]):
        for j in range(box[7]):
            for k in range(box[9]):
                at = box[3] + i * box[6] + j * box[8] + k * box[10]
                run = written[at : at + box[4]]
                marks = np.uint8(1)
                for mark in run:
                    marks &= mark
                if not marks:
                    return at + np.argmin(run)
    return -1


@njit
def first_unwritten(boxes: I64, order: I64, written: NDArray[np.uint8]) -> tuple[int, int]:
    """Return the first box, in `order`, that reads an unmarked unit, and the unit, or (-1, -1).

    Reads of an instruction count before its own writes.
    """
    first = _first_box(boxes, len(order))
    for index in range(len(order)):
        i = order[index]
        for row in range(first[i], first[i + 1]):
            if not boxes[row, 2]:
                unit = _unwritten(boxes[row], written)
                if unit >= 0:
                    return row, unit
        for row in range(first[i], first[i + 1]):
            if boxes[row, 2]:
                _mark(boxes[row], written)
    return -1, -1
