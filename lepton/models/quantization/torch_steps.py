"""Steps for weights that are stored by their entropy: one rate for all, least harm to the loss.

A stream that is coded by entropy takes fewer bits for narrow distributions, whatever their range,
so what a network stores is decided by the step of each channel and not by a number of bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lepton.errors import InputError
from lepton.models.fisher import fisher_information
from lepton.models.quantization.integer_weights import WEIGHT_BITS
from lepton.models.quantization.quantizers import Floats, code_limits
from lepton.models.quantization.torch_weights import weights_of

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

__all__ = ["channel_curvatures", "entropy_bits", "steps_at_entropy"]

_HALVINGS = 60
"""Of the interval that the common factor of the steps is looked for in."""
_HIGH = code_limits(WEIGHT_BITS, symmetric=True)[1]


def entropy_bits(codes: NDArray[Any]) -> float:
    """Return the zero-order entropy of codes in bits each, -sum_k p_k log2 p_k.

    Source: Shannon, A Mathematical Theory of Communication, 1948, section 6.
    """
    _, counts = np.unique(codes, return_counts=True)
    parts = counts / counts.sum()
    return float(-(parts * np.log2(parts)).sum())


def channel_curvatures(
    network: nn.Module, batches: Iterable[tuple[torch.Tensor, ...]], seed: int
) -> dict[str, Floats]:
    """Return the mean over each channel's weights of the Fisher information, by the weight's name.

    `[channels]`, or `[1]` where a weight has no axis of channels.

    Args:
        network: makes logits `[n, classes]`.
        batches: its inputs.
        seed: of the labels (`fisher_information`).
    """
    weights = weights_of(network)
    found = fisher_information(network, {item.name: item.value for item in weights}, batches, seed)
    return {item.name: _by_channel(found[item.name], item.axis).mean(axis=1) for item in weights}


def steps_at_entropy(
    network: nn.Module, curvatures: Mapping[str, Floats], bits: float
) -> dict[str, Floats]:
    """Return the steps of all weights' channels at which their codes have some mean entropy.

    A channel's step is k / sqrt(h), h its curvature: a rounding by steps s costs the loss
    h s^2 / 24 for each weight and saves log2(s) bits, so that this is where no channel would
    gain by taking bits of another. Steps are at least max|w| / 127, the codes being of 8 bits. k is
    the least at which the tensors' entropies, weighted by their sizes, are no more than `bits`.

    Source: Gish and Pierce, Asymptotically Efficient Quantizing, 1968 (uniform steps, and the slope
    that they share); Choi et al., Towards the Limit of Network Quantization, ICLR 2017, section 3
    (distortion weighted by curvature, rate by entropy).

    Args:
        network: as it is now.
        curvatures: `channel_curvatures`.
        bits: of a weight, on average.

    Raises:
        InputError: not so few bits are reached with any steps, or so many.
    """
    weights = weights_of(network)
    arrays = {weight.name: _by_channel(weight.value, weight.axis) for weight in weights}
    relative = {name: _relative(curvatures[name]) for name in arrays}
    low, high = 1e-9, 1e9

    def steps(factor: float) -> dict[str, Floats]:
        return {
            name: np.maximum(factor * relative[name], _finest(values)).astype(np.float32)
            for name, values in arrays.items()
        }

    if not _mean_entropy(arrays, steps(high)) <= bits <= _mean_entropy(arrays, steps(low)):
        raise InputError(f"the weights cannot have an entropy of {bits} bits each, on average")
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        if _mean_entropy(arrays, steps(middle)) > bits:
            low = middle
        else:
            high = middle
    return steps(high)


def _by_channel(values: torch.Tensor, axis: int | None) -> Floats:
    """Return values as rows `[channels, …]`."""
    array: Floats = values.detach().cpu().numpy()
    moved = array[None] if axis is None else np.moveaxis(array, axis, 0)
    return moved.reshape(len(moved), -1)


def _relative(curvatures: Floats) -> NDArray[np.float64]:
    """Return 1 / sqrt(h); of channels that nothing depends on, of the least other h."""
    found = curvatures.astype(np.float64)
    positive = found[found > 0]
    return np.maximum(found, positive.min() if positive.size else 1.0) ** -0.5


def _finest(values: Floats) -> Floats:
    """Return the steps at which the channels' extremes have the greatest code."""
    finest = np.abs(values).max(axis=1) / _HIGH
    return np.where(finest > 0, finest, 1).astype(np.float32)


def _mean_entropy(arrays: Mapping[str, Floats], steps: Mapping[str, Floats]) -> float:
    codes = [np.rint(values / steps[name][:, None]) for name, values in arrays.items()]
    return sum(entropy_bits(c) * c.size for c in codes) / sum(c.size for c in codes)
