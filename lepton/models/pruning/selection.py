"""What to prune, as one value, and the masks that follow from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.pruning.criteria import Slopes, check_criterion, scores_of
from lepton.models.pruning.granularity import labels_of
from lepton.models.pruning.masks import (
    Mask,
    global_masks,
    layer_mask,
    pattern_mask,
    pattern_of,
    pruned_count,
    threshold_mask,
)

__all__ = ["SCOPES", "Masks", "Selection", "Weights", "masks_for", "with_rate"]

Weights: TypeAlias = Mapping[str, NDArray[Any]]
"""Layer -> weights `[out, in, …]`."""

Masks: TypeAlias = dict[str, Mask]

SCOPES = ("layer", "global")


@dataclass(frozen=True)
class Selection:
    """What to prune.

    Attributes:
        criterion: a name of `criteria.CRITERIA`.
        pattern: a granularity (`granularity.GRANULARITIES`), or N:M.
        scope: `layer`: every layer at the rate; `global`: all layers ranked together.
        layer_rates: layer -> its own rate, in the scope `layer`.
        threshold: prune what scores lower, at whatever rate follows; None goes by rates.
        is_pattern_alone: whether rates are of what the N:M pattern prunes, not of all weights: 1
            prunes that and no more, so that layers with few input channels stay dense.
        empties_layers: whether the scope `global` may prune all of a layer.
    """

    criterion: str = "l1"
    pattern: str = "weights"
    scope: str = "layer"
    layer_rates: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    threshold: float | None = None
    is_pattern_alone: bool = False
    empties_layers: bool = False

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise InputError(f"a scope is 'layer' or 'global', not {self.scope!r}")
        if self.layer_rates and self.scope == "global":
            raise InputError("rates per layer need the scope 'layer', not 'global'")
        for rate in self.layer_rates.values():
            pruned_count(rate, 1)
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InputError(f"a pruning threshold is a finite number, not {self.threshold}")
        if pattern_of(self.pattern) is None:
            labels_of((1, 1), self.pattern)
        elif self.threshold is not None:
            raise InputError(f"a threshold cannot go with the pattern {self.pattern!r}")

    def scaled(self, part: float) -> Selection:
        """Return it with a part of its own rates and threshold."""
        rates = {name: rate * part for name, rate in self.layer_rates.items()}
        threshold = None if self.threshold is None else self.threshold * part
        return replace(self, layer_rates=rates, threshold=threshold)

    @property
    def pattern_rate(self) -> float:
        """What an N:M pattern prunes where groups are whole; 0 of another pattern."""
        found = pattern_of(self.pattern)
        return 0.0 if found is None else 1 - found[0] / found[1]


def with_rate(
    selection: Selection,
    rate: float | Mapping[str, float] | None,
    threshold: float | None = None,
) -> tuple[Selection, float]:
    """Return a selection that prunes so much, and the rate of layers without their own.

    Args:
        selection: criterion, pattern and scope.
        rate: pruned / total, or layer -> its own rate; None goes by the threshold, or prunes what
            an N:M pattern does.
        threshold: prune what scores lower, instead of a rate.

    Raises:
        InputError: they contradict each other, or one is wrong.
    """
    if threshold is not None:
        if rate is not None:
            raise InputError("give a pruning rate or a threshold, not both")
        return replace(selection, threshold=threshold), 0.0
    least = selection.pattern_rate
    if rate is None:
        if not least:
            raise InputError("give a pruning rate, a threshold, or an N:M pattern")
        return replace(selection, is_pattern_alone=True), 1.0
    rates = rate if isinstance(rate, Mapping) else {"": rate}
    for value in rates.values():
        pruned_count(value, 1)
        if value < least:
            pattern = selection.pattern
            raise InputError(f"{pattern} prunes {least:g}: the rate cannot be {value:g}")
    if isinstance(rate, Mapping):
        return replace(selection, layer_rates=rate), 0.0
    return selection, rate


def masks_for(
    weights: Weights,
    selection: Selection,
    rate: float,
    slopes: Mapping[str, Slopes] | None = None,
    held: Mapping[str, Mask] | None = None,
) -> Masks:
    """Return each layer's mask.

    Of an N:M pattern, what it prunes goes first: at a lower rate a part of it, at a higher rate
    all of it and then the lowest of the rest. In the scope `layer` those at rate 0 are not ranked.

    Args:
        weights: of the layers to prune.
        selection: what to prune.
        rate: pruned / total.
        slopes: of each layer, if the criterion needs them.
        held: masks of before; what they prune stays pruned and counts.

    Raises:
        InputError: A name, rate or layer is unknown, the criterion lacks slopes or says nothing of
            a layer, or a weight is not finite.
    """
    check_criterion(selection.criterion)
    unknown = selection.layer_rates.keys() - weights.keys()
    if unknown:
        raise InputError(f"there is no layer {min(unknown)!r} to prune")

    def ranked(name: str) -> _Ranked:
        return _ranked(
            (name, weights[name]), selection, (slopes or {}).get(name), (held or {}).get(name)
        )

    if selection.threshold is not None:
        found = {name: ranked(name) for name in weights}
        return {
            name: threshold_mask(item.scores, item.labels, selection.threshold)
            for name, item in found.items()
        }
    if selection.scope == "layer" or selection.is_pattern_alone:
        rates = {name: selection.layer_rates.get(name, rate) for name in weights}
        return {
            name: _layer_mask(ranked(name), rates[name], selection)
            if rates[name]
            else np.ones(value.shape, np.bool_)
            for name, value in weights.items()
        }
    ranks = {name: ranked(name) for name in weights}
    made = global_masks(
        [item.scores for item in ranks.values()],
        [item.labels for item in ranks.values()],
        rate,
        [item.turn for item in ranks.values()],
        selection.empties_layers,
    )
    return dict(zip(ranks, made, strict=True))


@dataclass(frozen=True)
class _Ranked:
    """One layer's groups: scores, labels, and which go before all others."""

    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    turn: NDArray[np.int64]


def _layer_mask(item: _Ranked, rate: float, selection: Selection) -> Mask:
    """Return the mask of a layer at its rate, of all groups or of what its pattern prunes."""
    part = float(np.mean(item.turn < 2)) if selection.is_pattern_alone else 1.0
    return layer_mask(item.scores, item.labels, rate * part, item.turn)


def _ranked(
    layer: tuple[str, NDArray[Any]],
    selection: Selection,
    slopes: Slopes | None,
    held: Mask | None,
) -> _Ranked:
    name, weights = layer
    pattern = pattern_of(selection.pattern)
    labels = labels_of(weights.shape, selection.pattern if pattern is None else "weights")
    scores = scores_of(weights, labels, selection.criterion, slopes, f"layer {name!r}")
    if held is not None:
        gone = ~np.isin(np.arange(len(scores)), labels[held])
        scores = np.where(gone, -np.inf, scores)
    if pattern is None:
        return _Ranked(scores, labels, np.where(np.isneginf(scores), 0, 1))
    stays = pattern_mask(scores[labels], *pattern)
    turn = np.where(np.isneginf(scores), 0, np.where(stays.reshape(-1), 2, 1))
    return _Ranked(scores, labels, turn)
