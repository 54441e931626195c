"""Put in the semaphores: the fewest waits that order what instructions read and write."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.errors import CompileError
from lepton.isa import encode_all, records_of, with_semaphores
from lepton.isa.declaration import SEMAPHORES, Instruction
from lepton.isa.footprints import first_shared, footprints, queue_count, queues
from lepton.jit import njit

__all__ = ["semaphores", "synchronize"]

I64 = NDArray[np.int64]


@njit(inlined=True)
def _end(box: I64) -> int:
    """Return one past the last unit of a box."""
    reach = (box[5] - 1) * box[6] + (box[7] - 1) * box[8] + (box[9] - 1) * box[10]
    return box[3] + box[4] + reach


@njit(inlined=True)
def _conflict(boxes: I64, ends: I64, first: I64, i: int, j: int) -> bool:
    """Return whether two instructions touch the same stretch, one of them writing.

    Strided boxes count from their first to their last unit: a wait too many costs little, a wait
    too few is a race.
    """
    for a in range(first[i], first[i + 1]):
        for b in range(first[j], first[j + 1]):
            if boxes[a, 1] != boxes[b, 1] or not (boxes[a, 2] or boxes[b, 2]):
                continue
            if boxes[a, 3] < ends[b] and boxes[b, 3] < ends[a]:
                return True
    return False


@njit
def _dependencies(  # noqa: C901 (one compiled loop)
    queue: I64, boxes: I64, queues: int
) -> I64:
    """Return `[n, queues]`: the instruction of each queue that one must wait for, or -1.

    Waits that follow from others are left out.
    """
    n = len(queue)
    first = np.zeros(n + 1, np.int64)
    ends = np.zeros(len(boxes), np.int64)
    for row in range(len(boxes)):
        first[boxes[row, 0] + 1] += 1
        ends[row] = _end(boxes[row])
    for i in range(n):
        first[i + 1] += first[i]
    members = np.zeros((queues, n), np.int64)
    sizes = np.zeros(queues, np.int64)
    clocks = np.zeros((n, queues), np.int64)
    waits = np.full((n, queues), -1, np.int64)
    cursor = np.zeros(queues, np.int64)
    for j in range(n):
        q = queue[j]
        if q < 0:
            continue
        # element by element: slices take Numba seconds to compile
        if sizes[q]:
            last = members[q, sizes[q] - 1]
            for other in range(queues):
                clocks[j, other] = clocks[last, other]
        for other in range(queues):
            cursor[other] = sizes[other] - 1
        while True:
            # the latest instruction not looked at yet, over all other queues
            best, best_queue = -1, -1
            for other in range(queues):
                at = cursor[other]
                if other != q and at >= clocks[j, other] and members[other, at] > best:
                    best, best_queue = members[other, at], other
            if best < 0:
                break
            cursor[best_queue] -= 1
            if _conflict(boxes, ends, first, best, j):
                waits[j, best_queue] = best
                for other in range(queues):
                    clocks[j, other] = max(clocks[j, other], clocks[best, other])
        members[q, sizes[q]] = j
        sizes[q] += 1
        clocks[j, q] = sizes[q]
    return waits


def _ordered(boxes: I64, order: I64) -> I64:
    """Return boxes of instructions that are numbered by their places in an order."""
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    moved = boxes.copy()
    moved[:, 0] = place[boxes[:, 0]]
    return moved[np.argsort(moved[:, 0], kind="stable")]


def _waits(table: I64, queue: I64, chip: Chip, order: I64 | None) -> I64:
    """Return `[n, queues]`: the instruction of each queue that one must wait for, or -1."""
    count = queue_count(chip.dma.load_channels, chip.dma.store_channels) * chip.cores
    boxes = footprints(table, chip.cores)
    if order is None:
        return _dependencies(queue, boxes, count)
    found = _dependencies(queue[order], _ordered(boxes, order), count)
    waits = np.empty_like(found)
    waits[order] = np.where(found >= 0, order[found], -1)
    return waits


class _Numbers:
    """Semaphores by the pair of queues that they order; two cores' own have the same numbers."""

    def __init__(self, chip: Chip, known: dict[tuple[int, int], int]) -> None:
        self._known = known
        self._queues = queue_count(chip.dma.load_channels, chip.dma.store_channels)
        self._first_shared = first_shared(chip.cores)

    def of(self, giver: int, taker: int) -> int:
        """Return the semaphore of a pair of queues.

        Raises:
            CompileError: there are too few.
        """
        if (giver, taker) not in self._known:
            self._known[giver, taker] = self._next(giver // self._queues, taker // self._queues)
        return self._known[giver, taker]

    def _next(self, core: int, other: int) -> int:
        cores = [(g // self._queues, t // self._queues) for g, t in self._known]
        if core == other:
            number, end = cores.count((core, core)), self._first_shared
        else:
            number, end = self._first_shared + sum(a != b for a, b in cores), SEMAPHORES
        if number >= end:
            raise CompileError(f"the chip's {SEMAPHORES} semaphores do not suffice for its queues")
        return number


def synchronize(
    instructions: list[Instruction],
    chip: Chip,
    numbers: dict[tuple[int, int], int] | None = None,
    order: I64 | None = None,
) -> bytes:
    """Return the encoded instructions of one region with their waits and signals.

    before: load x; matmul x          after: load x signal=1; matmul x wait=1

    Args:
        instructions: the streams of all cores, each with its `halt`.
        chip: whose queues run them.
        numbers: semaphores of pairs of queues, added to.
        order: in which they could run one by one; by default the one in which they are given.

    Raises:
        CompileError: more pairs of queues need ordering than there are semaphores.
    """
    stream = encode_all(instructions)
    known = {} if numbers is None else numbers
    return with_semaphores(stream, *semaphores(records_of(stream), chip, known, order))


def semaphores(
    table: I64, chip: Chip, numbers: dict[tuple[int, int], int], order: I64 | None = None
) -> tuple[list[int], list[int]]:
    """Return what each instruction of one region waits for and signals, as masks.

    Args:
        table: the instructions, as `lepton.isa.records_of` gives them.
        chip: whose queues they go to.
        numbers: the semaphore of each pair of queues so far, giver first; new pairs are added.
        order: as `synchronize` has it.

    Raises:
        CompileError: more pairs of queues need ordering than there are semaphores.
    """
    dma = chip.dma
    queue = queues(table, dma.load_channels, dma.store_channels, chip.cores)
    waits = _waits(table, queue, chip, order)
    wait_mask = [0] * len(table)
    signal_mask = [0] * len(table)
    known = _Numbers(chip, numbers)
    for consumer, giver_queue in zip(*np.nonzero(waits >= 0), strict=True):
        number = known.of(int(giver_queue), int(queue[consumer]))
        wait_mask[consumer] |= 1 << number
        signal_mask[int(waits[consumer, giver_queue])] |= 1 << number
    return wait_mask, signal_mask
