"""What plans know of the zeros of a layer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from lepton.chip import load_chip
from lepton.compiler.packed_share import PackedShares


def layer(kept: int, **fields: int) -> Any:
    """Return a layer of 128 x 32 weights of which the first so many of four are not 0."""
    weights = np.zeros((1, 1, 128, 32), np.uint8)
    weights[0, 0].reshape(32, 4, 32)[:, :kept] = 1
    return SimpleNamespace(weights=weights, weight_unsigned=0, weight_zero_point=0, **fields)


def test_the_share_is_that_of_the_passes() -> None:
    shares = PackedShares(load_chip("edge-sparse"))
    assert [shares.share(layer(kept)) for kept in (4, 2, 1, 0)] == [1.0, 0.5, 0.25, 0.25]


def test_the_share_is_1_where_nothing_is_skipped() -> None:
    assert PackedShares(load_chip("edge")).share(layer(1)) == 1.0
    node = layer(1)
    node.weight_zero_point = 3
    assert PackedShares(load_chip("edge-sparse")).share(node) == 1.0
