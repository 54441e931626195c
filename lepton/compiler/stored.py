"""The weight streams of a model, each encoded once however often its block is emitted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.codec import Decoder, WeightStream
from lepton.compiler.cache import Streams, content_digest

__all__ = ["StoredWeights", "stored_part"]

U8 = NDArray[np.uint8]

_PIECE, _PIECES = 4096, 16
"""Bytes of a piece, and pieces of a layer, that its share is taken from."""


class StoredWeights:
    """Streams for one decoder."""

    def __init__(self, decoder: Decoder, known: Streams | None = None) -> None:
        """Make a store.

        Args:
            decoder: what the streams are for.
            known: streams of earlier compilations.
        """
        self._decoder = decoder
        self._known = known or Streams()
        self._streams: dict[bytes, WeightStream] = {}
        self._shares: dict[int, tuple[U8, float]] = {}

    def stream(self, block: U8) -> WeightStream:
        """Return the stream of a block."""
        digest = content_digest(block)
        if digest not in self._streams:
            self._streams[digest] = self._known.stream(block, digest, self._decoder)
        return self._streams[digest]

    def share(self, weights: U8) -> float:
        """Return stored bytes over raw bytes of a layer's weights, in hundredths.

        As if they were one block, and by even samples of large ones.
        """
        known = self._shares.get(id(weights))
        if known is None:
            sample = _sample(np.ascontiguousarray(weights).reshape(-1))
            stored = self._known.size(sample, content_digest(sample), self._decoder)
            share = stored / max(sample.size, 1)
            # the array is kept, so that no other can have its id
            known = self._shares[id(weights)] = weights, round(share, 2)
        return known[1]

    def part(self, weights: U8, size: int) -> int:
        """Return the stored bytes, at least one, of `size` bytes of a layer's weights."""
        return stored_part(size, self.share(weights))


def stored_part(size: int, share: float) -> int:
    """Return the stored bytes, at least one, of `size` bytes of which that share is stored."""
    return max(round(size * share), 1)


def _sample(content: U8) -> U8:
    """Return pieces at even distances of a long content, or all of a short one."""
    if content.size <= _PIECE * _PIECES:
        return content
    starts = np.linspace(0, content.size - _PIECE, _PIECES).astype(np.int64)
    return np.concatenate([content[start : start + _PIECE] for start in starts])
