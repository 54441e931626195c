"""A design space: parameters with their values, workloads, constraints and objectives."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.chip.contradictions import contradictions
from lepton.explore.assignment import assigned
from lepton.explore.metrics import Constraint

__all__ = ["Follow", "Parameter", "Point", "Setting", "Space", "Value", "Workload"]

I64 = NDArray[np.int64]
Value = bool | int | float | str
Point = tuple[int, ...]
"""The number of a value of each parameter."""


@dataclass(frozen=True)
class Parameter:
    """A field of the chip, or an option of the compiler, with its values."""

    path: str
    """As in the chip file (`array.rows`, `memory.dram.channels`), or `compile.effort`."""
    values: tuple[Value, ...]

    @property
    def is_ordered(self) -> bool:
        """Whether the values are numbers."""
        return not any(isinstance(value, bool | str) for value in self.values)


@dataclass(frozen=True)
class Follow:
    """A field of the chip that is so many times a parameter."""

    path: str
    of: str
    times: Fraction

    def value(self, source: Value) -> Value:
        """Return the field's value: a whole number where it comes out as one."""
        if isinstance(source, bool | str):
            return source
        made = Fraction(str(source)) * self.times
        return int(made) if made.denominator == 1 else float(made)


@dataclass(frozen=True)
class Workload:
    """A model, and how often it runs relative to the others."""

    name: str
    model: Path
    weight: float = 1.0
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict[str, Sequence[int]])


@dataclass(frozen=True)
class Setting:
    """Options of the compiler."""

    effort: int = 0
    optimize: str = "latency"


@dataclass(frozen=True)
class Space:
    """What is swept.

    Attributes:
        place: file that it is from, for errors.
        base: the chip that has everything that no parameter says.
        parameters: in the file's order.
        follows: fields that follow a parameter.
        workloads: at least one where it is swept.
        constraints: all hold at a feasible point.
        objectives: names of metrics, the first one first where there is one answer.
    """

    place: str
    base: Chip
    parameters: tuple[Parameter, ...]
    follows: tuple[Follow, ...] = ()
    workloads: tuple[Workload, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    objectives: tuple[str, ...] = ("latency_ms", "area_mm2")

    @cached_property
    def extents(self) -> tuple[int, ...]:
        """Values of each parameter."""
        return tuple(len(parameter.values) for parameter in self.parameters)

    @cached_property
    def size(self) -> int:
        """Points of the whole space, illegal ones counted."""
        return math.prod(self.extents)

    def points(self, numbers: I64) -> I64:
        """Return the points `[n, parameters]` of numbers from 0; the last parameter runs first."""
        return np.stack(np.unravel_index(numbers, self.extents), axis=1)

    def numbers(self, points: I64) -> I64:
        """Return the numbers of points `[n, parameters]`."""
        return np.asarray(np.ravel_multi_index(tuple(points.T), self.extents), np.int64)

    def values(self, point: Sequence[int]) -> dict[str, Value]:
        """Return all fields that a point says, by path, those that follow included."""
        made = {
            parameter.path: parameter.values[number]
            for parameter, number in zip(self.parameters, point, strict=True)
        }
        return made | {item.path: item.value(made[item.of]) for item in self.follows}

    def setting(self, point: Sequence[int]) -> Setting:
        """Return the options of the compiler at a point."""
        values = self.values(point)
        names = {path.partition(".")[2]: path for path in values if path.startswith("compile.")}
        return replace(Setting(), **cast(Any, {name: values[path] for name, path in names.items()}))

    def chip(self, point: Sequence[int]) -> Chip:
        """Return the chip of a point, which may contradict itself (`faults`)."""
        made = {path: v for path, v in self.values(point).items() if path[:8] != "compile."}
        sources = self.base.sources | dict.fromkeys(made, f"swept by {Path(self.place).name}")
        return replace(self._assembled(made), sources=sources)

    def _assembled(self, values: Mapping[str, Value]) -> Chip:
        """Return the base with these fields; parts that were made before are shared."""
        parts: dict[str, list[tuple[str, Value]]] = {}
        for path, value in values.items():
            parts.setdefault(path.partition(".")[0], []).append((path, value))
        made: dict[str, Any] = {}
        for name, fields in parts.items():
            key = (name, tuple(fields))
            if key not in self._parts:
                self._parts[key] = assigned(self.base, name, fields)
            made |= self._parts[key]
        return replace(self.base, **made)

    @cached_property
    def _parts(self) -> dict[Any, dict[str, Any]]:
        return {}

    def faults(self, point: Sequence[int]) -> list[str]:
        """Return what a point's chip contradicts, nothing of a legal one."""
        values = {p: v for p, v in self.values(point).items() if not p.startswith("compile.")}
        return contradictions(self._assembled(values))

    def are_legal(self, points: I64) -> NDArray[np.bool_]:
        """Return which points `[n, parameters]` have a chip without contradictions.

        No rule is about both what the memories are and what works between them, so each side is
        looked at once for each combination of its own fields, beside the base's of the other.
        """
        legal = np.ones(len(points), np.bool_)
        paths = [parameter.path for parameter in self.parameters]
        paths += [item.path for item in self.follows]
        for side in (False, True):
            own = {p for p in paths if _is_outside(p) == side and not p.startswith("compile.")}
            first, which = self.combinations(points, own)
            sound = [
                not contradictions(self._assembled({k: v for k, v in found.items() if k in own}))
                for found in (self.values(points[n].tolist()) for n in first.tolist())
            ]
            legal &= np.array(sound, np.bool_)[which]
        return legal

    def combinations(self, points: I64, paths: Container[str]) -> tuple[I64, I64]:
        """Return a point of each combination of some fields, and the combination of each point."""
        numbers = np.zeros(len(points), np.int64)
        for column, extent in enumerate(self.extents):
            own = self.parameters[column].path
            if any(p in paths for p in (own, *(f.path for f in self.follows if f.of == own))):
                numbers = numbers * extent + points[:, column]
        _, first, which = np.unique(numbers, return_index=True, return_inverse=True)
        return first, which.reshape(-1)


def _is_outside(path: str) -> bool:
    """Return whether a field is about memories, the way to them, or the clocks of both."""
    head = path.partition(".")[0]
    return head in ("memory", "dma", "technology", "placement") or path == "array.clock_mhz"
