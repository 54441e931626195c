"""How an instruction is declared: fields with widths and meanings, packed into a fixed-width word.

A class decorated with `@instruction` is the single source of its encoding: constructor, range
checks, `encode`/`decode`, assembly text, the record that kernels read, and the manual all read
its field table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from operator import and_, attrgetter, le, lshift
from typing import Any, ClassVar, NamedTuple, TypeVar, cast, dataclass_transform

from lepton.errors import EncodingError

WORD_BYTES = 64
"""Bytes of one instruction."""

OPCODE_BITS = 6
"""Bits of the first byte that opcodes use; packed streams use the others."""

SEMAPHORES = 56
"""Semaphores of a core; a bit each in `wait` and `signal`."""

FIRST_SHARED = 40
"""The first of the semaphores that the cores of a chip have in common, where it has several."""

MOST_MEMORIES = 8
"""Memories that an instruction can name."""

_HEADER = (("opcode", 8), ("wait", SEMAPHORES), ("signal", SEMAPHORES))


class Unit(IntEnum):
    """The kind of unit an instruction runs on."""

    CONTROL = 0
    LOAD = 1
    STORE = 2
    WEIGHTS = 3
    MATRIX = 4
    VECTOR = 5


@dataclass(frozen=True)
class Field:
    """One field of an instruction: where it sits in the word and what it means."""

    name: str
    bits: int
    meaning: str
    signed: bool = False
    choices: type[IntEnum] | None = None
    offset: int = 0

    @cached_property
    def minimum(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @cached_property
    def maximum(self) -> int:
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    def check(self, mnemonic: str, value: int) -> None:
        """Raise EncodingError unless `value` fits the field."""
        if not self.minimum <= value <= self.maximum:
            raise EncodingError(
                f"{mnemonic}: {self.name} must be between {self.minimum} and {self.maximum}, "
                f"not {value}"
            )
        if self.choices is not None and value not in self.choices._value2member_map_:
            names = ", ".join(member.name.lower() for member in self.choices)
            raise EncodingError(f"{mnemonic}: {self.name} must be one of {names}, not {value}")


def bits(
    width: int,
    meaning: str,
    *,
    signed: bool = False,
    choices: type[IntEnum] | None = None,
    default: int = 0,
) -> Any:
    """Declare a field of `width` bits; the returned value is a dataclass field.

    It is not named to `dataclass_transform` as a specifier: a type checker then takes it for a
    plain default value, which is what it is, and every field may be left out.
    """
    declared = Field("", width, meaning, signed, choices)
    return dataclasses.field(default=default, metadata={"field": declared})


class FieldColumns(NamedTuple):
    """The fields of an instruction, property by property: one call looks at all of them."""

    values: Callable[[object], tuple[int, ...]]
    """Gives those of an instruction."""
    minima: tuple[int, ...]
    maxima: tuple[int, ...]
    masks: tuple[int, ...]
    offsets: tuple[int, ...]
    choices: tuple[tuple[str, Collection[int]], ...]
    """Fields that have only some of the values between."""

    @classmethod
    def of(cls, fields: tuple[Field, ...]) -> FieldColumns:
        return cls(
            attrgetter(*(field.name for field in fields)),
            tuple(field.minimum for field in fields),
            tuple(field.maximum for field in fields),
            tuple((1 << field.bits) - 1 for field in fields),
            tuple(field.offset for field in fields),
            tuple((f.name, f.choices._value2member_map_) for f in fields if f.choices is not None),
        )


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """Base of all instructions: the semaphores every one of them can wait for and signal."""

    wait: int = 0
    signal: int = 0

    mnemonic: ClassVar[str]
    opcode: ClassVar[int]
    unit: ClassVar[Unit]
    fields: ClassVar[tuple[Field, ...]]
    field_columns: ClassVar[FieldColumns]

    def __post_init__(self) -> None:
        rule = self.field_columns
        values = rule.values(self)
        legal = all(map(le, rule.minima, values)) and all(map(le, values, rule.maxima))
        if legal and all(getattr(self, name) in known for name, known in rule.choices):
            return
        for field, value in zip(self.fields, values, strict=True):
            field.check(self.mnemonic, value)

    def encode(self) -> bytes:
        """Return the `WORD_BYTES` bytes of this instruction, little-endian."""
        rule = self.field_columns
        values = map(and_, map(int, rule.values(self)), rule.masks)
        parts = map(lshift, values, rule.offsets)
        return sum(parts, self.opcode).to_bytes(WORD_BYTES, "little")


C = TypeVar("C", bound=type[Instruction])

REGISTRY: dict[int, type[Instruction]] = {}
"""Every declared instruction by opcode."""

BY_MNEMONIC: dict[str, type[Instruction]] = {}
"""Every declared instruction by mnemonic."""


def _lay_out(cls: type[Instruction]) -> tuple[Field, ...]:
    """Give each field its bit offset, in the order of declaration, after the header."""
    laid: list[Field] = []
    offset = _HEADER[0][1]
    for name, width in _HEADER[1:]:
        meaning = f"semaphores this instruction {name}s for" if name == "wait" else "signals"
        laid.append(Field(name, width, meaning, offset=offset))
        offset += width
    for item in dataclasses.fields(cls):
        declared = cast(Field | None, item.metadata.get("field"))
        if declared is None:
            continue
        laid.append(dataclasses.replace(declared, name=item.name, offset=offset))
        offset += declared.bits
    if offset > WORD_BYTES * 8:
        raise TypeError(f"{cls.__name__} needs {offset} bits, more than {WORD_BYTES * 8}")
    return tuple(laid)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def instruction(opcode: int, unit: Unit) -> Callable[[C], C]:
    """Class decorator: register an instruction under `opcode`, run by `unit`."""

    def declare(cls: C) -> C:
        made = dataclass(frozen=True, kw_only=True)(cls)
        made.mnemonic = cls.__name__.lower()
        made.opcode = opcode
        made.unit = unit
        made.fields = _lay_out(made)
        made.field_columns = FieldColumns.of(made.fields)
        if opcode >> OPCODE_BITS:
            raise TypeError(f"opcode {opcode:#x} does not fit in {OPCODE_BITS} bits")
        if opcode in REGISTRY:
            raise TypeError(f"opcode {opcode:#x} is declared twice")
        REGISTRY[opcode] = made
        BY_MNEMONIC[made.mnemonic] = made
        return made

    return declare
