"""Better rounding without training: folded batch norms, equalized channels, corrected biases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.models.extras import require
from lepton.models.quantization.quantizers import Floats

if TYPE_CHECKING:
    import torch

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

__all__ = ["correct_biases", "equalize", "equalizing_factors", "fold_batch_norms"]


def equalizing_factors(first: NDArray[Any], second: NDArray[Any]) -> Floats:
    """Return s_i = sqrt(r1_i r2_i) / r2_i, with which channel i has equal ranges in two layers.

    The first layer's output channel i is divided by s_i and the second's input channel i multiplied
    by it. A ReLU between them lets positive factors through, f(s x) = s f(x). A channel that is all
    zero in either layer keeps s = 1.

    Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction,
    ICCV 2019, section 4.1.

    Args:
        first: `[channels, ...]`, r1_i = max|w| of channel i.
        second: `[out, channels, ...]`, r2_i likewise.
    """
    r1 = np.abs(first.reshape(len(first), -1)).max(1).astype(np.float64)
    r2 = np.abs(np.moveaxis(second, 1, 0).reshape(len(first), -1)).max(1).astype(np.float64)
    used = (r1 > 0) & (r2 > 0)
    factors = np.sqrt(r1 * r2) / np.where(used, r2, 1)
    return np.where(used, factors, 1).astype(np.float32)


def fold_batch_norms(network: torch.nn.Module, example: Sequence[torch.Tensor]) -> int:
    """Fold each batch norm into the layer before it, in place; return how many were.

    w' = w g / sqrt(v + e) and b' = (b - m) g / sqrt(v + e) + beta, where nothing else reads the
    layer's result. The network is in eval mode afterwards.

    Source: Jacob et al., CVPR 2018, section 3.2.

    Args:
        network: any module whose course does not depend on its input.
        example: its inputs; one run shows what reads what.

    Raises:
        LeptonError: PyTorch is not installed.
        InputError: weights are parametrized.
    """
    require("torch")
    from lepton.models.quantization.torch_pairs import fold_all

    return fold_all(network, example)


def equalize(network: torch.nn.Module, example: Sequence[torch.Tensor], rounds: int = 20) -> int:
    """Equalize the ranges of channels between neighbouring layers, in place.

    Neighbours are convolutions and linear layers with nothing but ReLUs, poolings, dropouts and
    flattening between them, of which nothing else reads anything. Batch norms must be folded. What
    the network computes stays the same.

    Args:
        network: any module whose course does not depend on its input.
        example: its inputs; one run shows what reads what.
        rounds: passes over all pairs, since each changes the ranges of the next.

    Returns:
        The number of pairs.

    Raises:
        LeptonError: PyTorch is not installed.
        InputError: weights are parametrized.
    """
    require("torch")
    from lepton.models.quantization.torch_pairs import equalize_pair, layer_pairs

    pairs = layer_pairs(network, example)
    for _ in range(rounds):
        for pair in pairs:
            equalize_pair(pair)
    return len(pairs)


def correct_biases(
    network: torch.nn.Module,
    quantized: torch.nn.Module,
    batches: Callable[[], Sequence[Any]],
) -> None:
    """Take from each bias the mean error that rounding the weights causes, in place.

    b'_c = b_c - (E[y'_c] - E[y_c]) over the batches and positions, layer after layer in the order
    of execution, each with the layers before it corrected. Layers without a bias get one.

    Source: Nagel et al., ICCV 2019, section 4.2; here E is measured, as in its appendix D.

    Args:
        network: the float network.
        quantized: a copy of it with rounded weights, whose biases are corrected.
        batches: gives the same batches at each call, each an input or a tuple of inputs.

    Raises:
        LeptonError: PyTorch is not installed.
    """
    require("torch")
    from lepton.models.quantization.torch_bias import correct_all

    correct_all(network, quantized, batches)
