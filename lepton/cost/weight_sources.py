"""Which constants the weight buffer holds for each `matmul`; docs/timing.md, section 10.

What is found depends on the program alone. What cannot be traced to one stream of the constant
segment counts as unknown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.isa.declaration import BY_MNEMONIC
from lepton.isa.encoding import COLUMNS
from lepton.isa.instructions import Stationary, WeightFormat
from lepton.jit import njit
from lepton.program import Program

__all__ = ["stream_places", "weights_of"]

I64 = NDArray[np.int64]

_LOAD, _STORE = BY_MNEMONIC["load"].opcode, BY_MNEMONIC["store"].opcode
_WEIGHTS, _MATMUL = BY_MNEMONIC["weights"].opcode, BY_MNEMONIC["matmul"].opcode
_HALT = BY_MNEMONIC["halt"].opcode
_MEMORY, _ADDRESS, _BYTES = COLUMNS["memory"], COLUMNS["address"], COLUMNS["stream_bytes"]
_FORMAT, _SCRATCHPAD = COLUMNS["format"], COLUMNS["scratchpad"]
_ROW_BYTES, _ROWS, _PLANES = COLUMNS["row_bytes"], COLUMNS["rows"], COLUMNS["planes"]
_BUFFER_AT, _REDUCTION, _COLUMNS = COLUMNS["buffer"], COLUMNS["reduction"], COLUMNS["columns"]
_KERNEL_H, _KERNEL_W = COLUMNS["kernel_height"], COLUMNS["kernel_width"]
_CHANNELS, _SOURCE = COLUMNS["channels"], COLUMNS["stationary"]
_SOURCE_AT = COLUMNS["stationary_address"]
_UNSIGNED, _ZERO_POINT = COLUMNS["weight_unsigned"], COLUMNS["weight_zero_point"]
_IN_BUFFER, _RAW = int(Stationary.BUFFER), int(WeightFormat.RAW)


@njit
def _match(table: I64, found: I64) -> None:
    """Fill `[n]` with the `weights` whose block each signed matmul multiplies by, -1 for none.

    Of a core's stream so far, blocks count of which nothing has been overwritten.
    """
    held = np.empty(len(table), np.int64)
    count = 0
    for index in range(len(table)):
        r = table[index]
        if r[0] == _HALT:
            count = 0
        elif r[0] == _WEIGHTS:
            start, stop = r[_BUFFER_AT], r[_BUFFER_AT] + r[_REDUCTION] * r[_COLUMNS]
            kept = 0
            for place in range(count):
                w = table[held[place]]
                end = w[_BUFFER_AT] + w[_REDUCTION] * w[_COLUMNS]
                if end <= start or stop <= w[_BUFFER_AT]:
                    held[kept] = held[place]
                    kept += 1
            held[kept] = index
            count = kept + 1
        elif r[0] == _MATMUL and r[_SOURCE] == _IN_BUFFER:
            if r[_UNSIGNED] != 0 or r[_ZERO_POINT] != 0:
                continue
            reduction = r[_KERNEL_H] * r[_KERNEL_W] * r[_CHANNELS]
            for place in range(count):
                w = table[held[place]]
                is_whole = w[_REDUCTION] == reduction and w[_COLUMNS] == r[_COLUMNS]
                if w[_BUFFER_AT] == r[_SOURCE_AT] and is_whole:
                    found[index] = held[place]


def weights_of(table: I64) -> I64:
    """Return `[n]` the `weights` that expanded the operand of each instruction, -1 for none.

    Only a `matmul` of signed weights of zero point 0 has one, and only if its operand is the whole
    block.
    """
    found = np.full(len(table), -1, np.int64)
    _match(table, found)
    return found


def stream_places(program: Program) -> I64:
    """Return `[n]` where in the constant segment the stream of each `weights` lies, -1 for nowhere.

    A copy counts where it was copied from.
    """
    table = program.table
    found = np.full(len(table), -1, np.int64)
    streams = np.flatnonzero(table[:, 0] == _WEIGHTS)
    place = table[streams, _ADDRESS] - program.constants_address
    is_there = (table[streams, _MEMORY] == program.constants_memory) & (place >= 0)
    is_there &= place + table[streams, _BYTES] <= len(program.constants)
    found[streams[is_there]] = place[is_there]
    copied = streams[~is_there & (table[streams, _FORMAT] != _RAW)]
    if len(copied):
        copies = _Copies(program)
        for index in copied.tolist():
            found[index] = copies.place(index)
    return found


class _Copies:
    """The transfers of one row, through which streams are copied."""

    def __init__(self, program: Program) -> None:
        table = program.table
        is_row = (table[:, _ROWS] == 1) & (table[:, _PLANES] == 1)
        is_constant = table[:, _MEMORY] == program.constants_memory
        self._table, self._base = table, program.constants_address
        self._size = len(program.constants)
        self._stores = np.flatnonzero((table[:, 0] == _STORE) & is_row)
        self._loads = np.flatnonzero((table[:, 0] == _LOAD) & is_row & is_constant)
        self._begins = np.concatenate([[0], np.flatnonzero(table[:, 0] == _HALT) + 1])

    def place(self, index: int) -> int:
        """Return where in the constant segment a stream is from, -1 if not from one place."""
        item = self._table[index]
        begin = self._begins[np.searchsorted(self._begins, index, "right") - 1]
        stores = self._stores[(self._stores >= begin) & (self._stores < index)]
        at = self._table[stores, _ADDRESS]
        start, stop = int(item[_ADDRESS]), int(item[_ADDRESS] + item[_BYTES])
        meets = (self._table[stores, _MEMORY] == item[_MEMORY]) & (at < stop)
        stores = stores[meets & (at + self._table[stores, _ROW_BYTES] > start)]
        left, origins = stop - start, set[int]()
        covered = np.zeros(stop - start, np.bool_)
        for store in stores[::-1].tolist():
            first = max(int(self._table[store, _ADDRESS]), start)
            last = min(int(self._table[store, _ADDRESS] + self._table[store, _ROW_BYTES]), stop)
            part = covered[first - start : last - start]
            if not part.all():
                origins.add(self._origin(store, (first, last), begin) - first)
                left -= int(len(part) - part.sum())
                part[:] = True
        if left or len(origins) != 1:
            return -1
        origin = origins.pop() + start - self._base
        return origin if 0 <= origin <= self._size - (stop - start) else -1

    def _origin(self, store: int, span: tuple[int, int], begin: int) -> int:
        """Return the address from which stored bytes were loaded, at a negative one if unknown."""
        shift = int(self._table[store, _SCRATCHPAD] - self._table[store, _ADDRESS])
        loads = self._loads[(self._loads >= begin) & (self._loads < store)]
        at = self._table[loads, _SCRATCHPAD]
        inside = (at <= span[0] + shift) & (at + self._table[loads, _ROW_BYTES] >= span[1] + shift)
        if not inside.any():
            return -(1 << 60)
        load = self._table[loads[inside][-1]]
        return int(load[_ADDRESS] + span[0] + shift - load[_SCRATCHPAD])
