"""What estimates share gives arrays what it gives their numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from lepton.cost.elementwise import (
    by_rows,
    choose,
    common_divisor,
    least,
    most,
    rounded,
    side_by_side,
)

NUMBERS = np.array([-3, 0, 1, 4, 12, 100])
OTHERS = np.array([5, -2, 1, 6, 8, 99])


@pytest.mark.parametrize(
    ("function", "plain"),
    [(least, min), (most, max), (lambda a, b: choose(a > b, a, b), max)],
)
def test_arrays_are_taken_element_by_element(
    function: Callable[..., Any], plain: Callable[..., int]
) -> None:
    pairs = list(zip(NUMBERS.tolist(), OTHERS.tolist(), strict=True))
    expected = [plain(*pair) for pair in pairs]
    assert function(NUMBERS, OTHERS).tolist() == expected
    assert [function(*pair) for pair in pairs] == expected
    assert function(NUMBERS, 4).tolist() == [plain(each, 4) for each in NUMBERS]


def test_divisors_and_halves_are_those_of_the_standard_library() -> None:
    expected = [math.gcd(each, 8) for each in NUMBERS.tolist()]
    assert common_divisor(NUMBERS, 8).tolist() == expected
    assert [common_divisor(each, 8) for each in NUMBERS.tolist()] == expected
    halves = np.array([0.5, 1.5, 2.5, -0.5, 2.4])
    assert rounded(halves).tolist() == [round(each) for each in halves]


def test_each_row_is_reckoned_once() -> None:
    seen: list[tuple[int, int]] = []

    def product(a: int, b: int) -> int:
        seen.append((a, b))
        return a * b

    assert by_rows(product, np.array([1, 2, 1, 2]), 3).tolist() == [3, 6, 3, 6]
    assert seen == [(1, 3), (2, 3)]


def test_plans_side_by_side_keep_the_kinds_of_their_fields() -> None:
    class Pair(NamedTuple):
        size: object
        first: object

    made = side_by_side([Pair(3, True), Pair(5, False)])
    assert isinstance(made.size, np.ndarray) and isinstance(made.first, np.ndarray)
    assert made.size.tolist() == [3, 5] and made.first.dtype == np.bool_
