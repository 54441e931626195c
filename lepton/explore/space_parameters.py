"""The parameters of a space file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import cast

from lepton.chip import Chip
from lepton.chip.contradictions import shown
from lepton.compiler.options import MOST_EFFORT
from lepton.explore.assignment import field_type, value_faults
from lepton.explore.ranges import MOST_VALUES, RANGE, parameter_values
from lepton.explore.space import Follow, Parameter, Value
from lepton.explore.space_reader import Reader
from lepton.program import Objective

__all__ = ["read_parameters"]

_FOLLOW = frozenset({"follows", "times"})
_COMPILE: dict[str, tuple[Value, ...]] = {
    "compile.effort": tuple(range(MOST_EFFORT + 1)),
    "compile.optimize": tuple(objective.value for objective in Objective),
}


def read_parameters(reader: Reader, base: Chip, value: object) -> list[Parameter | Follow]:
    """Return the parameters of the table, in its order."""
    if value is None or value == {}:
        reader.fault(("parameters",), "parameters must have at least one key, as array.rows")
        return []
    found: list[Parameter | Follow] = []
    for keys, leaf in _leaves(reader.table(value, ("parameters",)), ("parameters",)):
        path = ".".join(keys[1:])
        if path not in _COMPILE and field_type(base, path) is None:
            reader.fault(keys, f"{path} is not a field of chip '{base.name}'")
        elif isinstance(leaf, dict) and _FOLLOW & leaf.keys():
            found += _follow(reader, keys, cast(dict[str, object], leaf))
        else:
            found += _parameter(reader, base, keys, leaf)
    if not reader.bad:
        _check_follows(reader, found)
    return found


def _leaves(
    table: Mapping[str, object], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield what is no table of further parameters, with its keys."""
    for key, value in table.items():
        keys = (*path, key)
        inner = cast(dict[str, object], value) if isinstance(value, dict) else {}
        if inner and not (RANGE | _FOLLOW) & inner.keys():
            yield from _leaves(inner, keys)
        else:
            yield keys, value


def _follow(reader: Reader, keys: Sequence[str], leaf: Mapping[str, object]) -> Iterator[Follow]:
    path = ".".join(keys[1:])
    of, times = leaf.get("follows"), leaf.get("times", 1)
    unknown = sorted(leaf.keys() - _FOLLOW)
    number = reader.number(times, (*keys, "times"))
    if unknown:
        reader.fault((*keys, unknown[0]), f"{path}.{unknown[0]} is not a known key beside follows")
    elif not isinstance(of, str):
        reader.fault(keys, f"{path}.follows must be the path of a parameter, not {shown(of)}")
    elif number is not None and number <= 0:
        reader.fault(keys, f"{path}.times must be above 0, not {shown(times)}")
    elif number is not None:
        yield Follow(path, of, Fraction(str(number)))


def _parameter(
    reader: Reader, base: Chip, keys: Sequence[str], leaf: object
) -> Iterator[Parameter]:
    """Yield a parameter, nothing where its values are at fault."""
    path, before = ".".join(keys[1:]), len(reader.bad)
    values = parameter_values(reader, keys, leaf)
    if len(values) > MOST_VALUES:
        reader.fault(keys, f"{path} must not have more than {MOST_VALUES} values")
        return
    seen: set[object] = set()
    for value in values:
        fault = _value_fault(base, path, value)
        if fault:
            reader.fault(keys, fault)
            break
        if value in seen:
            reader.fault(keys, f"{path} has the value {shown(value)} twice")
        seen.add(value)
    if len(reader.bad) == before:
        yield Parameter(path, tuple(cast(list[Value], values)))


def _value_fault(base: Chip, path: str, value: object) -> str:
    if path not in _COMPILE:
        return value_faults(base, path, value)
    known = _COMPILE[path]
    if isinstance(value, bool) or value not in known:
        return f"{path} must be {' or '.join(map(str, known))}, not {shown(value)}"
    return ""


def _check_follows(reader: Reader, found: Sequence[Parameter | Follow]) -> None:
    """Note what follows something else than a parameter of numbers."""
    known = {item.path: item for item in found if isinstance(item, Parameter)}
    for item in found:
        if isinstance(item, Follow) and (item.of not in known or not known[item.of].is_ordered):
            keys = ("parameters", item.path)
            names = ", ".join(path for path, of in known.items() if of.is_ordered) or "none"
            reader.fault(
                keys, f"{item.path}.follows must be a parameter of numbers ({names}), not {item.of}"
            )
