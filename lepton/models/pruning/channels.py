"""Which channels stand or fall together: labels on tensors' axes, and ties between labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Axes", "Axis", "Channels", "Tracked", "reshaped"]

Axis: TypeAlias = "NDArray[np.int64] | None"
"""A label per element of an axis, 0 where it has to stay; None where all have to."""

Axes: TypeAlias = tuple[Axis, ...]


@dataclass(frozen=True)
class Tracked:
    """A tensor of the graph.

    Attributes:
        shape: the batch counts as 1.
        axes: the labels of each axis.
        is_zero: whether every element of a removed channel is 0 once its filters are.
    """

    shape: tuple[int, ...]
    axes: Axes
    is_zero: bool = True

    @property
    def labelled(self) -> list[int]:
        """The axes with labels."""
        return [axis for axis, labels in enumerate(self.axes) if labels is not None]


class Channels:
    """Labels, joined into classes (union-find); a class is removed as a whole or not at all."""

    def __init__(self) -> None:
        self._parents = [0]
        self._reasons: dict[int, str] = {}

    def new(self, count: int) -> NDArray[np.int64]:
        """Return labels that nothing ties yet."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64)

    def root(self, label: int) -> int:
        """Return the class of a label."""
        while self._parents[label] != label:
            self._parents[label] = self._parents[self._parents[label]]
            label = self._parents[label]
        return label

    def roots(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the class of each label."""
        flat = [self.root(int(item)) for item in labels.reshape(-1)]
        return np.array(flat, np.int64).reshape(labels.shape)

    def fix(self, labels: Axis, reason: str) -> None:
        """Say why channels have to stay; the first reason counts."""
        for label in [] if labels is None else np.unique(labels):
            if label:
                self._reasons.setdefault(self.root(int(label)), reason)

    def tie(self, left: Axis, right: Axis, reason: str) -> Axis:
        """Let two axes lose the same channels; return the labels of both.

        Args:
            left: labels.
            right: as many.
            reason: why a channel of one stays that faces a fixed one of the other.
        """
        if left is None or right is None:
            self.fix(left, reason)
            self.fix(right, reason)
            return None
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            if one and other:
                self._join(self.root(one), self.root(other))
            else:
                self.fix(np.array([one or other]), reason)
        return np.where(right == 0, 0, left)

    def reason(self, label: int) -> str | None:
        """Return why a channel has to stay; None if it may go."""
        return self._reasons.get(self.root(label)) if label else "it is no channel of a layer"

    def _join(self, one: int, other: int) -> None:
        if one == other:
            return
        self._parents[other] = one
        reason = self._reasons.pop(other, None)
        if reason is not None:
            self._reasons.setdefault(one, reason)


def reshaped(
    channels: Channels, tensor: Tracked, shape: Sequence[int], reason: str
) -> tuple[Axis, ...]:
    """Return the labels of a tensor's axes after its elements took another shape.

    An axis that is split keeps its labels on the longest of its parts (of equals the last), and
    what lies along the other parts is tied.
    """
    made: list[Axis] = [None] * len(shape)
    for axis in tensor.labelled:
        labels = tensor.axes[axis]
        assert labels is not None
        along = [1] * len(tensor.shape)
        along[axis] = -1
        spread = np.broadcast_to(channels.roots(labels).reshape(along), tensor.shape)
        whole = spread.reshape(tuple(shape))
        varying = [item for item in range(whole.ndim) if (np.diff(whole, axis=item) != 0).any()]
        free = [item for item in varying if made[item] is None]
        if not free:
            channels.fix(labels, reason)
            continue
        kept = max(free, key=lambda item: (shape[item], item))
        rows = np.moveaxis(whole, kept, -1).reshape(-1, shape[kept])
        made[kept] = _tied_rows(channels, np.unique(rows, axis=0), reason)
    return tuple(made)


def _tied_rows(channels: Channels, rows: Iterable[NDArray[np.int64]], reason: str) -> Axis:
    first: Axis = None
    for row in rows:
        first = row if first is None else channels.tie(first, row, reason)
    return first
