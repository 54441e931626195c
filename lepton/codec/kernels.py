"""Groups of symbols as bits: how many they take, writing and reading them.

A group is a code of `CODE_BITS`, perhaps a mask, and the symbols; the manual of the instruction
set (`weights`) has the layout.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.jit import njit

__all__ = [
    "CODE_BITS",
    "EXCESS_SYMBOL",
    "GROUP_SIZES",
    "LEAST_GROUP",
    "PADDING",
    "TOO_SHORT",
    "fold_distances",
    "fold_symbols",
    "get_bits",
    "group_bits",
    "put_bits",
    "read_groups",
    "stored_symbols",
    "write_groups",
]

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

LEAST_GROUP = 8
GROUP_SIZES = 6
"""Groups have `LEAST_GROUP` elements, or that times a power of two, in so many sizes."""

CODE_BITS = 4
_DENSE = 8
"""Codes up to this one are the bits of each symbol."""
_LEAST_MASKED = 2
"""Bits of a symbol under a mask, at least."""
_TO_CODE = _DENSE + 1 - _LEAST_MASKED
"""A mask with symbols of w bits has code w + this."""

PADDING = 3
"""Bytes behind a stream that `get_bits` may look at."""

_U64 = np.uint64
_ONES = np.uint64(0x0101010101010101)
_TOPS = np.uint64(0x8080808080808080)
"""The lowest and the highest bit of each of eight bytes."""

TOO_SHORT = -1
EXCESS_SYMBOL = -2
"""What `read_groups` returns for a damaged stream."""


_WIDTHS = np.array([value.bit_length() for value in range(256)], np.int64)
"""Bits that each symbol needs."""


@njit
def _bits_of(size: int, every: int, masked: int, count: int) -> tuple[int, int]:
    """Return the bits of a group behind its code, and the code.

    Args:
        size: its elements.
        every: the bitwise or of its symbols.
        masked: the bitwise or of its symbols that are not 0, each less 1.
        count: how many are not 0.
    """
    dense, width = _WIDTHS[every], max(_WIDTHS[masked], _LEAST_MASKED)
    if size + count * width < size * dense:
        return size + count * width, width + _TO_CODE
    return size * dense, dense


@njit(allocates=False)
def fold_symbols(block: U8, symbol_of: U8, folds: I64) -> None:
    """Fill `[3, groups]` with what `_bits_of` takes of each least group of a block.

    Args:
        block: `[n]` bytes.
        symbol_of: `[256]` the symbol of each byte.
        folds: the result: every, masked, count.
    """
    folds[:] = 0
    for i in range(len(block)):
        symbol, group = int(symbol_of[block[i]]), i // LEAST_GROUP
        if symbol:
            folds[0, group] |= symbol
            folds[1, group] |= symbol - 1
            folds[2, group] += 1


@njit(inlined=True)
def _fold(word: np.uint64) -> np.uint64:
    """Return the bitwise or of the bytes of a word."""
    word |= word >> _U64(32)
    word |= word >> _U64(16)
    return (word | word >> _U64(8)) & _U64(0xFF)


@njit(allocates=False)
def fold_distances(words: U64, zero: int, folds: I64) -> None:
    """Fill `[3, groups]` like `fold_symbols`, with distances from a byte as symbols.

    Eight bytes are worked on side by side, each in its part of a word.

    Args:
        words: `[groups]` eight bytes each.
        zero: the byte of the distance 0.
        folds: the result.
    """
    subtrahend = _U64(zero) * _ONES
    for group in range(len(words)):
        word = words[group]
        # each byte less `zero`, without a borrow from the next
        distance = ((word | _TOPS) - (subtrahend & ~_TOPS)) ^ ((word ^ ~subtrahend) & _TOPS)
        negative = ((distance & _TOPS) >> _U64(7)) * _U64(0xFF)
        symbols = ((distance & ~_TOPS) << _U64(1)) ^ negative
        is_some = ((((symbols & ~_TOPS) + ~_TOPS) | symbols) & _TOPS) >> _U64(7)
        folds[0, group] = _fold(symbols)
        folds[1, group] = _fold(symbols - is_some)
        folds[2, group] = (is_some * _ONES) >> _U64(56)


@njit(allocates=False)
def group_bits(folds: I64, size: int, bits: I64) -> None:
    """Fill `bits` `[GROUP_SIZES]` with the bits of a block in groups of each size.

    Args:
        folds: `[3, groups]` of the block; overwritten.
        size: of the block.
        bits: the result.
    """
    every, masked, count = folds[0], folds[1], folds[2]
    groups = len(every)
    for level in range(GROUP_SIZES):
        most = LEAST_GROUP << level
        total = groups * CODE_BITS
        for g in range(groups):
            own = min(most, size - g * most)
            total += _bits_of(own, every[g], masked[g], count[g])[0]
        bits[level] = total
        for g in range(groups // 2):
            every[g] = every[2 * g] | every[2 * g + 1]
            masked[g] = masked[2 * g] | masked[2 * g + 1]
            count[g] = count[2 * g] + count[2 * g + 1]
        if groups % 2:
            last = groups - 1
            every[last // 2], masked[last // 2] = every[last], masked[last]
            count[last // 2] = count[last]
        groups = (groups + 1) // 2


@njit(inlined=True)
def put_bits(stream: U8, bit: int, value: int, width: int) -> int:
    """Write a value of `width` <= 16 bits over zeros; return the next bit's place."""
    shifted, byte = value << (bit & 7), bit >> 3
    while shifted:
        stream[byte] |= shifted & 255
        shifted >>= 8
        byte += 1
    return bit + width


