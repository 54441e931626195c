"""Input rows on the chip: windows of a stripe of columns share the rows that they have in common.

A buffer takes the rows of a stripe one behind the other. A window that goes on where the one before
left off brings only its new rows; where they no longer fit, it begins anew at the buffer's start
with all of its rows. What reads a row and what overwrites it later is ordered by semaphores like
everything else, so rows arrive while windows before them are still being read.
"""

from __future__ import annotations

from dataclasses import dataclass

from lepton.compiler.allocate import TILE_ALIGN
from lepton.compiler.emit import Box, Emitter, Tile
from lepton.compiler.graph import Tensor, Window
from lepton.compiler.lowering.tiling import halo
from lepton.cost.elementwise import Number, choose, least, most

__all__ = ["RowBuffer", "Rows", "rows_of"]

_MOST_WINDOWS = 12
"""Windows between two beginnings at the buffer's start, beyond which little is to be won."""


@dataclass(frozen=True)
class Rows:
    """Rows that the windows of tiles read, in a buffer; of many plans, arrays."""

    window: Number
    """Of one tile."""
    advance: Number
    """From one tile to the next below it."""
    extent: int
    """Of the tensor."""
    pitch: Number
    """Bytes of a row of the stripe."""

    @property
    def overlap(self) -> Number:
        return self.window > self.advance

    @property
    def least(self) -> Number:
        """Bytes for the rows of one window, and those that the next brings."""
        return least(self.window + self.advance, self.extent) * self.pitch + TILE_ALIGN

    @property
    def whole(self) -> Number:
        """Bytes for all rows."""
        return self.extent * self.pitch + TILE_ALIGN

    def bytes_within(self, room: int) -> int:
        """Return the bytes of the buffer to take, of at most `room`."""
        rows = min(self.extent, self.window + _MOST_WINDOWS * self.advance)
        return min(rows * self.pitch + TILE_ALIGN, room)

    def windows(self, size: Number) -> Number:
        """Return the windows of a buffer of `size` bytes from one beginning to the next."""
        return 1 + most((size - TILE_ALIGN) // self.pitch - self.window, 0) // self.advance

    def brought(self, size: Number, tiles: Number) -> Number:
        """Return the rows that a stripe of so many tiles brings into a buffer of `size` bytes."""
        begun = -(-tiles // self.windows(size))
        parts = begun * self.window + (tiles - begun) * self.advance
        return choose((size - TILE_ALIGN) // self.pitch >= self.extent, self.extent, parts)


def rows_of(
    window: Window, size: tuple[Number, Number], shape: tuple[int, int], channels: Number
) -> Rows:
    """Return the rows that tiles of `size` output pixels read of an input of `shape`, in pixels."""
    return Rows(
        halo(window, 0, size[0], shape[0]),
        size[0] * window.stride[0],
        shape[0],
        halo(window, 1, size[1], shape[1]) * channels,
    )


class RowBuffer:
    """The buffer of one tensor while an operator reads it, stripe by stripe, from top to bottom."""

    def __init__(self, emitter: Emitter, tensor: Tensor, size: int) -> None:
        self._emitter, self._tensor, self._size = emitter, tensor, size
        self._address = emitter.tiles.allocate_at_edge(size)
        self._stripe: tuple[int, ...] = ()
        self._rows = (0, 0)
        self._place = self._end = 0
        """Where the first of the rows is, and where the last ends, in the buffer."""

    def fetch(self, n: int, box: Box) -> Tile:
        """Return the tile of a box of image `n`; what of it is not there is brought."""
        stripe = (n, box.x0, box.x1, box.c0, box.c1)
        pitch = box.width * box.channels
        first, last = self._rows
        known = stripe == self._stripe and first <= box.y0 <= last
        new = max(box.y1 - last, 0) if known else box.height
        if not known or self._end + new * pitch > self._size:
            begin = -(-self._end // TILE_ALIGN) * TILE_ALIGN
            fits = not known and begin + box.size <= self._size
            self._place = self._end = begin if fits else 0
            self._stripe, first, last = stripe, box.y0, box.y0
        if box.y1 > last:
            part = Box(last, box.y1, box.x0, box.x1, box.c0, box.c1)
            self._emitter.bring(self._tensor, n, self._tile(part, self._end))
            self._end += part.size
        self._rows = (first, max(last, box.y1))
        return self._tile(box, self._place + (box.y0 - first) * pitch)

    def _tile(self, box: Box, at: int) -> Tile:
        return Tile(self._address + at, box.width * box.channels, box.channels, box, False)

    def release(self) -> None:
        """Give the buffer back."""
        self._emitter.tiles.release(self._address)
