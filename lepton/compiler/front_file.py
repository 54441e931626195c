"""Fronts of models as files, so that a new process does not import a model again.

A file is the SHA-256 of what follows, and safetensors: the arrays of the model, and as one more of
them JSON that says what they belong to. Each object is listed once, behind those that it is made
of, and refers to them by their numbers; only the classes of a front can be named.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from enum import EnumType, IntEnum
from typing import Any, cast

import numpy as np

from lepton.arith.records import RequantizeTable
from lepton.compiler import graph, steps
from lepton.compiler.steps import FrontModel
from lepton.isa import instructions

__all__ = ["read_front", "write_front"]

_INDEX = "index"
_DIGEST_BYTES = 32


def _classes() -> dict[str, type]:
    """Return the classes that a file may name."""
    choices = [kind for kind in vars(instructions).values() if isinstance(kind, EnumType)]
    parts = [getattr(module, name) for module in (graph, steps) for name in module.__all__]
    return {cls.__name__: cls for cls in (RequantizeTable, *parts, *choices)}


_CLASSES = _classes()


class _Writer:
    """Lists objects and arrays."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self.objects: list[object] = []
        self._numbers: dict[int, int] = {}
        self._kept: list[object] = []

    def number(self, value: object) -> int:
        """Return the number of an object, which is listed if it is not yet."""
        if id(value) not in self._numbers:
            described = self._described(value)
            self._numbers[id(value)] = len(self.objects)
            self.objects.append(described)
            self._kept.append(value)  # so that no other can have its id
        return self._numbers[id(value)]

    def _described(self, value: Any) -> object:
        """Return an object as JSON."""
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, IntEnum):
            return {"class": type(value).__name__, "of": [self.number(int(value))]}
        if isinstance(value, int | float):
            return value
        if isinstance(value, np.ndarray | np.generic | bytes):
            return self._array(value)
        if isinstance(value, dict):
            pairs = cast(dict[object, object], value).items()
            return {"pairs": [[self.number(key), self.number(item)] for key, item in pairs]}
        if is_dataclass(value):
            parts = [getattr(value, item.name) for item in fields(value)]
        else:
            parts = list(cast(tuple[object, ...], value))
        name = "" if type(value) is tuple else type(value).__name__
        if name and name not in _CLASSES:
            raise TypeError(f"a front has no {name}")
        return {"class": name, "of": [self.number(part) for part in parts]}

    def _array(self, value: Any) -> object:
        name = str(len(self.arrays))
        if isinstance(value, bytes):
            self.arrays[name] = np.frombuffer(value, np.uint8)
            return {"bytes": name}
        # an array of no dimensions would get one
        self.arrays[name] = np.ascontiguousarray(value).reshape(np.shape(value))
        return {"scalar" if isinstance(value, np.generic) else "array": name}


def write_front(front: FrontModel) -> bytes:
    """Return a front as a file.

    Raises:
        TypeError: it holds an object of a class that has no place in one.
    """
    from safetensors.numpy import save

    writer = _Writer()
    writer.number(front)
    index = json.dumps(writer.objects).encode()
    content = save(writer.arrays | {_INDEX: np.frombuffer(index, np.uint8)})
    return hashlib.sha256(content).digest() + content


def read_front(file: bytes) -> FrontModel | None:
    """Return the front of a file, None if it is damaged."""
    from safetensors.numpy import load

    digest, content = file[:_DIGEST_BYTES], file[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        return None
    arrays = load(content)
    made: list[Any] = []
    for described in json.loads(arrays.pop(_INDEX).tobytes()):
        made.append(_made(described, made, arrays))
    return cast(FrontModel, made[-1])


def _made(described: Any, made: list[Any], arrays: dict[str, np.ndarray]) -> object:
    """Return an object of its description and the objects before it."""
    if not isinstance(described, dict):
        return described
    (kind, content), *rest = cast(dict[str, Any], described).items()
    if kind == "array":
        return arrays[content]
    if kind == "scalar":
        return arrays[content][()]
    if kind == "bytes":
        return arrays[content].tobytes()
    if kind == "pairs":
        return {made[key]: made[value] for key, value in content}
    parts = [made[number] for number in rest[0][1]]
    if not content:
        return tuple(parts)
    cls = _CLASSES[content]
    if not is_dataclass(cls):
        return cls(*parts)
    return cls(**dict(zip((item.name for item in fields(cls)), parts, strict=True)))
