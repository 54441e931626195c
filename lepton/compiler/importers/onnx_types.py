"""Types of an ONNX graph's tensors."""

from __future__ import annotations

from typing import NamedTuple

import onnx

__all__ = ["DTYPES", "TensorType", "declared_types", "type_of"]

_DTYPES = "bool float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64"
DTYPES = frozenset(_DTYPES.split())
"""Element types that a program's tensors have."""


class TensorType(NamedTuple):
    """Type of a tensor of the file.

    Attributes:
        dtype: NumPy's name, or ONNX's of a type that no program holds ("string", "bfloat16").
        shape: None if an extent depends on values.
    """

    dtype: str
    shape: tuple[int, ...] | None


def declared_types(graph: onnx.GraphProto) -> dict[str, TensorType]:
    """Return the types that a graph states, by tensor name."""
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: type_of(value.type) for value in values}
    for tensor in graph.initializer:
        kind = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        types[tensor.name] = type_of(kind)
    return types


def type_of(proto: onnx.TypeProto) -> TensorType:
    """Return a type; a sequence, map, optional or sparse tensor has its kind as element type."""
    kind = proto.WhichOneof("value")
    if kind != "tensor_type":
        return TensorType((kind or "unknown").removesuffix("_type"), None)
    tensor = proto.tensor_type
    name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    dtype = {"float": "float32", "double": "float64"}.get(name, name)
    if not tensor.HasField("shape"):
        return TensorType(dtype, None)
    extents = tensor.shape.dim
    if not all(extent.HasField("dim_value") for extent in extents):
        return TensorType(dtype, None)
    return TensorType(dtype, tuple(extent.dim_value for extent in extents))
