"""Blocks of weights as streams, and back; the manual of the instruction set has the formats.

A byte becomes a symbol, and groups of symbols become bits: in `grouped` a symbol is the distance
from a value of the stream's own, in `palette` the number of an entry. The value or entry 0 is the
most frequent byte, so zeros cost what their group's mask costs, whatever the zero point is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton.codec.kernels import (
    EXCESS_SYMBOL,
    GROUP_SIZES,
    LEAST_GROUP,
    TOO_SHORT,
    group_bits,
    read_groups,
    write_groups,
)
from lepton.errors import CheckError
from lepton.isa.instructions import WeightFormat

__all__ = [
    "WeightStream",
    "decode_weights",
    "encode_weights",
    "group_size",
    "least_group",
    "stored_bytes",
]

U8 = NDArray[np.uint8]

_LARGEST_GROUP = LEAST_GROUP << (GROUP_SIZES - 1)
"""Elements of the largest group."""
_GROUP_BITS = 3
"""Bits of the header's first byte that are the size of a group."""
_ENTRIES = 32
"""Entries of a palette, at most."""
_DISTANCE = np.arange(256, dtype=np.int64).astype(np.uint8).view(np.int8).astype(np.int64)
_SYMBOL_OF_DISTANCE = np.where(_DISTANCE < 0, -2 * _DISTANCE - 1, 2 * _DISTANCE).astype(np.uint8)
"""`[256]`: 0, 1, -1, 2, ... as bytes become 0, 2, 1, 4, ..."""


@dataclass(frozen=True)
class WeightStream:
    """A block of weights as it is stored."""

    format: WeightFormat
    content: U8
    """`[bytes]`."""


@dataclass(frozen=True)
class _Coding:
    """One way to store a block, and what it comes to."""

    format: WeightFormat
    header: U8
    """`[bytes]`, the first without the size of the groups."""
    symbol_of: U8
    """`[256]`."""
    level: int
    """The group has `LEAST_GROUP` << level elements."""
    size_bytes: int


def least_group(decoder_bytes_per_cycle: int) -> int:
    """Return the elements of the smallest group that a decoder of this rate keeps up with.

    It finds where two groups end in a cycle, each by the code of the one before.
    """
    group = LEAST_GROUP
    while 2 * group < decoder_bytes_per_cycle:
        group *= 2
    return group


