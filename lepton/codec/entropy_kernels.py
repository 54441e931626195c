"""Symbols through range asymmetric numeral systems, one state per lane; the manual has the rules.

Source: J. Duda, Asymmetric numeral systems, 2013 (arXiv:1311.2540), the range variant, here
renormalized by bits; F. Giesen, Interleaved entropy coders, 2014 (arXiv:1402.3392), for the lanes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.codec.kernels import EXCESS_SYMBOL, PADDING, TOO_SHORT, get_bits
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
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]

_LEAST = 1 << STATE_BITS
_SLOTS = (1 << SLOT_BITS) - 1
_SHIFT = STATE_BITS - SLOT_BITS + 1
_INVERSE_BITS = 32
"""Of a fraction so exact that a state times it is a state divided, rounded down."""


@njit
def code_symbols(block: U8, buckets: U8, extras: U8, counts: I64, states: I64, fields: U32) -> int:
    """Fill what an encoder writes for each element, last to first; return the bits in all.

    Args:
        block: `[n]` bytes.
        buckets: `[256]` the bucket of each byte.
        extras: `[256]` the number of each byte in its bucket.
        counts: `[2, BUCKETS]` the count of each bucket, and the sum of those before it.
        states: `[lanes]` the result: before the first elements; kept where there is none.
        fields: `[n]` the result: each element's width in bits, times 2 ** 16, and its 16 bits.
    """
    n, last_lane, total = len(block), len(states) - 1, 0
    fewest, limits = np.zeros(BUCKETS, np.int64), np.zeros(BUCKETS, np.int64)
    inverses = np.zeros(BUCKETS, np.int64)
    for b in range(BUCKETS):
        count = max(counts[0, b], 1)
        # a state, below 2 * _LEAST, gives up these bits, or one more from this limit on
        while _LEAST >> fewest[b] >= count << _SHIFT:
            fewest[b] += 1
        limits[b] = count << _SHIFT << fewest[b]
        inverses[b] = (1 << _INVERSE_BITS) // count + 1
    for i in range(n - 1, -1, -1):
        b = buckets[block[i]]
        width, field = EXTRA_BITS[b], int(extras[block[i]])
        lane, start = i & last_lane, counts[1, b]
        if i >= n - last_lane - 1:
            states[lane] = _LEAST | start
        else:
            x = states[lane]
            bits = fewest[b] + (x >= limits[b])
            field = field << bits | (x & ((1 << bits) - 1))
            width += bits
            x >>= bits
            quotient = x * inverses[b] >> _INVERSE_BITS
            states[lane] = (quotient << SLOT_BITS) + start + x - quotient * counts[0, b]
        fields[i] = width << 16 | field
        total += width
    return total


@njit(allocates=False)
def write_fields(fields: U32, stream: U8, bit: int) -> None:
    """Write `code_symbols`'s fields from `bit` on into a stream of zeros."""
    byte, filled = bit >> 3, bit & 7
    waiting = int(stream[byte]) if byte < len(stream) else 0
    for i in range(len(fields)):
        field = int(fields[i])
        waiting |= (field & 0xFFFF) << filled
        filled += field >> 16
        while filled >= 8:
            stream[byte] = waiting & 255
            waiting >>= 8
            filled -= 8
            byte += 1
    if filled:
        stream[byte] = waiting


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
