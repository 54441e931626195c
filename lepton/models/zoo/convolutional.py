"""Plain convolutional networks: images [n, c, h, w] float32 in 0..1 -> logits [n, classes]."""

from __future__ import annotations

from torch import nn

# torch is typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

__all__ = ["caffe_lenet", "digits_cnn", "lenet", "mnist_cnn", "photo_cnn"]


def normalized_convolution(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a convolution that keeps the extent (at stride 1) and its batch norm."""
    convolution = nn.Conv2d(
        inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return [convolution, nn.BatchNorm2d(outputs)]


def _classifier(features: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes)]


def lenet(classes: int = 10) -> nn.Module:
    """Return LeNet-5 for images [n, 1, 28, 28], with ReLU and max pooling.

    Source: Y. LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998, figure
    2; its partial connections between the first two stages are full here.
    """
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes),
    )  # fmt: skip


def caffe_lenet(classes: int = 10) -> nn.Module:
    """Return Caffe's LeNet for images [n, 1, 28, 28]: 20, 50 and 500 wide, one ReLU.

    Source: S. Han et al., Deep Compression, 2016, table 1 (431 K parameters); Caffe's example
    `lenet.prototxt`.
    """
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, classes),
    )  # fmt: skip


def mnist_cnn(width: int = 16, classes: int = 10) -> nn.Module:
    """Return the reference CNN for images [n, 1, 28, 28]: width, 2, 4 and 4 times as wide."""
    layers: list[nn.Module] = []
    channels = 1
    for wider, is_last in ((width, False), (2 * width, False), (4 * width, True)):
        layers += [*normalized_convolution(channels, wider), nn.ReLU()]
        layers += [] if is_last else [nn.MaxPool2d(2)]
        channels = wider
    layers += [*normalized_convolution(channels, channels, stride=2), nn.ReLU()]
    return nn.Sequential(*layers, *_classifier(channels, classes))


def digits_cnn(width: int = 16, classes: int = 10) -> nn.Module:
    """Return a CNN for images [n, 1, 8, 8]: two convolutions, the second of stride 2."""
    return nn.Sequential(
        *normalized_convolution(1, width), nn.ReLU(),
        *normalized_convolution(width, 2 * width, stride=2), nn.ReLU(),
        *_classifier(2 * width, classes),
    )  # fmt: skip


def photo_cnn(width: int = 16, classes: int = 2) -> nn.Module:
    """Return a CNN for photographs [n, 3, 64, 64]: four stages of width, 2, 3 and 4 times it."""
    layers: list[nn.Module] = []
    channels = 3
    for stage in range(1, 5):
        layers += [*normalized_convolution(channels, stage * width), nn.ReLU(), nn.MaxPool2d(2)]
        channels = stage * width
    return nn.Sequential(*layers, *_classifier(channels, classes))
