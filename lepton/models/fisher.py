"""How the loss curves along each weight of a network that tells classes apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

__all__ = ["fisher_information"]

_TOGETHER = 32
"""Samples whose gradients are summed up before they are squared."""


def fisher_information(
    network: nn.Module,
    parameters: Mapping[str, torch.Tensor],
    batches: Iterable[tuple[torch.Tensor, ...]],
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Return the diagonal of the Fisher information, E_x E_(y ~ p(x)) (d ln p_y(x) / dw)^2.

    It is the second derivative of KL(p || q), of the network's probabilities p and those q after a
    change of w, at no change. One label is drawn for each sample; the squared gradient of the sum
    over a few samples is without bias, as the gradients of drawn labels have the mean 0.

    Source: Martens, New Insights and Perspectives on the Natural Gradient Method, JMLR 2020,
    sections 5 and 8.1.

    Args:
        network: makes logits `[n, classes]`; it is run as for inference.
        parameters: of the network, by any names.
        batches: its inputs, at least one.
        seed: of the labels.

    Returns:
        By the same names, each of its parameter's shape.
    """
    import torch
    from torch.nn import functional

    sums = {name: torch.zeros_like(item) for name, item in parameters.items()}
    drawn, samples = torch.Generator().manual_seed(seed), 0
    was_training = network.training
    network.eval()
    for batch in batches:
        for inputs in zip(*(item.split(_TOGETHER) for item in batch), strict=True):
            logits = network(*inputs)
            chances = functional.softmax(logits.detach(), dim=-1)
            labels = torch.multinomial(chances, 1, generator=drawn)[:, 0]
            loss = functional.cross_entropy(logits, labels, reduction="sum")
            slopes = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
            for total, slope in zip(sums.values(), slopes, strict=True):
                total += slope.square()
            samples += len(logits)
    network.train(was_training)
    return {name: total / samples for name, total in sums.items()}
