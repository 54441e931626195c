"""Symbols through range asymmetric numeral systems, one state per lane; the manual has the rules.

Source: J. Duda, Asymmetric numeral systems, 2013 (arXiv:1311.2540), the range variant, here
renormalized by bits; F. Giesen, Interleaved entropy coders, 2014 (arXiv:1402.3392), for the lanes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.codec.kernels import EXCESS_SYMBOL, PADDING, TOO_SHORT, get_bits, put_bits
from lepton.isa.entropy_format import (
    BUCKETS,
    EXTRA_BITS,
    FIRST_SYMBOLS,
    SLOT_BITS,
    STATE_BITS,
)
from lepton.jit import njit

__all__ = [
    "code_symbols",
    "read_symbols",
    "write_fields",
]

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]

_LEAST = 1 << STATE_BITS
_SLOTS = (1 << SLOT_BITS) - 1
_SHIFT = STATE_BITS - SLOT_BITS + 1


@njit
def code_symbols(symbols: U8, bucket_of: U8, counts: I64, states: I64, fields: U8) -> int:
    """Fill what an encoder writes for each element, last to first; return the bits in all.

    Args:
        symbols: `[n]`.
        bucket_of: `[256]` the bucket of each symbol.
        counts: `[2, BUCKETS]` the count of each bucket, and the sum of those before it.
        states: `[lanes]` the result: before the first elements; kept where there is none.
        fields: `[n, 3]` the result: each element's width in bits, and its 16 bits.
    """
    n, lanes, total = len(symbols), len(states), 0
    for i in range(n - 1, -1, -1):
        symbol = int(symbols[i])
        b = int(bucket_of[symbol])
        width, field = EXTRA_BITS[b], symbol - FIRST_SYMBOLS[b]
        lane, count, start = i % lanes, counts[0, b], counts[1, b]
        if i >= n - lanes:
            states[lane] = _LEAST | start
        else:
            x, bits = states[lane], 0
            while x >> bits >= count << _SHIFT:
                bits += 1
            field = field << bits | (x & ((1 << bits) - 1))
            width += bits
            x >>= bits
            quotient = x // count
            states[lane] = (quotient << SLOT_BITS) + start + x - quotient * count
        fields[i, 0], fields[i, 1], fields[i, 2] = width, field & 255, field >> 8
        total += width
    return total


@njit
def write_fields(fields: U8, stream: U8, bit: int) -> None:
    """Write `code_symbols`'s fields from `bit` on into a stream of zeros."""
    for i in range(len(fields)):
        field = int(fields[i, 1]) | int(fields[i, 2]) << 8
        bit = put_bits(stream, bit, field, int(fields[i, 0]))


@njit
def read_symbols(stream: U8, bit: int, entries: int, counts: I64, states: I64, symbols: U8) -> int:
    """Read the elements of a block; return the place behind, `TOO_SHORT` or `EXCESS_SYMBOL`.

    Args:
        stream: its bytes, and `PADDING` more.
        bit: the place of the first element.
        entries: symbols are below this.
        counts: `[2, BUCKETS]` the count of each bucket, and the sum of those before it.
        states: `[lanes]` before the first elements; overwritten.
        symbols: `[n]` the result.
    """
    n, lanes, end = len(symbols), len(states), 8 * (len(stream) - PADDING)
    bucket_at = np.empty(_SLOTS + 1, np.uint8)
    for b in range(BUCKETS):
        for slot in range(counts[1, b], counts[1, b] + counts[0, b]):
            bucket_at[slot] = b
    for i in range(n):
        lane = i % lanes
        x = states[lane]
        b = int(bucket_at[x & _SLOTS])
        x = counts[0, b] * (x >> SLOT_BITS) + (x & _SLOTS) - counts[1, b]
        bits = 0
        if i < n - lanes:
            while x << bits < _LEAST:
                bits += 1
        width = bits + EXTRA_BITS[b]
        if bit + width > end:
            return TOO_SHORT
        field = get_bits(stream, bit, width)
        bit += width
        states[lane] = x << bits | (field & ((1 << bits) - 1))
        symbol = FIRST_SYMBOLS[b] + (field >> bits)
        if symbol >= entries:
            return EXCESS_SYMBOL
        symbols[i] = symbol
    return bit
