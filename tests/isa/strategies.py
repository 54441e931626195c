"""Random legal instructions: every field anywhere in its range."""

from __future__ import annotations

from hypothesis import strategies as st

from lepton.isa import REGISTRY, Field, Instruction


def field_values(field: Field) -> st.SearchStrategy[int]:
    """Return the legal values of a field, its ends more often than chance has it."""
    if field.choices is not None:
        return st.sampled_from([int(member) for member in field.choices])
    ends = st.sampled_from([field.minimum, field.maximum])
    return ends | st.integers(field.minimum, field.maximum)


def of_class(cls: type[Instruction]) -> st.SearchStrategy[Instruction]:
    """Return the legal instructions of one class."""
    return st.builds(cls, **{field.name: field_values(field) for field in cls.fields})


def instructions() -> st.SearchStrategy[Instruction]:
    """Return legal instructions of every class."""
    return st.sampled_from(sorted(REGISTRY)).flatmap(lambda opcode: of_class(REGISTRY[opcode]))
