"""A network of which an NPU can run a part: 8-bit layers beside a float convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

__all__ = ["mixed_network"]


def mixed_network() -> bytes:
    """Return x -> q -> conv -> (conv, float conv and erf) -> add -> y as an ONNX model.

    The branches are one 8-bit unit and one that only the CPU runs.
    """
    rng = np.random.default_rng(7)
    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=f"n_{output}", **attributes))
        return output

    def quantize(source: str, output: str, scale: float, zero_point: int = 0) -> str:
        point = constant(f"{output}_z", np.int8(zero_point))
        pair = [constant(f"{output}_s", np.float32(scale)), point]
        return node("QuantizeLinear", [source, *pair], output)

    def dequantize(source: str, output: str) -> str:
        return node("DequantizeLinear", [source, f"{source}_s", f"{source}_z"], output)

    def weights(name: str, channels: int) -> str:
        content = rng.integers(-127, 128, (8, channels, 3, 3)).astype(np.int8)
        pair = [constant(f"{name}_s", np.float32(0.004)), constant(f"{name}_z", np.int8(0))]
        return node("DequantizeLinear", [constant(name, content), *pair], f"{name}_f")

    def convolution(source: str, kernel: str, output: str) -> str:
        return node("Conv", [source, kernel], output, pads=[1, 1, 1, 1], kernel_shape=[3, 3])

    quantize("x", "xq", 0.03)
    stem = convolution(dequantize("xq", "xd"), weights("w0", 3), "c0")
    quantize(node("Relu", [stem], "r0"), "a", 0.05, -128)
    quantize(convolution(dequantize("a", "ad"), weights("w1", 8), "c1"), "b", 0.1)
    floats = constant("w2", rng.standard_normal((8, 8, 3, 3)).astype(np.float32) * 0.1)
    quantize(node("Erf", [convolution("ad", floats, "c2")], "e"), "c", 0.01)
    quantize(node("Add", [dequantize("b", "bd"), dequantize("c", "cd")], "s"), "t", 0.1)
    dequantize("t", "y")
    graph = helper.make_graph(
        nodes,
        "mixed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 8, 16, 16])],
        constants,
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
