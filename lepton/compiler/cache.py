"""What compilations in one process share: fronts of models, ranked plans, encoded weights.

An entry holds all that it was made from, so a program is the same with a full cache as with an
empty one. Plans and fronts serve every chip that agrees in the fields that were read for them.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from threading import Lock
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.chip.reading import Path, recorded, value_at
from lepton.codec import Coding, Decoder, Preference, WeightStream, codings, preferred, soonest
from lepton.compiler.front_folder import FrontFolder
from lepton.compiler.steps import FrontModel
from lepton.isa.instructions import WeightFormat

__all__ = [
    "CompilerCache",
    "Fronts",
    "Plans",
    "Recent",
    "Schedules",
    "Streams",
    "content_digest",
    "process_cache",
]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Sizes = tuple[tuple[WeightFormat, int, int], ...]
"""Format and bytes of the ways to store a block."""
Plans = Sequence[tuple[float, object]]
"""Estimated cost and plan, the cheapest first."""

_FRONT_BYTES = 512 << 20
_STREAM_BYTES = 256 << 20
_SIZES = 200_000
_SCHEDULES = 50_000


class Recent(Generic[K, V]):
    """The values that were used last, as many as a limit admits."""

    def __init__(self, limit: int, weight_of: Callable[[V], int] = lambda _: 1) -> None:
        self._limit, self._weight_of = limit, weight_of
        self._values: OrderedDict[K, V] = OrderedDict()
        self._weight = 0
        self._lock = Lock()

    def get(self, key: K) -> V | None:
        """Return the value of a key, None if there is none."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: K, value: V) -> None:
        """Keep a value, and forget those used longest ago where there are too many."""
        with self._lock:
            if key in self._values:
                self._weight -= self._weight_of(self._values.pop(key))
            self._values[key] = value
            self._weight += self._weight_of(value)
            while self._weight > self._limit:
                _, oldest = self._values.popitem(last=False)
                self._weight -= self._weight_of(oldest)


class Schedules:
    """The ranked plans of layers, for all chips whose fields agree that were read."""

    def __init__(self) -> None:
        self._paths: Recent[Hashable, tuple[tuple[Path, ...], ...]] = Recent(_SCHEDULES)
        self._plans: Recent[Hashable, Plans] = Recent(_SCHEDULES)

    def plans(self, key: Hashable, chip: Chip, search: Callable[[Chip], Plans]) -> Plans:
        """Return what a search finds, which depends on nothing but the key and the chip.

        Args:
            key: what the search is for.
            chip: the chip to search for.
            search: takes the chip, as which it gets one that notes what is read of it.
        """
        read_before = self._paths.get(key) or ()
        for paths in read_before:
            found = self._plans.get((key, paths, _values(chip, paths)))
            if found is not None:
                return found
        view, reads = recorded(chip)
        plans = search(view)
        paths = tuple(reads)
        if paths not in read_before:
            self._paths.put(key, (*read_before, paths))
        self._plans.put((key, paths, _values(chip, paths)), plans)
        return plans


def _values(chip: Chip, paths: tuple[Path, ...]) -> tuple[object, ...]:
    return tuple(value_at(chip, path) for path in paths)


def content_digest(block: NDArray[np.uint8]) -> bytes:
    """Return what tells a block of bytes from others."""
    return hashlib.sha256(np.ascontiguousarray(block).data).digest()


class Streams:
    """The streams of blocks of weights, by the digest of the block."""

    def __init__(self) -> None:
        self._sizes: Recent[Hashable, Sizes] = Recent(_SIZES)
        self._streams: Recent[Hashable, WeightStream] = Recent(
            _STREAM_BYTES, lambda stream: stream.content.size
        )

    def stream(
        self,
        block: NDArray[np.uint8],
        digest: bytes,
        decoder: Decoder,
        preference: Preference | None = None,
    ) -> WeightStream:
        """Return what `lepton.codec.encode_weights` does."""
        key, prefer = _coding_key(digest, decoder), preference or soonest(decoder)
        sizes = self._sizes.get(key)
        if sizes is not None:
            stream = self._streams.get((key, preferred(sizes, prefer)))
            if stream is not None:
                return stream
        made = {coding.format: coding for coding in codings(block, decoder)}
        chosen = made[preferred(self._keep(key, made.values()), prefer)]
        stream = WeightStream(chosen.format, chosen.content())
        self._streams.put((key, chosen.format), stream)
        return stream

    def size(
        self,
        block: Callable[[], NDArray[np.uint8]],
        digest: bytes,
        decoder: Decoder,
        preference: Preference | None = None,
    ) -> tuple[WeightFormat, int, int]:
        """Return format, bytes and decoded elements of the stream; a block is seldom asked for."""
        key, prefer = _coding_key(digest, decoder), preference or soonest(decoder)
        sizes = self._sizes.get(key) or self._keep(key, codings(block(), decoder))
        format = preferred(sizes, prefer)
        return next(stored for stored in sizes if stored[0] == format)

    def _keep(self, key: Hashable, made: Iterable[Coding]) -> Sizes:
        sizes = tuple((coding.format, coding.size_bytes, coding.elements) for coding in made)
        self._sizes.put(key, sizes)
        return sizes


def _coding_key(digest: bytes, decoder: Decoder) -> Hashable:
    """Return what the sizes of a block's codings depend on."""
    return digest, decoder.bytes_per_cycle, decoder.entropy_lanes, decoder.skips_zeros


class Fronts:
    """Models as far as no chip has a say, by the model's content."""

    def __init__(self, folder: FrontFolder | None = None) -> None:
        """Make a store, of which other processes know what is written to a folder."""
        self._folder = folder
        self._fronts: Recent[str, tuple[FrontModel, ...]] = Recent(_FRONT_BYTES, _front_bytes)

    def front(self, key: str, chip: Chip, make: Callable[[], FrontModel]) -> FrontModel:
        """Return a model's front for a chip.

        Args:
            key: what it is made from.
            chip: its rules have a say in what the NPU takes.
            make: imports and partitions the model for the chip.
        """
        known = self._fronts.get(key) or ()
        for front in known:
            if front.suits(chip):
                return front
        made = self._from_folder(key, chip, make)
        self._fronts.put(key, (*known, made))
        return made

    def _from_folder(self, key: str, chip: Chip, make: Callable[[], FrontModel]) -> FrontModel:
        """Return a model's front, from a file if there is one for this chip."""
        if self._folder is None:
            return make()
        found = self._folder.read(key)
        if found is None or not found.suits(chip):
            found = make()
            self._folder.write(key, found)
        return found


def _front_bytes(fronts: Sequence[FrontModel]) -> int:
    return sum(front.constant_bytes for front in fronts)


@dataclass(frozen=True)
class CompilerCache:
    """What compilations share."""

    fronts: Fronts = field(default_factory=Fronts)
    schedules: Schedules = field(default_factory=Schedules)
    streams: Streams = field(default_factory=Streams)


@cache
def process_cache() -> CompilerCache:
    """Return the cache of compilations that are given none."""
    return CompilerCache()
