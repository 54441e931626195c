"""Least, most and choices of numbers, or of arrays with a number for each of many plans.

An estimate of one plan and of a thousand is one formula; of a thousand at a time it takes a
hundredth of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["Number", "by_rows", "choose", "common_divisor", "least", "most", "rounded"]
__all__ += ["side_by_side"]

T = TypeVar("T", bound=tuple[Any, ...])

Number = Any
"""A number, or an array with one for each plan."""


def least(*values: Number) -> Number:
    """Return the least, element by element where there are arrays."""
    return reduce(np.minimum, values) if _has_array(values) else min(values)


def most(*values: Number) -> Number:
    """Return the greatest, element by element where there are arrays."""
    return reduce(np.maximum, values) if _has_array(values) else max(values)


def choose(condition: Number, first: Number, second: Number) -> Number:
    """Return the first where a condition holds, the second elsewhere."""
    if isinstance(condition, np.ndarray):
        return np.where(condition, first, second)
    return first if condition else second


def common_divisor(first: Number, second: int) -> Number:
    """Return the greatest common divisor of whole numbers."""
    return np.gcd(first, second) if isinstance(first, np.ndarray) else math.gcd(first, second)


def rounded(value: Number) -> Number:
    """Return the nearest whole number, the even one of two."""
    return np.rint(value) if isinstance(value, np.ndarray) else round(value)


def by_rows(function: Callable[..., float], *columns: Number) -> NDArray[np.float64]:
    """Return what a function of numbers gives for each row of columns, each row reckoned once."""
    rows = list(zip(*(column.tolist() for column in np.broadcast_arrays(*columns)), strict=True))
    known = {row: function(*row) for row in dict.fromkeys(rows)}
    return np.array([known[row] for row in rows], np.float64)


def side_by_side(plans: Sequence[T]) -> T:
    """Return named tuples as one, whose fields are arrays `[plans]`."""
    make = cast(Callable[..., T], type(plans[0]))
    return make(*map(np.array, zip(*plans, strict=True)))


def _has_array(values: tuple[Number, ...]) -> bool:
    return np.ndarray in map(type, values)
