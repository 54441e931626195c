"""Import a TFLite model: verify the flatbuffer, convert, canonicalize."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lepton.compiler.dump import Dump, no_dump
from lepton.compiler.importers.model import ImportedModel
from lepton.errors import ImportFailure

if TYPE_CHECKING:
    import tvm

_MARK = b"TFL3"
_SMALLEST = 24
_VERSION = 3


def import_tflite(
    data: bytes, name: str, shapes: Mapping[str, Sequence[int]], dump: Dump = no_dump
) -> ImportedModel:
    """Turn a TFLite file into canonical form.

    Args:
        data: The file's bytes.
        name: How messages call the model.
        shapes: Must agree with the file: TFLite shapes are static.
        dump: Takes every form of the module.

    Raises:
        ImportFailure: It is no TFLite model, is damaged, or uses what is not supported.
    """
    from lepton.compiler.importers.canonical import canonicalize
    from lepton.compiler.importers.result import make_result
    from lepton.compiler.importers.tflite_operators import TfliteOperators

    try:
        model, subgraph = _open(data, name)
        _check_shapes(subgraph, name, shapes)
        _refuse_16_bits(subgraph, name)
        module, converter = _convert(model, subgraph, TfliteOperators)
    except (struct.error, IndexError, TypeError, UnicodeDecodeError, OverflowError) as error:
        raise ImportFailure(f"{name} is a damaged TFLite model: {error}") from error
    inputs = [converter.name(int(index)) for index in subgraph.InputsAsNumpy()]
    outputs = [converter.name(int(index)) for index in subgraph.OutputsAsNumpy()]
    return make_result(
        canonicalize(module, converter.recorder.sources, dump),
        golden="tflite",
        name=name,
        inputs=inputs,
        outputs=outputs,
    )


def _open(data: bytes, name: str) -> tuple[Any, Any]:
    """Verify the outermost structure and return the model and its subgraph."""
    import tflite

    if len(data) < _SMALLEST or data[4:8] != _MARK:
        raise ImportFailure(f"{name} is not a TFLite model: the mark {_MARK.decode()} is missing")
    root = struct.unpack_from("<I", data)[0]
    if not 8 <= root <= len(data) - 4:
        raise ImportFailure(f"{name} is a damaged TFLite model: its root lies outside the file")
    model = tflite.Model.GetRootAsModel(data, 0)
    if model.Version() != _VERSION:
        raise ImportFailure(f"{name} has TFLite schema version {model.Version()}, not {_VERSION}")
    _check_counts(model, len(data), name)
    if model.SubgraphsLength() < 1:
        raise ImportFailure(f"{name} is a damaged TFLite model: it has no subgraph")
    subgraph = model.Subgraphs(0)
    _check_subgraph(model, subgraph, len(data), name)
    return model, subgraph


def _check_counts(model: Any, size: int, name: str) -> None:
    """Refuse vector lengths that the file cannot hold and data outside it."""
    counts = (model.SubgraphsLength(), model.OperatorCodesLength(), model.BuffersLength())
    if any(count > size for count in counts):
        raise ImportFailure(f"{name} is a damaged TFLite model: a table is longer than the file")
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        outside = hasattr(buffer, "Offset") and buffer.Offset() > 1
        if buffer.DataLength() > size or outside:
            raise ImportFailure(
                f"{name} is truncated, or keeps buffer {index} outside of the model table"
            )


def _check_subgraph(model: Any, subgraph: Any, size: int, name: str) -> None:
    """Check every index of the subgraph against the table it points into."""
    tensors, buffers = subgraph.TensorsLength(), model.BuffersLength()
    operators = subgraph.OperatorsLength()
    if max(tensors, operators, subgraph.InputsLength(), subgraph.OutputsLength()) > size:
        raise ImportFailure(f"{name} is a damaged TFLite model: a table is longer than the file")
    for index in range(tensors):
        tensor = subgraph.Tensors(index)
        if tensor.Buffer() >= buffers or tensor.ShapeLength() > 8:
            raise ImportFailure(f"{name} is a damaged TFLite model: tensor {index} is malformed")
    used = [subgraph.Inputs(item) for item in range(subgraph.InputsLength())]
    used += [subgraph.Outputs(item) for item in range(subgraph.OutputsLength())]
    for index in range(operators):
        operator = subgraph.Operators(index)
        if operator.OpcodeIndex() >= model.OperatorCodesLength():
            raise ImportFailure(f"{name} is a damaged TFLite model: operator {index} has no code")
        if operator.InputsLength() + operator.OutputsLength() > size:
            raise ImportFailure(f"{name} is a damaged TFLite model: operator {index} is malformed")
        used += [operator.Inputs(item) for item in range(operator.InputsLength())]
        used += [operator.Outputs(item) for item in range(operator.OutputsLength())]
    if any(not -1 <= index < tensors for index in used):
        raise ImportFailure(f"{name} is a damaged TFLite model: it names a tensor it has not")


def _check_shapes(subgraph: Any, name: str, shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuse dynamic inputs and shapes that contradict the file's."""
    known: dict[str, tuple[int, ...]] = {}
    for position in range(subgraph.InputsLength()):
        tensor = subgraph.Tensors(subgraph.Inputs(position))
        label = (tensor.Name() or b"").decode("utf-8", "replace")
        known[label] = tuple(tensor.Shape(axis) for axis in range(tensor.ShapeLength()))
        if any(extent < 1 for extent in known[label]):
            raise ImportFailure(
                f"{name}: input {label!r} has a dynamic dimension "
                f"({','.join(map(str, known[label]))}); convert the model with a fixed shape"
            )
    for label, shape in shapes.items():
        if label not in known:
            raise ImportFailure(
                f"{name} has no input {label!r}; its inputs are {', '.join(known) or 'none'}"
            )
        if tuple(shape) != known[label]:
            raise ImportFailure(
                f"{name}: input {label!r} has the fixed shape {','.join(map(str, known[label]))}; "
                "TFLite shapes cannot be changed, convert the model again"
            )


