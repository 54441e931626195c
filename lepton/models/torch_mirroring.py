"""The mean of a network's answers for images and for their mirror images."""

from __future__ import annotations

import torch
from torch import nn

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false

__all__ = ["MirrorMean", "mirror_mean"]


def mirror_mean(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the mean of a network's answers for images `[n, c, h, w]` and their mirror images.

    Source: Radosavovic et al., Data Distillation, CVPR 2018, section 3 (a teacher's answers for
    several transformed inputs, averaged).
    """
    return torch.stack(network(torch.cat([images, images.flip(3)])).chunk(2)).mean(0)


class MirrorMean(nn.Module):
    """A network of images that answers with the mean for each and its mirror image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return `mirror_mean` of images `[n, c, h, w]`."""
        return mirror_mean(self.network, images)
