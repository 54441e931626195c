"""Rounding weights one after the other, the rest making up for the error of those before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lepton.models.quantization.integer_weights import WEIGHT_BITS
from lepton.models.quantization.quantizers import Floats, code_limits
from lepton.models.quantization.torch_weights import Weight, weights_of

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

__all__ = ["HIGH", "Products", "feedback_codes", "input_products", "rounded_rows"]

HIGH = code_limits(WEIGHT_BITS, symmetric=True)[1]
"""The greatest code."""
_DAMPING = 0.01
"""Of the products' mean diagonal, added to the diagonal."""
_TOGETHER = 32

Products = Mapping[str, NDArray[np.float64]]


def input_products(
    network: nn.Module, batches: Iterable[tuple[torch.Tensor, ...]]
) -> dict[str, NDArray[np.float64]]:
    """Return the mean of x x^T of what each row of a weight is multiplied with, by its name.

    Args:
        network: run as for inference.
        batches: its inputs, at least one.

    Returns:
        `[k, k]` of linear layers and of convolutions with one group and zeros around, in the order
        of a row's weights; nothing of others.
    """
    sums: dict[str, tuple[torch.Tensor, int]] = {}

    def note(weight: Weight) -> Any:
        def hook(owner: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = _rows(owner, inputs[0])
            total, count = sums.get(weight.name, (0, 0))
            sums[weight.name] = (total + (rows.T @ rows).double(), count + len(rows))

        return hook

    layers = [weight for weight in weights_of(network) if _has_rows(weight.owner)]
    handles = [weight.owner.register_forward_pre_hook(note(weight)) for weight in layers]
    was_training = network.training
    network.eval()
    with torch.no_grad():
        for batch in batches:
            for inputs in zip(*(item.split(_TOGETHER) for item in batch), strict=True):
                network(*inputs)
    network.train(was_training)
    for handle in handles:
        handle.remove()
    return {name: (total / count).cpu().numpy() for name, (total, count) in sums.items()}


def _has_rows(owner: nn.Module) -> bool:
    if isinstance(owner, nn.Conv2d):
        return owner.groups == 1 and owner.padding_mode == "zeros"
    return isinstance(owner, nn.Linear)


def _rows(owner: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Return the vectors `[n, k]` that a layer's rows are multiplied with."""
    if isinstance(owner, nn.Linear):
        return values.reshape(-1, values.shape[-1])
    assert isinstance(owner, nn.Conv2d)
    padding: Any = owner._reversed_padding_repeated_twice  # pyright: ignore[reportPrivateUsage] ("same" as numbers)
    padded = nn.functional.pad(values, padding)
    columns = nn.functional.unfold(
        padded, owner.kernel_size, dilation=owner.dilation, stride=owner.stride
    )
    return columns.transpose(1, 2).flatten(0, 1)


def feedback_codes(
    values: Floats, steps: Floats, products: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return codes c of rows w so that (w - c s)^T H (w - c s) is small, H the products.

    Weight by weight, c_j = round(w_j / s), and what remains of the row moves by
    -(w_j - c_j s) / U_jj U_j, U the upper Cholesky factor of H^-1: the least squares answer to the
    error of w_j. H gets 1 % of its mean diagonal on the diagonal.

    Source: Frantar et al., GPTQ, ICLR 2023, section 3.3, without its lazy batches; Hassibi and
    Stork, Second Order Derivatives for Network Pruning: Optimal Brain Surgeon, 1992.

    Args:
        values: `[rows, k]`.
        steps: `[rows]`.
        products: `[k, k]`.
    """
    damping = max(_DAMPING * float(np.diag(products).mean()), np.finfo(np.float32).tiny)
    inverse = np.linalg.inv(products + damping * np.eye(len(products)))
    factor = np.linalg.cholesky(inverse).T
    left, scale = values.astype(np.float64), steps.astype(np.float64)
    codes = np.zeros_like(left)
    for at in range(left.shape[1]):
        codes[:, at] = np.rint(left[:, at] / scale).clip(-HIGH, HIGH)
        error = (left[:, at] - codes[:, at] * scale) / factor[at, at]
        left[:, at:] -= error[:, None] * factor[at, at:]
    return codes


def rounded_rows(
    values: Floats, steps: Floats, products: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return codes of rows `[rows, k]`: with feedback, or the nearest if there are no products."""
    if products is not None:
        return feedback_codes(values, steps, products)
    return np.rint(values / steps[:, None]).clip(-HIGH, HIGH).astype(np.float64)
