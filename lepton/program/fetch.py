"""How the front end fetches an instruction stream: in groups of whole blocks of bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.isa import WORD_BYTES
from lepton.jit import njit
from lepton.program.records import Program, Region

__all__ = ["GROUP_COLUMNS", "fetch_block_bytes", "fetch_groups"]

I64 = NDArray[np.int64]

GROUP_COLUMNS = (G_FIRST, G_STOP, G_ROOM, G_ADDRESS, G_BYTES) = range(5)
"""Instructions [first, stop) that arrive with the group, the instruction before which all must have
been dispatched for it to be fetched, and its bytes in memory."""


def fetch_block_bytes(fetch_bytes: int) -> int:
    """Return the bytes of a fetch of a chip with these `fetch_bytes`: whole words."""
    return max(fetch_bytes // WORD_BYTES, 1) * WORD_BYTES


@njit(allocates=False)
def _fill_groups(ends: I64, begin: int, block: int, outstanding: int, groups: I64) -> None:
    """Fill in groups as offsets, in instructions of the region and bytes of the stream."""
    first = dispatched = 0
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
        groups[g, G_ROOM] = dispatched + 1 if left >= begin else 0
        groups[g, G_ADDRESS] = at
        groups[g, G_BYTES] = min(ends[-1] - at, block)
    groups[-1, G_STOP] = len(ends)


def fetch_groups(program: Program, region: Region) -> I64:
    """Return a region's groups, `[groups, len(GROUP_COLUMNS)]`; docs/timing.md, 5."""
    control = program.chip.control
    block = fetch_block_bytes(control.fetch_bytes)
    begin = int(program.stream_ends[region.start - 1]) if region.start else 0
    ends = program.stream_ends[region.start : region.stop]
    made = np.empty((-(-(int(ends[-1]) - begin) // block), len(GROUP_COLUMNS)), np.int64)
    _fill_groups(ends, begin, block, control.fetch_outstanding, made)
    made[:, :G_ADDRESS] += region.start
    made[:, G_ADDRESS] += program.program_address
    return made
