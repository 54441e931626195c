"""Write a float ONNX graph node by node, with seeded weights: what the synthetic networks share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx

__all__ = ["GraphWriter"]

OPSET = 17
"""The first with LayerNormalization."""


class GraphWriter:
    """Collects nodes and constants; a method that adds a node returns the tensor it makes.

    Args:
        name: of the graph.
        seed: of every weight.
    """

    def __init__(self, name: str, seed: int) -> None:
        self._name = name
        self._rng = np.random.default_rng(seed)
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []

    def feed(self, name: str, shape: Sequence[int]) -> str:
        """Add a float32 input."""
        from onnx import TensorProto, helper

        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a constant."""
        from onnx import numpy_helper

        self._constants.append(numpy_helper.from_array(value, name))
        return name

    def weights(self, name: str, shape: Sequence[int], fan_in: int, gain: float = 1.0) -> str:
        """Add normal weights of variance gain^2 / fan_in, which keep a signal's own variance."""
        drawn = self._rng.standard_normal(shape, np.float32)
        return self.constant(name, drawn * np.float32(gain / math.sqrt(fan_in)))

    def biases(self, name: str, count: int, spread: float = 0.1) -> str:
        """Add normal biases."""
        return self.constant(
            name, self._rng.standard_normal(count, np.float32) * np.float32(spread)
        )

    def add(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; its only output bears its name."""
        from onnx import helper

        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def reshape(self, name: str, tensor: str, shape: Sequence[int]) -> str:
        """Add a Reshape."""
        target = self.constant(f"{name}.shape", np.array(shape, np.int64))
        return self.add("Reshape", name, tensor, target)

    def finish(self, outputs: Sequence[str]) -> onnx.ModelProto:
        """Return the model, with all shapes inferred."""
        import onnx
        from onnx import TensorProto, helper

        made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self._nodes, self._name, self._inputs, made, self._constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)
