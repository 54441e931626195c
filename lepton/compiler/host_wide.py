"""16-bit codes in host regions, where ONNX Runtime has kernels of 8 and 32 bits only.

before: y = MaxPool(x)                       # int16, which no kernel takes
after:  y = Cast(MaxPool(Cast(x, float)), int16)

These operators choose among elements, so the wider type changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lepton.compiler.rules import SIXTEEN_BITS

__all__ = ["widen_codes"]

_WIDER = {"MaxPool": "float32"} | dict.fromkeys(
    ("Clip", "Max", "Min", "Pad", "ReduceMax", "ReduceMin", "Resize", "Where"), "int32"
)
"""Operators without kernels of 16 bits, and the type that they take instead.

Source: ONNX Runtime 1.31, kernels of its CPU provider.
"""
_KEEPING = frozenset(
    [*_WIDER, "Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Tile", "Transpose"]
)
"""Operators whose result has the type of their data."""


def widen_codes(nodes: Sequence[Any], inputs: Sequence[Any], constants: Sequence[Any]) -> list[Any]:
    """Return the nodes of a graph with casts around those that have no kernel of 16 bits.

    Args:
        nodes: in order; they may be changed.
        inputs: `onnx.ValueInfoProto` of the graph.
        constants: `onnx.TensorProto` of the graph.
    """
    from onnx import TensorProto

    names = {int(getattr(TensorProto, kind.upper())): kind for kind in SIXTEEN_BITS}
    kinds = {item.name: names.get(item.type.tensor_type.elem_type, "") for item in inputs}
    kinds |= {item.name: names.get(item.data_type, "") for item in constants}
    made: list[Any] = []
    for node in nodes:
        kind = _kind(node, kinds, names)
        kinds |= dict.fromkeys(node.output, kind)
        made += _widened(node, kind, kinds) if kind and node.op_type in _WIDER else [node]
    return made


def _kind(node: Any, kinds: dict[str, str], names: dict[int, str]) -> str:
    """Return the 16-bit type of a node's result, "" if it has another."""
    if node.op_type == "QuantizeLinear":
        if len(node.input) > 2 and node.input[2]:
            return kinds.get(node.input[2], "")
        # without a zero point an attribute says, or it is uint8
        said = (item.i for item in node.attribute if item.name == "output_dtype")
        return names.get(next(said, 0), "")
    if node.op_type not in _KEEPING:
        return ""
    return kinds.get(node.input[1 if node.op_type == "Where" else 0], "")


def _widened(node: Any, kind: str, kinds: dict[str, str]) -> list[Any]:
    """Return a node between casts of its 16-bit operands and of its result."""
    wider = _WIDER[node.op_type]
    made: list[Any] = []
    for place, name in enumerate(node.input):
        if kinds.get(name):
            made.append(_cast(name, f"{node.output[0]}.{place}", wider))
            node.input[place] = made[-1].output[0]
    result = node.output[0]
    node.output[0] = f"{result}.wide"
    return [*made, node, _cast(node.output[0], result, kind)]


def _cast(source: str, target: str, kind: str) -> Any:
    from onnx import helper

    return helper.make_node(
        "Cast", [source], [target], to=helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    )
