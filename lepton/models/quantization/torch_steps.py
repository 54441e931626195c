"""Steps for weights that are stored by their entropy: one rate for all, least harm to the loss.

A stream that is coded by entropy takes fewer bits for narrow distributions, whatever their range,
so what a network stores is decided by the step of each channel and not by a number of bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lepton.errors import InputError
from lepton.models.fisher import fisher_information
from lepton.models.quantization.quantizers import Floats
from lepton.models.quantization.torch_feedback import HIGH, Products, rounded_rows
from lepton.models.quantization.torch_weights import Weight, weights_of

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

__all__ = ["channel_curvatures", "entropy_bits", "round_finely", "round_to_entropy"]

_WIDEST, _HALVINGS = 1e9, 60
"""The common factor of the steps is looked for within such a factor of 1, so many times."""
_NEAR, _FINE_HALVINGS = 1.3, 9
"""And again with feedback, within such a factor of that without."""


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


def round_to_entropy(
    network: nn.Module, curvatures: Mapping[str, Floats], bits: float, products: Products
) -> dict[str, Floats]:
    """Round all weights, in place, to multiples of steps at which their codes have some entropy.

    A channel's step is k / sqrt(h), h its curvature: a rounding by steps s costs the loss
    h s^2 / 24 for each weight and saves log2(s) bits, so that this is where no channel would
    gain by taking bits of another. Steps are at least max|w| / 127, the codes being of 8 bits. k is
    the least found at which the tensors' entropies, weighted by their sizes, are at most `bits`.

    Source: Gish and Pierce, Asymptotically Efficient Quantizing, 1968 (uniform steps, and the slope
    that they share); Choi et al., Towards the Limit of Network Quantization, ICLR 2017, section 3
    (distortion weighted by curvature, rate by entropy); `feedback_codes` for the rounding.

    Args:
        network: of float weights.
        curvatures: `channel_curvatures`.
        bits: of a weight, on average.
        products: `input_products`; weights that are not in it are rounded to the nearest.

    Returns:
        The steps by the weight's name, `[channels]`.

    Raises:
        InputError: not so few bits are reached with any steps, or so many.
    """
    weights = weights_of(network)
    arrays = {weight.name: _by_channel(weight.value, weight.axis) for weight in weights}
    relative = {name: _relative(curvatures[name]) for name in arrays}

    def steps(factor: float) -> dict[str, Floats]:
        return {
            name: np.maximum(factor * relative[name], _finest(values)).astype(np.float32)
            for name, values in arrays.items()
        }

    def codes(factor: float, known: Products) -> dict[str, NDArray[np.float64]]:
        chosen = steps(factor)
        return {
            name: rounded_rows(values, chosen[name], known.get(name))
            for name, values in arrays.items()
        }

    if not _mean_entropy(codes(_WIDEST, {})) <= bits <= _mean_entropy(codes(1 / _WIDEST, {})):
        raise InputError(f"the weights cannot have an entropy of {bits} bits each, on average")

    def is_enough(factor: float, known: Products) -> bool:
        return _mean_entropy(codes(factor, known)) <= bits

    factor = _least(partial(is_enough, known={}), 1.0, _WIDEST, _HALVINGS)
    factor = _least(partial(is_enough, known=products), factor, _NEAR, _FINE_HALVINGS)
    chosen, made = steps(factor), codes(factor, products)
    for weight in weights:
        _write(weight, made[weight.name], chosen[weight.name])
    return chosen


def round_finely(network: nn.Module, products: Products) -> dict[str, Floats]:
    """Round all weights, in place, to codes of 8 bits: multiples of max|w| / 127 of each channel.

    Args:
        network: of float weights.
        products: `input_products`, for `feedback_codes`; weights that are not in it are rounded to
            the nearest.

    Returns:
        The steps by the weight's name, `[channels]`.
    """
    chosen: dict[str, Floats] = {}
    for weight in weights_of(network):
        values = _by_channel(weight.value, weight.axis)
        steps = chosen[weight.name] = _finest(values)
        _write(weight, rounded_rows(values, steps, products.get(weight.name)), steps)
    return chosen


def _write(weight: Weight, codes: NDArray[np.float64], steps: Floats) -> None:
    """Let a weight be what codes `[channels, …]` of some steps stand for."""
    rows = (codes * steps[:, None]).astype(np.float32)
    with torch.no_grad():
        weight.value.copy_(_of_channels(rows, weight))


def _least(is_enough: Callable[[float], bool], middle: float, width: float, halvings: int) -> float:
    """Return about the least factor, from middle / width to middle x width, that is enough."""
    low, high = middle / width, middle * width
    for _ in range(halvings):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _by_channel(values: torch.Tensor, axis: int | None) -> Floats:
    """Return values as rows `[channels, …]`."""
    array: Floats = values.detach().cpu().numpy()
    moved = array[None] if axis is None else np.moveaxis(array, axis, 0)
    return moved.reshape(len(moved), -1)


def _of_channels(rows: Floats, weight: Weight) -> torch.Tensor:
    """Return rows `[channels, …]` in a weight's own order."""
    shape = list(weight.value.shape)
    if weight.axis is None:
        return torch.from_numpy(rows.reshape(shape))
    shape.insert(0, shape.pop(weight.axis))
    return torch.from_numpy(np.moveaxis(rows.reshape(shape), 0, weight.axis).copy())


def _relative(curvatures: Floats) -> NDArray[np.float64]:
    """Return 1 / sqrt(h); of channels that nothing depends on, of the least other h."""
    found = curvatures.astype(np.float64)
    positive = found[found > 0]
    return np.maximum(found, positive.min() if positive.size else 1.0) ** -0.5


def _finest(values: Floats) -> Floats:
    """Return the steps at which the channels' extremes have the greatest code."""
    finest = np.abs(values).max(axis=1) / HIGH
    return np.where(finest > 0, finest, 1).astype(np.float32)


def _mean_entropy(codes: Mapping[str, NDArray[np.float64]]) -> float:
    total = sum(entropy_bits(item) * item.size for item in codes.values())
    return total / sum(item.size for item in codes.values())