@njit(inlined=True)
def get_bits(stream: U8, bit: int, width: int) -> int:
    """Return `width` <= 16 bits; the stream has `PADDING` bytes more than are read."""
    byte = bit >> 3
    three = int(stream[byte]) | int(stream[byte + 1]) << 8 | int(stream[byte + 2]) << 16
    return (three >> (bit & 7)) & ((1 << width) - 1)


@njit
def write_groups(block: U8, symbol_of: U8, group: int, stream: U8, bit: int) -> None:
    """Write a block as groups from `bit` on into a stream of zeros.

    Args:
        block: `[n]` bytes.
        symbol_of: `[256]` the symbol of each byte.
        group: elements of a group.
        stream: the bytes written to.
        bit: the place of the first group.
    """
    for start in range(0, len(block), group):
        stop = min(start + group, len(block))
        every = masked = count = 0
        for i in range(start, stop):
            symbol = int(symbol_of[block[i]])
            if symbol:
                every, masked, count = every | symbol, masked | (symbol - 1), count + 1
        code = _bits_of(stop - start, every, masked, count)[1]
        bit = put_bits(stream, bit, code, CODE_BITS)
        less = 0
        if code > _DENSE:
            less = 1
            for i in range(start, stop):
                bit = put_bits(stream, bit, 1 if symbol_of[block[i]] else 0, 1)
        width = code - less * _TO_CODE
        for i in range(start, stop):
            symbol = int(symbol_of[block[i]])
            if symbol >= less:
                bit = put_bits(stream, bit, symbol - less, width)


@njit
def _read_masked(stream: U8, bit: int, end: int, width: int, entries: int, symbols: U8) -> int:
    """Read the mask and the symbols of a group; return the next bit's place, or the fault."""
    size = len(symbols)
    mask = bit
    bit += size
    if bit > end:
        return TOO_SHORT
    for i in range(size):
        symbols[i] = 0
        if get_bits(stream, mask + i, 1):
            if bit + width > end:
                return TOO_SHORT
            symbol = get_bits(stream, bit, width) + 1
            if symbol >= entries:
                return EXCESS_SYMBOL
            symbols[i] = symbol
            bit += width
    return bit


@njit
def read_groups(stream: U8, bit: int, group: int, entries: int, symbols: U8) -> int:
    """Read the groups of a block; return the place behind them, `TOO_SHORT` or `EXCESS_SYMBOL`.

    Args:
        stream: its bytes, and `PADDING` more.
        bit: the place of the first group.
        group: elements of a group.
        entries: symbols are below this.
        symbols: `[n]` the result.
    """
    end = 8 * (len(stream) - PADDING)
    for start in range(0, len(symbols), group):
        mine = symbols[start : start + group]
        if bit + CODE_BITS > end:
            return TOO_SHORT
        code = get_bits(stream, bit, CODE_BITS)
        bit += CODE_BITS
        if code > _DENSE:
            bit = _read_masked(stream, bit, end, code - _TO_CODE, entries, mine)
            if bit < 0:
                return bit
            continue
        if bit + code * len(mine) > end:
            return TOO_SHORT
        for i in range(len(mine)):
            symbol = get_bits(stream, bit, code)
            if symbol >= entries:
                return EXCESS_SYMBOL
            mine[i] = symbol
            bit += code
    return bit


@njit
def stored_symbols(stream: U8, bit: int, group: int, size: int) -> int:
    """Return how many elements of a block have a symbol of at least one bit in its stream.

    Args:
        stream: the bytes of one that `read_groups` reads without a fault, and `PADDING` more.
        bit: the place of the first group.
        group: elements of a group.
        size: of the block.
    """
    stored = 0
    for start in range(0, size, group):
        own = min(group, size - start)
        code = get_bits(stream, bit, CODE_BITS)
        bit += CODE_BITS
        width = code
        if code > _DENSE:
            width = code - _TO_CODE
            mask, own_stored = bit, 0
            bit += own
            for i in range(own):
                own_stored += get_bits(stream, mask + i, 1)
            own = own_stored
        stored += own if width else 0
        bit += width * own
    return stored
