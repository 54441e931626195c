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
    "first_states",
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
def _lane_state(
    block: U8, buckets: U8, counts: I64, lanes: tuple[int, int, int], first: int
) -> int:
    """Return a lane's state in front of its tail, too large a one if it has to be.

    Args:
        block: `[n]` bytes.
        buckets: `[256]` the bucket of each byte.
        counts: `[2, BUCKETS]` as `code_symbols` has them.
        lanes: the lane, of how many, and the elements of a tail.
        first: the state behind the last element.
    """
    lane, count, tail = lanes
    x = first
    for k in range(tail):
        i = (len(block) - 1 - lane) // count * count + lane - k * count
        if i < 0 or x > 2 * _LEAST:
            break
        b = buckets[block[i]]
        x = (x // counts[0, b] << SLOT_BITS) + counts[1, b] + x % counts[0, b]
    return int(x)


@njit
def first_states(block: U8, buckets: U8, counts: I64, most: int, states: I64) -> int:
    """Fill the states behind the last elements; return how many of each lane make its tail.

    A tail is as long as the states of all lanes in front of it are in their range: from there on
    they run down, and no bits follow.

    Args:
        block: `[n]` bytes.
        buckets: `[256]` the bucket of each byte.
        counts: `[2, BUCKETS]` as `code_symbols` has them.
        most: elements of a lane's tail, at most.
        states: `[lanes]` the result.
    """
    lanes, trial = len(states), np.empty(len(states), np.int64)
    for tail in range(1, most + 1):
        for lane in range(lanes):
            low, high = 0, _LEAST
            while low < high:
                middle = (low + high) // 2
                if _lane_state(block, buckets, counts, (lane, lanes, tail), middle) < _LEAST:
                    low = middle + 1
                else:
                    high = middle
            trial[lane] = low
            if _lane_state(block, buckets, counts, (lane, lanes, tail), low) >= 2 * _LEAST:
                return tail - 1
        states[:] = trial
    return most


@njit
def code_symbols(
    block: U8, buckets: U8, extras: U8, counts: I64, tail: int, states: I64, fields: U32
) -> int:
    """Fill what an encoder writes for each element, last to first; return the bits in all.

    Args:
        block: `[n]` bytes.
        buckets: `[256]` the bucket of each byte.
        extras: `[256]` the number of each byte in its bucket.
        counts: `[2, BUCKETS]` the count of each bucket, and the sum of those before it.
        tail: elements of each lane that no bits of its state follow.
        states: `[lanes]` of `first_states`; the result: before the first elements.
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
        x = states[lane]
        if i < n - tail * (last_lane + 1):
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
def read_symbols(
    stream: U8, bit: int, coding: tuple[int, int], counts: I64, states: I64, symbols: U8
) -> int:
    """Read the elements of a block; return the place behind, `TOO_SHORT` or `EXCESS_SYMBOL`.

    Args:
        stream: its bytes, and `PADDING` more.
        bit: the place of the first element.
        coding: symbols are below the first; elements of each lane that no bits of its state follow.
        counts: `[2, BUCKETS]` the count of each bucket, and the sum of those before it.
        states: `[lanes]` before the first elements; overwritten.
        symbols: `[n]` the result.
    """
    n, lanes, end = len(symbols), len(states), 8 * (len(stream) - PADDING)
    entries, tail = coding
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
        if i < n - tail * lanes:
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
