"""What is pruned together: single weights, filters, channels, kernels or blocks.

Every granularity is one array of labels in the shape of the weights; weights of one label live or
die together. All else (scores, counts, masks) needs the labels only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError

__all__ = ["GRANULARITIES", "Labels", "group_sizes", "group_sums", "labels_of"]

Labels: TypeAlias = NDArray[np.int64]

GRANULARITIES = ("weights", "filters", "channels", "kernels", "blocks RxC")
"""Names that `labels_of` takes; R and C are numbers."""

_BLOCKS = re.compile(r"blocks (\d+)x(\d+)")


def labels_of(shape: Sequence[int], granularity: str) -> Labels:
    """Return each weight's group, numbered from 0 in the order of the weights.

    `weights`: each alone. `filters`: all that makes one output channel. `channels`: all that reads
    one input channel. `kernels`: one pair of both. `blocks RxC`: R output by C input channels at
    one kernel position; blocks at the edges are smaller.

    Args:
        shape: of the weights, `[out, in, …]`.
        granularity: one of these.

    Raises:
        InputError: There is no such granularity, or the weights have no input axis.
    """
    if len(shape) < 2:
        raise InputError(f"weights to prune have an output and an input axis, not {list(shape)}")
    outputs, inputs = shape[:2]
    positions = int(np.prod(shape[2:], dtype=np.int64))
    out, channel, position = np.meshgrid(
        np.arange(outputs), np.arange(inputs), np.arange(positions), indexing="ij"
    )
    block = _BLOCKS.fullmatch(granularity)
    if block and "0" not in block.groups():
        rows, columns = int(block[1]), int(block[2])
        across = -(-inputs // columns)
        labels = ((out // rows) * across + channel // columns) * positions + position
    elif granularity in GRANULARITIES:
        labels = {
            "weights": (out * inputs + channel) * positions + position,
            "filters": out,
            "channels": channel,
            "kernels": out * inputs + channel,
        }[granularity]
    else:
        known = ", ".join(GRANULARITIES)
        raise InputError(f"a granularity is one of {known}, not {granularity!r}")
    return labels.reshape(tuple(shape)).astype(np.int64)


def group_sums(values: NDArray[Any], labels: Labels) -> NDArray[np.float64]:
    """Return the sum of values per group, in float64."""
    sums = np.bincount(labels.reshape(-1), np.asarray(values, np.float64).reshape(-1))
    # without any weight NumPy counts in whole numbers
    return sums.astype(np.float64)


def group_sizes(labels: Labels) -> NDArray[np.int64]:
    """Return how many weights each group has."""
    return np.bincount(labels.reshape(-1))
