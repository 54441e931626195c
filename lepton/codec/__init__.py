"""The weight stream: the stored form of a block of weights, lossless and never larger than raw."""

from lepton.codec.decoder import Decoder
from lepton.codec.weights import (
    Coding,
    Preference,
    WeightStream,
    codings,
    decode_weights,
    decoded_elements,
    decoder_fault,
    encode_weights,
    preferred,
    soonest,
    stored_bytes,
)

__all__ = [
    "Coding",
    "Decoder",
    "Preference",
    "WeightStream",
    "codings",
    "decode_weights",
    "decoded_elements",
    "decoder_fault",
    "encode_weights",
    "preferred",
    "soonest",
    "stored_bytes",
]
