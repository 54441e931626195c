"""The weight stream: the stored form of a block of weights, lossless and never larger than raw."""

from lepton.codec.weights import (
    WeightStream,
    decode_weights,
    encode_weights,
    group_size,
    least_group,
    stored_bytes,
)

__all__ = [
    "WeightStream",
    "decode_weights",
    "encode_weights",
    "group_size",
    "least_group",
    "stored_bytes",
]
