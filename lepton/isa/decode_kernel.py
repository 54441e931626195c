"""The kernel that takes words apart; imported late, so that `lepton.isa` needs no Numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.jit import njit

__all__ = ["FIELD", "fill_table"]

I64 = NDArray[np.int64]

FIELD = ("column", "place", "shift", "bits", "mask")
"""Of a field: its column in the table; 64-bit part of the word and bit in which it begins; its
width; and the mask that makes it unsigned, -1 for a signed one."""


@njit(allocates=False)
def fill_table(words: I64, first: I64, fields: I64, table: I64) -> None:
    """Fill a table of zeros with the fields of every word.

    Args:
        words: `[n, 8]`.
        first: `[257]`, the fields of opcode k are [first[k], first[k + 1]).
        fields: `[fields, len(FIELD)]`.
        table: `[n, columns]`, the opcode first.
    """
    for i in range(len(words)):
        opcode = words[i, 0] & 0xFF
        table[i, 0] = opcode
        for f in range(first[opcode], first[opcode + 1]):
            column, place, shift = fields[f, 0], fields[f, 1], fields[f, 2]
            bits, mask = fields[f, 3], fields[f, 4]
            value = words[i, place] >> shift
            if shift + bits > 64:
                value &= (1 << (64 - shift)) - 1
                value |= words[i, place + 1] << (64 - shift)
            # shifted to the top and back down, which copies the sign
            table[i, column] = (value << (64 - bits)) >> (64 - bits) & mask
