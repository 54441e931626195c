"""Entropy-coded streams: near the entropy, taken where they come sooner, refused when damaged."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lepton.codec import Decoder, WeightStream, decode_weights, encode_weights, stored_bytes
from lepton.codec.decoder import decoder_cycles
from lepton.errors import CheckError
from lepton.isa.entropy_format import BUCKETS, EXTRA_BITS, FIRST_SYMBOLS
from lepton.isa.instructions import WeightFormat
from tests.naive_codec import expanded

U8 = NDArray[np.uint8]
ENTROPY, PALETTE = WeightFormat.ENTROPY, WeightFormat.ENTROPY_PALETTE
DECODER = Decoder(16, 8)


def bytes_of(values: NDArray[np.float64]) -> U8:
    return np.rint(values).clip(-127, 127).astype(np.int64).astype(np.uint8)


def drawn(kind: str, size: int) -> U8:
    """Return weights as networks have them: two shapes, pruned, shared, unsigned, of channels."""
    rng = np.random.default_rng(size)
    laplace = bytes_of(rng.laplace(0, 18, size))
    if kind == "normal":
        return bytes_of(rng.normal(0, 35, size))
    if kind == "off centre":
        return bytes_of(rng.normal(0, 20, size)) + np.uint8(131)
    if kind == "channels":
        return bytes_of(rng.normal(0, 1, size) * np.geomspace(8, 45, 16)[np.arange(size) % 16])
    if kind.endswith("% zero"):
        return np.where(rng.random(size) < int(kind[:2]) / 100, np.uint8(0), laplace)
    if kind.endswith("clusters"):
        centres = rng.permutation(256)[: int(kind[:2])].astype(np.uint8)
        return centres[rng.binomial(len(centres) - 1, 0.4, size)]
    return laplace


def entropy_bytes(block: U8) -> float:
    """Return the entropy of order 0."""
    counts = np.unique(block, return_counts=True)[1]
    return float(-(counts @ np.log2(counts / block.size))) / 8


DENSE = ["laplace", "normal", "off centre", "channels"]
PRUNED = ["50 % zero", "75 % zero", "90 % zero"]
SHARED = ["16 clusters", "32 clusters"]


@pytest.mark.parametrize("kind", DENSE)
@pytest.mark.parametrize(("size", "above"), [(1024, 0.06), (4096, 0.03), (12288, 0.01)])
def test_a_dense_stream_is_near_the_entropy(kind: str, size: int, above: float) -> None:
    block = drawn(kind, size)
    stream = encode_weights(block, DECODER)
    assert stream.format == ENTROPY
    assert stream.content.size <= (1 + above) * entropy_bytes(block)


@pytest.mark.parametrize("kind", DENSE + PRUNED + SHARED)
@pytest.mark.parametrize("size", [1024, 4096, 12288])
def test_a_stream_is_the_entropy_three_percent_and_its_header(kind: str, size: int) -> None:
    block = drawn(kind, size)
    stream = encode_weights(block, Decoder(16, 8, Fraction(1, 9)))
    palette = len(np.unique(block)) if kind in SHARED else 1
    header = 1 + palette + 8 + 12  # levels, lanes
    assert stream.format == (PALETTE if kind in SHARED else ENTROPY)
    assert stream.content.size <= 1.03 * entropy_bytes(block) + 1.3 * header


@given(st.integers(1, 200), st.integers(1, 255), st.sampled_from([1, 2, 16, 128]), st.data())
def test_streams_of_any_counts_come_back(
    size: int, values: int, lanes: int, data: st.DataObject
) -> None:
    """Blocks of few and of many values, some of them rare."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    shares = rng.dirichlet(np.full(values, data.draw(st.sampled_from([0.02, 0.3, 5.0]))))
    block = rng.permutation(256)[:values].astype(np.uint8)[rng.choice(values, size, p=shares)]
    decoder = Decoder(4096, lanes, Fraction(1, 100))  # no groups, and nothing but bytes counts
    stream = encode_weights(block, decoder)
    assert stream.content.size == stored_bytes(block, decoder) <= size
    np.testing.assert_array_equal(decode_weights(stream, size), block)
    assert expanded(stream.content.tolist(), stream.format, size) == block.tolist()


def pruned(share: float, size: int) -> U8:
    """Return weights of which the smallest are 0."""
    block = bytes_of(np.random.default_rng(size).laplace(0, 18, size))
    far = np.abs(block.view(np.int8).astype(np.int64))
    return np.where(far < np.quantile(far, share), np.uint8(0), block)


@pytest.mark.parametrize("share", [0.5, 0.75, 0.9])
def test_the_hole_that_pruning_leaves_costs_nothing(share: float) -> None:
    block = pruned(share, 12288)
    stream = encode_weights(block, Decoder(16, 8, Fraction(1, 9)))
    assert stream.format == ENTROPY and stream.content[0] & 8
    far = np.abs(block.view(np.int8).astype(np.int64))
    assert stream.content[2] == far[far > 0].min() - 1
    assert stream.content.size <= 1.02 * entropy_bytes(block) + 23


