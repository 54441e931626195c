"""Shared weights as a PyTorch parametrization: the codebook is what trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from lepton.models.quantization.integer_weights import WEIGHT_BITS, IntegerWeights
from lepton.models.quantization.torch_fake import FakeWeights
from lepton.models.quantization.torch_weights import replace, weights_of
from lepton.models.sharing import Shared, SharingOptions, share

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false

__all__ = ["SharedWeights", "share_network"]


class SharedWeights(nn.Module):
    """Makes a weight of its levels: w_i = level[code_i].

    The gradient of a level is the sum of the gradients of its members,
    dL/dc_k = sum_i dL/dw_i [code_i = k]; a level of zero stays zero. With fewer than 8 bits levels
    are rounded to codes of one scale, straight through (`FakeWeights`).

    Source: Han et al., Deep Compression, ICLR 2016, section 3.3.
    """

    codes: torch.Tensor
    trains: torch.Tensor

    def __init__(self, shared: Shared, bits: int = WEIGHT_BITS) -> None:
        super().__init__()
        self.register_buffer("codes", torch.from_numpy(shared.codes))
        levels = torch.from_numpy(shared.levels)
        self.register_buffer("trains", (levels != 0).to(levels.dtype))
        self._levels = levels
        self.rounding = FakeWeights(levels, bits, None, False) if bits < WEIGHT_BITS else None

    def forward(self, levels: torch.Tensor) -> torch.Tensor:
        """Return the weight of levels `[k]`."""
        kept = levels * self.trains
        if self.rounding is not None:
            kept = self.rounding(kept)
        return torch.index_select(kept, 0, self.codes.reshape(-1)).reshape(self.codes.shape)

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the levels, which take the weight's place among the parameters."""
        return self._levels.to(weight)

    def stored(self, weight: torch.Tensor) -> IntegerWeights:
        """Return codes of one scale: equal weights have equal codes."""
        if self.rounding is not None:
            return self.rounding.stored(weight)
        return IntegerWeights.of_levels(weight.cpu().numpy())


def share_network(
    network: nn.Module, options: SharingOptions, importance: Mapping[str, torch.Tensor]
) -> None:
    """Replace the weights of a network by levels and codes, in place."""
    for weight in weights_of(network):
        clusters = options.clusters_of(weight.name)
        if clusters is None:
            continue
        values = weight.value.detach().cpu().numpy()
        given = importance.get(weight.name)
        weighing = None if given is None else given.detach().cpu().numpy()
        replace(weight, SharedWeights(share(values, clusters, options, weighing), options.bits))
