"""Address allocation: a next-fit ring for tiles, and first fit over lifetimes for residents."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from lepton.errors import CompileError

__all__ = [
    "TILE_ALIGN",
    "Block",
    "Lifetime",
    "NoRoom",
    "Ring",
    "place_lifetimes",
    "room_for",
    "shortage",
]


TILE_ALIGN = 16
"""Bytes that tiles in the scratchpad begin at multiples of."""


def shortage(what: str, memory: str, needed: int, available: int) -> CompileError:
    """Return the error of something that needs more bytes of a memory than are free."""
    return CompileError(
        f"{what} needs {needed:,} bytes of the {memory}, and {available:,} are free: "
        f"{needed - available:,} short"
    )


class NoRoom(Exception):
    """A ring has no gap of the size asked for; `shortage` says for whom.

    Attributes:
        ring: what it is called.
        needed: units asked for.
        available: units of its largest gap.
    """

    def __init__(self, ring: str, needed: int, available: int) -> None:
        super().__init__(f"the {ring} has no gap of {needed}: the largest has {available}")
        self.ring, self.needed, self.available = ring, needed, available


@contextmanager
def room_for(what: str, chip: str) -> Generator[None]:
    """Say of what has no room within the block what it is, and on which chip."""
    try:
        yield
    except NoRoom as full:
        place = f"{full.ring} of chip '{chip}'"
        raise shortage(what, place, full.needed, full.available) from None


class Block(NamedTuple):
    """Room that is taken while instructions [first, stop) are emitted; others never touch it."""

    address: int
    size: int
    first: int
    stop: int


@dataclass
class Ring:
    """Next-fit allocation that moves forward, so that a buffer is reused as late as possible.

    With a `clock`, the number of instructions so far, it also remembers its blocks.
    """

    start: int
    size: int
    name: str
    align: int = 1
    clock: Callable[[], int] | None = None
    _position: int = 0
    _live: dict[int, int] = field(default_factory=dict[int, int])
    _begun: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])
    _ended: list[Block] = field(default_factory=list[Block])

    def allocate(self, size: int) -> int:
        """Return the address of `size` free units.

        Raises:
            NoRoom: no gap is large enough.
        """
        address = self.offer(size)
        if address is None:
            raise NoRoom(self.name, size, self._largest_gap())
        return address

    def _largest_gap(self) -> int:
        """Return the units of the largest gap."""
        ends = [0, *(start + size for start, size in sorted(self._live.items()))]
        return max(b - a for a, b in zip(ends, [*sorted(self._live), self.size], strict=True))

    def offer(self, size: int) -> int | None:
        """Return the address of `size` free units, or None if no gap is large enough."""
        taken = -(-size // self.align) * self.align
        for origin in (self._position, 0):
            address = self._gap(origin, taken)
            if address is not None:
                self._position = address + taken
                return self._take(address, taken, size)
        return None

    def _take(self, address: int, taken: int, size: int) -> int:
        """Take units from an address of the ring on, `size` of which were asked for."""
        self._live[address] = taken
        if self.clock is not None:
            self._begun[address] = size, self.clock()
        return self.start + address

    def allocate_at_edge(self, size: int) -> int:
        """Return the address of `size` units at the end or at the start, so that no gap is split.

        The end that is farther from what was allocated last; anywhere, if neither is free.
        """
        taken = -(-size // self.align) * self.align
        last = (self.size - taken) // self.align * self.align
        for origin in (0, last) if self._position > self.size // 2 else (last, 0):
            if last >= 0 and self._gap(origin, taken) == origin:
                return self._take(origin, taken, size)
        return self.allocate(size)

    def _gap(self, origin: int, size: int) -> int | None:
        """Return the first free address from `origin` on with `size` free units behind it."""
        address = origin
        for start in sorted(self._live):
            end = start + self._live[start]
            if end <= address:
                continue
            if start - address >= size:
                return address
            address = max(address, end)
        return address if self.size - address >= size else None

    def release(self, address: int) -> None:
        """Free an allocation by its address."""
        del self._live[address - self.start]
        if self.clock is not None:
            size, first = self._begun.pop(address - self.start)
            self._ended.append(Block(address, size, first, self.clock()))

    @property
    def blocks(self) -> list[Block]:
        """All blocks so far; of a ring with a clock."""
        now = 0 if self.clock is None else self.clock()
        begun = self._begun.items()
        return self._ended + [
            Block(self.start + at, size, first, now) for at, (size, first) in begun
        ]

    @property
    def in_use(self) -> int:
        return sum(self._live.values())


@dataclass(frozen=True)
class Lifetime:
    """A tensor alive from step `first` to step `last`, both included."""

    name: str
    size: int
    first: int
    last: int


def place_lifetimes(
    wanted: list[Lifetime],
    capacity: int,
    align: int = 64,
    there: Sequence[tuple[Lifetime, int]] = (),
) -> dict[str, int]:
    """Return addresses for as many of `wanted` as fit, tried in the given order, first fit.

    `there` is what has an address already.
    """
    placed = list(there)
    for item in wanted:
        size = -(-item.size // align) * align
        others = sorted(
            (address, address + -(-other.size // align) * align)
            for other, address in placed
            if other.first <= item.last and item.first <= other.last
        )
        address = 0
        for start, end in others:
            if start - address >= size:
                break
            address = max(address, end)
        if address + size <= capacity:
            placed.append((item, address))
    return {item.name: address for item, address in placed[len(there) :]}
