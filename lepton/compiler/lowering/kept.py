"""Blocks of constants on the chip: streamed in when they are used first, kept while it pays.

All uses are known before the first is emitted, so what makes room is the block that is needed
latest (Belady's rule), except the one used last: its space would be free too late for the next
block to arrive while the array is busy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from lepton.cost.elementwise import Number, choose, most
from lepton.errors import CompileError

__all__ = ["KeptBlocks", "streamed_bytes"]

K = TypeVar("K")


class KeptBlocks(Generic[K]):
    """The blocks of one layer in one buffer."""

    def __init__(
        self,
        uses: Iterable[K],
        load: Callable[[K], int | None],
        release: Callable[[int], None],
    ) -> None:
        """Make the blocks known.

        Args:
            uses: keys of the blocks in the order in which `address` will be asked for them.
            load: emits a block and returns its address, or None if there is no room now.
            release: gives the room at an address back.
        """
        self._load, self._release = load, release
        self._uses: dict[K, deque[int]] = {}
        for place, key in enumerate(uses):
            self._uses.setdefault(key, deque()).append(place)
        self._kept: dict[K, int] = {}
        self._last: K | None = None

    def address(self, key: K) -> int:
        """Return where a block is, for the next use in order."""
        self._drop_dead()
        self._uses[key].popleft()
        if key not in self._kept:
            address = self._load(key)
            while address is None:
                self._evict()
                address = self._load(key)
            self._kept[key] = address
        self._last = key
        return self._kept[key]

    def end(self) -> None:
        """Give back the room of every block."""
        for address in self._kept.values():
            self._release(address)
        self._kept.clear()

    def _drop_dead(self) -> None:
        """Give back the room of the block used last if it is not used again."""
        if self._last in self._kept and not self._uses[self._last]:
            self._release(self._kept.pop(self._last))

    def _evict(self) -> None:
        """Give back the room of the block that is needed latest."""
        if not self._kept:
            raise CompileError("a block of constants does not fit its buffer")
        choice = [key for key in self._kept if key != self._last] or list(self._kept)
        latest = max(choice, key=lambda key: self._uses[key][0])
        self._release(self._kept.pop(latest))


def streamed_bytes(total: Number, block: Number, room: Number, sweeps: Number) -> Number:
    """Return the bytes streamed by `sweeps` over blocks of `total` bytes in a buffer of `room`.

    From the second sweep on what is not kept comes again; two blocks of room are on the move.
    """
    again = (sweeps - 1) * (total - most(room - 2 * block, 0))
    return choose(total <= room, total, total + again)