def _refuse_16_bits(subgraph: Any, name: str) -> None:
    """Refuse 16-bit activations: the float kernels of the host round otherwise than LiteRT's."""
    from tflite.TensorType import TensorType

    for index in range(subgraph.TensorsLength()):
        tensor = subgraph.Tensors(index)
        quantization = tensor.Quantization()
        is_quantized = quantization is not None and quantization.ScaleLength() > 0
        if tensor.Type() == TensorType.INT16 and is_quantized:
            label = (tensor.Name() or b"").decode("utf-8", "replace")
            raise ImportFailure(
                f"{name}: tensor {label!r} has 16 bits; .tflite models with 16-bit activations are "
                "not supported: convert it with 8-bit ones, or quantize its ONNX form "
                "(--calibrate with --activations int16)"
            )


def _convert(model: Any, subgraph: Any, converter_class: Any) -> tuple[tvm.IRModule, Any]:
    """Build the Relax function of the first subgraph."""
    from tvm import relax

    from lepton.compiler.importers.recording import abandoned_on_error

    builder = relax.BlockBuilder()
    converter = converter_class(model, subgraph, builder)
    parameters: list[Any] = []
    for index in (int(item) for item in subgraph.InputsAsNumpy()):
        shape = [int(extent) for extent in subgraph.Tensors(index).ShapeAsNumpy()]
        make: Any = relax.TensorType
        kind = make(shape, converter.kind(index))
        variable = relax.Var(converter.name(index), kind)
        converter.bind_input(index, variable)
        parameters.append(variable)
    with abandoned_on_error(builder), builder.function("main", params=parameters):
        with builder.dataflow():
            converter.convert_op_to_relax()
            results = [converter.raw(int(index)) for index in subgraph.OutputsAsNumpy()]
            value = results[0] if len(results) == 1 else relax.Tuple(results)
            output = builder.emit_output(value)
        builder.emit_func_output(output)
    return builder.get(), converter
