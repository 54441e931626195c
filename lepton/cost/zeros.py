"""The zeros of a program's constant weights: how many MACs would do without them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.codec import WeightStream, decode_weights
from lepton.cost.weight_sources import stream_places, weights_of
from lepton.errors import CheckError
from lepton.isa.encoding import COLUMNS
from lepton.isa.instructions import WeightFormat
from lepton.program import Program

__all__ = ["Zeros", "zeros_of"]

I64 = NDArray[np.int64]

_BYTES, _FORMAT = COLUMNS["stream_bytes"], COLUMNS["format"]
_REDUCTION, _COLUMNS = COLUMNS["reduction"], COLUMNS["columns"]
_OFM_H, _OFM_W = COLUMNS["ofm_height"], COLUMNS["ofm_width"]


class Zeros:
    """Of each operator of a program, the zeros among the weights of its matmuls.

    Attributes:
        weights: `[operators]` elements of the streams that are known, each stream once.
        zeros: `[operators]` how many of them are 0.
        skippable: `[operators]` MACs with a weight that is 0.
    """

    def __init__(self, operators: int) -> None:
        self.weights: I64 = np.zeros(operators, np.int64)
        self.zeros: I64 = np.zeros(operators, np.int64)
        self.skippable: I64 = np.zeros(operators, np.int64)


def _zeros_of(program: Program, index: int, place: int) -> int:
    """Return the zeros of the stream that a `weights` reads; a damaged one has none."""
    r = program.table[index]
    content = program.constants[place : place + int(r[_BYTES])]
    size = int(r[_REDUCTION] * r[_COLUMNS])
    try:
        block = decode_weights(WeightStream(WeightFormat(int(r[_FORMAT])), content), size)
    except CheckError:
        return 0
    return size - int(np.count_nonzero(block))


def zeros_of(program: Program) -> Zeros:
    """Return what zeros there are; weights that are no constants, or no signed ones, have none."""
    table, places = program.table, stream_places(program)
    made = Zeros(len(program.operators))
    zeros: dict[int, int] = {}
    seen: set[tuple[int, int]] = set()
    readers = weights_of(table)
    for index in np.flatnonzero(readers >= 0).tolist():
        source = int(readers[index])
        place = int(places[source])
        if place < 0:
            continue
        if place not in zeros:
            zeros[place] = _zeros_of(program, source, place)
        operator = int(program.operator_of[index])
        pixels = int(table[index, _OFM_H] * table[index, _OFM_W])
        made.skippable[operator] += pixels * zeros[place]
        if (operator, place) not in seen:
            seen.add((operator, place))
            made.weights[operator] += int(table[source, _REDUCTION] * table[source, _COLUMNS])
            made.zeros[operator] += zeros[place]
    return made
