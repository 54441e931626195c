"""Masks from scores: True where a weight stays."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.pruning.granularity import Labels, group_sizes

__all__ = [
    "Mask",
    "global_masks",
    "layer_mask",
    "pattern_mask",
    "pattern_of",
    "pruned_count",
    "threshold_mask",
]

Mask = NDArray[np.bool_]
Scores = NDArray[np.float64]

_PATTERN = re.compile(r"(\d+):(\d+)")


def pruned_count(rate: float, total: int) -> int:
    """Return how many of `total` to prune: rate x total, rounded half up.

    Raises:
        InputError: The rate is not from 0 to 1.
    """
    if not 0 <= rate <= 1:
        raise InputError(f"a pruning rate is from 0 to 1, not {rate}")
    return min(math.floor(rate * total + 0.5), total)


def layer_mask(
    scores: Scores, labels: Labels, rate: float, turn: NDArray[np.int64] | None = None
) -> Mask:
    """Prune the groups of one layer with the lowest scores, exactly `pruned_count` of them.

    Of equal scores the earlier group goes first.

    Args:
        scores: `[groups]`.
        labels: `[out, in, …]`, each weight's group.
        rate: groups pruned / groups.
        turn: `[groups]`; those of a lower turn go before any of a higher one.
    """
    order = np.lexsort((scores, np.zeros_like(scores) if turn is None else turn))
    return _without(order[: pruned_count(rate, len(scores))], labels)


def global_masks(
    scores: Sequence[Scores],
    labels: Sequence[Labels],
    rate: float,
    turns: Sequence[NDArray[np.int64]] | None = None,
    empties_layers: bool = False,
) -> list[Mask]:
    """Prune the groups of all layers with the lowest scores.

    As many as fit in `pruned_count` of all weights: exact for groups of one size that divides it,
    else the last group that would exceed it stays. Of each layer the group that would go last
    stays, since a network with an empty layer gives one answer to all inputs; a layer may still
    lose almost everything: rank by `layer share` where layers differ in scale. Of equal scores
    the earlier layer's go first, then the earlier group.

    Source: Tanaka et al., "Pruning neural networks without any data by iteratively conserving
    synaptic flow", 2020, section 3, for what an empty layer (layer collapse) does.

    Args:
        scores: `[groups]` per layer.
        labels: `[out, in, …]` per layer.
        rate: weights pruned / weights.
        turns: `[groups]` per layer; those of a lower turn go before any of a higher one.
        empties_layers: let a layer lose all of its groups.
    """
    if not scores:
        return []
    sizes = np.concatenate([group_sizes(item) for item in labels])
    whole = np.concatenate(scores)
    order = np.lexsort((whole, np.concatenate(turns) if turns else np.zeros_like(whole)))
    starts = np.cumsum([0, *(len(item) for item in scores)])
    if not empties_layers:
        order = order[~_is_last(order, starts)]
    fits = np.cumsum(sizes[order]) <= pruned_count(rate, int(sizes.sum()))
    chosen = order[fits]
    return [
        _without(chosen[(chosen >= start) & (chosen < start + len(score))] - start, label)
        for start, score, label in zip(starts, scores, labels, strict=False)
    ]


def _is_last(order: NDArray[np.int64], starts: NDArray[np.int64]) -> Mask:
    """Return which of an order of groups is the last one of its layer."""
    layers = np.searchsorted(starts, order, side="right") - 1
    _, from_end = np.unique(layers[::-1], return_index=True)
    made = np.zeros(len(order), np.bool_)
    made[len(order) - 1 - from_end] = True
    return made


def threshold_mask(scores: Scores, labels: Labels, threshold: float) -> Mask:
    """Prune the groups that score below a threshold."""
    return _without(np.flatnonzero(scores < threshold), labels)


def pattern_of(text: str) -> tuple[int, int] | None:
    """Return N and M of a pattern `N:M`; None if it is none.

    Raises:
        InputError: N is not from 1 to M - 1.
    """
    found = _PATTERN.fullmatch(text)
    if found is None:
        return None
    kept, group = int(found[1]), int(found[2])
    if not 1 <= kept < group:
        raise InputError(f"a pattern N:M keeps N of M weights, 1 <= N < M, not {text!r}")
    return kept, group


def pattern_mask(importance: NDArray[Any], kept: int, group: int) -> Mask:
    """Keep the `kept` highest of every `group` consecutive input channels.

    Groups are at one output channel and one kernel position, because the matrix unit walks kernel
    row, kernel column, input channel. A last, shorter group keeps as many. Of equal scores the
    later channel stays.

    Args:
        importance: `[out, in, …]`, a score per weight.
        kept: N of N:M.
        group: M of N:M.

    Source: Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021, section 3, for 2:4.
    """
    last = np.moveaxis(np.asarray(importance, np.float64), 1, -1)
    channels = last.shape[-1]
    # what fills up the last group ranks below all, so it is what is pruned there
    fill = [(0, 0)] * (last.ndim - 1) + [(0, -channels % group)]
    groups = np.pad(last, fill, constant_values=-np.inf).reshape(*last.shape[:-1], -1, group)
    order = np.argsort(groups, axis=-1, kind="stable")
    keep = np.ones(groups.shape, np.bool_)
    np.put_along_axis(keep, order[..., : group - kept], False, axis=-1)
    flat = keep.reshape(*last.shape[:-1], -1)[..., :channels]
    return np.ascontiguousarray(np.moveaxis(flat, -1, 1))


def _without(groups: NDArray[np.int64], labels: Labels) -> Mask:
    stays = np.ones(int(labels.max(initial=-1)) + 1, np.bool_)
    stays[groups] = False
    return stays[labels]
