"""The weight streams of a model, each encoded once however often its block is emitted."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.codec import Decoder, Preference, WeightStream, decode_weights
from lepton.compiler.cache import Streams, content_digest
from lepton.cost.action_names import Action
from lepton.cost.elementwise import Number, most, rounded
from lepton.cost.energy_estimate import prices
from lepton.isa.instructions import WeightFormat
from lepton.program import Objective

__all__ = ["LEAST_ALIGN", "StoredWeights", "coding_preference", "stored_part"]

U8 = NDArray[np.uint8]

LEAST_ALIGN = 4
"""Bytes at whose multiples streams begin between which there is no padding."""
_ALIGN = 64
"""Bytes at whose multiples others do."""
_PIECE, _PIECES = 4096, 16
"""Bytes of a piece, and pieces of a layer, that its share is taken from."""


def coding_preference(chip: Chip, objective: Objective) -> Preference | None:
    """Return which format of a stream an objective prefers, None for the soonest."""
    if objective == Objective.LATENCY:
        return None
    if objective == Objective.SIZE:
        return _shortest
    each = chip.derived(prices)
    memory = chip.memory_index(chip.placement.constants)

    def energy(format: WeightFormat, size: int, elements: int) -> tuple[float, ...]:
        symbol = Action.WEIGHT_SYMBOL if format < WeightFormat.ENTROPY else Action.ENTROPY_SYMBOL
        decoded = 0.0 if format == WeightFormat.RAW else elements * each.actions[symbol]
        return each.transfer_pj(memory, size, 1, 0, is_write=False) + decoded, size

    return energy


def _shortest(format: WeightFormat, size: int, elements: int) -> tuple[float, ...]:
    return size, format


class StoredWeights:
    """Streams for one decoder."""

    def __init__(
        self,
        decoder: Decoder,
        known: Streams | None = None,
        preference: Preference | None = None,
    ) -> None:
        """Make a store.

        Args:
            decoder: what the streams are for.
            known: streams of earlier compilations.
            preference: which of the formats to take; None for the `soonest`.
        """
        self._decoder, self._preference = decoder, preference
        self.align = _ALIGN
        """Bytes at whose multiples streams begin. One that begins within a burst takes a request
        more, which costs a layer that is bound by its weights up to 1 % of its cycles."""
        self._known = known or Streams()
        self._streams: dict[bytes, WeightStream] = {}
        self._elements: dict[bytes, int] = {}
        self._shorter: frozenset[bytes] = frozenset()
        self._shares: dict[int, tuple[U8, float]] = {}

    def stream(self, block: U8) -> WeightStream:
        """Return the stream of a block."""
        digest = content_digest(block)
        if digest not in self._streams:
            preference = _shortest if digest in self._shorter else self._preference
            self._streams[digest] = self._known.stream(block, digest, self._decoder, preference)
            self._elements[digest] = block.size
        return self._streams[digest]

    def digests(self) -> dict[tuple[int, bytes], bytes]:
        """Return what tells blocks from each other, by format and content of their streams."""
        return {
            (int(stream.format), stream.content.tobytes()): digest
            for digest, stream in self._streams.items()
        }

    def shortest(self, digest: bytes) -> tuple[WeightFormat, int, int]:
        """Return format, bytes and decoded elements of the shortest stream of a block."""
        elements = self._elements[digest]
        return self._known.size(
            lambda: decode_weights(self._streams[digest], elements),
            digest,
            self._decoder,
            _shortest,
        )

    def shorten(self, digests: Iterable[bytes]) -> None:
        """Give these blocks their shortest streams from now on, and the others their preferred."""
        shorter = frozenset(digests)
        for digest in shorter ^ self._shorter:
            self._streams.pop(digest, None)
        self._shorter = shorter

    def share(self, weights: U8) -> float:
        """Return stored bytes over raw bytes of a layer's weights, in hundredths.

        As if they were one block, and by even samples of large ones.
        """
        known = self._shares.get(id(weights))
        if known is None:
            sample = _sample(np.ascontiguousarray(weights).reshape(-1))
            digest = content_digest(sample)
            _, stored, _ = self._known.size(lambda: sample, digest, self._decoder, self._preference)
            share = stored / max(sample.size, 1)
            # the array is kept, so that no other can have its id
            known = self._shares[id(weights)] = weights, round(share, 2)
        return known[1]

    def part(self, weights: U8, size: int) -> int:
        """Return the stored bytes, at least one, of `size` bytes of a layer's weights."""
        return stored_part(size, self.share(weights))


def stored_part(size: Number, share: float) -> Number:
    """Return the stored bytes, at least one, of `size` bytes of which that share is stored."""
    return most(rounded(size * share), 1)


def _sample(content: U8) -> U8:
    """Return pieces at even distances of a long content, or all of a short one."""
    if content.size <= _PIECE * _PIECES:
        return content
    starts = np.linspace(0, content.size - _PIECE, _PIECES).astype(np.int64)
    return np.concatenate([content[start : start + _PIECE] for start in starts])
