"""Entropy-coded streams: the counts of the buckets, their size, writing and reading them."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.codec.entropy_kernels import (
    code_symbols,
    first_states,
    read_symbols,
    write_fields,
)
from lepton.codec.kernels import PADDING
from lepton.codec.symbols import BYTES_OF_DISTANCES, LOW_BITS, Symbols, by_distance
from lepton.errors import CheckError
from lepton.isa.entropy_format import (
    BUCKETS,
    EXTRA_BITS,
    FIRST_SYMBOLS,
    LEVEL_BITS,
    LEVEL_COUNTS,
    SLOT_BITS,
    STATE_BITS,
)

__all__ = ["EntropyCoding", "distance_coding", "expand_entropy", "lanes_of", "palette_coding"]
__all__ += ["tail_of"]

U8 = NDArray[np.uint8]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]

_COUNTS = np.array(LEVEL_COUNTS, np.int64)
_MIDDLES = np.sqrt(_COUNTS[1:-1] * _COUNTS[2:])
"""From here on the next count is nearer, as a ratio."""
_SLOTS = 1 << SLOT_BITS
_TAIL_AT = 4
"""Place of the tail in the first byte of a stream of distances."""
_MOST_TAIL = 16
"""Elements of a lane without bits of its state, at most."""
_EXTRA = np.array(EXTRA_BITS, np.int64)
_FIRST = np.array(FIRST_SYMBOLS, np.int64)
_FIRST_U8 = _FIRST.astype(np.uint8)
_BUCKET_OF = np.repeat(np.arange(BUCKETS, dtype=np.uint8), 1 << _EXTRA)[:256]


@dataclass(frozen=True)
class _Model:
    """How often each bucket is taken to occur."""

    most: int
    """The bucket whose count is what the others leave."""
    levels: I64
    """`[BUCKETS]`, 0 for `most`."""
    counts: I64
    """`[BUCKETS]`, together 2 ** `SLOT_BITS`."""
    bits: float
    """Of the elements, about."""


@dataclass(frozen=True)
class EntropyCoding:
    """A block as its encoder has it, not yet written."""

    header: bytes
    first_bit: int
    """The place of the first element."""
    fields: U32
    size_bytes: int

    def content(self) -> U8:
        """Return the stream, `[size_bytes]`."""
        stream = np.zeros(self.size_bytes, np.uint8)
        stream[: len(self.header)] = np.frombuffer(self.header, np.uint8)
        write_fields(self.fields, stream, self.first_bit)
        return stream


def _with_starts(counts: I64) -> I64:
    """Return counts, and below them the sums of those before each."""
    return np.stack((counts, np.cumsum(counts) - counts))


def _model(filled: I64) -> _Model:
    """Return the model of elements of which so many, `[BUCKETS]`, are in each bucket."""
    most = int(filled.argmax())
    levels = _MIDDLES.searchsorted(filled * (_SLOTS / int(filled.sum()))) + (filled > 0)
    levels[most] = 0
    counts = _COUNTS[levels]
    while counts.sum() >= _SLOTS:
        levels[counts.argmax()] -= 1
        counts = _COUNTS[levels]
    counts[most] = _SLOTS - counts.sum()
    # a bucket without elements has no count
    bits = filled @ (SLOT_BITS + _EXTRA - np.log2(counts + (counts == 0)))
    return _Model(most, levels, counts, float(bits))


class _Distances(NamedTuple):
    """Which symbols a block is coded by."""

    zero: int
    gap: int
    model: _Model


def _distances(counts: I64, zero: int) -> _Distances:
    """Return the best symbols by distance from `zero`, from how often each byte occurs.

    Pruned weights have a hole around it: no distance that is not 0 is below the threshold.
    """
    occurring = counts[BYTES_OF_DISTANCES + np.uint8(zero)]
    plain = _Distances(zero, 0, _model(np.add.reduceat(occurring, _FIRST)))
    gap = int(np.argmax(occurring[1:] > 0)) // 2
    if not gap:
        return plain
    near = np.concatenate((occurring[:1], occurring[1 + 2 * gap :], np.zeros(2 * gap, np.int64)))
    model = _model(np.add.reduceat(near, _FIRST))
    return _Distances(zero, gap, model) if model.bits + 8 < plain.model.bits else plain


def distance_coding(block: U8, counts: I64, centre: int, lanes: int) -> EntropyCoding:
    """Return the coding by distances from the most frequent byte or from the mean.

    Args:
        block: `[n]` bytes, at least one.
        counts: `[256]` how often each byte occurs.
        centre: a byte in the middle of those that occur.
        lanes: of the decoder, a power of two.
    """
    distances = (np.arange(256) - centre + 128) % 256 - 128
    mean = (centre + round(float(counts @ distances) / block.size)) % 256
    zeros = dict.fromkeys((int(counts.argmax()), mean))
    best = min((_distances(counts, zero) for zero in zeros), key=lambda each: each.model.bits)
    return _coding(block, by_distance(best.zero, best.gap), best.model, lanes, _MOST_TAIL)


def palette_coding(block: U8, counts: I64, palette: Symbols, lanes: int) -> EntropyCoding:
    """Return the coding by the entries of a palette; arguments as `distance_coding`."""
    filled = np.zeros(BUCKETS, np.int64)
    np.add.at(filled, _BUCKET_OF[palette.symbol_of], counts)
    return _coding(block, palette, _model(filled), lanes, 1)


def _coding(
    block: U8, symbols: Symbols, model: _Model, lanes: int, most_tail: int
) -> EntropyCoding:
    """Return a block coded by a model of its symbols, with a tail of so many elements at most."""
    states, fields = np.empty(lanes, np.int64), np.empty(block.size, np.uint32)
    buckets = _BUCKET_OF[symbols.symbol_of]
    extras = symbols.symbol_of - _FIRST_U8[buckets]
    counts = _with_starts(model.counts)
    tail = first_states(block, buckets, counts, most_tail, states)
    bits = code_symbols(block, buckets, extras, counts, tail, states, fields)
    head = int.from_bytes(symbols.header.tobytes(), "little") | lanes.bit_length() - 1
    head |= tail - 1 << _TAIL_AT
    place = 8 * len(symbols.header)
    levels = model.levels.tolist()
    listed = [b for b in range(_buckets(symbols.count)) if b != model.most]
    for value in (model.most, *(levels[b] for b in listed)):
        head |= value << place
        place += LEVEL_BITS
    for state in states.tolist():
        head |= (state - (1 << STATE_BITS)) << place
        place += STATE_BITS
    header = head.to_bytes(-(-place // 8), "little")
    return EntropyCoding(header, place, fields, -(-(place + bits) // 8))


def _buckets(symbols: int) -> int:
    """Return how many buckets have one of so many symbols."""
    return bisect_left(FIRST_SYMBOLS, symbols)


def tail_of(content: U8) -> int:
    """Return the elements of each lane that no bits follow, of a stream of distances."""
    return 1 + (int(content[0]) >> _TAIL_AT)


def lanes_of(content: U8) -> int:
    """Return the lanes of the decoder that a stream is for."""
    return 1 << (int(content[0]) & ((1 << LOW_BITS) - 1))


class _Header:
    """The fields in front of the elements."""

    def __init__(self, content: U8, place: int) -> None:
        self._value = int.from_bytes(content.tobytes(), "little")
        self._end = 8 * len(content)
        self.place = place

    def take(self, width: int) -> int:
        """Return the next field.

        Raises:
            CheckError: the stream ends inside it.
        """
        if self.place + width > self._end:
            raise CheckError("the weight stream ends inside its header")
        value = self._value >> self.place & ((1 << width) - 1)
        self.place += width
        return value


def _read_counts(header: _Header, symbols: int) -> I64:
    """Return the counts of the buckets of a stream with so many symbols.

    Raises:
        CheckError: there is no such bucket, or the counts are too large.
    """
    buckets = _buckets(symbols)
    most = header.take(LEVEL_BITS)
    if most >= buckets:
        raise CheckError(f"the weight stream has {buckets} buckets, none with the number {most}")
    counts = np.zeros(BUCKETS, np.int64)
    for b in range(buckets):
        counts[b] = _COUNTS[header.take(LEVEL_BITS)] if b != most else 0
    counts[most] = _SLOTS - counts.sum()
    if counts[most] < 1:
        raise CheckError(f"the weight stream's counts must leave bucket {most} one of {_SLOTS}")
    return counts


def expand_entropy(content: U8, header_bytes: int, coding: tuple[int, int], symbols: U8) -> int:
    """Read the symbols of a block; return the place behind them as `read_symbols` does.

    Args:
        content: the stream.
        header_bytes: of the header that says what symbols are.
        coding: symbols are below the first; elements of each lane in its tail.
        symbols: `[n]` the result.

    Raises:
        CheckError: the header is damaged.
    """
    lanes, (entries, tail) = lanes_of(content), coding
    # no header is longer: levels of all buckets and the states
    longest = header_bytes + -(-(LEVEL_BITS * BUCKETS + STATE_BITS * lanes) // 8)
    header = _Header(content[:longest], 8 * header_bytes)
    counts = _with_starts(_read_counts(header, entries))
    states = np.array([header.take(STATE_BITS) for _ in range(lanes)], np.int64)
    padded = np.append(content, np.zeros(PADDING, np.uint8))
    states += 1 << STATE_BITS
    return read_symbols(padded, header.place, (entries, tail), counts, states, symbols)
