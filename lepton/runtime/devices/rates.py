"""Rates of a device for the roofline, and their measurement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton.runtime.devices.library import Run
from lepton.runtime.devices.protocol import Arrays
from lepton.runtime.split import Unit

__all__ = ["LIBRARIES", "Rates", "measured_rates", "one_node"]

LIBRARIES = {"onnx": "onnxruntime", "tflite": "ai-edge-litert"}
"""File format -> the package that computes it."""

_SIZE = 384
_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Rates:
    """What a device does per nanosecond, and what a start takes."""

    launch_ns: int
    float_macs_per_ns: float
    integer_macs_per_ns: float
    bytes_per_ns: float

    def roofline_ns(self, unit: Unit, moved_bytes: int) -> int:
        """Return the larger of a unit's MACs and its bytes at these rates."""
        macs_per_ns = self.integer_macs_per_ns if unit.is_integer else self.float_macs_per_ns
        moved = (moved_bytes + unit.weight_bytes) / self.bytes_per_ns
        return round(max(unit.macs / macs_per_ns, moved))


def measured_rates(
    format: str, runner: Callable[[bytes], Run], timed: Callable[[Callable[[], object]], int]
) -> Rates:
    """Return the rates of a library.

    Args:
        format: of the files that the library runs.
        runner: returns what runs a file.
        timed: returns the nanoseconds of a call.
    """
    cases = _tflite_cases(runner) if format == "tflite" else _onnx_cases(runner)
    launch, product, integer, moving = (timed(lambda run=r, x=x: run(x)) for r, x in cases)

    def rate(work: int, taken: int) -> float:
        return work / max(taken - launch, 1)

    moved_bytes = 3 * 4 * _ELEMENTS if format == "onnx" else 2 * 4 * _ELEMENTS
    macs = _SIZE**3 if format == "onnx" else _SIZE**2
    return Rates(launch, rate(macs, product), rate(macs, integer), rate(moved_bytes, moving))


def _onnx_cases(runner: Callable[[bytes], Run]) -> list[tuple[Run, Arrays]]:
    """Return a trivial graph, a float and an integer product, and an addition."""
    square = (_SIZE, _SIZE)
    cases = [
        ("Relu", ["float32"], (1,)),
        ("MatMul", ["float32", "float32"], square),
        ("MatMulInteger", ["uint8", "int8"], square),
        ("Add", ["float32", "float32"], (_ELEMENTS,)),
    ]
    made: list[tuple[Run, Arrays]] = []
    for kind, dtypes, shape in cases:
        arrays = {f"x{at}": np.ones(shape, dtype) for at, dtype in enumerate(dtypes)}
        made.append((runner(one_node(kind, arrays)), arrays))
    return made


def one_node(kind: str, arrays: Arrays) -> bytes:
    """Return an ONNX model of one node, whose result is `y`."""
    from onnx import TensorProto, helper

    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in arrays.items()
    ]
    element = TensorProto.INT32 if kind == "MatMulInteger" else TensorProto.FLOAT
    output = helper.make_tensor_value_info("y", element, None)
    graph = helper.make_graph(
        [helper.make_node(kind, list(arrays), ["y"])], "rate", inputs, [output]
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def _tflite_cases(runner: Callable[[bytes], Run]) -> list[tuple[Run, Arrays]]:
    """Return trivial, float and integer fully connected layers, and a float activation."""
    made: list[tuple[Run, Arrays]] = []
    for size, dtype in ((1, "float32"), (_SIZE, "float32"), (_SIZE, "int8")):
        content = _tflite_layer(size, dtype)
        arrays: Arrays = {"x": np.ones((1, size), dtype)}
        made.append((runner(content), arrays))
    arrays = {"x": np.ones((1, _ELEMENTS), np.float32)}
    made.append((runner(_tflite_layer(_ELEMENTS, "relu")), arrays))
    return made


def _tflite_layer(size: int, kind: str) -> bytes:
    """Return a TFLite model of one `[1, size]` layer: fully connected in a type, or a relu."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as s

    schema: Any = s
    is_relu = kind == "relu"
    element = schema.TensorType.INT8 if kind == "int8" else schema.TensorType.FLOAT32
    dtype = np.int8 if kind == "int8" else np.float32
    model, graph, operator = schema.ModelT(), schema.SubGraphT(), schema.OperatorT()
    code, empty = schema.OperatorCodeT(), schema.BufferT()
    builtin = schema.BuiltinOperator
    code.builtinCode = builtin.RELU if is_relu else builtin.FULLY_CONNECTED
    code.deprecatedBuiltinCode, code.version = code.builtinCode, 4 if kind == "int8" else 1
    model.version, model.operatorCodes, model.buffers = 3, [code], [empty]
    shapes = {"x": [1, size], "y": [1, size]} | ({} if is_relu else {"w": [size, size]})
    graph.tensors = []
    for name, shape in shapes.items():
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, element, 0
        if kind == "int8":
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [0.5], [0]
        if name == "w":
            buffer = schema.BufferT()
            buffer.data = np.ones(shape, dtype).view(np.uint8).reshape(-1)
            model.buffers.append(buffer)
            tensor.buffer = 1
        graph.tensors.append(tensor)
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0] if is_relu else [0, 2], [1]
    if not is_relu:
        operator.inputs = [0, 2, -1]
        operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        operator.builtinOptions = schema.FullyConnectedOptionsT()
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
