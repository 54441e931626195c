"""Take the branch of an ONNX If whose condition is a constant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import onnx
from onnx import numpy_helper

__all__ = ["Branch", "taken_branch"]


class Branch(NamedTuple):
    """What takes the place of an If."""

    nodes: list[onnx.NodeProto]
    initializers: list[onnx.TensorProto]


def taken_branch(node: onnx.NodeProto, known: Mapping[str, onnx.TensorProto]) -> Branch | None:
    """Return the branch of an If whose condition is known, None for any other node.

    before: y = If<then_branch: {a = Neg(x) -> a}, else_branch: ...>(true)
    after:  y/a = Neg(x); y = Identity(y/a)
    """
    if node.op_type != "If" or node.domain not in ("", "ai.onnx") or node.input[0] not in known:
        return None
    condition = bool(numpy_helper.to_array(known[node.input[0]]).reshape(-1)[0])
    wanted = "then_branch" if condition else "else_branch"
    graph = onnx.GraphProto()
    graph.CopyFrom(next(item.g for item in node.attribute if item.name == wanted))
    made = {name for inner in graph.node for name in inner.output if name}
    made |= {item.name for item in graph.initializer}
    names = {name: f"{node.output[0]}/{name}" for name in made}
    _rename(graph, names)
    for initializer in graph.initializer:
        initializer.name = names[initializer.name]
    copies = [
        onnx.helper.make_node("Identity", [names.get(inner.name, inner.name)], [outer])
        for inner, outer in zip(graph.output, node.output, strict=True)
    ]
    return Branch([*graph.node, *copies], list(graph.initializer))


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors in the nodes of a graph, and where its subgraphs read them."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                _rename(inner, names)
                for output in inner.output:
                    output.name = names.get(output.name, output.name)
