"""Small float ONNX networks with seeded weights, of structures that the model zoos are full of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton.models.onnx_writer import GraphWriter

if TYPE_CHECKING:
    import onnx

__all__ = ["detector_head", "encoder_decoder", "images"]


def images(side: int, count: int, seed: int = 1) -> NDArray[np.float32]:
    """Return images `[count, 1, 3, side, side]`: seeded smooth colours; 8 must divide the side."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal((count, 1, 3, side // 8, side // 8), np.float32)
    fine = rng.standard_normal((count, 1, 3, side, side), np.float32)
    mixed = coarse.repeat(8, 3).repeat(8, 4) + np.float32(0.3) * fine
    return mixed.astype(np.float32)


def encoder_decoder(side: int = 128, width: int = 16, seed: int = 0) -> onnx.ModelProto:
    """Return a segmentation network: `image` [1, 3, side, side] to `mask` [1, 4, side, side].

    Two poolings down; up again by a transposed convolution and by a bilinear resize, each with the
    skip connection of its level concatenated.
    """
    writer = GraphWriter("encoder_decoder", seed)
    image = writer.feed("image", (1, 3, side, side))
    first = _block(writer, "down1", image, 3, width)
    second = _block(writer, "down2", _pool(writer, "pool1", first), width, 2 * width)
    inner = _block(writer, "inner", _pool(writer, "pool2", second), 2 * width, 4 * width)
    weights = writer.weights("up2.weight", (4 * width, 2 * width, 2, 2), 4 * width)
    up = writer.add(
        "ConvTranspose", "up2", inner, weights, writer.biases("up2.bias", 2 * width), strides=[2, 2]
    )
    joined = writer.add("Concat", "skip2", up, second, axis=1)
    middle = _block(writer, "merge2", joined, 4 * width, 2 * width)
    scales = writer.constant("scales", np.array([1, 1, 2, 2], np.float32))
    wide = writer.add("Resize", "up1", middle, "", scales, mode="linear")
    joined = writer.add("Concat", "skip1", wide, first, axis=1)
    last = _block(writer, "merge1", joined, 3 * width, width)
    return writer.finish([_convolution(writer, "mask", last, (width, 4, 1))])


def detector_head(side: int = 160, anchors: int = 3, seed: int = 0) -> onnx.ModelProto:
    """Return a detector: `image` [1, 3, side, side] to `boxes` [1, n, 4] and `scores` [1, n, 8].

    A depthwise-separable backbone, heads on two of its levels, their results concatenated; scores
    behind a sigmoid.
    """
    writer = GraphWriter("detector_head", seed)
    tensor = writer.feed("image", (1, 3, side, side))
    tensor = _clipped(writer, "stem", _convolution(writer, "stem.c", tensor, (3, 16, 3), 2))
    channels = 16
    levels: list[tuple[str, int, int]] = []
    for stage, wider in enumerate((32, 64, 96, 128)):
        tensor = _separable(writer, f"stage{stage}", tensor, (channels, wider), 2)
        tensor = _separable(writer, f"stage{stage}b", tensor, (wider, wider), 1)
        channels = wider
        levels.append((tensor, wider, side >> (stage + 2)))
    parts: dict[str, list[str]] = {"boxes": [], "scores": []}
    for level, (feature, width, extent) in enumerate(levels[-2:]):
        for kind, values in (("boxes", 4), ("scores", 8)):
            name = f"{kind}{level}"
            raw = _separable(writer, f"{name}.s", feature, (width, width), 1)
            raw = _convolution(writer, f"{name}.c", raw, (width, anchors * values, 1))
            turned = writer.add("Transpose", f"{name}.turned", raw, perm=[0, 2, 3, 1])
            rows = (1, extent * extent * anchors, values)
            parts[kind].append(writer.reshape(name, turned, rows))
    boxes = writer.add("Concat", "boxes", *parts["boxes"], axis=1)
    logits = writer.add("Concat", "logits", *parts["scores"], axis=1)
    return writer.finish([boxes, writer.add("Sigmoid", "scores", logits)])


def _convolution(
    writer: GraphWriter, name: str, tensor: str, sizes: tuple[int, int, int], stride: int = 1
) -> str:
    """Add a convolution of (input channels, output channels, kernel) that keeps the extent."""
    inputs, outputs, kernel = sizes
    weights = writer.weights(
        f"{name}.weight", (outputs, inputs, kernel, kernel), inputs * kernel * kernel, 2**0.5
    )
    pads = [(kernel - 1) // 2] * 4
    return writer.add(
        "Conv", name, tensor, weights, writer.biases(f"{name}.bias", outputs), pads=pads,
        strides=[stride] * 2,
    )  # fmt: skip


def _block(writer: GraphWriter, name: str, tensor: str, inputs: int, outputs: int) -> str:
    """Add two 3 x 3 convolutions with their activations."""
    for number, channels in ((1, inputs), (2, outputs)):
        made = _convolution(writer, f"{name}.c{number}", tensor, (channels, outputs, 3))
        tensor = writer.add("Relu", f"{name}.r{number}", made)
    return tensor


def _pool(writer: GraphWriter, name: str, tensor: str) -> str:
    return writer.add("MaxPool", name, tensor, kernel_shape=[2, 2], strides=[2, 2])


def _clipped(writer: GraphWriter, name: str, tensor: str) -> str:
    """Add a ReLU6."""
    bounds = [
        writer.constant(f"{name}.{label}", np.array(value, np.float32))
        for label, value in (("low", 0), ("high", 6))
    ]
    return writer.add("Clip", name, tensor, *bounds)


def _separable(
    writer: GraphWriter, name: str, tensor: str, channels: tuple[int, int], stride: int
) -> str:
    """Add a depthwise 3 x 3 and a pointwise convolution, each with its ReLU6."""
    inputs, outputs = channels
    weights = writer.weights(f"{name}.dw.weight", (inputs, 1, 3, 3), 9, 2**0.5)
    depthwise = writer.add(
        "Conv", f"{name}.dw", tensor, weights, writer.biases(f"{name}.dw.bias", inputs),
        pads=[1] * 4, strides=[stride] * 2, group=inputs,
    )  # fmt: skip
    active = _clipped(writer, f"{name}.a", depthwise)
    pointwise = _convolution(writer, f"{name}.pw", active, (inputs, outputs, 1))
    return _clipped(writer, f"{name}.b", pointwise)
