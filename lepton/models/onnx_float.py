"""The float network of an int8 QDQ ONNX file: to learn from, to start a compression with.

Weights and biases become the numbers that their codes stand for; activations are not rounded any
more. Where a quantizer's least code stands for 0 it was the ReLU of the layer before it, and
becomes one again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.onnx_module.reading import drop_unread, node_name, read_float_model, stored_array

if TYPE_CHECKING:
    import onnx

# onnx is typed in part only:
# pyright: reportUnknownMemberType=false

__all__ = ["float_onnx"]

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
_NOT_NEGATIVE = {"Relu", "Sigmoid", "Softmax"}
"""Operators whose results are at least 0."""
_KEEPING = {
    "AveragePool", "Concat", "Flatten", "GlobalAveragePool", "Identity", "MaxPool", "Pad",
    "ReduceMean", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators whose results are at least 0 if what they read is."""
_CLIPPED = 6.0
"""Where a ReLU6 ends."""


def float_onnx(source: str | Path | bytes | onnx.ModelProto) -> onnx.ModelProto:
    """Return the float network that an int8 QDQ model stands for; a float model as it is.

    Inputs and outputs keep their names and are real numbers before and after.

    Args:
        source: a file, its bytes, or the model.

    Raises:
        InputError: it cannot be read, computes its scales, or has integer operators.
        ImportFailure: it is no ONNX model, is damaged, or keeps its weights in other files.
    """
    model = read_float_model(source)
    foreign = next((node for node in model.graph.node if _is_integer(node.op_type)), None)
    if foreign is not None:
        raise InputError(
            f"{foreign.op_type} '{node_name(foreign)}' has no float form here: of int8 ONNX files "
            f"those of {_QUANTIZE} and {_DEQUANTIZE} (QDQ) are read"
        )
    if any(node.op_type in (_QUANTIZE, _DEQUANTIZE) for node in model.graph.node):
        _Dequantizer(model).rewrite()
    return model


def _is_integer(kind: str) -> bool:
    """Tell whether an operator computes with codes."""
    return kind.startswith("QLinear") or kind.endswith("Integer") or kind == "DynamicQuantizeLinear"


class _Codes(NamedTuple):
    """What a quantizer says of its codes."""

    scale: NDArray[np.float32]
    zero_point: NDArray[Any]
    axis: int

    def values(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """Return what codes stand for: (code - zero point) x scale."""
        shape = [1] * codes.ndim
        if self.scale.size > 1:
            shape[self.axis] = self.scale.size
        centred = codes.astype(np.int64) - self.zero_point.astype(np.int64).reshape(
            shape if self.zero_point.size > 1 else ()
        )
        scale = self.scale.reshape(shape if self.scale.size > 1 else ())
        return centred.astype(np.float32) * scale


class _Dequantizer:
    """Rewrites one graph in place.

    Attributes:
        graph: of the model.
        same: tensor -> the float one that stands for it.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.same: dict[str, str] = {}
        self._constants = {item.name: item for item in model.graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        self._not_negative: set[str] = set()

    def rewrite(self) -> None:
        """Take the quantizers out.

        Raises:
            InputError: scales are computed.
        """
        for node in list(self.graph.node):
            step = _STEPS.get(node.op_type)
            if step is not None:
                step(self, node)
                continue
            node.input[:] = [self._found(name) for name in node.input]
            self._note_sign(node)
            self._nodes.append(node)
        self._name_outputs()
        del self.graph.node[:]
        self.graph.node.extend(self._nodes)
        del self.graph.value_info[:]
        drop_unread(self.graph)

    def quantize(self, node: onnx.NodeProto) -> None:
        """Let codes be the numbers that they are made of, after the ReLU that the range implies."""
        source = self._found(node.input[0])
        self.same[node.output[0]] = source
        if source in self._constants:
            return
        codes = self._codes(node)
        limits = np.iinfo(codes.zero_point.dtype)
        if codes.zero_point.size > 1 or int(codes.zero_point.flat[0]) != limits.min:
            return
        if any(source == item.name for item in self.graph.input):
            self._not_negative.add(source)
            return
        greatest, step = float(codes.values(np.array(limits.max))), float(codes.scale.flat[0])
        if source not in self._not_negative or abs(greatest - _CLIPPED) <= step / 2:
            self.same[node.output[0]] = self._rectified(
                source, node.output[0], abs(greatest - _CLIPPED) <= step / 2
            )

    def dequantize(self, node: onnx.NodeProto) -> None:
        """Let numbers be those that the codes were made of, or of constant codes their values."""
        from onnx import numpy_helper

        name, made = node.input[0], node.output[0]
        if name not in self._constants:
            self.same[made] = self._found(name)
            return
        values = self._codes(node).values(stored_array(self._constants[name], name))
        label = name.removesuffix("_quantized")
        if label in self._constants or label == name:
            label = made
        constant = numpy_helper.from_array(np.ascontiguousarray(values), label)
        self._constants[label] = constant
        self.graph.initializer.append(constant)
        self.same[made] = label

    def _found(self, name: str) -> str:
        """Return the float tensor that stands for one."""
        return self.same.get(name, name)

    def _codes(self, node: onnx.NodeProto) -> _Codes:
        named = [*node.input[1:], ""][:2]
        if any(name and name not in self._constants for name in named):
            raise InputError(f"{node.op_type} '{node_name(node)}' has a scale that is computed")
        scale = stored_array(self._constants[named[0]], named[0])
        # without a zero point codes are uint8 from 0 on
        point = np.zeros((), np.uint8)
        if named[1]:
            point = stored_array(self._constants[named[1]], named[1])
        axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
        return _Codes(np.asarray(scale, np.float32), point, axis)

    def _rectified(self, source: str, made: str, is_clipped: bool) -> str:
        """Add max(x, 0), or min(max(x, 0), 6)."""
        from onnx import helper, numpy_helper

        name = f"{made}/relu"
        inputs = [source]
        if is_clipped:
            for limit in (0.0, _CLIPPED):
                constant = numpy_helper.from_array(np.array(limit, np.float32), f"{name}/{limit:g}")
                self.graph.initializer.append(constant)
                inputs.append(constant.name)
        kind = "Clip" if is_clipped else "Relu"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name))
        self._not_negative.add(name)
        return name

    def _note_sign(self, node: onnx.NodeProto) -> None:
        kinds = _NOT_NEGATIVE, _KEEPING | {"Add", "Mul"}
        read = [name for name in node.input if name and name not in self._constants]
        keeps = node.op_type in kinds[1] and read and self._not_negative.issuperset(read)
        if node.op_type in ("Add", "Mul") and len(read) < len(node.input):
            keeps = False  # a constant may be below 0
        if node.op_type in kinds[0] or keeps:
            self._not_negative.update(node.output)

    def _name_outputs(self) -> None:
        """Give the graph's outputs the names that they had."""
        from onnx import helper

        for item in self.graph.output:
            source = self._found(item.name)
            if source == item.name:
                continue
            self._nodes.append(helper.make_node("Identity", [source], [item.name], name=item.name))
            producer = next((node for node in self._nodes if source in node.output), None)
            readers = [node for node in self._nodes if source in node.input]
            if producer is not None and len(readers) == 1:
                self._nodes.pop()
                place = list(producer.output).index(source)
                producer.output[place] = item.name


_STEPS: Mapping[str, Callable[[_Dequantizer, Any], None]] = {
    _QUANTIZE: _Dequantizer.quantize,
    _DEQUANTIZE: _Dequantizer.dequantize,
}
