"""Bytes and instructions, both ways; hostile bytes name their offset."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lepton.errors import EncodingError
from lepton.isa import (
    COLUMNS,
    REGISTRY,
    WORD_BYTES,
    Instruction,
    decode,
    decode_all,
    encode_all,
    records,
)
from lepton.isa import instructions as isa
from tests.isa.strategies import instructions, of_class

CLASSES = [REGISTRY[opcode] for opcode in sorted(REGISTRY)]
each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.mnemonic)


@each_class
@given(choices=st.data())
def test_round_trip(cls: type[Instruction], choices: st.DataObject) -> None:
    made = choices.draw(of_class(cls))
    word = made.encode()
    assert len(word) == WORD_BYTES
    assert decode(word) == made


@given(st.lists(instructions(), max_size=6))
def test_streams_round_trip(stream: list[Instruction]) -> None:
    raw = encode_all(stream)
    assert decode_all(raw) == stream
    assert encode_all(decode_all(raw)) == raw


@given(instructions())
def test_bits_sit_where_the_manual_says(made: Instruction) -> None:
    word = int.from_bytes(made.encode(), "little")
    assert word % 256 == made.opcode
    for field in made.fields:
        expected = getattr(made, field.name) % 2**field.bits
        assert word // 2**field.offset % 2**field.bits == expected


def test_a_known_word() -> None:
    made = isa.Fill(wait=1, signal=1 << 55, height=2, value=0xAB)
    word = int.from_bytes(made.encode(), "little")
    fill_value_offset = 120 + 3 * 16 + 28 + 2 * 24
    assert word == 0x34 | 1 << 8 | 1 << (64 + 55) | 2 << 120 | 0xAB << fill_value_offset


@given(raw=st.binary(min_size=WORD_BYTES, max_size=WORD_BYTES), offset=st.integers(0, 2**40))
@example(raw=b"\x01" + b"\xff" * 63, offset=0x80)
def test_hostile_words_decode_exactly_or_name_their_offset(raw: bytes, offset: int) -> None:
    try:
        made = decode(raw, offset)
    except EncodingError as error:
        assert str(error).startswith(f"offset {offset:#x}: ")
    else:
        assert made.encode() == raw


@given(made=instructions(), bit=st.integers(0, 8 * WORD_BYTES - 1))
def test_no_bit_is_ignored(made: Instruction, bit: int) -> None:
    flipped = (int.from_bytes(made.encode(), "little") ^ 1 << bit).to_bytes(WORD_BYTES, "little")
    try:
        other = decode(flipped)
    except EncodingError:
        return
    assert other != made
    assert other.encode() == flipped


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"\x00" * 64, "offset 0x0: no instruction has opcode 0x00"),
        (isa.Halt().encode() + b"\xee" * 64, "offset 0x40: no instruction has opcode 0xee"),
        (isa.Halt().encode() + b"\x01" * 3, "offset 0x40: an instruction has 64 bytes, not 3"),
        (b"\x01" + b"\0" * 62 + b"\x80", "offset 0x0: halt has bits set beyond its fields"),
        (
            b"\x36" + b"\0" * 14 + b"\x0f" + b"\0" * 48,
            "offset 0x0: softmax: mode must be one of q31, float32_table, not 15",
        ),
    ],
)
def test_messages(stream: bytes, message: str) -> None:
    with pytest.raises(EncodingError) as caught:
        decode_all(stream)
    assert str(caught.value) == message


@given(st.lists(instructions(), max_size=5))
def test_records_hold_every_field(stream: list[Instruction]) -> None:
    table = records(stream)
    assert table.shape == (len(stream), len(COLUMNS))
    assert table.dtype == np.int64
    for row, made in zip(table, stream, strict=True):
        own = {"opcode": made.opcode} | {f.name: getattr(made, f.name) for f in made.fields}
        assert {name: int(row[at]) for name, at in COLUMNS.items()} == {
            name: own.get(name, 0) for name in COLUMNS
        }
