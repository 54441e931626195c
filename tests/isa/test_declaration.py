"""Field layout: widths, overlaps, ranges, and what a wrong declaration says."""

from __future__ import annotations

import pytest

from lepton.errors import EncodingError
from lepton.isa import BY_MNEMONIC, REGISTRY, SEMAPHORES, WORD_BYTES, Instruction, Unit
from lepton.isa import instructions as isa
from lepton.isa.declaration import bits, instruction

CLASSES = [REGISTRY[opcode] for opcode in sorted(REGISTRY)]
each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.mnemonic)


@each_class
def test_fields_lie_side_by_side_inside_the_word(cls: type[Instruction]) -> None:
    offset = 8
    for field in cls.fields:
        assert field.offset == offset, f"{field.name} overlaps or leaves a gap"
        assert field.bits > 0
        offset += field.bits
    assert offset <= 8 * WORD_BYTES
    assert [field.bits for field in cls.fields[:2]] == [SEMAPHORES, SEMAPHORES]


@each_class
def test_choices_fit_their_field(cls: type[Instruction]) -> None:
    for field in cls.fields:
        for member in field.choices or ():
            assert field.minimum <= member <= field.maximum


@each_class
def test_every_field_has_a_meaning(cls: type[Instruction]) -> None:
    assert cls.__doc__
    assert all(field.meaning for field in cls.fields)


def test_opcodes_and_mnemonics_are_the_known_ones() -> None:
    assert {code: cls.mnemonic for code, cls in sorted(REGISTRY.items())} == {
        0x01: "halt",
        0x10: "load",
        0x11: "store",
        0x12: "weights",
        0x20: "matmul",
        0x21: "depthwise",
        0x30: "requantize",
        0x31: "binary",
        0x32: "lut",
        0x33: "copy",
        0x34: "fill",
        0x35: "pool",
        0x36: "softmax",
        0x37: "resize",
    }
    assert {cls.mnemonic: cls for cls in CLASSES} == BY_MNEMONIC


@each_class
def test_each_field_refuses_values_just_outside(cls: type[Instruction]) -> None:
    for field in cls.fields:
        for value in (field.minimum - 1, field.maximum + 1):
            with pytest.raises(EncodingError) as caught:
                cls(**{field.name: value})
            assert str(caught.value) == (
                f"{cls.mnemonic}: {field.name} must be between {field.minimum} and "
                f"{field.maximum}, not {value}"
            )


def test_signed_ranges() -> None:
    by_name = {field.name: field for field in isa.Matmul.fields}
    assert (by_name["pad_top"].minimum, by_name["pad_top"].maximum) == (-2048, 2047)
    assert (by_name["ifm_zero_point"].minimum, by_name["ifm_zero_point"].maximum) == (-256, 255)
    assert (by_name["stride_y"].minimum, by_name["stride_y"].maximum) == (0, 255)


def test_a_value_that_names_nothing_is_refused() -> None:
    with pytest.raises(EncodingError) as caught:
        isa.Softmax(mode=9)
    assert str(caught.value) == "softmax: mode must be one of q31, float32_table, not 9"


def test_too_wide_an_instruction_cannot_be_declared() -> None:
    with pytest.raises(TypeError, match="Wide needs 520 bits, more than 512"):

        @instruction(0xF0, Unit.CONTROL)
        class Wide(Instruction):  # pyright: ignore[reportUnusedClass]
            """Too wide."""

            field: int = bits(400, "too much")

    assert 0xF0 not in REGISTRY


def test_an_opcode_cannot_be_declared_twice() -> None:
    with pytest.raises(TypeError, match="opcode 0x1 is declared twice"):

        @instruction(0x01, Unit.CONTROL)
        class Again(Instruction):  # pyright: ignore[reportUnusedClass]
            """A second halt."""

    assert REGISTRY[0x01] is isa.Halt
    assert "again" not in BY_MNEMONIC
