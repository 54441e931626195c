"""The values of a parameter in a space file: a list, a range, or one value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import cast

from lepton.chip.contradictions import shown
from lepton.explore.space_reader import Reader

__all__ = ["MOST_VALUES", "RANGE", "parameter_values"]

RANGE = frozenset({"from", "to", "step", "factor", "count"})
"""Keys of a range."""

MOST_VALUES = 10_000


def parameter_values(reader: Reader, keys: Sequence[str], leaf: object) -> list[object]:
    """Return the values of a list, a range, or a single value."""
    path = ".".join(keys[1:])
    if isinstance(leaf, list):
        values = cast(list[object], leaf)
        if not values:
            reader.fault(keys, f"{path} must have at least one value: its list is empty")
        return values
    if not isinstance(leaf, dict):
        return [leaf]
    given = cast(dict[str, object], leaf)
    unknown = sorted(given.keys() - RANGE)
    if unknown or not {"from", "to"} <= given.keys():
        text = f"{unknown[0]} is not a known key" if unknown else "from and to must both be given"
        reader.fault(keys, f"{path}: {text} of a range")
        return []
    numbers = {key: reader.number(value, (*keys, key)) for key, value in given.items()}
    if None in numbers.values():
        return []
    return _range(reader, keys, cast(dict[str, float], numbers))


def _range(reader: Reader, keys: Sequence[str], given: Mapping[str, float]) -> list[object]:
    """Return the values from the first to the last of a range: sums, products, or so many."""
    path, kinds = ".".join(keys[1:]), sorted(given.keys() - {"from", "to"})
    low, high = given["from"], given["to"]
    if low > high:
        reader.fault(keys, f"{path} is an empty range: from {low:g} is above to {high:g}")
        return []
    if len(kinds) != 1:
        reader.fault(keys, f"{path} must have one of step, factor and count beside from and to")
        return []
    kind, by = kinds[0], Fraction(str(given[kinds[0]]))
    least = {"step": 0, "factor": 1, "count": 1}[kind]
    if by <= least or (kind == "count" and by.denominator != 1):
        rule = "a whole number above 1" if kind == "count" else f"above {least}"
        reader.fault(keys, f"{path}.{kind} must be {rule}, not {shown(given[kind])}")
        return []
    if kind != "step" and low <= 0:
        reader.fault(keys, f"{path}.from must be above 0 with {kind}, not {low:g}")
        return []
    if kind == "count":
        return _spread(low, high, int(by))
    return list(_progression(Fraction(str(low)), Fraction(str(high)), by, kind == "factor"))


def _progression(low: Fraction, high: Fraction, by: Fraction, is_factor: bool) -> Iterator[object]:
    """Yield the values of a range, one more than are allowed at most."""
    for _ in range(MOST_VALUES + 1):
        if low > high:
            return
        yield int(low) if low.denominator == 1 else float(low)
        low = low * by if is_factor else low + by


def _spread(low: float, high: float, count: int) -> list[object]:
    """Return values at even distances of their logarithms; whole ones between whole ends."""
    count = min(count, MOST_VALUES + 1)
    ends = isinstance(low, int) and isinstance(high, int)
    values = [low * (high / low) ** (number / (count - 1)) for number in range(count)]
    made = [round(value) if ends else float(f"{value:.6g}") for value in values]
    return list(dict.fromkeys(made))
