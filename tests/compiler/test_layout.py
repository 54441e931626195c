"""Reshapes that leave the order of dimensions alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton.compiler import graph as ir
from lepton.compiler.layout import IDENTITY, NCHW, Layout, Placed, Shape4, physical, regrouped


def placed(logical: Shape4, layout: Layout) -> Placed:
    return Placed(ir.Tensor("x", physical(logical, layout), False, 1.0, 0), logical, layout)


@pytest.mark.parametrize(
    ("logical", "target", "found"),
    [
        ((1, 112, 7, 7), (1, 4, 28, 49), ((0, 2, 3, 1), (0, 3, 1, 2))),
        ((1, 8, 1, 1), (1, 1, 1, 8), None),
        ((1, 6, 4, 4), (1, 1, 1, 96), None),
    ],
)
def test_channels_stay_last(
    logical: Shape4, target: Shape4, found: tuple[Layout, Layout] | None
) -> None:
    assert regrouped(placed(logical, NCHW), target) == found


def test_dimensions_of_a_group_that_lie_apart_need_row_major_bytes() -> None:
    assert regrouped(placed((2, 3, 4, 5), (0, 2, 1, 3)), (6, 4, 1, 5)) is None
    assert regrouped(placed((2, 3, 4, 5), IDENTITY), (6, 4, 1, 5)) is not None


@given(
    st.lists(st.sampled_from([1, 2, 3, 4]), min_size=4, max_size=4),
    st.permutations(range(4)),
    st.data(),
)
def test_bytes_are_those_of_a_reshape(
    extents: list[int], order: list[int], data: st.DataObject
) -> None:
    logical = (extents[0], extents[1], extents[2], extents[3])
    count = math.prod(logical)
    splits = [
        (a, b, c, count // (a * b * c))
        for a in range(1, count + 1)
        for b in range(1, count + 1)
        for c in range(1, count + 1)
        if count % (a * b * c) == 0
    ]
    target = data.draw(st.sampled_from(splits))
    layout: Layout = (order[0], order[1], order[2], order[3])
    found = regrouped(placed(logical, layout), target)
    if found is None:
        return
    before, after = found
    values = np.arange(count).reshape(logical)
    lying = values.transpose(before).reshape(physical(target, after))
    np.testing.assert_array_equal(lying, values.reshape(target).transpose(after))
