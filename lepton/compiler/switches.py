"""A network whose activations can each be rounded to 8 or to 16 bits, as inputs say.

One session measures what any choice of bits does to the outputs:

before: q = QuantizeLinear(x, s16); d = DequantizeLinear(q, s16)
after:  q = QuantizeLinear(x, s16); wide = DequantizeLinear(q, s16)
        narrow = DequantizeLinear(QuantizeLinear(x, s8), s8); d = Where(switch, narrow, wide)

The switch is an input; those that share a scale share it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SCALE", "activation_scales", "switch_inputs", "switchable"]

SCALE = "_scale"
"""What the quantizer's names of scales end in; before it stands the tensor that has the scale."""

_SWITCH = "lepton/narrow/"


def activation_scales(graph: Any) -> list[str]:
    """Return the tensors that have a scale of their own, in the order of the graph.

    Args:
        graph: of a model that ONNX Runtime's quantizer wrote.
    """
    constants = {item.name for item in graph.initializer}
    owners = (
        node.input[1].removesuffix(SCALE)
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants
    )
    return list(dict.fromkeys(owners))


def switchable(wide: Any, narrow: Any) -> Any:
    """Return the network with switches.

    Args:
        wide: `onnx.ModelProto` whose activations are of 16 bits.
        narrow: the same with 8 bits.
    """
    from onnx import TensorProto, helper

    made = type(wide)()
    made.CopyFrom(wide)
    graph = made.graph
    known = {item.name: item for item in narrow.graph.initializer}
    owners = [name for name in activation_scales(graph) if name + SCALE in known]
    nodes: list[Any] = []
    sources: dict[str, Any] = {}
    for node in graph.node:
        nodes.append(node)
        if node.op_type == "QuantizeLinear":
            sources[node.output[0]] = node
        source = sources.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is not None and source.input[1].removesuffix(SCALE) in owners:
            nodes += _switched(node, source)
    del graph.node[:]
    graph.node.extend(nodes)
    for owner in owners:
        for ending in (SCALE, "_zero_point"):
            item = type(known[owner + SCALE])()
            item.CopyFrom(known[owner + ending])
            item.name = _narrow(item.name)
            graph.initializer.append(item)
        kind = helper.make_tensor_value_info(_SWITCH + owner, TensorProto.BOOL, ())
        graph.input.append(kind)
    return made


def _narrow(name: str) -> str:
    return f"{name}/narrow"


def _switched(node: Any, source: Any) -> list[Any]:
    """Return the nodes that choose the operand of those behind a dequantize."""
    from onnx import helper

    result, owner = node.output[0], source.input[1].removesuffix(SCALE)
    node.output[0] = f"{result}/wide"
    scale = [_narrow(name) for name in source.input[1:3]]
    codes, values = f"{result}/codes", _narrow(result)
    return [
        helper.make_node("QuantizeLinear", [source.input[0], *scale], [codes]),
        helper.make_node("DequantizeLinear", [codes, *scale], [values]),
        helper.make_node("Where", [_SWITCH + owner, values, node.output[0]], [result]),
    ]


def switch_inputs(owners: Iterable[str], narrow: Iterable[str]) -> dict[str, NDArray[np.bool_]]:
    """Return the switches' values, of which some tensors are of 8 bits."""
    chosen = set(narrow)
    return {_SWITCH + owner: np.array(owner in chosen) for owner in owners}
