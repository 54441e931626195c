"""Weight streams that no decoder can expand, and where copied ones come from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lepton.codec import Decoder, WeightStream, decode_weights, decoder_fault
from lepton.cost.weight_sources import stream_places, weights_of
from lepton.errors import CheckError
from lepton.isa.footprints import Space, cores_of, ends, space_of
from lepton.isa.instructions import Load, Store, WeightFormat, Weights
from lepton.program import Program

__all__ = ["Copies", "copy_fault", "is_constant", "misplaced_matmul", "stream_fault"]

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]


def is_constant(program: Program, item: Weights) -> bool:
    """Return whether a stream lies in the constant segment."""
    start = item.address - program.constants_address
    is_there = item.memory == program.constants_memory and start >= 0
    return is_there and start + item.stream_bytes <= len(program.constants)


def stream_fault(program: Program, item: Weights, content: U8) -> str:
    """Return what is wrong with an encoded stream, or nothing.

    Its bytes are those of the constant segment, so what is found here holds for every run.
    """
    stream = WeightStream(WeightFormat(item.format), content)
    try:
        decode_weights(stream, item.reduction * item.columns)
    except CheckError as error:
        return str(error)
    return decoder_fault(stream, Decoder.of(program.chip))


def copy_fault(program: Program, index: int, sources: I64) -> str:
    """Return what is wrong with where a stream outside of the constant segment is from, or nothing.

    Args:
        program: the program.
        index: the `weights` that reads it.
        sources: what `Copies.sources` says of it.
    """
    if (sources < 0).any():
        return "an encoded stream must lie in the constant segment or be copied from there"
    if program.chip.sparsity is None:
        return ""
    found = int(program.derived(stream_places)[index])
    if found < 0 or (sources == found + np.arange(len(sources))).all():
        return ""
    return (
        f"reads a copy of other constants than those at byte {found}, which come last before it in "
        "the program in one piece; a chip that skips zeros goes by these"
    )


def misplaced_matmul(program: Program, order: I64) -> int:
    """Return a matmul whose weights are others than those before it in its core's stream, or -1.

    Only a chip that skips zeros goes by that order (docs/timing.md, "Packed passes"); all others go
    by the semaphores.

    Args:
        program: the program.
        order: the instructions of a region in a legal order.
    """
    if program.chip.sparsity is None:
        return -1
    rank = np.full(len(program.table), -1, np.int64)
    rank[order] = np.arange(len(order))
    core_of = cores_of(program.table, program.chip.cores)
    spans = {
        index: (item.buffer, item.buffer + item.reduction * item.columns)
        for index in np.sort(order).tolist()
        if isinstance(item := program.decoded[index], Weights)
    }
    later = np.array(list(spans), np.int64)
    readers = weights_of(program.table)
    for index in np.sort(order[readers[order] >= 0]).tolist():
        source = int(readers[index])
        early = later[(later > index) & (rank[later] < rank[index])]
        start, stop = spans[source]
        meets = any(
            spans[other][0] < stop and start < spans[other][1]
            for other in early[core_of[early] == core_of[index]].tolist()
        )
        if meets or rank[source] > rank[index]:
            return index
    return -1


class Copies:
    """What a region's `load` and `store` copy from the constant segment to other places.

    Only those of one row count, and what they copy must not have been written by anything else.
    """

    def __init__(self, program: Program, boxes: I64, order: I64) -> None:
        """Make it ready to ask.

        Args:
            program: the program.
            boxes: of the instructions of a region, numbered as in the program.
            order: those instructions in a legal order; without races any tells the same.
        """
        self._program = program
        self._rank = dict(zip(order.tolist(), range(len(order)), strict=True))
        writes = boxes[boxes[:, 2] == 1]
        ranks = np.array([self._rank[int(index)] for index in writes[:, 0]], np.int64)
        by_rank = np.argsort(ranks, kind="stable")
        self._writes, self._ranks = writes[by_rank], ranks[by_rank]
        self._ends = ends(self._writes)
        self._rows: dict[tuple[int, int, int], I64] = {}
        self._core_of = cores_of(program.table, program.chip.cores)

    def sources(self, index: int) -> I64:
        """Return where in the constant segment the bytes of a stream are from, `[stream_bytes]`.

        A byte that is no copy is from -1.
        """
        item = self._program.decoded[index]
        assert isinstance(item, Weights)
        found = np.full(item.stream_bytes, -1, np.int64)
        wanted = item.address + np.arange(item.stream_bytes)
        for writer, mine in self._writers(Space.MEMORY + item.memory, wanted, index):
            store = self._program.decoded[writer]
            if isinstance(store, Store) and store.rows == store.planes == 1:
                inside = store.scratchpad + wanted[mine] - store.address
                found[mine] = self._loaded(inside, writer)
        return found

    def _loaded(self, wanted: I64, index: int) -> I64:
        """Return where bytes of the scratchpad are from that an instruction stores."""
        program = self._program
        found = np.full(len(wanted), -1, np.int64)
        space = space_of(int(self._core_of[index]), Space.SCRATCHPAD)
        for writer, mine in self._writers(space, wanted, index):
            load = program.decoded[writer]
            if not isinstance(load, Load) or not load.rows == load.planes == 1:
                continue
            place = load.address + wanted[mine] - load.scratchpad - program.constants_address
            is_there = (place >= 0) & (place < len(program.constants))
            if load.memory == program.constants_memory:
                found[mine] = np.where(is_there, place, -1)
        return found

    def _writers(
        self, space: int, wanted: I64, reader: int
    ) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """Yield what wrote units last before an instruction reads them, and which of them."""
        rows = self._meeting(space, int(wanted[0]), int(wanted[-1]))
        before = int(np.searchsorted(self._ranks[rows], self._rank[reader]))
        left = np.ones(len(wanted), np.bool_)
        for row in rows[:before][::-1].tolist():
            mine = left & (wanted >= self._writes[row, 3]) & (wanted < self._ends[row])
            if mine.any():
                left &= ~mine
                yield int(self._writes[row, 0]), mine
                if not left.any():
                    return

    def _meeting(self, space: int, first: int, last: int) -> I64:
        """Return the rows of the writes that reach into a span of a space, in their order."""
        key = (space, first, last)
        if key not in self._rows:
            meets = (self._writes[:, 1] == space) & (self._writes[:, 3] <= last)
            self._rows[key] = np.flatnonzero(meets & (self._ends > first))
        return self._rows[key]
