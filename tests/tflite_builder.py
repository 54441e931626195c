"""Builds small quantized .tflite models in memory, and runs them on LiteRT's reference kernels."""

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from numpy.typing import NDArray

OptionValue = bool | int | float | str | Sequence[int]

# Operators whose option table is not named after them; None: the operator has no options.
_OPTION_TABLES: dict[str, str | None] = {
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "L2_NORMALIZATION": "L2NormOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "REDUCE_PROD": "ReducerOptions",
    "PADV2": "PadV2Options",
    "SPACE_TO_BATCH_ND": "SpaceToBatchNDOptions",
    "BATCH_TO_SPACE_ND": "BatchToSpaceNDOptions",
    "REVERSE_V2": "ReverseV2Options",
    "LOGISTIC": None,
    "TANH": None,
    "RELU": None,
    "RELU6": None,
    "RELU_N1_TO_1": None,
    "RELU_0_TO_1": None,
    "PRELU": None,
    "ELU": None,
    "LOG": None,
    "RSQRT": None,
    "SQRT": None,
    "SIN": None,
}

# Fields of the option tables that name a member of an enumeration.
_ENUMERATIONS = {
    "padding": "Padding",
    "fused_activation_function": "ActivationFunctionType",
    "mode": "MirrorPadMode",
}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model being built: what the file says of it."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis: int = 0
    data: bytes | None = None

    @property
    def scale(self) -> np.float32:
        """The per-tensor scale as the file holds it."""
        return np.float32(self.scales[0])

    @property
    def zero_point(self) -> int:
        """The per-tensor zero point."""
        return self.zero_points[0]


