"""Small ONNX and TFLite models made in memory, and the libraries that run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Tensor = tuple[str, Sequence[int], str, Any, int, Array | None, int]


def int8_weights(*shape: int, seed: int = 0) -> Array:
    """Return random symmetric int8 weights."""
    return np.random.default_rng(seed).integers(-127, 128, shape).astype(np.int8)


def onnx_model(
    nodes: Sequence[Any],
    constants: Mapping[str, Any],
    inputs: Sequence[tuple[str, int, Sequence[Any]]],
    outputs: Sequence[tuple[str, int]],
    opset: int = 17,
) -> Any:
    """Assemble an ONNX model; output shapes are left to inference."""
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8)


def node(kind: str, inputs: Sequence[str], output: str | list[str], **attributes: Any) -> Any:
    """Make a node called KIND_output."""
    from onnx import helper

    outputs = [output] if isinstance(output, str) else output
    attributes.setdefault("name", f"{kind}_{outputs[0]}")
    return helper.make_node(kind, inputs, outputs, **attributes)


def qdq(
    kind: str,
    shapes: Sequence[Sequence[int]],
    constants: Sequence[Any] = (),
    *,
    scales: tuple[float, float] = (0.05, 0.05),
    points: tuple[int, int] = (3, 3),
    dtype: str = "int8",
    opset: int = 17,
    results: int = 1,
    **attributes: Any,
) -> Any:
    """Wrap one operator in QuantizeLinear and DequantizeLinear.

    A constant is an array, None (an absent input), or (array, scale, axis) for a dequantized one.
    """
    from onnx import TensorProto

    values: dict[str, Any] = {
        "sx": np.float32(scales[0]),
        "zx": np.asarray(points[0], dtype),
        "sy": np.float32(scales[1]),
        "zy": np.asarray(points[1], dtype),
    }
    nodes: list[Any] = []
    names: list[str] = []
    for index in range(len(shapes)):
        nodes.append(node("QuantizeLinear", [f"x{index}", "sx", "zx"], f"q{index}"))
        nodes.append(node("DequantizeLinear", [f"q{index}", "sx", "zx"], f"d{index}"))
        names.append(f"d{index}")
    for index, constant in enumerate(constants):
        name = f"c{index}" if constant is not None else ""
        names.append(name)
        if isinstance(constant, tuple):
            array, scale, axis = constant
            values |= {f"{name}q": array, f"{name}s": np.asarray(scale, np.float32)}
            values[f"{name}z"] = np.zeros(np.shape(scale), array.dtype)
            extra = {"axis": axis} if np.ndim(scale) else {}
            parts = [f"{name}q", f"{name}s", f"{name}z"]
            nodes.append(node("DequantizeLinear", parts, name, **extra))
        elif constant is not None:
            values[name] = constant
    nodes.append(node(kind, names, [f"r{i}" for i in range(results)], name="the_op", **attributes))
    for index in range(results):
        nodes.append(node("QuantizeLinear", [f"r{index}", "sy", "zy"], f"yq{index}"))
        nodes.append(node("DequantizeLinear", [f"yq{index}", "sy", "zy"], f"y{index}"))
    inputs = [(f"x{index}", TensorProto.FLOAT, shape) for index, shape in enumerate(shapes)]
    outputs = [(f"y{index}", TensorProto.FLOAT) for index in range(results)]
    return onnx_model(nodes, values, inputs, outputs, opset)


def activation(
    name: str, shape: Sequence[int], scale: float = 0.05, point: int = 3, dtype: str = "int8"
) -> Tensor:
    """Describe a quantized TFLite activation."""
    return (name, shape, dtype, scale, point, None, 0)


def constant(
    name: str, data: Any, dtype: str, scale: Any = None, point: int = 0, axis: int = 0
) -> Tensor:
    """Describe a TFLite constant."""
    array = np.asarray(data, dtype)
    return (name, array.shape, dtype, scale, point, array, axis)


def tflite_model(
    kind: str,
    tensors: Sequence[Tensor],
    inputs: Sequence[int],
    outputs: Sequence[int],
    options: tuple[str, dict[str, Any]] | None = None,
    version: int = 1,
) -> bytes:
    """Assemble a TFLite model of one operator; its graph inputs are the non-constant inputs."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, graph.tensors = 3, [schema.BufferT()], []
    for name, shape, dtype, scale, point, data, axis in tensors:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), 0
        tensor.type = getattr(schema.TensorType, dtype.upper())
        if scale is not None:
            parameters = schema.QuantizationParametersT()
            parameters.scale = [float(item) for item in np.atleast_1d(scale)]
            parameters.zeroPoint = [point] * len(parameters.scale)
            parameters.quantizedDimension = axis
            tensor.quantization = parameters
        if data is not None:
            buffer: Any = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            model.buffers.append(buffer)
            tensor.buffer = len(model.buffers) - 1
        graph.tensors.append(tensor)
    graph.inputs = [index for index in inputs if index >= 0 and tensors[index][5] is None]
    graph.outputs = list(outputs)
    operator, code = schema.OperatorT(), schema.OperatorCodeT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, list(inputs), list(outputs)
    if options is not None:
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, options[0])
        operator.builtinOptions = getattr(schema, f"{options[0]}T")()
        for key, value in options[1].items():
            setattr(operator.builtinOptions, key, value)
    code.builtinCode, code.version = getattr(schema.BuiltinOperator, kind), version
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    graph.operators, model.operatorCodes, model.subgraphs = [operator], [code], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run_module(module: Any, inputs: Sequence[Array]) -> list[Array]:
    """Run `main` with TVM's own code generator."""
    import tvm
    from tvm import relax

    target = tvm.target.Target({"kind": "llvm", "num-cores": 1})
    with target, tvm.transform.PassContext(opt_level=3):
        module = relax.transform.DecomposeOpsForInference()(module)
        device: Any = tvm.cpu()
        machine = relax.VirtualMachine(relax.build(module, target), device)
    result = machine["main"](*[tvm.runtime.tensor(array) for array in inputs])
    return [result.numpy()] if hasattr(result, "numpy") else [item.numpy() for item in result]


def run_onnx(data: bytes, inputs: dict[str, Array]) -> list[Array]:
    """Run an ONNX model in ONNX Runtime without optimizations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return [np.asarray(array) for array in session.run(None, inputs)]


def run_tflite(data: bytes, inputs: Sequence[Array]) -> list[Array]:
    """Run a TFLite model in LiteRT's reference kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(item["index"]) for item in interpreter.get_output_details()]
