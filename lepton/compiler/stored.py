"""The weight streams of a model, each encoded once however often its block is emitted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.codec import Decoder, WeightStream, encode_weights, stored_bytes

__all__ = ["StoredWeights"]

U8 = NDArray[np.uint8]


class StoredWeights:
    """Streams for one decoder, by the block's bytes."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._streams: dict[bytes, WeightStream] = {}
        self._shares: dict[int, tuple[U8, float]] = {}

    def stream(self, block: U8) -> WeightStream:
        """Return the stream of a block."""
        raw = block.tobytes()
        if raw not in self._streams:
            self._streams[raw] = encode_weights(block, self._decoder)
        return self._streams[raw]

    def share(self, weights: U8) -> float:
        """Return stored bytes over raw bytes of a layer's weights, as if they were one block."""
        known = self._shares.get(id(weights))
        if known is None:
            share = stored_bytes(np.ascontiguousarray(weights), self._decoder) / max(
                weights.size, 1
            )
            # the array is kept, so that no other can have its id
            known = self._shares[id(weights)] = weights, share
        return known[1]
