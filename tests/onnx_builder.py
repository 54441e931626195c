"""Build small ONNX models in memory and run them in the golden ONNX Runtime set-up."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.arith.onnx_float import Quantization, quantization

Array = NDArray[Any]


class Quantized(NamedTuple):
    """An 8-bit tensor's storage type and its quantization."""

    dtype: str
    params: Quantization

    @property
    def scale(self) -> Array:
        """Return the scale as an initializer."""
        return np.array(self.params.scale, np.float32)

    @property
    def zero_point(self) -> Array:
        """Return the zero point as an initializer."""
        return np.array(self.params.zero_point, self.dtype)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Draw codes over the whole range of the type."""
        return rng.integers(self.params.lo, self.params.hi + 1, shape).astype(self.dtype)


def draw_scale(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a log-uniform scale, every other time of one decimal digit.

    Ratios of such scales put many results within an ulp of a rounding tie, where a different order
    of operations shows.
    """
    scale = 10.0 ** rng.uniform(low, high)
    return float(f"{scale:.0e}") if rng.integers(2) else scale


def random_quantized(
    rng: np.random.Generator, dtype: str, exponents: tuple[float, float] = (-3.0, 0.0)
) -> Quantized:
    """Draw a scale and a zero point, the latter often at an end of its range."""
    limits = np.iinfo(dtype)
    points = [limits.min, limits.max, int(rng.integers(limits.min, limits.max + 1))]
    scale = draw_scale(rng, *exponents)
    return Quantized(dtype, quantization(scale, points[rng.integers(3)], dtype))


class OnnxBuilder:
    """Collect nodes of one graph; every method returns the name of the value it made."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._feeds: dict[str, Array] = {}
        self._count = 0

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def feed(self, array: Array) -> str:
        """Add a graph input that will be fed with ``array``."""
        from onnx import helper

        name = self._name()
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self._inputs.append(helper.make_tensor_value_info(name, kind, array.shape))
        self._feeds[name] = array
        return name

    def constant(self, array: Any) -> str:
        """Add an initializer."""
        from onnx import numpy_helper

        name = self._name()
        self._initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        """Add a node with one output."""
        from onnx import helper

        name = self._name()
        made = helper.make_node(op, inputs, [name], name=f"n{name}", domain=domain, **attributes)
        self._nodes.append(made)
        return name

    def qlinear(self, op: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node of the com.microsoft domain."""
        return self.node(op, inputs, "com.microsoft", **attributes)

    def params(self, tensor: Quantized) -> list[str]:
        """Add scale and zero point of a tensor."""
        return [self.constant(tensor.scale), self.constant(tensor.zero_point)]

    def dequantize(self, value: str, tensor: Quantized) -> str:
        """Add DequantizeLinear."""
        return self.node("DequantizeLinear", [value, *self.params(tensor)])

    def quantize(self, value: str, tensor: Quantized) -> str:
        """Add QuantizeLinear and make it the graph's output."""
        return self.output(self.node("QuantizeLinear", [value, *self.params(tensor)]), tensor.dtype)

    def output(self, value: str, dtype: str) -> str:
        """Make a value the graph's output."""
        from onnx import helper

        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._outputs.append(helper.make_tensor_value_info(value, kind, None))
        return value

    @property
    def feeds(self) -> dict[str, Array]:
        """What the graph's inputs are fed with."""
        return self._feeds

    def model(self) -> Any:
        """Return the graph as an `onnx.ModelProto`."""
        from onnx import helper

        graph = helper.make_graph(
            self._nodes, "graph", self._inputs, self._outputs, self._initializers
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def _session(self, optimized: str = "") -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.qdqisint8allowed", "1")
        if optimized:
            options.optimized_model_filepath = optimized
        providers = ["CPUExecutionProvider"]
        content = self.model().SerializeToString()
        return onnxruntime.InferenceSession(content, options, providers=providers)

    def run(self) -> Array:
        """Return the first output of the golden as int32 codes (or as it is, if float)."""
        result = self._session().run(None, self._feeds)[0]
        return result if result.dtype == np.float32 else result.astype(np.int32)

    def kernels(self, folder: Path) -> list[str]:
        """Return the operators that are left after the golden's optimizations."""
        import onnx

        path = folder / "optimized.onnx"
        self._session(str(path))
        return [node.op_type for node in onnx.load(path).graph.node]
