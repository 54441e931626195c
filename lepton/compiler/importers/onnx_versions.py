"""Whether two versions of an ONNX operator mean the same, by the standard's own text."""

from __future__ import annotations

import onnx

__all__ = ["means_the_same"]


def means_the_same(node: onnx.NodeProto, opset: int, other: int) -> bool:
    """Return whether a node means the same in two opsets, of which its tensors' types may be new.

    False where one of them has not the operator.
    """
    try:
        schemas = [onnx.defs.get_schema(node.op_type, at, node.domain) for at in (opset, other)]
    except onnx.defs.SchemaError:
        return False
    first, second = schemas
    return first.since_version == second.since_version or _meaning(first) == _meaning(second)


def _meaning(schema: onnx.defs.OpSchema) -> tuple[object, ...]:
    """Return what versions of an operator that differ in types only have in common."""
    attributes = sorted((item.name, str(item.default_value)) for item in schema.attributes.values())
    names = [(item.name, str(item.option)) for item in (*schema.inputs, *schema.outputs)]
    return str(schema.doc).split(), attributes, names
