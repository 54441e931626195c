"""Places for what lives at known times: first fit in an order that is searched for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.compiler.block_kernels import place

__all__ = ["search_places"]

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

_STEPS = 300
_COMPARISONS = 10_000_000
"""Steps of a search, and comparisons of two lives, at most."""


def search_places(sizes: I64, lives: F64, floors: I64, aim: tuple[int, int]) -> tuple[I64, int]:
    """Return addresses, and where the last one ends.

    What is large chooses first. While that takes more than it should, what lies highest, and some
    others, are let choose earlier: an order that takes no more is kept.

    Args:
        sizes: `[k]`, bytes.
        lives: `[k, 4]`, two intervals each, as `lepton.compiler.block_kernels.place` has them.
        floors: `[k]`, addresses from which on each is placed.
        aim: bytes that they should take at most, and what addresses are multiples of.
    """
    rank = np.argsort(lives[:, 0], kind="stable")
    sizes, lives, floors = sizes[rank], lives[rank], floors[rank]
    rng = np.random.default_rng(0)
    order = np.lexsort((lives[:, 2], -sizes))
    addresses, trial = np.zeros_like(sizes), np.zeros_like(sizes)
    taken = place(order, sizes, lives, floors, aim[1], addresses)
    steps = min(_STEPS, _COMPARISONS // max(len(sizes) ** 2, 1))
    while steps and taken > aim[0]:
        steps -= 1
        other = _earlier(order, addresses + sizes, rng)
        found = place(other, sizes, lives, floors, aim[1], trial)
        if found <= taken:
            order, taken = other, found
            addresses, trial = trial, addresses
    trial[rank] = addresses
    return trial, int(taken)


def _earlier(order: I64, tops: I64, rng: np.random.Generator) -> I64:
    """Return an order in which one item, every other time the highest, chooses earlier."""
    place_of = (
        int(np.flatnonzero(order == tops.argmax())[0])
        if rng.random() < 0.5
        else int(rng.integers(len(order)))
    )
    made = np.delete(order, place_of)
    return np.insert(made, rng.integers(place_of + 1), order[place_of])
