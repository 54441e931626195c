"""The weight stream: the stored form of a block of weights, lossless and never larger than raw."""

from lepton.codec.decoder import Decoder
from lepton.codec.weights import (
    Preference,
    WeightStream,
    decode_weights,
    decoder_fault,
    encode_weights,
    stored_bytes,
)

__all__ = [
    "Decoder",
    "Preference",
    "WeightStream",
    "decode_weights",
    "decoder_fault",
    "encode_weights",
    "stored_bytes",
]
