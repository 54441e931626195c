"""Read and check a float ONNX model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from lepton.errors import ImportFailure, InputError

if TYPE_CHECKING:
    import onnx

__all__ = [
    "default_opset",
    "drop_unread",
    "in_opset",
    "node_name",
    "read_float_model",
    "runtime_inputs",
    "stored_array",
]

_OLDEST_OPSET = 7


def drop_unread(graph: onnx.GraphProto) -> None:
    """Drop the initializers that no node reads and that are no output."""
    read = {name for node in graph.node for name in node.input}
    read |= {item.name for item in graph.output}
    kept = [item for item in graph.initializer if item.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def read_float_model(source: str | Path | bytes | onnx.ModelProto) -> onnx.ModelProto:
    """Return a checked copy of a model: a file, its bytes, or what is in memory.

    Raises:
        InputError: The file cannot be read.
        ImportFailure: It is no ONNX model, is damaged, or keeps its weights in other files.
    """
    name = str(source) if isinstance(source, str | Path) else "the model"
    if isinstance(source, str | Path):
        try:
            source = Path(source).read_bytes()
        except OSError as error:
            raise InputError(f"{name}: cannot be read: {error.strerror or error}") from error
    model = _parse(source, name)
    _check(model, name)
    return model


def default_opset(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a model uses; 1 if it names none."""
    versions = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    return versions[0] if versions else 1


def in_opset(model: onnx.ModelProto, opset: int, name: str) -> onnx.ModelProto:
    """Return a model in another version of ONNX's own operators.

    Raises:
        InputError: it cannot be converted; `name` is what the model is called.
    """
    from onnx import version_converter

    if default_opset(model) == opset:
        return model
    try:
        return version_converter.convert_version(model, opset)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name} cannot be put in opset {opset}: {reason}") from None


def node_name(node: onnx.NodeProto) -> str:
    """Return how reports call a node: its name, or its first output's."""
    return node.name or (node.output[0] if node.output else node.op_type)


def runtime_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that are not constants."""
    constants = {item.name for item in graph.initializer}
    return [item for item in graph.input if item.name not in constants]


def stored_array(tensor: onnx.TensorProto, name: str) -> NDArray[Any]:
    """Return a constant of the file.

    Raises:
        ImportFailure: It is damaged or of a type that NumPy does not have.
    """
    from onnx import numpy_helper

    try:
        return numpy_helper.to_array(tensor).reshape(tuple(tensor.dims))
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ImportFailure(f"constant {name!r} cannot be read: {error}") from error


def _parse(source: bytes | onnx.ModelProto, name: str) -> onnx.ModelProto:
    import google.protobuf.message
    import onnx

    model = onnx.ModelProto()
    if not isinstance(source, bytes):
        model.CopyFrom(source)
        return model
    try:
        model.ParseFromString(source)
    except (google.protobuf.message.DecodeError, RuntimeError, ValueError) as error:
        raise ImportFailure(f"{name} is not an ONNX model, or it is truncated") from error
    if not model.graph.node and not model.graph.output:
        raise ImportFailure(f"{name} is not an ONNX model: it has no graph")
    return model


def _check(model: onnx.ModelProto, name: str) -> None:
    import onnx

    if any(tensor.external_data for tensor in _constants(model.graph)):
        raise ImportFailure(f"{name} keeps its weights in other files: save it as one file")
    opset, newest = default_opset(model), onnx.defs.onnx_opset_version()
    if not _OLDEST_OPSET <= opset <= newest:
        raise ImportFailure(
            f"{name} uses ONNX opset {opset}; opsets {_OLDEST_OPSET} to {newest} are supported: "
            "convert it with onnx.version_converter"
        )
    # a copy, because the checker wants a shape of each output where runtimes do not
    copy = type(model)()
    copy.CopyFrom(model)
    for value in copy.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(copy)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ImportFailure(f"{name} is not a valid ONNX model: {reason}") from error


def _constants(graph: Any) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            if attribute.HasField("g"):
                yield from _constants(attribute.g)
