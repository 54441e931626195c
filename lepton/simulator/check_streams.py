"""Weight streams that no decoder can expand."""

from __future__ import annotations

from lepton.codec import Decoder, WeightStream, decode_weights, decoder_fault
from lepton.errors import CheckError
from lepton.isa.instructions import WeightFormat, Weights
from lepton.program import Program

__all__ = ["stream_fault"]


def stream_fault(program: Program, item: Weights) -> str:
    """Return what is wrong with an encoded stream, or nothing.

    It lies in the constant segment, where nothing is stored, so what is found here holds for every
    run.
    """
    start = item.address - program.constants_address
    stop = start + item.stream_bytes
    is_elsewhere = item.memory != program.constants_memory
    if is_elsewhere or start < 0 or stop > len(program.constants):
        return "an encoded stream must lie in the constant segment"
    stream = WeightStream(WeightFormat(item.format), program.constants[start:stop])
    try:
        decode_weights(stream, item.reduction * item.columns)
    except CheckError as error:
        return str(error)
    return decoder_fault(stream, Decoder.of(program.chip))
