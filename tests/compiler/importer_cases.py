"""Tables of one-operator models for the importers' tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.compiler import importer_models as made

MAP = [(1, 4, 8, 8)]
WEIGHTS = (made.int8_weights(6, 4, 3, 3), np.linspace(0.01, 0.02, 6).astype(np.float32), 0)
BIAS = (np.arange(-3000, 3000, 1000).astype(np.int32), np.float32(0.05) * WEIGHTS[1], 0)


def ints(*values: int) -> Any:
    """Return an int64 array."""
    return np.array(values, np.int64)


ONNX_CASES: dict[str, Callable[[], Any]] = {
    "conv": lambda: made.qdq("Conv", MAP, [WEIGHTS, BIAS], scales=(0.05, 0.3), pads=[1] * 4),
    "conv uint8": lambda: made.qdq(
        "Conv", MAP, [WEIGHTS, BIAS], scales=(0.05, 0.3), points=(120, 99), dtype="uint8"
    ),
    "conv same upper": lambda: made.qdq(
        "Conv", MAP, [WEIGHTS, BIAS], scales=(0.05, 0.3), auto_pad="SAME_UPPER", strides=[2, 2]
    ),
    "conv same lower": lambda: made.qdq(
        "Conv", MAP, [WEIGHTS], scales=(0.05, 0.3), auto_pad="SAME_LOWER", strides=[2, 2]
    ),
    "depthwise": lambda: made.qdq(
        "Conv", MAP, [(made.int8_weights(4, 1, 3, 3), np.full(4, 0.01), 0)], group=4, pads=[1] * 4
    ),
    "float bias": lambda: made.qdq(
        "Conv", MAP, [WEIGHTS, np.linspace(-3, 3, 6).astype(np.float32)], scales=(0.05, 0.3)
    ),
    "gemm": lambda: made.qdq(
        "Gemm", [(2, 12)], [(made.int8_weights(5, 12), np.full(5, 0.02), 0)], transB=1
    ),
    "matmul": lambda: made.qdq("MatMul", [(2, 3, 4), (2, 4, 5)], scales=(0.05, 0.2)),
    "conv transpose": lambda: made.qdq(
        "ConvTranspose", MAP, [(made.int8_weights(4, 6, 3, 3), 0.01, 0)], strides=[2, 2]
    ),
    "add": lambda: made.qdq("Add", MAP * 2, scales=(0.05, 0.1)),
    "mul": lambda: made.qdq("Mul", [(1, 4, 8, 8), (1, 4, 1, 1)], scales=(0.05, 0.1)),
    "max": lambda: made.qdq("Max", MAP * 3),
    "sum": lambda: made.qdq("Sum", MAP * 3, scales=(0.05, 0.1)),
    "clip": lambda: made.qdq("Clip", MAP, [np.float32(0), np.float32(6)]),
    "prelu": lambda: made.qdq("PRelu", MAP, [np.linspace(0, 1, 4).reshape(4, 1, 1).astype("f4")]),
    "elu": lambda: made.qdq("Elu", MAP),
    "hard swish": lambda: made.qdq("HardSwish", MAP),
    "hard sigmoid": lambda: made.qdq("HardSigmoid", MAP),
    "gelu": lambda: made.qdq("Gelu", MAP, opset=20),
    "leaky relu": lambda: made.qdq("LeakyRelu", MAP, alpha=0.2),
    "max pool": lambda: made.qdq(
        "MaxPool", MAP, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"
    ),
    "average pool": lambda: made.qdq(
        "AveragePool", MAP, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1
    ),
    "average pool padded": lambda: made.qdq(
        "AveragePool", MAP, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1
    ),
    "global average": lambda: made.qdq("GlobalAveragePool", MAP),
    "global max": lambda: made.qdq("GlobalMaxPool", MAP),
    "mean": lambda: made.qdq("ReduceMean", MAP, [ints(2, 3)], opset=18, keepdims=0),
    "softmax": lambda: made.qdq("Softmax", [(2, 10)], scales=(0.05, 1 / 256), points=(3, -128)),
    "reshape": lambda: made.qdq("Reshape", MAP, [ints(1, -1)]),
    "transpose": lambda: made.qdq("Transpose", MAP, perm=[0, 2, 3, 1]),
    "slice": lambda: made.qdq("Slice", MAP, [ints(1), ints(7), ints(2), ints(2)]),
    "split": lambda: made.qdq("Split", MAP, [ints(1, 3)], results=2, axis=1),
    "split into one": lambda: made.qdq("Split", MAP, [ints(4)], axis=1),
    "concat": lambda: made.qdq("Concat", MAP * 2, axis=1),
    "concat requantized": lambda: made.qdq("Concat", MAP * 2, scales=(0.05, 0.07), axis=1),
    "pad": lambda: made.qdq("Pad", MAP, [ints(0, 0, 1, 2, 0, 0, 3, 4)]),
    "pad reflect": lambda: made.qdq("Pad", MAP, [ints(0, 0, 1, 2, 0, 0, 3, 4)], mode="reflect"),
    "gather": lambda: made.qdq("Gather", [(5, 3)], [ints(3, 1)], axis=0),
    "resize nearest": lambda: made.qdq(
        "Resize", MAP, [None, np.array([1, 1, 2, 2], np.float32)], mode="nearest"
    ),
    "resize linear": lambda: made.qdq(
        "Resize", MAP, [None, np.array([1, 1, 2, 2], np.float32)], mode="linear"
    ),
}


def qlinear(kind: str, **attributes: Any) -> Any:
    """Return a model of one com.microsoft operator of one or two uint8 inputs."""
    from onnx import TensorProto

    values = {"sx": np.float32(0.05), "zx": np.uint8(120), "sy": np.float32(0.07)}
    values |= {"sz": np.float32(0.03), "zz": np.uint8(90), "zy": np.uint8(100)}
    binary = kind in ("QLinearAdd", "QLinearMul")
    names = ["x", "sx", "zx", *(["z", "sz", "zz"] if binary else []), "sy", "zy"]
    if kind == "QLinearConcat":
        names, binary = ["sy", "zy", "x", "sx", "zx", "z", "sz", "zz"], True
    inputs = [(name, TensorProto.UINT8, (1, 4, 6, 6)) for name in ("x", "z")[: 1 + binary]]
    single = made.node(kind, names, "y", domain="com.microsoft", **attributes)
    return made.onnx_model([single], values, inputs, [("y", TensorProto.UINT8)])


def tflite_conv(kind: str, options: str, weights: Any, axis: int, **fields: Any) -> bytes:
    """Return a convolution whose bias has the scale sx * sw."""
    count = weights.shape[axis]
    scales = np.linspace(0.01, 0.02, count).astype(np.float32)
    bias = made.constant("b", np.arange(count) * 50, "int32", scales * np.float32(0.05))
    inputs = made.activation("x", (1, 7, 8, weights.shape[3] if axis == 0 else count))
    tensors = [inputs, made.constant("w", weights, "int8", scales, 0, axis), bias]
    fields = {"padding": 0, "strideH": 1, "strideW": 1} | fields
    rows, columns = -(-7 // fields["strideH"]), -(-8 // fields["strideW"])
    tensors.append(made.activation("y", (1, rows, columns, count), 0.3, -7))
    fields |= {"dilationHFactor": 1, "dilationWFactor": 1}
    return made.tflite_model(kind, tensors, [0, 1, 2], [3], (options, fields), 3)


def tflite_unary(kind: str, scale: float, point: int, options: Any = None) -> bytes:
    """Return an element-wise operator."""
    tensors = [made.activation("x", (1, 6, 8)), made.activation("y", (1, 6, 8), scale, point)]
    return made.tflite_model(kind, tensors, [0], [1], options, 1 if kind == "HARD_SWISH" else 2)


def tflite_pool(kind: str, padding: int, activation: int = 0) -> bytes:
    """Return a 3 x 3 pooling with stride 2."""
    size = (1, 3, 4, 8) if padding == 0 else (1, 2, 3, 8)
    tensors = [made.activation("x", (1, 6, 7, 8)), made.activation("y", size)]
    fields = {"padding": padding, "strideH": 2, "strideW": 2, "filterHeight": 3, "filterWidth": 3}
    fields["fusedActivationFunction"] = activation
    return made.tflite_model(kind, tensors, [0], [1], ("Pool2DOptions", fields), 2)


def tflite_add(activation: int) -> bytes:
    """Return an addition with a fused activation."""
    shape = (1, 4, 4, 8)
    tensors = [made.activation("a", shape, 0.1, 5), made.activation("b", shape, 0.07, -9)]
    tensors.append(made.activation("y", shape, 0.12, -20))
    fields = {"fusedActivationFunction": activation}
    return made.tflite_model("ADD", tensors, [0, 1], [2], ("AddOptions", fields), 2)


def tflite_with(kind: str, extra: Any, output: Sequence[int], options: Any = None) -> bytes:
    """Return an operator of one activation and one constant."""
    tensors = [made.activation("x", (1, 4, 5, 8)), extra, made.activation("y", output)]
    return made.tflite_model(
        kind, tensors, [0, 1], [2], options, 1 if kind in ("PRELU", "RESHAPE") else 2
    )


TFLITE_CASES: dict[str, Callable[[], bytes]] = {
    "conv": lambda: tflite_conv(
        "CONV_2D", "Conv2DOptions", made.int8_weights(6, 3, 3, 5), 0, strideH=2, strideW=2
    ),
    "conv relu6": lambda: tflite_conv(
        "CONV_2D", "Conv2DOptions", made.int8_weights(6, 3, 3, 5), 0, fusedActivationFunction=3
    ),
    "depthwise": lambda: tflite_conv(
        "DEPTHWISE_CONV_2D",
        "DepthwiseConv2DOptions",
        made.int8_weights(1, 3, 3, 6),
        3,
        depthMultiplier=1,
    ),
    "dense": lambda: made.tflite_model(
        "FULLY_CONNECTED",
        [
            made.activation("x", (2, 3, 4)),
            made.constant("w", made.int8_weights(5, 12), "int8", 0.01),
            made.constant("b", np.arange(5) * 40, "int32", np.float32(0.05) * np.float32(0.01)),
            made.activation("y", (2, 5), 0.1, 4),
        ],
        [0, 1, 2],
        [3],
        ("FullyConnectedOptions", {}),
        4,
    ),
    "average pool same": lambda: tflite_pool("AVERAGE_POOL_2D", 0),
    "average pool valid": lambda: tflite_pool("AVERAGE_POOL_2D", 1, 1),
    "max pool": lambda: tflite_pool("MAX_POOL_2D", 0),
    "add": lambda: tflite_add(0),
    "add relu": lambda: tflite_add(1),
    "add relu n1 to 1": lambda: tflite_add(2),
    "mean": lambda: tflite_with(
        "MEAN", made.constant("a", [1, 2], "int32"), (1, 8), ("ReducerOptions", {})
    ),
    "softmax": lambda: tflite_unary("SOFTMAX", 1 / 256, -128, ("SoftmaxOptions", {"beta": 1.0})),
    "softmax beta": lambda: tflite_unary(
        "SOFTMAX", 1 / 256, -128, ("SoftmaxOptions", {"beta": 0.3})
    ),
    "resize nearest aligned": lambda: tflite_with(
        "RESIZE_NEAREST_NEIGHBOR",
        made.constant("s", [7, 9], "int32"),
        (1, 7, 9, 8),
        ("ResizeNearestNeighborOptions", {"alignCorners": True}),
    ),
    "logistic": lambda: tflite_unary("LOGISTIC", 1 / 256, -128),
    "tanh": lambda: tflite_unary("TANH", 1 / 128, 0),
    "hard swish": lambda: tflite_unary("HARD_SWISH", 0.04, -50),
    "leaky relu": lambda: tflite_unary("LEAKY_RELU", 0.05, 3, ("LeakyReluOptions", {"alpha": 0.1})),
    "gelu": lambda: tflite_unary("GELU", 0.05, 3, ("GeluOptions", {"approximate": False})),
    "prelu": lambda: tflite_with(
        "PRELU", made.constant("a", made.int8_weights(1, 1, 8), "int8", 0.003, 2), (1, 4, 5, 8)
    ),
    "pad": lambda: tflite_with(
        "PAD", made.constant("p", [[0, 0], [1, 2], [3, 0], [0, 0]], "int32"), (1, 7, 8, 8)
    ),
    "transpose": lambda: tflite_with(
        "TRANSPOSE", made.constant("p", [0, 3, 1, 2], "int32"), (1, 8, 4, 5)
    ),
    "reshape": lambda: tflite_with("RESHAPE", made.constant("s", [1, 160], "int32"), (1, 160)),
    "resize nearest": lambda: tflite_with(
        "RESIZE_NEAREST_NEIGHBOR",
        made.constant("s", [8, 10], "int32"),
        (1, 8, 10, 8),
        ("ResizeNearestNeighborOptions", {"halfPixelCenters": True}),
    ),
    "resize bilinear": lambda: tflite_with(
        "RESIZE_BILINEAR",
        made.constant("s", [8, 10], "int32"),
        (1, 8, 10, 8),
        ("ResizeBilinearOptions", {"halfPixelCenters": True}),
    ),
}
