"""Muon: steps whose matrices are made orthogonal, and Adam's for all that is no such matrix."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false, reportUnknownMemberType=false

__all__ = ["ADAM_RATIO", "Muon", "matrices_of", "muon_of", "orthogonalized"]

ADAM_RATIO = 1 / 3
"""The rate of Adam's steps, in rates of the matrices'."""
_MOMENTUM = 0.95
_ITERATIONS, _COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz iteration; these bring singular values near 1 fast, and not to 1."""
_BETAS, _EPSILON = (0.9, 0.99), 1e-8
"""Of Adam."""


class Muon(torch.optim.Optimizer):
    """Steps a group with `is_matrix` by Muon's rule, and others by Adam's without weight decay.

    A matrix W `[out, in, ...]` is read as `[out, in ...]`. With the momentum
    b = 0.95 b + 0.05 g of its slopes g it goes by `lr` s U, where U is the orthogonalized
    0.95 b + 0.05 g (Nesterov) and s = ||W|| / sqrt(lesser side) of the W that it starts from: at a
    rate of 1 a step has the root mean square of that W. What starts at zero has s = 1.

    Adam steps at `lr` times the group's `ratio`.

    Source: K. Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024; D. P.
    Kingma, J. Ba, Adam, ICLR 2015, algorithm 1.

    Args:
        groups: of parameters, each with the keys `params`, `is_matrix` and `ratio`.
        learning_rate: `lr` of every group.
    """

    def __init__(self, groups: list[dict[str, Any]], learning_rate: float) -> None:
        super().__init__(groups, {"lr": learning_rate, "is_matrix": False, "ratio": 1.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] (takes no closure)
        """Make a step by the slopes that the parameters have."""
        for group in self.param_groups:
            rate = group["lr"] * group["ratio"]
            move = _muon_step if group["is_matrix"] else _adam_step
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, self.state[parameter], rate)


def _muon_step(matrix: torch.Tensor, state: dict[str, Any], rate: float) -> None:
    if not state:
        state["momentum"] = torch.zeros_like(matrix)
        least = min(matrix.flatten(1).shape)
        state["scale"] = float(matrix.norm()) / math.sqrt(least) or 1.0
    slopes = cast(torch.Tensor, matrix.grad)
    momentum = state["momentum"].lerp_(slopes, 1 - _MOMENTUM)
    step = orthogonalized(slopes.lerp(momentum, _MOMENTUM).flatten(1))
    matrix.add_(step.reshape(matrix.shape), alpha=-rate * state["scale"])


def _adam_step(parameter: torch.Tensor, state: dict[str, Any], rate: float) -> None:
    if not state:
        state["step"] = 0
        state["mean"], state["square"] = (torch.zeros_like(parameter) for _ in range(2))
    state["step"] += 1
    slopes = cast(torch.Tensor, parameter.grad)
    mean = state["mean"].lerp_(slopes, 1 - _BETAS[0])
    square = state["square"].mul_(_BETAS[1]).addcmul_(slopes, slopes, value=1 - _BETAS[1])
    first, second = (1 - beta ** state["step"] for beta in _BETAS)
    parameter.addcdiv_(mean, (square / second).sqrt_().add_(_EPSILON), value=-rate / first)


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """Return a matrix `[rows, columns]` with its singular vectors and singular values near 1.

    Five times X = (a + b X X^T + c (X X^T)^2) X, which maps each singular value s to
    a s + b s^3 + c s^5; from 0.01 on, of a norm of 1, they end at 0.68 to 1.21. Zeros stay zeros.

    Source: K. Jordan et al., as `Muon`; the Newton-Schulz iteration.
    """
    made = matrix / (matrix.norm() + 1e-12)
    if is_tall := made.shape[0] > made.shape[1]:
        made = made.T
    first, third, fifth = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = made @ made.T
        made = first * made + (third * gram + fifth * gram @ gram) @ made
    return made.T if is_tall else made


def matrices_of(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that Muon is for: kernels of convolutions and linear layers.

    Parameters that make a kernel (factors, say) count like one. Those with one output or one input
    of a filter (depthwise ones) are no matrices, and the last linear layer is not hidden.
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    layers = [item for item in network.modules() if isinstance(item, kinds)]
    linear = [item for item in layers if isinstance(item, nn.Linear)]
    found: dict[int, nn.Parameter] = {}
    for layer in layers:
        if linear and layer is linear[-1]:
            continue
        for name, parameter in layer.named_parameters():
            if name.startswith(("weight", "parametrizations.weight.")) and _is_matrix(parameter):
                found[id(parameter)] = parameter
    return list(found.values())


def _is_matrix(parameter: nn.Parameter) -> bool:
    return parameter.ndim >= 2 and min(parameter.shape[:2]) > 1


def muon_of(network: nn.Module, learning_rate: float) -> Muon:
    """Return the optimizer of a network: of its matrices at that rate, of the rest at a third."""
    matrices = matrices_of(network)
    chosen = set(map(id, matrices))
    rest = [item for item in network.parameters() if id(item) not in chosen]
    groups = [
        {"params": matrices, "is_matrix": True, "ratio": 1.0},
        {"params": rest, "is_matrix": False, "ratio": ADAM_RATIO},
    ]
    return Muon([group for group in groups if group["params"]], learning_rate)
