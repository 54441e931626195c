"""Replace operators that run nowhere by what the ONNX standard defines them by."""

from __future__ import annotations

from typing import Any

import onnx
from onnx.inliner import inline_local_functions

from lepton.compiler.importers.onnx_versions import means_the_same

__all__ = ["has_body", "with_bodies"]

_DOMAIN = "lepton.bodies"


def has_body(node: onnx.NodeProto, opset: int) -> bool:
    """Return whether the standard defines a node's operator by other operators."""
    return _version(_schema(node, opset), opset) > 0


def with_bodies(model: onnx.ModelProto, kind: str, opset: int) -> onnx.ModelProto:
    """Return a copy of a model, whose types are known, with an operator's nodes replaced.

    before: y = Celu<alpha=2>(x)
    after:  a = Constant<2>(); d = Div(x, a); e = Elu(d); y = Mul(a, e)

    (onnx.inliner takes no node that leaves out an optional input, and fails on some types.)
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    types = {item.name: item.type for item in (*graph.input, *graph.value_info, *graph.output)}
    for tensor in graph.initializer:
        types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    for index, node in enumerate(graph.node):
        if node.op_type == kind and has_body(node, opset):
            function = _body(node, opset, types)
            function.domain, function.name = _DOMAIN, f"{kind}_{index}"
            changed.functions.append(function)
            node.domain, node.op_type = _DOMAIN, function.name
    changed.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    inlined = inline_local_functions(changed)
    del inlined.opset_import[-1:]
    return inlined


def _schema(node: onnx.NodeProto, opset: int) -> Any:
    """Return the definition of a node's operator, None if the standard has none."""
    if node.domain not in ("", "ai.onnx"):
        return None
    try:
        return onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return None


def _version(schema: Any, opset: int) -> int:
    """Return the newest opset, up to that of a model, that an operator's body is written in."""
    versions = () if schema is None else schema.all_function_opset_versions
    return max((version for version in versions if version <= opset), default=0)


def _body(node: onnx.NodeProto, opset: int, types: dict[str, onnx.TypeProto]) -> onnx.FunctionProto:
    """Return what defines one node.

    Raises:
        ValueError: the body uses an operator that means something else in the model's opset.
    """
    schema = _schema(node, opset)
    version = _version(schema, opset)
    if version in schema.function_opset_versions:
        content = schema.get_function_with_opset_version(version)
    else:
        known = [types.get(name, onnx.TypeProto()) for name in node.input]
        content = schema.get_context_dependent_function_with_opset_version(
            version, node.SerializeToString(), [kind.SerializeToString() for kind in known]
        )
    function = onnx.FunctionProto.FromString(content)
    for inner in function.node:
        if not means_the_same(inner, version, opset):
            raise ValueError(f"its definition uses {inner.op_type} of opset {version}")
    del function.opset_import[:]
    function.opset_import.append(onnx.helper.make_opsetid("", opset))
    return function
