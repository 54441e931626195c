"""Blocks of weights as streams, and back; the manual of the instruction set has the formats.

A byte becomes a symbol (`lepton.codec.symbols`), and symbols become bits: groups of as many as each
group needs, or entropy-coded for decoders that can expand that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton.codec.decoder import Decoder
from lepton.codec.entropy import (
    distance_coding,
    expand_entropy,
    lanes_of,
    palette_coding,
    tail_of,
)
from lepton.codec.kernels import (
    EXCESS_SYMBOL,
    GROUP_SIZES,
    LEAST_GROUP,
    PADDING,
    TOO_SHORT,
    fold_distances,
    fold_symbols,
    group_bits,
    read_groups,
    stored_symbols,
    write_groups,
)
from lepton.codec.symbols import (
    LOW_BITS,
    Symbols,
    by_distance,
    by_palette,
    middle,
    read_distances,
    read_gap,
    read_palette,
)
from lepton.errors import CheckError
from lepton.isa.instructions import WeightFormat

__all__ = [
    "Coding",
    "Preference",
    "WeightStream",
    "codings",
    "decode_weights",
    "decoded_elements",
    "decoder_fault",
    "encode_weights",
    "preferred",
    "soonest",
    "stored_bytes",
]

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]
Preference = Callable[[WeightFormat, int, int], tuple[float, ...]]
"""Cost of storing a block in a format: stored bytes, elements decoded; the least is taken."""

_LARGEST_GROUP = LEAST_GROUP << (GROUP_SIZES - 1)
"""Elements of the largest group."""
_ZEROS_PER_CYCLE = 8
"""Elements whose bits of a mask are looked at in the time of a symbol."""
_ENTROPY = (WeightFormat.ENTROPY, WeightFormat.ENTROPY_PALETTE)
_HEADERS = {
    WeightFormat.GROUPED: read_distances,
    WeightFormat.PALETTE: read_palette,
    WeightFormat.ENTROPY: read_gap,
    WeightFormat.ENTROPY_PALETTE: read_palette,
}
"""Reads what symbols are."""


@dataclass(frozen=True)
class WeightStream:
    """A block of weights as it is stored."""

    format: WeightFormat
    content: U8
    """`[bytes]`."""


@dataclass(frozen=True)
class Coding:
    """One way to store a block, and what it comes to."""

    format: WeightFormat
    size_bytes: int
    content: Callable[[], U8]
    elements: int
    """That keep the decoder busy."""


def _least_group(decoder_bytes_per_cycle: int) -> int:
    """Return the elements of the smallest group that a decoder of this rate keeps up with.

    It finds where two groups end in a cycle, each by the code of the one before.
    """
    group = LEAST_GROUP
    while 2 * group < decoder_bytes_per_cycle:
        group *= 2
    return group


def _folds(block: U8, symbols: Symbols) -> I64:
    """Return what of each least group of a block its bits follow from, `[3, groups]`."""
    folds = np.empty((3, -(-block.size // LEAST_GROUP)), np.int64)
    if symbols.zero is None:
        fold_symbols(block, symbols.symbol_of, folds)
        return folds
    whole = block.size // LEAST_GROUP * LEAST_GROUP
    fold_distances(block[:whole].view(np.uint64), symbols.zero, folds)
    fold_symbols(block[whole:], symbols.symbol_of, folds[:, whole // LEAST_GROUP :])
    return folds


def _grouped(format: WeightFormat, symbols: Symbols, block: U8, decoder: Decoder) -> Coding:
    """Return a coding with the size of group that suits it best."""
    bits = np.empty(GROUP_SIZES, np.int64)
    group_bits(_folds(block, symbols), block.size, bits)
    first = (_least_group(decoder.bytes_per_cycle) // LEAST_GROUP).bit_length() - 1
    level = first + int(bits[first:].argmin())
    size = len(symbols.header) - (-int(bits[level]) // 8)

    def content() -> U8:
        stream = np.zeros(size, np.uint8)
        stream[: len(symbols.header)] = symbols.header
        stream[0] |= level
        start = 8 * len(symbols.header)
        write_groups(block, symbols.symbol_of, LEAST_GROUP << level, stream, start)
        return stream

    if not decoder.skips_zeros:
        return Coding(format, size, content, block.size)
    stream = content()
    elements = decoded_elements(WeightStream(format, stream), block.size)
    return Coding(format, size, lambda: stream, elements)


def _compressed(block: U8, decoder: Decoder) -> Iterator[Coding]:
    """Yield the codings of a block of at least one byte, but for raw."""
    counts = np.bincount(block, minlength=256)
    palette, centre = by_palette(counts), middle(counts)
    if _least_group(decoder.bytes_per_cycle) <= _LARGEST_GROUP:
        zeros = dict.fromkeys((int(counts.argmax()), centre))
        grouped = (_grouped(WeightFormat.GROUPED, by_distance(z), block, decoder) for z in zeros)
        yield min(grouped, key=lambda coding: coding.size_bytes)
        if palette is not None:
            yield _grouped(WeightFormat.PALETTE, palette, block, decoder)
    if decoder.entropy_lanes:
        coding = distance_coding(block, counts, centre, decoder.entropy_lanes)
        yield Coding(WeightFormat.ENTROPY, coding.size_bytes, coding.content, block.size)
        if palette is not None:
            coding = palette_coding(block, counts, palette, decoder.entropy_lanes)
            size = coding.size_bytes
            yield Coding(WeightFormat.ENTROPY_PALETTE, size, coding.content, block.size)


def codings(block: U8, decoder: Decoder) -> tuple[Coding, ...]:
    """Return the ways to store a block, raw first, then those that are shorter.

    They depend on the decoder, but not on the memory in front of it.
    """
    flat = np.ascontiguousarray(block).reshape(-1)
    others = _compressed(flat, decoder) if flat.size else ()
    raw = Coding(WeightFormat.RAW, flat.size, lambda: flat, flat.size)
    return raw, *(coding for coding in others if coding.size_bytes < flat.size)


def soonest(decoder: Decoder) -> Preference:
    """Prefer what comes soonest, and of those the shortest."""
    return lambda format, size, elements: (decoder.cycles(format, size, elements), size)


def preferred(
    sizes: Iterable[tuple[WeightFormat, int, int]], preference: Preference
) -> WeightFormat:
    """Return the preferred format of a block, given bytes and elements decoded of each."""
    return min(sizes, key=lambda stored: preference(*stored))[0]


def _best_coding(block: U8, decoder: Decoder, preference: Preference | None) -> Coding:
    """Return the preferred coding, the soonest by default."""
    made = {coding.format: coding for coding in codings(block, decoder)}
    sizes = ((coding.format, coding.size_bytes, coding.elements) for coding in made.values())
    return made[preferred(sizes, preference or soonest(decoder))]


def stored_bytes(block: U8, decoder: Decoder, preference: Preference | None = None) -> int:
    """Return the bytes of `encode_weights` without making them."""
    return _best_coding(block, decoder, preference).size_bytes


def encode_weights(
    block: U8, decoder: Decoder, preference: Preference | None = None
) -> WeightStream:
    """Return the stream of a block.

    Args:
        block: `[reduction, columns]` raw bytes.
        decoder: what it is for.
        preference: which of the formats to take; None for the `soonest`.
    """
    best = _best_coding(block, decoder, preference)
    return WeightStream(best.format, best.content())


def _group_size(content: U8) -> int:
    """Return the elements of a group.

    Raises:
        CheckError: there is no such size.
    """
    level = int(content[0]) & ((1 << LOW_BITS) - 1)
    if level >= GROUP_SIZES:
        raise CheckError(
            f"the weight stream's size of a group must be at most {GROUP_SIZES - 1}, not {level}"
        )
    return LEAST_GROUP << level


def decoder_fault(stream: WeightStream, decoder: Decoder) -> str:
    """Return why a decoder cannot expand a stream that `decode_weights` can, or nothing."""
    if stream.format == WeightFormat.RAW:
        return ""
    if stream.format in _ENTROPY:
        lanes, own = lanes_of(stream.content), decoder.entropy_lanes
        return "" if lanes == own else f"the stream is for {lanes} lanes, the decoder has {own}"
    rate, group = decoder.bytes_per_cycle, _group_size(stream.content)
    if group >= _least_group(rate):
        return ""
    return (
        f"a decoder of {rate} bytes per cycle needs groups of at least {_least_group(rate)} "
        f"elements, not {group}"
    )


def decode_weights(stream: WeightStream, size: int) -> U8:
    """Return the `[size]` bytes of a block.

    Raises:
        CheckError: the stream is damaged.
    """
    content, format = stream.content, stream.format
    if format == WeightFormat.RAW:
        if len(content) != size:
            raise CheckError("a raw stream must have reduction x columns bytes")
        return content
    header, byte_of = _HEADERS[format](content)
    symbols = np.empty(size, np.uint8)
    if format in _ENTROPY:
        tail = tail_of(content) if format == WeightFormat.ENTROPY else 1
        bit = expand_entropy(content, header, (len(byte_of), tail), symbols)
    else:
        padded = np.append(content, np.zeros(PADDING, np.uint8))
        bit = read_groups(padded, 8 * header, _group_size(content), len(byte_of), symbols)
    if bit == TOO_SHORT:
        raise CheckError(f"the weight stream ends before its {size} elements")
    if bit == EXCESS_SYMBOL:
        raise CheckError(f"the weight stream has a symbol beyond its {len(byte_of)}")
    left = 8 * len(content) - bit
    if left > 7 or int(content[-1]) >> (8 - left):
        raise CheckError(f"the weight stream goes on behind its {size} elements")
    return byte_of[symbols]


def decoded_elements(stream: WeightStream, size: int) -> int:
    """Return for how many elements of a block a decoder that skips zeros is busy.

    docs/timing.md, 7.3: those with a symbol in the stream and those that are no zeros, and at least
    one for every eight.

    Raises:
        CheckError: the stream is damaged.
    """
    content = stream.content
    decode_weights(stream, size)
    if stream.format == WeightFormat.RAW or stream.format in _ENTROPY:
        return size
    header, byte_of = _HEADERS[stream.format](content)
    if byte_of[0]:
        return size
    padded = np.append(content, np.zeros(PADDING, np.uint8))
    stored = stored_symbols(padded, 8 * header, _group_size(content), size)
    return max(stored, -(-size // _ZEROS_PER_CYCLE))
