"""What a user should hear of a compression while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lepton.models.datasets import Dataset
from lepton.models.zoo import Task

if TYPE_CHECKING:
    from lepton.models.compression.pipeline import Stage

__all__ = ["LOSS", "chance_of", "remark_on"]

LOSS = 0.05
"""Of the validation samples, that a step may lose without a word."""
_NEAR = 0.1
"""Part of the way from chance to all, below which a network knows hardly anything."""


def chance_of(task: Task, samples: Dataset) -> float | None:
    """Return the score of the best answer that is always the same; None without classes."""
    if task is Task.RECONSTRUCTION:
        return None
    return float(np.bincount(samples.labels).max() / len(samples))


def remark_on(stages: Sequence[Stage], chance: float | None) -> str | None:
    """Return a sentence about the last of some stages, if there is something to say.

    Args:
        stages: so far, the float network first.
        chance: `chance_of` the validation samples.
    """
    if chance is None:
        return None
    last = stages[-1]
    if len(stages) == 1:
        if last.validation > chance + _NEAR * (1 - chance):
            return None
        return (
            f"the {last.name} network has {last.validation:.1%} of the validation samples right, "
            f"and one class for all {chance:.1%}: it may want longer training (--epochs), or "
            "inputs of another range (bytes become 0 to 1: give arrays of the network's own range)"
        )
    before = stages[-2]
    if before.validation - last.validation <= LOSS:
        return None
    return (
        f"step '{last.name}' loses {100 * (before.validation - last.validation):.1f} points on the "
        f"validation samples ({before.validation:.1%} to {last.validation:.1%}): prune less, give "
        "more bits, or train longer (--epochs) or gentler (--learning-rate)"
    )
