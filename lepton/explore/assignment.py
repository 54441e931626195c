"""Fields of a chip by their path: which there are, and a chip's parts with other values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from lepton.chip import DRAM_STANDARDS, Chip, Dataflow, chip_from_table, chip_to_table, load_dram
from lepton.errors import ChipError

__all__ = ["assigned", "convert", "field_type", "value_faults"]

_SECTIONS = (
    *("array", "accumulators", "vector", "weight_buffer", "scratchpad", "dma", "control"),
    *("placement", "technology", "sparsity"),
)
_STANDARD = "standard"


def _memory_number(chip: Chip, name: str) -> int:
    """Return the number of a memory, -1 if there is none of that name."""
    return next((n for n, memory in enumerate(chip.memories) if memory.name == name), -1)


def field_type(chip: Chip, path: str) -> str | None:
    """Return the annotated type of a field that can be swept, None if there is none."""
    head, _, rest = path.partition(".")
    if path == "cores":
        return "int"
    if head == "memory":
        name, _, key = rest.partition(".")
        number = _memory_number(chip, name)
        if number < 0 or key == "name":
            return None
        return "str" if key == _STANDARD else _types(chip.memories[number]).get(key)
    part = getattr(chip, head, None) if head in _SECTIONS else None
    return _types(part).get(rest) if part is not None else None


def _types(part: Any) -> dict[str, str]:
    return {
        item.name: str(item.type)
        for item in dataclasses.fields(part)
        if str(item.type) in ("int", "Fraction", "str", "bool", "Dataflow")
    }


def convert(chip: Chip, path: str, value: object) -> Any:
    """Return a sound value of a field as the chip's dataclasses have it."""
    kind = field_type(chip, path)
    if kind == "Fraction":
        return Fraction(str(value))
    return Dataflow(str(value)) if kind == "Dataflow" else value


def value_faults(chip: Chip, path: str, value: object) -> str:
    """Return what is wrong with a value by itself, as a chip file's reader says it, or ""."""
    table: dict[str, Any] = chip_to_table(chip)
    # contradictions, which other parameters may resolve, are looked for only in a file without any
    # wrong key: this one makes the reader stop before
    table["name"] = ""
    head, _, rest = path.partition(".")
    if head == "memory":
        name, _, key = rest.partition(".")
        if key == _STANDARD:
            known = isinstance(value, str) and value in DRAM_STANDARDS
            return "" if known else f"{path} must be {' or '.join(DRAM_STANDARDS)}, not {value!r}"
        table["memory"][_memory_number(chip, name)][key] = value
    elif rest:
        table[head][rest] = value
    else:
        table[head] = value
    try:
        chip_from_table(table, "")
    except ChipError as error:
        first, _, others = str(error).removeprefix(": ").partition("; ")
        assert first.startswith("name ")
        number = path.split(".")[1] if head == "memory" else ""
        return others.replace(f"memory.{_memory_number(chip, number)}.", f"memory.{number}.")
    raise AssertionError("a chip without a name was read")


def assigned(chip: Chip, section: str, values: Iterable[tuple[str, object]]) -> dict[str, Any]:
    """Return the attributes of a chip that change with fields of one section.

    Args:
        chip: has all other fields.
        section: first part of the paths.
        values: paths and sound values.
    """
    fields = [(path.partition(".")[2], convert(chip, path, value)) for path, value in values]
    if section == "cores":
        return {"cores": fields[0][1]}
    if section == "memory":
        return _with_memories(chip, fields)
    return {section: dataclasses.replace(getattr(chip, section), **dict(fields))}


def _with_memories(chip: Chip, fields: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return memories, and the technology if one has another standard: first the standards."""
    memories, kinds = list(chip.memories), list(chip.technology.memories)
    for path, value in sorted(fields, key=lambda item: not item[0].endswith(f".{_STANDARD}")):
        name, _, key = path.partition(".")
        number = _memory_number(chip, name)
        if key == _STANDARD:
            memories[number] = dataclasses.replace(load_dram(value), name=name)
            kinds[number] = value.partition("-")[0]
        else:
            memories[number] = dataclasses.replace(memories[number], **{key: value})
    made: dict[str, Any] = {"memories": tuple(memories)}
    if tuple(kinds) != chip.technology.memories:
        made["technology"] = dataclasses.replace(chip.technology, memories=tuple(kinds))
    return made
