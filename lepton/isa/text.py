"""Assembly text: one instruction a line, `mnemonic name=value ...`, zeros left out.

Enumerated fields are written by name, masks and addresses in hexadecimal. Everything after `;` is
a comment. `assemble(disassemble(x)) == x` for every legal stream.
"""

from __future__ import annotations

from collections.abc import Iterable

from lepton.errors import EncodingError
from lepton.isa.declaration import BY_MNEMONIC, Field, Instruction

__all__ = ["assemble", "assemble_line", "disassemble", "disassemble_one"]

_HEXADECIMAL = {
    *("wait", "signal", "address", "scratchpad", "buffer", "stationary_address"),
    *("ifm", "ofm", "a", "b", "parameters", "table", "accumulator"),
}


def _value_text(field: Field, value: int) -> str:
    """Return the text of a field's value."""
    if field.choices is not None:
        return field.choices(value).name.lower()
    return f"{value:#x}" if field.name in _HEXADECIMAL else str(value)


def disassemble_one(instruction: Instruction) -> str:
    """Return the line of one instruction, without a newline."""
    parts = [instruction.mnemonic]
    for field in instruction.fields:
        value = getattr(instruction, field.name)
        if value:
            parts.append(f"{field.name}={_value_text(field, value)}")
    return " ".join(parts)


def disassemble(instructions: Iterable[Instruction], comments: Iterable[str] | None = None) -> str:
    """Return the text of a stream, a comment behind each line where `comments` has one."""
    lines = [disassemble_one(item) for item in instructions]
    if comments is not None:
        lines = [
            f"{line} ; {' '.join(note.split())}" if note else line
            for line, note in zip(lines, comments, strict=True)
        ]
    return "\n".join(lines) + "\n" if lines else ""


def _parse_value(field: Field, text: str, where: str) -> int:
    """Return the value that `text` names for `field`."""
    if field.choices is not None and not text[:1].isdigit():
        for member in field.choices:
            if member.name.lower() == text:
                return int(member)
        names = ", ".join(member.name.lower() for member in field.choices)
        raise EncodingError(f"{where}: {field.name} must be one of {names}, not '{text}'")
    try:
        if len(text) > 40:
            raise ValueError
        return int(text, 0)
    except ValueError:
        raise EncodingError(
            f"{where}: {field.name} must be a whole number, not '{text[:40]}'"
        ) from None


def assemble_line(line: str, where: str = "line 1") -> Instruction | None:
    """Return the instruction of one line, or None for a blank or comment line.

    Raises:
        EncodingError: naming `where`, the rule and what was found.
    """
    words = line.split(";", 1)[0].split()
    if not words:
        return None
    cls = BY_MNEMONIC.get(words[0])
    if cls is None:
        raise EncodingError(f"{where}: no instruction is called '{words[0][:40]}'")
    table = {field.name: field for field in cls.fields}
    values: dict[str, int] = {}
    for word in words[1:]:
        name, equals, text = word.partition("=")
        if not equals or name not in table:
            raise EncodingError(f"{where}: {cls.mnemonic} has no field '{word[:40]}'")
        if name in values:
            raise EncodingError(f"{where}: {name} is given twice")
        values[name] = _parse_value(table[name], text, where)
    try:
        return cls(**values)
    except EncodingError as error:
        raise EncodingError(f"{where}: {error}") from None


def assemble(text: str) -> list[Instruction]:
    """Return the instructions of an assembly text; an error names its line."""
    made: list[Instruction] = []
    for number, line in enumerate(text.splitlines(), start=1):
        instruction = assemble_line(line, f"line {number}")
        if instruction is not None:
            made.append(instruction)
    return made
