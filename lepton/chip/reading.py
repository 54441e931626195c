"""Which fields of a chip a computation reads, so that its result can serve other chips too."""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass
from functools import cached_property
from types import MethodType
from typing import Any, cast

from lepton.chip.description import Chip

__all__ = ["Path", "Reads", "recorded", "value_at"]

Path = tuple[str | int, ...]
"""From a chip to one of its fields: names, numbers of memories, `__class__` and `__len__`."""
Reads = dict[Path, object]
"""The value of each field that was read."""


def recorded(chip: Chip) -> tuple[Chip, Reads]:
    """Return a chip equal to the given one, and what is read of it from now on.

    What the chip itself works out, properties and methods, counts by the fields that it takes.
    """
    reads: Reads = {}
    return cast(Chip, _View(chip, (), reads)), reads


def value_at(chip: Chip, path: Path) -> object:
    """Return the value of a field that was read, None where a chip has no such field."""
    found: Any = chip
    for step in path:
        if step == "__len__":
            found = len(found)
        elif isinstance(step, int):
            found = found[step] if step < len(found) else None
        else:
            found = getattr(found, step, None)
    return found


class _View:
    """Part of a chip; what is looked up once becomes an attribute of its own."""

    def __init__(self, part: object, path: Path, reads: Reads) -> None:
        self._part, self._path, self._reads = part, path, reads
        reads[*path, "__class__"] = type(part)

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]  # never set
        """The part's own, for `isinstance`."""
        return type(self._part)

    def __getattr__(self, name: str) -> object:
        found = inspect.getattr_static(type(self._part), name, None)
        if isinstance(found, property) and found.fget is not None:
            value = found.fget(self)
        elif isinstance(found, cached_property):
            value = found.func(self)
        elif inspect.isfunction(found):
            value = MethodType(found, self)
        else:
            value = self._seen(getattr(self._part, name), (*self._path, name))
        self.__dict__[name] = value
        return value

    def _seen(self, value: object, path: Path) -> object:
        """Return a value as it is read, having noted it."""
        if is_dataclass(value):
            return _View(value, path, self._reads)
        if isinstance(value, tuple) and any(map(is_dataclass, cast(tuple[object, ...], value))):
            items = cast(tuple[object, ...], value)
            self._reads[*path, "__len__"] = len(items)
            return tuple(self._seen(item, (*path, index)) for index, item in enumerate(items))
        self._reads[path] = value
        return value
