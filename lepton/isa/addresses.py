"""Which fields of instructions are addresses of the scratchpad."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.isa.declaration import BY_MNEMONIC
from lepton.isa.encoding import COLUMNS
from lepton.isa.instructions import BinaryMode, PoolMode, Stationary

__all__ = ["PARAMETER_COLUMNS", "scratchpad_fields"]

I64 = NDArray[np.int64]

_FIELDS = {
    "load": ("scratchpad",),
    "store": ("scratchpad",),
    "matmul": ("ifm", "stationary_address"),
    "depthwise": ("ifm",),
    "requantize": ("parameters", "ofm"),
    "binary": ("a", "b", "parameters", "ofm"),
    "lut": ("ifm", "table", "ofm"),
    "copy": ("ifm", "ofm"),
    "fill": ("ofm",),
    "pool": ("ifm", "parameters", "ofm"),
    "softmax": ("ifm", "parameters", "ofm"),
    "resize": ("ifm", "parameters", "ofm"),
}

PARAMETER_COLUMNS = (COLUMNS["parameters"], COLUMNS["table"])
"""Columns of the fields that point at constants of the vector unit."""


def _used(rows: I64, name: str) -> NDArray[np.bool_]:
    """Return which of the rows of one opcode read what a field of theirs points at."""
    mnemonics = {BY_MNEMONIC[name].opcode: name for name in ("matmul", "binary", "pool")}
    mnemonic = mnemonics.get(int(rows[0, 0]))
    mode = rows[:, COLUMNS["mode"]]
    if mnemonic == "matmul" and name == "stationary_address":
        inside = (Stationary.SCRATCHPAD, Stationary.SCRATCHPAD_TRANSPOSED)
        return np.isin(rows[:, COLUMNS["stationary"]], inside)
    if mnemonic == "binary" and name == "parameters":
        return (mode != BinaryMode.MAXIMUM) & (mode != BinaryMode.MINIMUM)
    if mnemonic == "pool" and name == "parameters":
        return mode == PoolMode.AVERAGE_FLOAT32
    return np.ones(len(rows), np.bool_)


def scratchpad_fields(table: I64) -> I64:
    """Return `[m, 2]`: instruction and column of every address of the scratchpad that is used.

    Args:
        table: as `lepton.isa.records_of` gives it.
    """
    found = [np.zeros((0, 2), np.int64)]
    for mnemonic, names in _FIELDS.items():
        index = np.flatnonzero(table[:, 0] == BY_MNEMONIC[mnemonic].opcode)
        for name in names if len(index) else ():
            numbers = index[_used(table[index], name)]
            found.append(np.stack([numbers, np.full(len(numbers), COLUMNS[name])], axis=1))
    fields = np.concatenate(found)
    return fields[np.argsort(fields[:, 0], kind="stable")]
