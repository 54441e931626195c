"""How much each weight, filter or block matters: one score per group, pruned from the lowest.

All take weights `[out, in, …]` and the labels of `granularity.labels_of`, and return
`[groups]` float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.pruning.granularity import Labels, group_sizes, group_sums

__all__ = [
    "CRITERIA",
    "MEASURED",
    "Slopes",
    "cannot_compare",
    "check_criterion",
    "curvature",
    "deviation",
    "gradient",
    "layer_share",
    "magnitude_l1",
    "magnitude_l2",
    "relative_norm",
    "saliency",
    "scores_of",
    "sensitivity",
]

Weights = NDArray[Any]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Slopes:
    """What the weights' changes do, measured on samples; each `[out, in, …]`, or None if unknown.

    Attributes:
        loss: dL/dw, L the mean loss.
        outputs: the mean over samples of sum_k |dy_k/dw|, y the network's outputs.
        curvature: d2L/dw2 at the least loss, by the Fisher information.
    """

    loss: Weights | None = None
    outputs: Weights | None = None
    curvature: Weights | None = None

    def oriented_by(self, turn: Callable[[Weights], Weights]) -> Slopes:
        """Return them with their axes in another order."""
        items = (self.loss, self.outputs, self.curvature)
        return Slopes(*(None if item is None else turn(item) for item in items))


def magnitude_l1(weights: Weights, labels: Labels) -> Scores:
    """Return sum |w| of each group.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", 2017.
    """
    return group_sums(np.abs(np.asarray(weights, np.float64)), labels)


def magnitude_l2(weights: Weights, labels: Labels) -> Scores:
    """Return sqrt(sum w^2) of each group.

    Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks",
    2015, whose rule for one weight (its absolute value) this is for groups of one; He et al.,
    "Soft Filter Pruning", 2018, for filters.
    """
    return np.sqrt(group_sums(np.square(np.asarray(weights, np.float64)), labels))


def relative_norm(weights: Weights, labels: Labels) -> Scores:
    """Return ||w_g|| / sum_j sum_i ||w_ij|| of each group g; 0 where the sum is 0.

    w_ij is what output channel (neuron) j reads of input channel i: a number in a dense layer, a
    kernel in a convolution. j goes over the output channels that g has weights of, i over all
    inputs, so that the layer's scale does not matter. For each pattern that is

    * `filters`: ||w_j|| / sum_i ||w_ij||, the relative norm of a neuron or filter. It is 1 where
      one input alone carries it and 1 / sqrt(n) where n do so equally.
    * `kernels`: ||w_ij|| / sum_i ||w_ij||, the kernel's share in its filter.
    * `weights`, and so N:M: |w| / sum_i ||w_ij||, in a dense layer the weight's share in its
      neuron. Within the groups of N:M that is the order of |w|.
    * `blocks RxC`: the block's norm by the sum over its R filters.
    * `channels`: ||w_i|| / sum_j sum_i ||w_ij||. All filters read every channel: within a layer
      that is the order of L2 norms, and layers of unlike scale can be ranked together.

    Where each group is the only kernel of its filter (filters and kernels of a depthwise layer, or
    of one with one input channel) every score is 1: see `cannot_compare`.

    Source: the norm of a neuron or filter relative to the sum of the norms of its connections;
    with numbers w_ij it is the ratio of L2 and L1 of Hoyer, "Non-negative Matrix Factorization
    with Sparseness Constraints", 2004.
    """
    outputs, inputs = weights.shape[:2]
    squares = np.square(np.asarray(weights, np.float64))
    read = np.sqrt(squares.reshape(outputs, inputs, -1).sum(axis=2)).sum(axis=1)
    filters = np.arange(outputs).reshape(-1, *[1] * (labels.ndim - 1))
    pairs = np.unique(labels.astype(np.int64) * outputs + filters)
    sums = group_sums(read[pairs % outputs], pairs // outputs)
    return _ratio(magnitude_l2(weights, labels), sums)


def cannot_compare(criterion: str, labels: Labels) -> bool:
    """Return whether a criterion gives all groups of a layer the same score, whatever its weights.

    `relative` does so where each group is the only kernel of its filter: w_j = w_ij.
    """
    rows = labels.reshape(len(labels), -1)
    is_alone = labels.shape[1] == 1 and len(rows) > 1 and bool((rows == rows[:, :1]).all())
    return criterion == "relative" and is_alone and len(np.unique(rows[:, 0])) == len(rows)


def layer_share(weights: Weights, labels: Labels) -> Scores:
    """Return ||w_j|| / sum_i ||w_i|| of each group j, i all groups of the layer.

    Scores of one layer sum to 1, so that layers of unlike scale can be ranked together.

    Source: the layer-wise normalization of Molchanov et al., "Pruning Convolutional Neural
    Networks for Resource Efficient Inference", 2017, which divides by the layer's L2 norm of
    scores instead of their sum.
    """
    norms = magnitude_l2(weights, labels)
    return _ratio(norms, np.full_like(norms, norms.sum()))


def deviation(weights: Weights, labels: Labels) -> Scores:
    """Return the root mean square of each group in standard deviations of the layer's weights.

    For single weights |w| / std(w): pruning scores below a factor is the threshold
    factor x std(w).

    Source: Han et al., "Learning both Weights and Connections for Efficient Neural Networks",
    2015: a layer's threshold is a quality parameter times its weights' standard deviation.
    """
    spread = float(np.std(np.asarray(weights, np.float64)))
    root = magnitude_l2(weights, labels) / np.sqrt(np.maximum(group_sizes(labels), 1))
    return _ratio(root, np.full_like(root, spread))


def gradient(slopes: Weights, labels: Labels) -> Scores:
    """Return sum |dL/dw| of each group.

    Args:
        slopes: dL/dw, `[out, in, …]`.
        labels: of the groups.

    Source: Mozer and Smolensky, "Skeletonization", 1989: relevance by the error's derivative.
    """
    return group_sums(np.abs(np.asarray(slopes, np.float64)), labels)


def saliency(weights: Weights, slopes: Weights, labels: Labels) -> Scores:
    """Return |sum w dL/dw| of each group: what the loss changes by when the group becomes 0.

    It is the first term of the Taylor series of L(w) - L(0).

    Source: Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019: the
    first-order criterion, without its square, which does not change the order.
    """
    products = np.asarray(weights, np.float64) * np.asarray(slopes, np.float64)
    return np.abs(group_sums(products, labels))


def sensitivity(slopes: Weights, labels: Labels) -> Scores:
    """Return the sum over a group of the mean over samples of sum_k |dy_k/dw|.

    Args:
        slopes: that mean, `[out, in, …]`.
        labels: of the groups.

    Source: Engelbrecht, "A New Pruning Heuristic Based on Variance Analysis of Sensitivity
    Information", 2001: the sensitivity of the outputs to a parameter.
    """
    return group_sums(np.asarray(slopes, np.float64), labels)


def curvature(weights: Weights, curvatures: Weights, labels: Labels) -> Scores:
    """Return sum h w^2 / 2 of each group: what the loss grows by when the group becomes 0.

    It is the second term of the Taylor series of L(w) - L(0), where the first one is 0 and the
    weights' effects add up.

    Args:
        weights: `[out, in, …]`.
        curvatures: h, d2L/dw2, of the same shape.
        labels: of the groups.

    Source: LeCun, Denker and Solla, "Optimal Brain Damage", 1990; Theis et al., "Faster Gaze
    Prediction with Dense Networks and Fisher Pruning", 2018, for the Fisher information in h.
    """
    squares = np.square(np.asarray(weights, np.float64)) * np.asarray(curvatures, np.float64)
    return group_sums(squares, labels) / 2


def _ratio(upper: Scores, lower: Scores) -> Scores:
    return np.divide(upper, lower, out=np.zeros_like(upper), where=lower > 0)


def _needed(slopes: Weights | None, criterion: str) -> Weights:
    if slopes is None:
        raise InputError(f"the criterion {criterion!r} needs data to measure slopes on")
    return slopes


CRITERIA: Mapping[str, Callable[[Weights, Labels, Slopes], Scores]] = {
    "l1": lambda weights, labels, slopes: magnitude_l1(weights, labels),
    "l2": lambda weights, labels, slopes: magnitude_l2(weights, labels),
    "relative": lambda weights, labels, slopes: relative_norm(weights, labels),
    "layer share": lambda weights, labels, slopes: layer_share(weights, labels),
    "deviation": lambda weights, labels, slopes: deviation(weights, labels),
    "gradient": lambda weights, labels, slopes: gradient(_needed(slopes.loss, "gradient"), labels),
    "saliency": lambda weights, labels, slopes: saliency(
        weights, _needed(slopes.loss, "saliency"), labels
    ),
    "sensitivity": lambda weights, labels, slopes: sensitivity(
        _needed(slopes.outputs, "sensitivity"), labels
    ),
    "curvature": lambda weights, labels, slopes: curvature(
        weights, _needed(slopes.curvature, "curvature"), labels
    ),
}
"""Name -> its function of weights, labels and slopes."""

MEASURED = ("gradient", "saliency", "sensitivity", "curvature")
"""Those that need slopes."""


def check_criterion(name: str) -> None:
    """Raise InputError if there is no such criterion."""
    if name not in CRITERIA:
        raise InputError(f"a pruning criterion is one of {', '.join(CRITERIA)}, not {name!r}")


def scores_of(
    weights: Weights,
    labels: Labels,
    criterion: str,
    slopes: Slopes | None = None,
    layer: str = "weights",
) -> Scores:
    """Return the scores of each group by a criterion's name.

    Args:
        weights: `[out, in, …]`.
        labels: of the groups.
        criterion: a name of `CRITERIA`.
        slopes: for criteria that measure them.
        layer: what messages call the weights.

    Raises:
        InputError: There is no such criterion, it lacks slopes or gives all groups the same score,
            or a weight is not finite.
    """
    check_criterion(criterion)
    if not np.isfinite(weights).all():
        raise InputError(f"{layer}: NaN or infinite weights cannot be ranked")
    if cannot_compare(criterion, labels):
        raise InputError(
            f"{layer}: the criterion {criterion!r} gives all that could go the same score, since "
            "each reads one input channel alone: take another, such as 'l2'"
        )
    made = CRITERIA[criterion](weights, labels, slopes or Slopes())
    if not np.isfinite(made).all():
        raise InputError(
            f"{layer}: slopes are not finite, so {criterion!r} cannot rank the weights"
        )
    return made
