"""Assembly text, both ways, and what a wrong line says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton.errors import EncodingError
from lepton.isa import (
    REGISTRY,
    Instruction,
    assemble,
    assemble_line,
    disassemble,
    disassemble_one,
    encode_all,
)
from lepton.isa import instructions as isa
from tests.isa.strategies import instructions, of_class

CLASSES = [REGISTRY[opcode] for opcode in sorted(REGISTRY)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.mnemonic)
@given(choices=st.data())
def test_round_trip(cls: type[Instruction], choices: st.DataObject) -> None:
    made = choices.draw(of_class(cls))
    assert assemble(disassemble_one(made)) == [made]


@given(st.lists(st.tuples(instructions(), st.text()), max_size=6))
def test_streams_round_trip_with_any_comments(lines: list[tuple[Instruction, str]]) -> None:
    stream = [made for made, _ in lines]
    text = disassemble(stream, [note for _, note in lines])
    assert encode_all(assemble(text)) == encode_all(stream)
    assert len(text.splitlines()) == len(stream)


@given(instructions())
def test_no_two_instructions_share_a_text(made: Instruction) -> None:
    again = assemble(disassemble_one(made))[0]
    assert disassemble_one(again) == disassemble_one(made)
    assert type(again) is type(made)


def test_a_known_text() -> None:
    made = isa.Softmax(wait=3, rows=2, channels=10, ifm=64, mode=isa.SoftmaxMode.FLOAT32_TABLE)
    assert disassemble([made, isa.Halt()], ["net/softmax", ""]) == (
        "softmax wait=0x3 mode=float32_table rows=2 channels=10 ifm=0x40 ; net/softmax\nhalt\n"
    )


def test_an_empty_stream_is_an_empty_text() -> None:
    assert disassemble([]) == ""
    assert assemble("") == []


def test_blank_lines_comments_and_number_forms() -> None:
    text = "\n ; only a comment\n  fill value=0xff height=0b11  ; and a comment\nbinary mode=2\n"
    assert assemble(text) == [
        isa.Fill(value=255, height=3),
        isa.Binary(mode=isa.BinaryMode.ADD_Q31),
    ]
    assert assemble_line(" ; nothing") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("halt\njump 3", "line 2: no instruction is called 'jump'"),
        ("fill colour=3", "line 1: fill has no field 'colour=3'"),
        ("fill value", "line 1: fill has no field 'value'"),
        ("fill value=1 value=1", "line 1: value is given twice"),
        ("fill value=red", "line 1: value must be a whole number, not 'red'"),
        ("fill value=", "line 1: value must be a whole number, not ''"),
        ("fill value=1.5", "line 1: value must be a whole number, not '1.5'"),
        ("fill value=256", "line 1: fill: value must be between 0 and 255, not 256"),
        ("fill value=-1", "line 1: fill: value must be between 0 and 255, not -1"),
        (
            "softmax mode=fast",
            "line 1: mode must be one of q31, float32_table, not 'fast'",
        ),
        (
            "softmax mode=7",
            "line 1: softmax: mode must be one of q31, float32_table, not 7",
        ),
        ("fill value=" + "9" * 50, "line 1: value must be a whole number, not '" + "9" * 40 + "'"),
    ],
)
def test_messages(text: str, message: str) -> None:
    with pytest.raises(EncodingError) as caught:
        assemble(text)
    assert str(caught.value) == message


@given(st.text())
def test_any_text_assembles_or_names_its_line(text: str) -> None:
    try:
        assemble(text)
    except EncodingError as error:
        assert str(error).startswith("line ")


@given(made=instructions(), junk=st.text(max_size=8))
def test_a_damaged_line_is_refused_or_means_what_it_says(made: Instruction, junk: str) -> None:
    try:
        lines = assemble(disassemble_one(made) + " " + junk)
    except EncodingError:
        return
    for line in lines:
        assert assemble(disassemble_one(line)) == [line]
