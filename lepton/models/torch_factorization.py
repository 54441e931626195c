"""Convolutions that train as their factors, and compute as the kernels that these make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from lepton.models.factorization import Factors, factors_of, kernel_readers, with_factors
from lepton.models.onnx_module import from_onnx, to_onnx
from lepton.models.onnx_module.module import OnnxModule
from lepton.models.quantization.torch_feedback import input_products
from lepton.models.quantization.torch_weights import Weight, replace, weights_of

if TYPE_CHECKING:
    import onnx

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false

__all__ = ["FactoredKernels", "factorize_model"]

Train = Callable[[nn.Module], None]


class FactoredKernels(nn.Module):
    """Makes kernels `[o, c, h, w]` of their factors, which take their place among the parameters.

    One convolution of the product costs a training less time than two: of the depthwise one, the
    derivatives take most of it.
    """

    def __init__(self, factors: Factors, channels: int) -> None:
        super().__init__()
        self._factors, self._channels = factors, channels

    def forward(self, depthwise: torch.Tensor, pointwise: torch.Tensor) -> torch.Tensor:
        """Return the kernels of filters `[c r, 1, h, w]` and columns `[o, c r, 1, 1]`."""
        rows = depthwise.reshape(self._channels, -1, depthwise[0].numel())
        columns = pointwise.reshape(len(pointwise), self._channels, -1)
        made = torch.einsum("ocr,crk->ock", columns, rows)
        return made.reshape(*made.shape[:2], *depthwise.shape[2:])

    def right_inverse(self, kernels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factors to start from."""
        first, second = (torch.from_numpy(item).to(kernels) for item in self._factors)
        return first, second


def factorize_model(
    model: onnx.ModelProto,
    ranks: Mapping[str, int],
    inputs: tuple[torch.Tensor, ...],
    train: Train | None = None,
) -> onnx.ModelProto:
    """Return a float graph with convolutions of some weights as two each (`factors_of`).

    Args:
        model: float ONNX.
        ranks: by the name of the weights.
        inputs: of the network, of which the factors keep the outputs.
        train: trains the module with its factors in place, all else too.

    Raises:
        InputError: a name is not that of a convolution's weights, or there is no such rank.
        ImportFailure: the graph cannot be trained.
    """
    kernel_readers(model, ranks)
    module = from_onnx(model)
    products = input_products(module, [inputs])
    chosen = {name: _weight(module, name) for name in ranks}
    for name, weight in chosen.items():
        kernels = weight.value.detach().cpu().numpy()
        factors = factors_of(kernels, ranks[name], products.get(weight.name))
        replace(weight, FactoredKernels(factors, kernels.shape[1]))
    if train is not None:
        train(module)
    made = {name: _taken(weight) for name, weight in chosen.items()}
    return with_factors(to_onnx(module), made)


def _weight(module: OnnxModule, name: str) -> Weight:
    value = module.parameter_of(name)
    return next(weight for weight in weights_of(module) if weight.value is value)


def _taken(weight: Weight) -> Factors:
    """Return the factors of a weight, which is a plain parameter again."""
    owner: Any = weight.owner
    originals = owner.parametrizations[weight.label]
    first, second = (
        item.detach().cpu().numpy().astype(np.float64)
        for item in (originals.original0, originals.original1)
    )
    parametrize.remove_parametrizations(owner, weight.label, leave_parametrized=True)
    return Factors(first, second)
