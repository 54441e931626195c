"""Networks with residual additions: images [n, 3, 32, 32] float32 in 0..1 -> logits."""

from __future__ import annotations

import torch
from torch import nn

from lepton.models.zoo.convolutional import normalized_convolution

# torch is typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false

__all__ = ["mobilenet", "resnet8"]


class Residual(nn.Module):
    """Adds a shortcut to a body: `activation(body(x) + shortcut(x))`."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.activation = body, shortcut, activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the body's output shape."""
        return self.activation(self.body(x) + self.shortcut(x))


def _basic_block(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return two 3 x 3 convolutions beside the input, or its 1 x 1 convolution if that differs."""
    body = nn.Sequential(
        *normalized_convolution(inputs, outputs, stride=stride), nn.ReLU(),
        *normalized_convolution(outputs, outputs),
    )  # fmt: skip
    keeps = stride == 1 and inputs == outputs
    shortcut = nn.Identity() if keeps else nn.Conv2d(inputs, outputs, 1, stride)
    return Residual(body, shortcut, nn.ReLU())


def resnet8(width: int = 16, classes: int = 10) -> nn.Module:
    """Return ResNet-8: a stem and three blocks of `width`, 2 and 4 times as many channels.

    Source: MLPerf Tiny v1.0, image classification, `resnet_v1_eembc` of `keras_model.py`
    (github.com/mlcommons/tiny); its convolutions have biases besides, which a batch norm absorbs.
    """
    return nn.Sequential(
        *normalized_convolution(3, width), nn.ReLU(),
        _basic_block(width, width, 1),
        _basic_block(width, 2 * width, 2),
        _basic_block(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, classes),
    )  # fmt: skip


def _inverted_block(inputs: int, outputs: int, stride: int, expansion: int) -> nn.Module:
    """Return expansion, depthwise and linear 1 x 1 convolution, with a shortcut where it fits."""
    inner = inputs * expansion
    body = nn.Sequential(
        *normalized_convolution(inputs, inner, 1), nn.ReLU6(),
        *normalized_convolution(inner, inner, 3, stride, groups=inner), nn.ReLU6(),
        *normalized_convolution(inner, outputs, 1),
    )  # fmt: skip
    if stride == 1 and inputs == outputs:
        return Residual(body, nn.Identity(), nn.Identity())
    return body


def mobilenet(width: int = 16, expansion: int = 4, classes: int = 10) -> nn.Module:
    """Return inverted residual blocks with linear bottlenecks for images of 32 x 32.

    Source: M. Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018, table
    1, with fewer blocks and strides that suit 32 x 32.
    """
    layers: list[nn.Module] = [*normalized_convolution(3, width), nn.ReLU6()]
    channels = width
    for wider, blocks, stride in ((width, 1, 1), (2 * width, 2, 2), (4 * width, 2, 2)):
        for block in range(blocks):
            here = stride if block == 0 else 1
            layers.append(_inverted_block(channels, wider, here, expansion))
            channels = wider
    layers += [*normalized_convolution(channels, 8 * width, 1), nn.ReLU6()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, classes)]
    return nn.Sequential(*layers)