def _coding(format: WeightFormat, header: U8, symbol_of: U8, block: U8, least: int) -> _Coding:
    """Return a coding with the size of group that suits it best."""
    bits = np.empty(GROUP_SIZES, np.int64)
    group_bits(block, symbol_of, bits)
    first = (least // LEAST_GROUP).bit_length() - 1
    level = first + int(bits[first:].argmin())
    return _Coding(format, header, symbol_of, level, len(header) - (-int(bits[level]) // 8))


def _distance_coding(zero: int, block: U8, least: int) -> _Coding:
    """Return the coding by distances from `zero`."""
    header = np.array([0, zero], np.uint8)
    return _coding(WeightFormat.GROUPED, header, np.roll(_SYMBOL_OF_DISTANCE, zero), block, least)


def _palette_coding(counts: NDArray[np.int64], block: U8, least: int) -> _Coding:
    """Return the coding by a palette of all bytes that occur, frequent ones first."""
    entries = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    symbol_of = np.zeros(256, np.uint8)
    symbol_of[entries] = np.arange(len(entries))
    header = np.concatenate(([(len(entries) - 1) << _GROUP_BITS], entries)).astype(np.uint8)
    return _coding(WeightFormat.PALETTE, header, symbol_of, block, least)


def _centre(counts: NDArray[np.int64]) -> int:
    """Return the middle of the shortest range, modulo 256, that holds all bytes that occur."""
    used = np.flatnonzero(counts)
    gaps = np.diff(np.append(used, used[0] + 256))
    widest = int(gaps.argmax())
    first, span = int(used[(widest + 1) % len(used)]), 256 - int(gaps[widest])
    return (first + (span + 1) // 2) % 256


def _best_coding(block: U8, decoder_bytes_per_cycle: int) -> _Coding | None:
    """Return the shortest coding, or None if raw is as short."""
    least = least_group(decoder_bytes_per_cycle)
    if least > _LARGEST_GROUP or not block.size:
        return None
    counts = np.bincount(block, minlength=256)
    zeros = dict.fromkeys((int(counts.argmax()), _centre(counts)))
    codings = [_distance_coding(zero, block, least) for zero in zeros]
    if np.count_nonzero(counts) <= _ENTRIES:
        codings.append(_palette_coding(counts, block, least))
    best = min(codings, key=lambda coding: coding.size_bytes)
    return best if best.size_bytes < block.size else None


def stored_bytes(block: U8, decoder_bytes_per_cycle: int) -> int:
    """Return the bytes of `encode_weights` without making them."""
    best = _best_coding(block.reshape(-1), decoder_bytes_per_cycle)
    return best.size_bytes if best else block.size


def encode_weights(block: U8, decoder_bytes_per_cycle: int) -> WeightStream:
    """Return the shortest stream of a block for a decoder that expands so many bytes per cycle.

    Args:
        block: `[reduction, columns]` raw bytes.
        decoder_bytes_per_cycle: the rate of the chip's decoder; groups are large enough for it.
    """
    flat = np.ascontiguousarray(block).reshape(-1)
    best = _best_coding(flat, decoder_bytes_per_cycle)
    if best is None:
        return WeightStream(WeightFormat.RAW, flat)
    stream = np.zeros(best.size_bytes, np.uint8)
    stream[: len(best.header)] = best.header
    stream[0] |= best.level
    group = LEAST_GROUP << best.level
    write_groups(flat, best.symbol_of, group, stream, 8 * len(best.header))
    return WeightStream(best.format, stream)


def _read_header(stream: WeightStream) -> tuple[U8, U8]:
    """Return the header and the byte of each symbol.

    Raises:
        CheckError: the header is damaged.
    """
    content = stream.content
    if len(content) < 2:
        raise CheckError("the weight stream ends inside its header")
    rest = int(content[0]) >> _GROUP_BITS
    if stream.format == WeightFormat.GROUPED:
        if rest:
            raise CheckError("the weight stream's header has bits that must be 0")
        byte_of = np.empty(256, np.uint8)
        byte_of[np.roll(_SYMBOL_OF_DISTANCE, int(content[1]))] = np.arange(256)
        return content[:2], byte_of
    header = content[: rest + 2]
    if len(header) < rest + 2:
        raise CheckError("the weight stream ends inside its palette")
    if len(np.unique(header[1:])) <= rest:
        raise CheckError("the weight stream's palette has a byte twice")
    return header, header[1:]


def group_size(stream: WeightStream) -> int:
    """Return the elements of a group of a stream that is not raw.

    Raises:
        CheckError: the header is damaged.
    """
    level = int(stream.content[0]) & ((1 << _GROUP_BITS) - 1)
    if level >= GROUP_SIZES:
        raise CheckError(
            f"the weight stream's size of a group must be at most {GROUP_SIZES - 1}, not {level}"
        )
    return LEAST_GROUP << level


def decode_weights(stream: WeightStream, size: int) -> U8:
    """Return the `[size]` bytes of a block.

    Raises:
        CheckError: the stream is damaged.
    """
    if stream.format == WeightFormat.RAW:
        if len(stream.content) != size:
            raise CheckError("a raw stream must have reduction x columns bytes")
        return stream.content
    header, byte_of = _read_header(stream)
    group = group_size(stream)
    padded = np.append(stream.content, np.zeros(2, np.uint8))
    symbols = np.empty(size, np.uint8)
    end = 8 * len(stream.content)
    bit = read_groups(padded, 8 * len(header), end, group, len(byte_of), symbols)
    if bit == TOO_SHORT:
        raise CheckError(f"the weight stream ends before its {size} elements")
    if bit == EXCESS_SYMBOL:
        raise CheckError(f"the weight stream has a symbol beyond its {len(byte_of)}")
    if end - bit > 7 or int(stream.content[-1]) >> (8 - (end - bit)):
        raise CheckError(f"the weight stream goes on behind its {size} elements")
    return byte_of[symbols]