@dataclass(frozen=True)
class _Operator:
    """One operator: builtin name, tensor indices (-1: absent) and options."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, OptionValue]
    version: int


@dataclass
class TfliteBuilder:
    """Collects tensors and operators, then writes them as one flatbuffer.

    Example:
        b = TfliteBuilder()
        x = b.input("x", [1, 8, 8, 3], "int8", 0.5, -3)
        w = b.constant("w", weights, scale=scales, axis=0)
        y = b.tensor("y", [1, 8, 8, 4], "int8", 0.25, 10)
        b.operator("CONV_2D", [x, w, None], [y], padding="SAME", stride_h=1, stride_w=1)
        model = b.build([x], [y])
    """

    tensors: list[Tensor] = field(default_factory=list[Tensor])
    operators: list[_Operator] = field(default_factory=list[_Operator])

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "int8",
        scale: float | np.floating[Any] | NDArray[Any] | None = None,
        zero_point: int | NDArray[Any] = 0,
    ) -> Tensor:
        """Add an activation; without a scale it is not quantized."""
        return self._add(name, tuple(shape), dtype, scale, zero_point, 0, None)

    def input(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str = "int8",
        scale: float | np.floating[Any] | None = None,
        zero_point: int = 0,
    ) -> Tensor:
        """Add an activation that `build` will be given as an input."""
        return self.tensor(name, shape, dtype, scale, zero_point)

    def constant(
        self,
        name: str,
        values: NDArray[Any],
        scale: float | np.floating[Any] | NDArray[Any] | None = None,
        zero_point: int | NDArray[Any] = 0,
        axis: int = 0,
    ) -> Tensor:
        """Add a constant; its dtype is the array's, several scales make it per-axis."""
        values = np.ascontiguousarray(values)
        shape, dtype = values.shape, str(values.dtype)
        return self._add(name, shape, dtype, scale, zero_point, axis, values.tobytes())

    def operator(
        self,
        name: str,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor],
        version: int = 1,
        **options: OptionValue,
    ) -> None:
        """Add an operator by its builtin name; options by their schema names (snake case).

        Enumeration members are given by name: `padding="SAME"`,
        `fused_activation_function="RELU6"`.
        """
        sources = tuple(-1 if t is None else t.index for t in inputs)
        targets = tuple(t.index for t in outputs)
        self.operators.append(_Operator(name, sources, targets, dict(options), version))

    def build(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bytes:
        """Serialize the model with these graph inputs and outputs."""
        fb = flatbuffers.Builder(1024)
        codes = sorted({(op.name, op.version) for op in self.operators})
        code_offsets = [_write_operator_code(fb, *code) for code in codes]
        buffers = [_write_buffer(fb, None)]
        buffers += [_write_buffer(fb, t.data) for t in self.tensors if t.data is not None]
        subgraph = self._write_subgraph(fb, codes, inputs, outputs)
        model = _table(
            fb,
            "Model",
            version=3,
            operator_codes=_offset_vector(fb, code_offsets),
            subgraphs=_offset_vector(fb, [subgraph]),
            buffers=_offset_vector(fb, buffers),
        )
        fb.Finish(model, b"TFL3")
        return bytes(fb.Output())

    def _add(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        scale: Any,
        zero_point: Any,
        axis: int,
        data: bytes | None,
    ) -> Tensor:
        scales: tuple[float, ...] = ()
        zero_points: tuple[int, ...] = ()
        if scale is not None:
            scales = tuple(float(s) for s in np.atleast_1d(np.asarray(scale, np.float32)))
            points = np.broadcast_to(np.asarray(zero_point, np.int64), (len(scales),))
            zero_points = tuple(int(z) for z in points)
        index = len(self.tensors)
        tensor = Tensor(index, name, shape, dtype, scales, zero_points, axis, data)
        self.tensors.append(tensor)
        return tensor

    def _write_subgraph(
        self,
        fb: flatbuffers.Builder,
        codes: list[tuple[str, int]],
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
    ) -> int:
        constants = [t.index for t in self.tensors if t.data is not None]
        buffer_of = {index: 1 + i for i, index in enumerate(constants)}
        tensors = [_write_tensor(fb, t, buffer_of.get(t.index, 0)) for t in self.tensors]
        operators = [_write_operator(fb, op, codes) for op in self.operators]
        return _table(
            fb,
            "SubGraph",
            tensors=_offset_vector(fb, tensors),
            inputs=_number_vector(fb, [t.index for t in inputs], np.int32),
            outputs=_number_vector(fb, [t.index for t in outputs], np.int32),
            operators=_offset_vector(fb, operators),
            name=fb.CreateString("main"),
        )


def run_reference(
    model: bytes, *inputs: NDArray[Any], resolver: str = "BUILTIN_REF"
) -> list[NDArray[Any]]:
    """Run a model on LiteRT's reference kernels; inputs and outputs in the file's order.

    `resolver` names another member of LiteRT's OpResolverType; the few operators that the
    reference resolver lacks (ELU) need "BUILTIN_WITHOUT_DEFAULT_DELEGATES".
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=model, experimental_op_resolver_type=OpResolverType[resolver]
    )
    interpreter.allocate_tensors()
    for detail, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], values)
    interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


def _camel(snake: str) -> str:
    return "".join(part[:1].upper() + part[1:].lower() for part in snake.split("_"))


def _module(name: str) -> Any:
    return importlib.import_module(f"tflite.{name}")


def _member(enumeration: str, name: str) -> int:
    return int(getattr(getattr(_module(enumeration), enumeration), name))


def _table(fb: flatbuffers.Builder, table: str, **fields: Any) -> int:
    """Write one table of the schema; values are numbers or offsets already written."""
    module = _module(table)
    getattr(module, f"{table}Start")(fb)
    for name, value in fields.items():
        if value is not None:
            getattr(module, f"{table}Add{_camel(name)}")(fb, value)
    return int(getattr(module, f"{table}End")(fb))


def _offset_vector(fb: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    fb.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        fb.PrependUOffsetTRelative(offset)
    return int(fb.EndVector())


def _number_vector(fb: flatbuffers.Builder, values: Sequence[Any], dtype: Any) -> int:
    return int(fb.CreateNumpyVector(np.asarray(values, dtype)))


def _write_operator_code(fb: flatbuffers.Builder, name: str, version: int) -> int:
    code = _member("BuiltinOperator", name)
    deprecated = min(code, 127)
    return _table(
        fb, "OperatorCode", deprecated_builtin_code=deprecated, version=version, builtin_code=code
    )


def _write_buffer(fb: flatbuffers.Builder, data: bytes | None) -> int:
    if data is None:
        return _table(fb, "Buffer")
    # The runtime maps constants in place, so their bytes must be aligned for any element type.
    fb.StartVector(1, len(data), 16)
    fb.head = fb.Head() - len(data)
    fb.Bytes[fb.Head() : fb.Head() + len(data)] = data
    return _table(fb, "Buffer", data=int(fb.EndVector()))


def _write_tensor(fb: flatbuffers.Builder, tensor: Tensor, buffer: int) -> int:
    quantization = None
    if tensor.scales:
        scale = _number_vector(fb, tensor.scales, np.float32)
        zero_point = _number_vector(fb, tensor.zero_points, np.int64)
        quantization = _table(
            fb,
            "QuantizationParameters",
            scale=scale,
            zero_point=zero_point,
            quantized_dimension=tensor.axis,
        )
    name = fb.CreateString(tensor.name)
    shape = _number_vector(fb, tensor.shape, np.int32)
    return _table(
        fb,
        "Tensor",
        shape=shape,
        type=_member("TensorType", tensor.dtype.upper()),
        buffer=buffer,
        name=name,
        quantization=quantization,
    )


def _write_options(fb: flatbuffers.Builder, op: _Operator) -> tuple[int | None, int | None]:
    table = _OPTION_TABLES.get(op.name, _camel(op.name) + "Options")
    if table is None:
        return None, None
    values: dict[str, Any] = {}
    for name, value in op.options.items():
        key = re.sub(r"2d", "2D", name)
        if isinstance(value, str):
            values[key] = _member(_ENUMERATIONS[name], value)
        elif isinstance(value, Sequence):
            values[key] = _number_vector(fb, value, np.int32)
        else:
            values[key] = value
    return _member("BuiltinOptions", table), _table(fb, table, **values)


def _write_operator(fb: flatbuffers.Builder, op: _Operator, codes: list[tuple[str, int]]) -> int:
    kind, options = _write_options(fb, op)
    return _table(
        fb,
        "Operator",
        opcode_index=codes.index((op.name, op.version)),
        inputs=_number_vector(fb, op.inputs, np.int32),
        outputs=_number_vector(fb, op.outputs, np.int32),
        builtin_options_type=kind,
        builtin_options=options,
    )
