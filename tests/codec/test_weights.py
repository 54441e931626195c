"""Weight streams: lossless, never larger than raw, refused when damaged."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lepton.codec import (
    Decoder,
    WeightStream,
    decode_weights,
    decoder_fault,
    encode_weights,
    stored_bytes,
)
from lepton.codec.kernels import fold_distances, fold_symbols
from lepton.codec.symbols import by_distance
from lepton.errors import CheckError
from lepton.isa.instructions import WeightFormat
from tests.naive_codec import expanded

U8 = NDArray[np.uint8]
GROUPED, PALETTE = WeightFormat.GROUPED, WeightFormat.PALETTE
RATES = st.sampled_from([1, 7, 16, 32, 100, 256, 512, 513, 4096])
DECODERS = st.builds(
    Decoder,
    RATES,
    st.sampled_from([0, 1, 4, 128]),
    st.sampled_from([Fraction(1), Fraction(7, 3), Fraction(40)]),
)
DECODER = Decoder(16)
FORMATS = [format for format in WeightFormat if format != WeightFormat.RAW]


@st.composite
def blocks(draw: st.DrawFn) -> U8:
    """Return weights of few values or of a range, signed or not, some of them one value."""
    shape = draw(st.integers(1, 70)), draw(st.integers(1, 33))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    zero = draw(st.integers(0, 255))
    kind = draw(st.sampled_from(["range", "bell", "values"]))
    if kind == "values":
        drawn = rng.choice(rng.integers(0, 256, draw(st.integers(1, 40))), shape)
    elif kind == "range":
        drawn = zero + rng.integers(0, draw(st.integers(1, 256)), shape)
    else:
        drawn = zero + np.rint(rng.normal(0, draw(st.sampled_from([0.5, 4, 30, 90])), shape))
    is_zero = rng.random(shape) < draw(st.sampled_from([0.0, 0.3, 0.8, 0.99, 1.0]))
    return np.where(is_zero, zero, drawn).astype(np.int64).astype(np.uint8)


@given(st.binary(min_size=8, max_size=64), st.integers(0, 255))
def test_groups_of_distances_are_folded_eight_bytes_at_a_time(raw: bytes, zero: int) -> None:
    block = np.frombuffer(raw[: len(raw) // 8 * 8], np.uint8)
    found, expected = np.empty((2, 3, len(block) // 8), np.int64)
    fold_distances(block.view(np.uint64), zero, found)
    fold_symbols(block, by_distance(zero).symbol_of, expected)
    assert np.array_equal(found, expected)


@given(blocks(), DECODERS)
def test_a_block_comes_back(block: U8, decoder: Decoder) -> None:
    stream = encode_weights(block, decoder)
    assert stream.content.size == stored_bytes(block, decoder) <= block.size
    assert (stream.format == WeightFormat.RAW) == (stream.content.size == block.size)
    np.testing.assert_array_equal(decode_weights(stream, block.size), block.ravel())
    assert expanded(stream.content.tolist(), stream.format, block.size) == block.ravel().tolist()
    assert not decoder_fault(stream, decoder)


@pytest.mark.parametrize(
    ("rate", "group"), [(1, 8), (16, 8), (17, 16), (32, 16), (33, 32), (256, 128), (512, 256)]
)
def test_a_decoder_ends_two_groups_in_a_cycle(rate: int, group: int) -> None:
    level = (group // 8).bit_length() - 1
    for size, message in ((level, ""), (level - 1, f"groups of at least {group} elements")):
        stream = WeightStream(GROUPED, np.array([max(size, 0), 0, 0], np.uint8))
        fault = decoder_fault(stream, Decoder(rate))
        assert message in fault if size >= 0 else not fault
        assert bool(message and size >= 0) == bool(fault)


def uniform(values: list[int], size: int = 4096) -> U8:
    """Return each of the values equally often, in no order."""
    return np.random.default_rng(1).permutation(np.resize(np.array(values), size)).astype(np.uint8)


def pruned(block: U8, share: float) -> U8:
    return np.where(np.random.default_rng(2).random(block.shape) < share, 0, block)


# bits of an element: a code of 4 per group, a mask's bit, the symbols
@pytest.mark.parametrize(
    ("block", "format", "bits"),
    [
        (uniform([7]), GROUPED, 4 / 256),
        (uniform(list(range(40, 56))), GROUPED, 4 + 4 / 256),
        (uniform([250, 251, 252, 253, 254, 255, 0, 1]), GROUPED, 3 + 4 / 256),
        (uniform(list(range(0, 256, 16))), PALETTE, 4 + 4 / 256),
        (uniform(list(range(0, 256, 8))), PALETTE, 5 + 4 / 256),
        (pruned(uniform(list(range(256))), 0.9), GROUPED, 1 + 0.8 + 4 / 256),
        (pruned(uniform(list(range(1, 256, 16))), 0.9), PALETTE, 1.4 + 4 / 256),
        (np.append(uniform([0]), uniform(list(range(256)))), GROUPED, 4 + 4 / 256),
    ],
)
def test_a_regular_block_takes_the_bits_of_its_format(
    block: U8, format: WeightFormat, bits: float
) -> None:
    stream = encode_weights(block, DECODER)
    assert stream.format == format
    assert 8 * stream.content.size / block.size == pytest.approx(bits, rel=0.05, abs=0.09)


def test_what_nothing_makes_shorter_is_raw() -> None:
    block = uniform(list(range(256)))
    np.testing.assert_array_equal(encode_weights(block, DECODER).content, block)
    # no group is large enough for so fast a decoder
    assert encode_weights(uniform([5]), Decoder(1024)).format == WeightFormat.RAW


def stream_of(block: U8) -> bytes:
    return encode_weights(block, DECODER).content.tobytes()


def fault(content: bytes, format: WeightFormat, size: int) -> str:
    """Return what is wrong with a stream."""
    with pytest.raises(CheckError) as caught:
        decode_weights(WeightStream(format, np.frombuffer(content, np.uint8)), size)
    return str(caught.value)


def test_a_damaged_stream_is_refused() -> None:
    size = 100
    narrow, shared = uniform([1, 2, 3, 4, 5], size), uniform([9, 99, 199], size)
    grouped, palette = stream_of(narrow), stream_of(shared)
    assert "goes on behind its 100" in fault(grouped + b"\0", GROUPED, size)
    left_over = palette[:-1] + bytes([palette[-1] | 0x10])  # it ends in the middle of a byte
    assert "goes on behind its 100" in fault(left_over, PALETTE, size)
    assert "ends before its 100 elements" in fault(grouped[:-1], GROUPED, size)
    assert "ends before its 100 elements" in fault(palette[: len(palette) // 2], PALETTE, size)
    assert "ends inside its header" in fault(grouped[:1], GROUPED, size)
    assert "ends inside its header" in fault(b"", PALETTE, size)
    assert "ends inside its palette" in fault(palette[:3], PALETTE, size)
    assert "has a symbol beyond its 3" in fault(palette[:4] + b"\xf2\xff" * 9, PALETTE, 64)
    assert "has a byte twice" in fault(palette[:1] + b"\1\1\1" + palette[4:], PALETTE, size)
    assert "bits that must be 0" in fault(b"\x08" + grouped[1:], GROUPED, size)
    assert "at most 5, not 6" in fault(b"\x06" + grouped[1:], GROUPED, size)
    assert "raw stream must have" in fault(grouped, WeightFormat.RAW, size)


def test_a_symbol_beyond_a_byte_is_refused() -> None:
    # code 15: a mask and symbols of 8 bits; 255 would be symbol 256
    content = bytes([0, 0, 0x1F, 0xF0, 0x0F, 0, 0])
    assert "has a symbol beyond its 256" in fault(content, GROUPED, 8)


@given(st.binary(max_size=80), st.sampled_from(FORMATS), st.integers(1, 300))
def test_any_bytes_are_expanded_as_the_manual_says_or_refused(
    content: bytes, format: WeightFormat, size: int
) -> None:
    stream = WeightStream(format, np.frombuffer(content, np.uint8))
    try:
        made = decode_weights(stream, size)
    except CheckError:
        return
    assert made.tolist() == expanded(list(content), format, size)
