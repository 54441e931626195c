"""The manual: generated from the declarations, and committed as generated."""

from __future__ import annotations

from pathlib import Path

from lepton.isa import REGISTRY, manual

PAGE = Path(__file__).parents[2] / "docs" / "isa.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == manual(), "run `make docs`"


def test_it_holds_every_instruction_field_and_choice() -> None:
    sections = {part.split("\n", 1)[0]: part for part in manual().split("\n## ")[1:]}
    assert "no reference takes fewer than 64" in sections.pop("Packed streams")
    assert list(sections) == [REGISTRY[opcode].mnemonic for opcode in sorted(REGISTRY)]
    for cls in REGISTRY.values():
        section = sections[cls.mnemonic]
        assert f"Opcode {cls.opcode:#04x}" in section
        for field in cls.fields[2:]:
            last = field.offset + field.bits - 1
            assert f"| {field.name} | {last}:{field.offset} | {field.bits} " in section
            for member in field.choices or ():
                assert f"{member.value} {member.name.lower()}" in section
