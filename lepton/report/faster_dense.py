"""The dense run that a network with zeros is compared with, where all there is is its program.

A dense network of the same shape has streams without zeros and passes without gaps. What stands for
it has the zeros replaced by values drawn from the layer's other weights with a fixed seed, so that
its streams have the entropy that a dense network of these values would have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton.codec import WeightStream, decode_weights
from lepton.codec.decoder import Decoder
from lepton.codec.weights import encode_weights
from lepton.cost.estimate import estimate_program
from lepton.cost.weight_sources import stream_places
from lepton.errors import CheckError
from lepton.isa.encoding import COLUMNS, encode_table
from lepton.isa.instructions import WeightFormat
from lepton.report.estimated import estimated_trace

if TYPE_CHECKING:
    from lepton.program import Program
    from lepton.trace import Trace

__all__ = ["DenseRun", "estimated_dense", "redrawn", "weight_counts", "with_dense_streams"]

I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]

_SEED = 0
_BYTES, _FORMAT = COLUMNS["stream_bytes"], COLUMNS["format"]
_REDUCTION, _COLUMNS = COLUMNS["reduction"], COLUMNS["columns"]


@dataclass(frozen=True)
class DenseRun:
    """A run of the network without zeros, on the same chip and of the same operators."""

    program: Program
    trace: Trace
    origin: str
    """What it is, in a sentence."""
    is_estimate: bool = False
    """Whether its cycles are estimated, and so are to be compared with estimated ones."""


def redrawn(weights: U8, zero: int = 0) -> U8:
    """Return weights whose zeros are drawn from the others, with a fixed seed.

    Weights that are all 0 become all values but 0, each as likely.

    Args:
        weights: raw bytes of any shape.
        zero: the byte that stands for 0.
    """
    is_zero = weights == np.uint8(zero & 255)
    others = weights[~is_zero]
    if not others.size:
        others = np.delete(np.arange(256, dtype=np.uint8), zero & 255)
    made = weights.copy()
    made[is_zero] = np.random.default_rng(_SEED).choice(others, int(is_zero.sum()))
    return made


def _blocks(program: Program) -> list[tuple[int, U8]]:
    """Return the `weights` instructions whose streams are known constants, and their bytes.

    Those that read the same stream have the same object.
    """
    table, places = program.table, stream_places(program)
    known: dict[tuple[int, int, int], U8 | None] = {}
    made: list[tuple[int, U8]] = []
    for index in np.flatnonzero(places >= 0).tolist():
        r = table[index]
        place, size = int(places[index]), int(r[_REDUCTION] * r[_COLUMNS])
        key = place, int(r[_FORMAT]), size
        if key not in known:
            content = program.constants[place : place + int(r[_BYTES])]
            try:
                known[key] = decode_weights(WeightStream(WeightFormat(key[1]), content), size)
            except CheckError:
                known[key] = None
        block = known[key]
        if block is not None:
            made.append((index, block))
    return made


def weight_counts(program: Program) -> I64:
    """Return `[operators, 256]`: how often each byte occurs in what an operator's streams expand.

    A stream that is read several times counts as often.
    """
    made = np.zeros((len(program.operators), 256), np.int64)
    for index, block in _blocks(program):
        made[int(program.operator_of[index])] += np.bincount(block, minlength=256)
    return made


def with_dense_streams(program: Program) -> Program:
    """Return a program with the sizes of dense streams, on its chip without skipping.

    It can be estimated but not run: the constants are those of the program. Streams that are copied
    to another memory first are copied in their present size. Bytes 0 are redrawn also where a zero
    point gives them a value.
    """
    chip = replace(program.chip, sparsity=None)
    decoder, table = Decoder.of(chip), program.table.copy()
    known: dict[int, tuple[int, int]] = {}
    for index, block in _blocks(program):
        if id(block) not in known:
            shape = int(table[index, _REDUCTION]), int(table[index, _COLUMNS])
            stream = encode_weights(redrawn(block).reshape(shape), decoder)
            known[id(block)] = len(stream.content), int(stream.format)
        table[index, [_BYTES, _FORMAT]] = known[id(block)]
    return replace(program, chip=chip, instructions=encode_table(table))


def estimated_dense(program: Program) -> DenseRun:
    """Return the estimate of a program with dense streams and without skipping."""
    dense = with_dense_streams(program)
    return DenseRun(
        dense,
        estimated_trace(dense, estimate_program(dense)),
        "this program estimated with streams of dense weights and without skipping: only of a "
        "model's file can a dense network be compiled",
        is_estimate=True,
    )