@given(st.integers(0, 1 << 32), st.integers(1, 600), st.sampled_from([1, 4, 32]), st.data())
def test_pruned_weights_come_back_from_any_zero(
    seed: int, size: int, lanes: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    near, zero = data.draw(st.integers(1, 128)), data.draw(st.integers(0, 255))
    far = rng.integers(near, 129, size) * rng.choice([-1, 1], size)
    is_zero = rng.random(size) < data.draw(st.sampled_from([0.5, 0.95, 1.0]))
    block = (np.where(is_zero, 0, far) + zero).astype(np.uint8)
    decoder = Decoder(4096, lanes, Fraction(1, 100))
    stream = encode_weights(block, decoder)
    np.testing.assert_array_equal(decode_weights(stream, size), block)
    assert expanded(stream.content.tolist(), stream.format, size) == block.tolist()


def test_states_run_down_in_the_tail() -> None:
    """Elements of few bits need no bits behind them as long as their lane's state lasts."""
    block = drawn("90 % zero", 4096)
    content = encode_weights(block, Decoder(16, 8, Fraction(1, 9))).content
    assert content[0] >> 4 >= 2
    dense = encode_weights(drawn("normal", 4096), Decoder(16, 8, Fraction(1, 9))).content
    assert dense[0] >> 4 == 0


def test_buckets_cover_the_symbols_without_gaps() -> None:
    assert len(FIRST_SYMBOLS) == BUCKETS
    after = np.array(FIRST_SYMBOLS) + (1 << np.array(EXTRA_BITS))
    assert after[:-1].tolist() == list(FIRST_SYMBOLS[1:])
    assert after[-1] == 257


def test_what_comes_sooner_is_taken() -> None:
    block = drawn("90 % zero", 4096)
    slow = encode_weights(block, Decoder(16, 1))
    assert slow.format == WeightFormat.GROUPED
    soon = encode_weights(block, DECODER)
    assert soon.format == ENTROPY
    assert soon.content.size < slow.content.size
    # a memory that sends the whole block before the lanes are done with it
    assert encode_weights(drawn("laplace", 4096), Decoder(16, 8, Fraction(9))).format not in (
        ENTROPY,
        PALETTE,
    )


def test_cycles_of_the_decoder() -> None:
    assert decoder_cycles(WeightFormat.RAW, 33, 16, 8) == 3
    assert decoder_cycles(WeightFormat.PALETTE, 32, 16, 8) == 2
    assert decoder_cycles(ENTROPY, 33, 16, 8) == 16 + 5
    assert decoder_cycles(PALETTE, 32, 16, 8) == 16 + 4
    assert Decoder(16, 8, Fraction(7, 3)).cycles(ENTROPY, 100, 160) == 43
    assert Decoder(16, 8, Fraction(7, 3)).cycles(ENTROPY, 10, 160) == 36


def fault(content: bytes, size: int, format: WeightFormat = ENTROPY) -> str:
    """Return what is wrong with a stream."""
    with pytest.raises(CheckError) as caught:
        decode_weights(WeightStream(format, np.frombuffer(content, np.uint8)), size)
    return str(caught.value)


def test_a_damaged_stream_is_refused() -> None:
    block = drawn("laplace", 500)
    content = encode_weights(block, DECODER).content.tobytes()
    assert "ends before its 500 elements" in fault(content[:-1], 500)
    assert "ends before its 501 elements" in fault(content, 501)
    assert "goes on behind its 500 elements" in fault(content + b"\0", 500)
    for size in range(2, 21):  # two bytes, 15 fields of 4 bits, 8 lanes of 12
        assert "ends inside its header" in fault(content[:size], 500)
    gap = bytes([content[0] | 8, content[1]])
    for number in (0, 128):
        assert f"must be 1 to 127, not {number}" in fault(gap + bytes([number]) + content[2:], 500)
    assert "15 buckets, none with the number 15" in fault(
        content[:2] + bytes([content[2] | 15]) + content[3:], 500
    )
    # 384 and 512 are more than 1,023 with the others
    full = content[:2] + bytes([0xF0 | content[2] & 15, content[3] | 0xFE]) + content[4:]
    assert "must leave bucket" in fault(full, 500)


def test_a_symbol_without_a_byte_is_refused() -> None:
    # all elements are in bucket 14, and the extra bits of the first say 63: distance 128 upwards
    counts = 14 | sum(0 << 4 * b for b in range(1, 15))
    states = counts | 0 << 60
    field = states | 63 << 72
    header = bytes([0, 0]) + field.to_bytes(10, "little")
    assert "has a symbol beyond its 256" in fault(header, 1)
    assert decode_weights(
        WeightStream(ENTROPY, np.frombuffer(header[:-1] + bytes([62]), np.uint8)), 1
    ).tolist() == [128]


def test_a_number_beyond_the_palette_is_refused() -> None:
    # two entries are in buckets 0 and 1, of which the second could have a third
    header = bytes([1 << 3, 5, 9])
    field = 1 | 0 << 4 | 0 << 8 | 1 << 20
    content = header + field.to_bytes(3, "little")
    assert "has a symbol beyond its 2" in fault(content, 1, PALETTE)
    assert "2 buckets, none with the number 2" in fault(header + bytes([2, 0, 0]), 1, PALETTE)


@given(st.integers(0, 1 << 32), st.sampled_from([ENTROPY, PALETTE]), st.integers(1, 2000))
def test_bits_turned_over_are_decoded_as_the_manual_says_or_refused(
    seed: int, format: WeightFormat, size: int
) -> None:
    rng = np.random.default_rng(seed)
    kind = "16 clusters" if format == PALETTE else "laplace"
    content = encode_weights(drawn(kind, 700), Decoder(4096, 4)).content.copy()
    for place in rng.integers(0, 8 * min(content.size, 1 << int(rng.integers(2, 11))), 3):
        content[place >> 3] ^= 1 << (place & 7)
    stream = WeightStream(format, content[: rng.integers(0, content.size + 1)])
    try:
        made = decode_weights(stream, size)
    except CheckError:
        return
    assert made.tolist() == expanded(stream.content.tolist(), format, size)
