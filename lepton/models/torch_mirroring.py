"""The mean of a network's answers for images and for their mirror images."""

from __future__ import annotations

import torch
from torch import nn

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false

__all__ = ["MirrorMean", "mirror_mean"]


def mirror_mean(network: nn.Module, images: torch.Tensor, axis: int = 3) -> torch.Tensor:
    """Return the mean of a network's answers for images and their mirror images.

    Args:
        network: takes the images.
        images: `[n, c, h, w]`, or of other axes.
        axis: which one is the width.

    Source: Radosavovic et al., Data Distillation, CVPR 2018, section 3 (a teacher's answers for
    several transformed inputs, averaged).
    """
    return torch.stack(network(torch.cat([images, images.flip(axis)])).chunk(2)).mean(0)


class MirrorMean(nn.Module):
    """A network of images that answers with the mean for each and its mirror image.

    Args:
        network: takes the images.
        axis: of the images' width.
    """

    def __init__(self, network: nn.Module, axis: int = 3) -> None:
        super().__init__()
        self.network, self.axis = network, axis

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return `mirror_mean` of images."""
        return mirror_mean(self.network, images, self.axis)
