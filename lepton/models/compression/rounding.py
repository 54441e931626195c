"""The rounding of weights that a training with it starts from, or that stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lepton.models.compression.recipe import CompressionRecipe
from lepton.models.datasets import Dataset

if TYPE_CHECKING:
    import torch

    from lepton.models.quantization.quantizers import Floats

# torch is typed in part only, and an extra:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

__all__ = ["PRODUCTS", "rounded"]

PRODUCTS = 512
"""Samples that the products of layers' inputs are taken from."""
_CURVATURES = 4096
"""Samples that the loss's curvatures are taken from."""


def rounded(
    module: torch.nn.Module, samples: Dataset, recipe: CompressionRecipe
) -> dict[str, Floats] | None:
    """Round a module's weights as a recipe says, and return their steps.

    Args:
        module: its weights move to the multiples of the steps.
        samples: from which curvatures and products are taken.
        recipe: weights go to `entropy_bits`, or to 8 bits that no training changes.

    Returns:
        By the name of the weight, a step for each row; None where the training's rounding is that
        of `bits`, and nothing was rounded here.
    """
    import torch

    from lepton.models.quantization.torch_feedback import input_products
    from lepton.models.quantization.torch_steps import (
        channel_curvatures,
        round_finely,
        round_to_entropy,
    )

    bits = recipe.entropy_bits
    few = tuple(map(torch.from_numpy, samples.batch(slice(0, PRODUCTS))))
    if bits is None:
        rounds = recipe.quantize_epochs == 0
        return round_finely(module, input_products(module, [few])) if rounds else None
    inputs = tuple(map(torch.from_numpy, samples.batch(slice(0, _CURVATURES))))
    curvatures = channel_curvatures(module, [inputs], recipe.seed)
    return round_to_entropy(module, curvatures, bits, input_products(module, [few]))
