"""How the front end fetches an instruction stream: in groups of whole blocks of bytes."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from lepton.errors import ProgramError
from lepton.isa import WORD_BYTES
from lepton.isa.declaration import BY_MNEMONIC
from lepton.jit import njit
from lepton.program.records import Program, Region

__all__ = ["GROUP_COLUMNS", "STREAM_COLUMNS", "fetch_block_bytes", "fetch_streams", "streams_of"]

I64 = NDArray[np.int64]

GROUP_COLUMNS = (G_FIRST, G_STOP, G_ROOM, G_ADDRESS, G_BYTES) = range(5)
"""Instructions [first, stop) that arrive with the group, the instruction before which all must have
been dispatched for it to be fetched, and its bytes in memory."""


STREAM_COLUMNS = (E_START, E_STOP, E_FIRST_GROUP, E_STOP_GROUP) = range(4)
"""A core's instructions [start, stop) of a region, and its groups."""


def fetch_block_bytes(fetch_bytes: int) -> int:
    """Return the bytes of a fetch of a chip with these `fetch_bytes`: whole words."""
    return max(fetch_bytes // WORD_BYTES, 1) * WORD_BYTES


@njit(allocates=False)
def _fill_groups(
    ends: I64, start: int, stop: int, begin: int, block: int, outstanding: int, address: int,
    groups: I64,
) -> None:  # fmt: skip
    """Fill in the groups of instructions [start, stop), whose bytes begin at `begin`."""
    first = dispatched = start
    for g in range(len(groups)):
        at = begin + g * block
        while ends[first] <= at:
            first += 1
        groups[g, G_FIRST] = first
        groups[g - 1, G_STOP] = first
        # bytes that must have been dispatched: more than these
        left = at - block * outstanding
        while left >= begin and ends[dispatched] <= left:
            dispatched += 1
        groups[g, G_ROOM] = dispatched + 1 if left >= begin else start
        groups[g, G_ADDRESS] = address + at
        groups[g, G_BYTES] = min(ends[stop - 1] - at, block)
    groups[-1, G_STOP] = stop


def streams_of(program: Program, region: Region) -> list[tuple[int, int]]:
    """Return the instructions [start, stop) of each core in a region.

    Raises:
        ProgramError: several cores, and not a stream with its `halt` for each.
    """
    cores = program.chip.cores
    if cores == 1:
        return [(region.start, region.stop)]
    halt = BY_MNEMONIC["halt"].opcode
    halts = np.flatnonzero(program.table[region.start : region.stop, 0] == halt)
    stops = (region.start + halts + 1).tolist()
    if len(stops) != cores or stops[-1] != region.stop:
        raise ProgramError(
            f"the region at instruction {region.start} has {len(stops)} streams that end in a "
            f"halt, and must end with that of the last of {cores} cores"
        )
    return list(zip([region.start, *stops[:-1]], stops, strict=True))


def fetch_streams(program: Program, region: Region) -> tuple[I64, I64]:
    """Return how the cores fetch a region; docs/timing.md, 5.

    Returns:
        `[cores, len(STREAM_COLUMNS)]`, `[groups, len(GROUP_COLUMNS)]`, those of core 0 first.
    """
    spans = streams_of(program, region)
    parts = [_groups(program, span) for span in spans]
    ends = list(accumulate(len(part) for part in parts))
    rows = [
        (*span, end - len(part), end) for span, part, end in zip(spans, parts, ends, strict=True)
    ]
    return np.array(rows, np.int64), parts[0] if len(parts) == 1 else np.concatenate(parts)


def _groups(program: Program, span: tuple[int, int]) -> I64:
    """Return the groups of a core's stream."""
    control = program.chip.control
    block = fetch_block_bytes(control.fetch_bytes)
    ends, (start, stop) = program.stream_ends, span
    begin = int(ends[start - 1]) if start else 0
    made = np.empty((-(-(int(ends[stop - 1]) - begin) // block), len(GROUP_COLUMNS)), np.int64)
    outstanding, address = control.fetch_outstanding, program.program_address
    _fill_groups(ends, start, stop, begin, block, outstanding, address, made)
    return made
