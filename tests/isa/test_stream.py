"""Packed instruction streams."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton.errors import EncodingError
from lepton.isa import BY_MNEMONIC, WORD_BYTES, pack, unpack
from tests.naive_stream import naive_pack

OPCODES = [cls.opcode for cls in BY_MNEMONIC.values()]


def words_of(seed: int, count: int) -> list[bytes]:
    """Return words that differ from earlier ones in few or many bytes."""
    r = random.Random(seed)
    made: list[bytes] = []
    for _ in range(count):
        word = bytearray(r.choice(made) if made and r.random() < 0.9 else r.randbytes(WORD_BYTES))
        for _ in range(r.choice((0, 1, 2, 5, 40))):
            word[r.randrange(WORD_BYTES)] = r.randrange(256)
        word[0] = r.choice(OPCODES)
        made.append(bytes(word))
    return made


@given(seed=st.integers(0, 2**32), count=st.integers(0, 40))
def test_packing_is_undone(seed: int, count: int):
    words = b"".join(words_of(seed, count))
    stream, ends = pack(words)
    assert unpack(stream) == words
    assert len(ends) == count and len(stream) == (ends[-1] if count else 0)
    assert len(stream) <= len(words)


@pytest.mark.parametrize("seed", range(20))
def test_streams_are_as_the_manual_says(seed: int):
    words = words_of(seed, 60)
    stored = naive_pack(words)
    stream, ends = pack(b"".join(words))
    assert stream == b"".join(stored)
    assert ends.tolist() == list(accumulate(len(one) for one in stored))


def test_a_repeated_word_takes_two_bytes():
    word = words_of(0, 1)[0]
    stream, _ = pack(word * 3)
    assert len(stream) == len(pack(word)[0]) + 4


def test_regions_know_nothing_of_each_other():
    halt = bytes([BY_MNEMONIC["halt"].opcode]) + bytes(WORD_BYTES - 1)
    region = b"".join(word for word in words_of(1, 30) if word[0] != halt[0]) + halt
    assert pack(region + region)[0] == pack(region)[0] * 2


@given(seed=st.integers(0, 2**32), cut=st.integers(1, 10**6))
def test_a_cut_stream_is_refused(seed: int, cut: int):
    stream, ends = pack(b"".join(words_of(seed, 10)))
    keep = len(stream) - 1 - cut % (len(stream) - 1)
    if keep not in ends:
        with pytest.raises(EncodingError, match="ends inside an instruction"):
            unpack(stream[:keep])


@given(seed=st.integers(0, 2**32), data=st.data())
def test_only_the_shortest_form_is_taken(seed: int, data: st.DataObject):
    stream, _ = pack(b"".join(words_of(seed, 10)))
    changed = bytearray(stream)
    changed[data.draw(st.integers(0, len(stream) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        words = unpack(bytes(changed))
    except EncodingError:
        return
    assert pack(words)[0] == bytes(changed)


def test_a_repeated_plain_word_is_refused():
    with pytest.raises(EncodingError, match="shortest"):
        unpack(words_of(0, 1)[0] * 2)
