"""Merge two changes of scale in a row, as the golden library does before it runs anything.

before: q1 = QuantizeLinear(v, s1, z1); d1 = DequantizeLinear(q1, s1, z1)
        q2 = QuantizeLinear(d1, s2, z2); d2 = DequantizeLinear(q2, s2, z2), one or several
after:  q1 = QuantizeLinear(v, s, z); d2 = DequantizeLinear(q1, s, z)

`s` and `z` span the real values that both pairs can hold, so results differ from those of the
file as it is written; whoever runs the file with all optimizations gets these.

Source: ONNX Runtime 1.31 (MIT), what its optimizer makes of such graphs; formula re-derived.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["NodeIndex", "Parameters", "merge_pairs"]

_TYPES = ("int8", "uint8")


class Parameters(NamedTuple):
    """Scale and zero point of a tensor."""

    scale: np.float32
    zero_point: int
    dtype: str


class NodeIndex:
    """One graph: its constants, and who makes and reads each tensor."""

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self.graph = graph
        self._to_array = numpy_helper.to_array
        self._constants = {item.name: item for item in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t
        self._outputs = {value.name for value in graph.output}
        values = (*graph.input, *graph.value_info, *graph.output)
        self._types = {value.name: value.type.tensor_type for value in values}
        self.maker = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return a constant's array, None if it is not constant."""
        item = self._constants.get(name)
        return None if item is None else self._to_array(item)

    def is_output(self, name: str) -> bool:
        """Return whether a tensor is an output of the graph."""
        return name in self._outputs

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor that is not constant, None if it is not fully known."""
        kind = self._types.get(name)
        if kind is None or not kind.HasField("shape"):
            return None
        extents = kind.shape.dim
        if not all(extent.HasField("dim_value") for extent in extents):
            return None
        return tuple(extent.dim_value for extent in extents)

    def rank(self, name: str) -> int | None:
        """Return the number of dimensions of a tensor that is not constant, None if unknown."""
        kind = self._types.get(name)
        return len(kind.shape.dim) if kind is not None and kind.HasField("shape") else None

    def parameters(self, node: Any) -> Parameters | None:
        """Return the constant scalar parameters of a (de)quantize, None if it has no such."""
        if len(node.input) < 3:
            return None
        scale, point = (self.constant(name) for name in node.input[1:3])
        if scale is None or point is None:
            return None
        if scale.size != 1 or point.size != 1 or scale.dtype != np.float32:
            return None
        if point.dtype.name not in _TYPES:
            return None
        return Parameters(np.float32(scale.item()), int(point.item()), point.dtype.name)

    def only_reader(self, node: Any, kind: str) -> Any:
        """Return the one node of `kind` that reads a result which is no output, or None."""
        readers = self.all_readers(node, kind)
        return readers[0] if len(readers) == 1 else None

    def all_readers(self, node: Any, kind: str) -> list[Any]:
        """Return what reads a result, nothing if it is an output or any is not of `kind`."""
        name = node.output[0]
        readers = self.readers.get(name, [])
        if name in self._outputs or any(reader.op_type != kind for reader in readers):
            return []
        return readers

    def set_parameters(self, node: Any, scale: NDArray[Any], zero_point: NDArray[Any]) -> None:
        """Give a (de)quantize new parameters."""
        from onnx import numpy_helper

        for position, array in enumerate((scale, zero_point), start=1):
            name = f"{node.output[0]}/parameter{position}"
            tensor = numpy_helper.from_array(array, name)
            self.graph.initializer.append(tensor)
            self._constants[name] = tensor
            node.input[position] = name


def merge_pairs(graph: Any) -> None:
    """Merge every such chain of an ONNX graph in place, in topological order."""
    pairs = NodeIndex(graph)
    for node in list(graph.node):
        if node.op_type == "DequantizeLinear" and node.input[0] in pairs.maker:
            _merge(pairs, node)


def _merge(pairs: NodeIndex, inner: Any) -> None:
    """Merge the chain whose first dequantize is `inner`, if it is one."""
    first = pairs.maker[inner.input[0]]
    if first.op_type != "QuantizeLinear":
        return
    again = pairs.only_reader(first, "DequantizeLinear")
    second = pairs.only_reader(inner, "QuantizeLinear")
    if again is None or second is None:
        return
    last = pairs.all_readers(second, "DequantizeLinear")
    one, two = pairs.parameters(inner), pairs.parameters(second)
    if one is None or two is None or one.dtype != two.dtype:
        return
    if pairs.parameters(first) != one or not last:
        return
    if any(pairs.parameters(node) != two for node in last):
        return
    if one != two:
        merged = _merged(one, two)
        if merged is None:
            return
        for node in (first, *last):
            pairs.set_parameters(
                node, np.array(merged.scale), np.array(merged.zero_point, merged.dtype)
            )
    for node in last:
        node.input[0] = first.output[0]
    pairs.readers[first.output[0]] = last
    pairs.graph.node.remove(inner)
    pairs.graph.node.remove(second)


def _merged(one: Parameters, two: Parameters) -> Parameters | None:
    """Return parameters over the real values that both can hold, None if there are none."""
    low, high = np.iinfo(one.dtype).min, np.iinfo(one.dtype).max
    bottom = max(np.float32(low - item.zero_point) * item.scale for item in (one, two))
    top = min(np.float32(high - item.zero_point) * item.scale for item in (one, two))
    if not top > bottom:
        return None
    scale = np.float32(top - bottom) / np.float32(high - low)
    place = np.float32(low) - np.float32(bottom / scale)
    point = int(math.copysign(math.floor(abs(float(place)) + 0.5), float(place)))
    return Parameters(np.float32(scale), min(max(point, low), high), one.dtype)
