"""How the front end fetches an instruction stream: in groups of whole blocks of bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.isa import WORD_BYTES
from lepton.program.records import Program, Region

__all__ = ["GROUP_COLUMNS", "fetch_block_bytes", "fetch_groups"]

GROUP_COLUMNS = (G_FIRST, G_STOP, G_ROOM, G_ADDRESS, G_BYTES) = range(5)
"""Instructions [first, stop) that arrive with the group, the instruction before which all must have
been dispatched for it to be fetched, and its bytes in memory."""


def fetch_block_bytes(fetch_bytes: int) -> int:
    """Return the bytes of a fetch of a chip with these `fetch_bytes`: whole words."""
    return max(fetch_bytes // WORD_BYTES, 1) * WORD_BYTES


def fetch_groups(program: Program, region: Region) -> NDArray[np.int64]:
    """Return a region's groups, `[groups, len(GROUP_COLUMNS)]`; docs/timing.md, 5."""
    control = program.chip.control
    block = fetch_block_bytes(control.fetch_bytes)
    begin = int(program.stream_ends[region.start - 1]) if region.start else 0
    ends = program.stream_ends[region.start : region.stop] - begin
    at = np.arange(0, ends[-1], block)
    first = np.searchsorted(ends, at, "right")
    made = np.empty((len(at), len(GROUP_COLUMNS)), np.int64)
    made[:, G_FIRST] = first
    made[:, G_STOP] = np.append(first[1:], len(ends))
    # bytes that must have been dispatched: more than these
    left = at - block * control.fetch_outstanding
    made[:, G_ROOM] = np.where(left < 0, 0, np.searchsorted(ends, left, "right") + 1)
    made[:, :G_ADDRESS] += region.start
    made[:, G_ADDRESS] = program.program_address + begin + at
    made[:, G_BYTES] = np.minimum(ends[-1] - at, block)
    return made
