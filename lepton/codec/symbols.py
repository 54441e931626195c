"""Bytes as symbols: the distance from a byte of the stream's own, or the number of an entry.

The byte or entry 0 is a frequent one, so that zeros have small symbols whatever the zero point is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton.errors import CheckError

__all__ = [
    "BYTES_OF_DISTANCES",
    "GAP_FLAG",
    "LOW_BITS",
    "MOST_ENTRIES",
    "Symbols",
    "by_distance",
    "by_palette",
    "middle",
    "read_distances",
    "read_gap",
    "read_palette",
]

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]

LOW_BITS = 3
"""Bits of the header's first byte that belong to the format: a group's size, or the lanes."""
MOST_ENTRIES = 32
"""Entries of a palette, at most."""
GAP_FLAG = 1 << LOW_BITS
"""In the first byte of an entropy-coded stream of distances: a gap follows."""
MOST_GAP = 127
_BYTES = np.arange(256, dtype=np.uint8)
_DISTANCE = _BYTES.view(np.int8).astype(np.int64)
_SYMBOL_OF_DISTANCE = np.where(_DISTANCE < 0, -2 * _DISTANCE - 1, 2 * _DISTANCE).astype(np.uint8)
"""`[256]`: 0, 1, -1, 2, ... as bytes become 0, 2, 1, 4, ..."""
BYTES_OF_DISTANCES = np.argsort(_SYMBOL_OF_DISTANCE).astype(np.uint8)
"""`[256]`: the distance of each symbol, as a byte."""


@dataclass(frozen=True)
class Symbols:
    """A symbol for each byte."""

    header: U8
    """`[bytes]` of the stream that say so; `LOW_BITS` of the first are still 0."""
    symbol_of: U8
    """`[256]`."""
    count: int
    """Symbols are below this."""
    zero: int | None = None
    """The byte that symbols are distances from, if they are distances."""


def by_distance(zero: int, gap: int = 0) -> Symbols:
    """Return symbols that are distances from the byte `zero`, none of them 1 to `gap`."""
    symbol_of = _SYMBOL_OF_DISTANCE[_BYTES - np.uint8(zero)]
    if not gap:
        return Symbols(np.array([0, zero], np.uint8), symbol_of, 256, zero)
    header = np.array([GAP_FLAG, zero, gap], np.uint8)
    near = np.minimum(symbol_of, np.uint8(2 * gap))
    return Symbols(header, symbol_of - near, 256 - 2 * gap, zero)


def by_palette(counts: I64) -> Symbols | None:
    """Return the numbers of all bytes that occur, frequent ones first, or None of too many.

    Args:
        counts: `[256]` how often each byte occurs.
    """
    entries = int(np.count_nonzero(counts))
    if entries > MOST_ENTRIES:
        return None
    palette = np.argsort(-counts, kind="stable")[:entries]
    symbol_of = np.zeros(256, np.uint8)
    symbol_of[palette] = np.arange(entries)
    header = np.concatenate(([(entries - 1) << LOW_BITS], palette)).astype(np.uint8)
    return Symbols(header, symbol_of, entries)


def middle(counts: I64) -> int:
    """Return the middle of the shortest range, modulo 256, that holds all bytes that occur."""
    used = np.flatnonzero(counts)
    gaps = np.diff(np.append(used, used[0] + 256))
    widest = int(gaps.argmax())
    first, span = int(used[(widest + 1) % len(used)]), 256 - int(gaps[widest])
    return (first + (span + 1) // 2) % 256


def read_distances(content: U8) -> tuple[int, U8]:
    """Return the bytes of a header with a byte `zero`, and the byte of each symbol.

    Raises:
        CheckError: the header is damaged.
    """
    if len(content) < 2:
        raise CheckError("the weight stream ends inside its header")
    if int(content[0]) >> LOW_BITS:
        raise CheckError("the weight stream's header has bits that must be 0")
    return 2, BYTES_OF_DISTANCES + content[1]


def read_gap(content: U8) -> tuple[int, U8]:
    """Return the bytes of a header with a byte `zero` and perhaps a gap, and the symbols' bytes.

    Raises:
        CheckError: the header is damaged.
    """
    has_gap = len(content) > 0 and bool(content[0] & GAP_FLAG)
    size = 3 if has_gap else 2
    if len(content) < size:
        raise CheckError("the weight stream ends inside its header")
    gap = int(content[2]) if has_gap else 0
    if has_gap and not 1 <= gap <= MOST_GAP:
        raise CheckError(f"the weight stream's gap must be 1 to {MOST_GAP}, not {gap}")
    distances = np.delete(BYTES_OF_DISTANCES, slice(1, 1 + 2 * gap))
    return size, distances + content[1]


def read_palette(content: U8) -> tuple[int, U8]:
    """Return the bytes of a header with a palette, and the palette.

    Raises:
        CheckError: the header is damaged.
    """
    if len(content) < 2:
        raise CheckError("the weight stream ends inside its header")
    size = (int(content[0]) >> LOW_BITS) + 2
    palette = content[1:size]
    if len(content) < size:
        raise CheckError("the weight stream ends inside its palette")
    if len(np.unique(palette)) < len(palette):
        raise CheckError("the weight stream's palette has a byte twice")
    return size, palette
