"""Bits of each layer, chosen by what fewer of them cost, under a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lepton.errors import InputError
from lepton.models.extras import require

if TYPE_CHECKING:
    import torch

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

__all__ = ["Layer", "bits_for_cost", "bits_for_size", "least_loss", "measure_sensitivity"]


@dataclass(frozen=True)
class Layer:
    """What is known of a layer.

    Attributes:
        weights: their number.
        losses: bits -> by how much the network's loss rises if only this layer has so many.
    """

    weights: int
    losses: Mapping[int, float]

    def stored_bytes(self, bits: int) -> int:
        """Return the bytes of all weights at some bits, packed."""
        return -(-self.weights * bits // 8)


def measure_sensitivity(
    network: torch.nn.Module,
    loss: Callable[[torch.nn.Module], float],
    choices: Sequence[int] = (2, 3, 4, 5, 6, 8),
) -> dict[str, Layer]:
    """Measure how a network's loss rises with one layer's weights rounded at a time.

    Source: Wu et al., Integer Quantization for Deep Learning Inference, arXiv:2004.09602, whose
    sensitivity analysis this is, for each number of bits.

    Args:
        network: any module; it stays as it is.
        loss: of a network, on data of the caller's choice.
        choices: of bits, 1 to 8.

    Raises:
        LeptonError: PyTorch is not installed.
        InputError: weights are parametrized.
    """
    require("torch")
    import torch

    from lepton.models.quantization.integer_weights import IntegerWeights
    from lepton.models.quantization.torch_weights import refuse_replaced, weights_of

    refuse_replaced(network)
    whole = loss(network)
    layers: dict[str, Layer] = {}
    for weight in weights_of(network):
        value = weight.value
        kept = value.detach().clone()
        losses: dict[int, float] = {}
        try:
            for bits in choices:
                codes = IntegerWeights.of_values(kept.cpu().numpy(), bits, weight.axis)
                value.data.copy_(torch.from_numpy(codes.values))
                losses[bits] = loss(network) - whole
        finally:
            value.data.copy_(kept)
        layers[weight.name] = Layer(value.numel(), losses)
    return layers


def bits_for_size(layers: Mapping[str, Layer], budget_bytes: int) -> dict[str, int]:
    """Choose bits of least total loss whose weights fit a number of bytes.

    Exact for losses that add up: the multiple-choice knapsack problem by dynamic programming over
    the sizes that no smaller or equal one beats.

    Source: Dudzinski and Walukiewicz, Exact methods for the knapsack problem and its
    generalizations, European Journal of Operational Research 28(1), 1987; Chen et al., Towards
    Mixed-Precision Quantization of Neural Networks via Constrained Optimization, ICCV 2021, choose
    bits by it.

    Args:
        layers: by name.
        budget_bytes: of all packed weights.

    Raises:
        InputError: not even the fewest bits fit.
    """
    sizes = {
        name: {bits: layer.stored_bytes(bits) for bits in layer.losses}
        for name, layer in layers.items()
    }
    chosen = least_loss(layers, sizes, budget_bytes)
    if chosen is None:
        least = sum(min(row.values()) for row in sizes.values())
        raise InputError(f"the fewest bits need {least} bytes, the budget has {budget_bytes}")
    return chosen


def least_loss(
    layers: Mapping[str, Layer], costs: Mapping[str, Mapping[int, int]], budget: int
) -> dict[str, int] | None:
    """Return the bits of least total loss whose costs sum to at most a budget; None if none do.

    The multiple-choice knapsack problem by dynamic programming: after each layer, of all sums of
    costs those stay that no lower or equal one beats. See `bits_for_size`.

    Args:
        layers: by name.
        costs: layer -> bits -> cost, of either sign.
        budget: in the same unit.
    """
    # the costs above each layer's least are never negative, so that partial sums only grow
    least = {name: min(row.values()) for name, row in costs.items()}
    room = budget - sum(least.values())
    sizes, losses = np.zeros(1, np.int64), np.zeros(1)
    steps: list[tuple[list[int], np.ndarray, np.ndarray]] = []
    for name, layer in layers.items():
        choices = sorted(layer.losses)
        added = np.array([costs[name][bits] - least[name] for bits in choices])
        lost = np.array([layer.losses[bits] for bits in choices])
        all_sizes = (sizes[:, None] + added).reshape(-1)
        all_losses = (losses[:, None] + lost).reshape(-1)
        order = np.lexsort((all_losses, all_sizes))
        order = order[all_sizes[order] <= room]
        if not len(order):
            return None
        best = np.minimum.accumulate(all_losses[order])
        kept = order[np.concatenate([[True], best[1:] < best[:-1]])]
        steps.append((choices, *np.divmod(kept, len(choices))))
        sizes, losses = all_sizes[kept], all_losses[kept]
    place, chosen = len(sizes) - 1, list[int]()
    for choices, before, choice in reversed(steps):
        chosen.append(choices[int(choice[place])])
        place = int(before[place])
    return dict(zip(layers, reversed(chosen), strict=True))


def bits_for_cost(
    layers: Mapping[str, Layer],
    budget: float,
    evaluate: Callable[[Mapping[str, int]], float],
) -> dict[str, int]:
    """Choose bits whose cost, as a chip has it, is within a budget.

    Greedy from the most bits of all layers: each step gives the layer its next fewer bits that
    saves most per loss, (cost - cost') / (loss' - loss), until the cost fits. Steps that save
    nothing are taken where no step saves, the one of least loss first, since layers may save only
    together. `choose_bits` asks for fewer costs and ends nearer to the least loss.

    Source: Pandey et al., A Practical Mixed Precision Algorithm for Post-Training Quantization,
    arXiv:2302.05397 (from the most bits of all layers down, one layer at a time, until the budget
    is met; by the loss alone, where here the cost that a step saves counts too).

    Args:
        layers: by name.
        budget: in the unit of `evaluate`.
        evaluate: bits by layer -> cycles, bytes or joules.

    Raises:
        InputError: not even the fewest bits fit.
    """
    bits = {name: max(layer.losses) for name, layer in layers.items()}
    cost = evaluate(bits)
    while cost > budget:
        steps: list[tuple[float, float, str, int, float]] = []
        for name, layer in layers.items():
            fewer = [choice for choice in layer.losses if choice < bits[name]]
            if not fewer:
                continue
            lost = layer.losses[max(fewer)] - layer.losses[bits[name]]
            found = evaluate({**bits, name: max(fewer)})
            saved = cost - found
            rate = saved / max(lost, 1e-12) if saved > 0 else 0.0
            steps.append((rate, -lost, name, max(fewer), found))
        if not steps:
            raise InputError(f"the fewest bits cost {cost:g}, the budget is {budget:g}")
        _, _, name, choice, cost = max(steps)
        bits[name] = choice
    return bits
