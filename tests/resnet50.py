"""ResNet-50 in int8 with random weights, as a TFLite file."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.tflite_builder import Tensor, TfliteBuilder

__all__ = ["resnet50"]

_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Channels inside of a block, blocks, and stride of the first.

Source: He et al., "Deep residual learning for image recognition", 2016, table 1.
"""


class _Writer:
    """Layers with padding "same", every tensor of scale 0.05 and zero point 3."""

    def __init__(self) -> None:
        self._builder = TfliteBuilder()
        self._rng = np.random.default_rng(50)
        self._count = 0

    def input(self, shape: list[int]) -> Tensor:
        return self._builder.input("image", shape, "int8", 0.05, 3)

    def build(self, source: Tensor, result: Tensor) -> bytes:
        return self._builder.build([source], [result])

    def _tensor(self, shape: list[int]) -> Tensor:
        self._count += 1
        return self._builder.tensor(f"t{self._count}", shape, "int8", 0.05, 3)

    def weights(self, shape: list[int]) -> Tensor:
        self._count += 1
        drawn = self._rng.normal(0, 25, shape).clip(-127, 127).astype(np.int8)
        return self._builder.constant(f"w{self._count}", drawn, 0.002, 0)

    def convolution(self, x: Tensor, filters: int, size: int, stride: int, active: bool) -> Tensor:
        n, h, w, c = x.shape
        y = self._tensor([n, -(-h // stride), -(-w // stride), filters])
        weights = self.weights([filters, size, size, c])
        options: dict[str, Any] = {"fused_activation_function": "RELU"} if active else {}
        self._builder.operator(
            "CONV_2D", [x, weights, None], [y], padding="SAME", stride_h=stride, stride_w=stride,
            **options,
        )  # fmt: skip
        return y

    def pool(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        y = self._tensor([n, h // 2, w // 2, c])
        self._builder.operator(
            "MAX_POOL_2D", [x], [y], padding="SAME", stride_h=2, stride_w=2, filter_height=3,
            filter_width=3,
        )  # fmt: skip
        return y

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        y = self._tensor(list(a.shape))
        self._builder.operator("ADD", [a, b], [y], fused_activation_function="RELU")
        return y

    def classifier(self, x: Tensor, classes: int) -> Tensor:
        n, _, _, c = x.shape
        mean = self._tensor([n, 1, 1, c])
        axes = self._builder.constant("axes", np.array([1, 2], np.int32))
        self._builder.operator("MEAN", [x, axes], [mean], keep_dims=True)
        return self.convolution(mean, classes, 1, 1, False)


def resnet50(images: int = 1) -> bytes:
    """Return the network for images of 224 x 224 pixels."""
    w = _Writer()
    source = w.input([images, 224, 224, 3])
    x = w.pool(w.convolution(source, 64, 7, 2, True))
    for channels, blocks, first in _STAGES:
        for block in range(blocks):
            stride = first if block == 0 else 1
            inner = w.convolution(x, channels, 1, stride, True)
            inner = w.convolution(inner, channels, 3, 1, True)
            inner = w.convolution(inner, 4 * channels, 1, 1, False)
            x = w.add(x if block else w.convolution(x, 4 * channels, 1, stride, False), inner)
    return w.build(source, w.classifier(x, 1000))
