"""Host regions: what the NPU cannot do, written as an ONNX graph.

A program carries its host regions as ONNX bytes: data that a kept library runs, never code of
ours. Source of the operators' meaning: the ONNX standard, opset 17.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lepton.compiler.host_activations import ACTIVATIONS
from lepton.compiler.host_integer import narrow_activation, narrow_weights
from lepton.compiler.host_movement import MOVES
from lepton.compiler.host_quantize import MICROSOFT, write_dequantize, write_quantize
from lepton.compiler.host_verbatim import write_verbatim
from lepton.compiler.host_wide import widen_codes
from lepton.compiler.steps import HostGraph
from lepton.errors import CompileError

__all__ = ["HOST_OPERATORS", "HostGraph", "HostWriter"]

OPSET = 17


def _type_of(expr: Any) -> tuple[tuple[int, ...], str]:
    shape = tuple(int(extent) for extent in expr.ty.shape.values)
    return shape, str(expr.ty.dtype.dtype)


class HostWriter:
    """Collects the nodes of one host region."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._values: dict[Any, str] = {}
        self._aliases: dict[Any, Any] = {}
        self._tuples: dict[Any, list[str]] = {}
        self._opset = OPSET
        self.calls: dict[Any, Any] = {}
        """What each variable is bound to."""

    def knows(self, variable: Any) -> bool:
        """Return whether a variable has a value already."""
        return variable in self._values

    def alias(self, variable: Any, source: Any) -> None:
        """Make a variable another name of a value."""
        self._aliases[variable] = source

    def bind_input(self, variable: Any, name: str, shape: Sequence[int], dtype: str) -> None:
        """Make an input known."""
        from onnx import helper

        self._inputs.append(helper.make_tensor_value_info(name, _element(dtype), list(shape)))
        self._values[variable] = name

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node; return its output's name."""
        from onnx import helper

        output = f"_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def copy_node(self, node: Any, opset: int) -> list[str]:
        """Append a node of another opset, which becomes that of the graph; name its outputs."""
        self._opset = opset
        outputs = [f"_{len(self._nodes)}.{at}" for at, name in enumerate(node.output) if name]
        names = iter(outputs)
        node.output[:] = [next(names) if name else "" for name in node.output]
        self._nodes.append(node)
        return outputs

    def constant(self, value: Any) -> str:
        """Add a constant; return its name."""
        from onnx import numpy_helper

        name = f"_c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def value(self, expr: Any) -> str:
        """Return the name of an operand."""
        while expr in self._aliases:
            expr = self._aliases[expr]
        if expr in self._values:
            return self._values[expr]
        if hasattr(expr, "value"):
            return self.constant(expr.value.numpy())
        raise CompileError(f"host region of '{self._name}': an operand has no value")

    def values(self, expr: Any) -> list[str]:
        """Return the names of a tuple's items."""
        fields = getattr(expr, "fields", None)
        if fields is not None:
            return [self.value(field) for field in fields]
        while expr in self._aliases:
            expr = self._aliases[expr]
        return self._tuples[expr]

    def add(self, binding: Any) -> None:
        """Append the nodes of one binding of main."""
        call = binding.value
        self.calls[binding.var] = call
        if hasattr(call, "fields"):
            self._tuples[binding.var] = self.values(call)
            return
        if hasattr(call, "tuple_value"):
            self._values[binding.var] = self.values(call.tuple_value)[call.index]
            return
        if hasattr(call, "value") and not hasattr(call, "op"):
            self._values[binding.var] = self.constant(call.value.numpy())
            return
        kind = str(getattr(call.op, "name", "function")).removeprefix("relax.")
        writer = _WRITERS.get(kind)
        if writer is None:
            raise CompileError(
                f"operator '{kind}' of '{self._name}' runs neither on the NPU nor on the host"
            )
        made = writer(self, call)
        if isinstance(made, list):
            self._tuples[binding.var] = made
        else:
            self._values[binding.var] = made

    def finish(self, inputs: Sequence[str], outputs: Sequence[tuple[Any, str]]) -> HostGraph:
        """Return the graph whose results are (variable, name)."""
        from onnx import helper

        infos: list[Any] = []
        for variable, name in outputs:
            shape, dtype = _type_of(variable)
            self._nodes.append(helper.make_node("Identity", [self.value(variable)], [name]))
            infos.append(helper.make_tensor_value_info(name, _element(dtype), list(shape)))
        nodes = widen_codes(self._nodes, self._inputs, self._constants)
        graph = helper.make_graph(nodes, "host", self._inputs, infos, self._constants)
        versions = [helper.make_opsetid("", self._opset)]
        if any(node.domain == MICROSOFT for node in self._nodes):
            versions.append(helper.make_opsetid(MICROSOFT, 1))
        model = helper.make_model(graph, opset_imports=versions, ir_version=8)
        return HostGraph(
            model.SerializeToString(), tuple(inputs), tuple(name for _, name in outputs)
        )


def _element(dtype: str) -> int:
    """Return the ONNX element type."""
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


Writer = Callable[[HostWriter, Any], "str | list[str]"]


def _plain(kind: str) -> Writer:
    """Return a writer of an operator with the same operands and no attributes."""
    return lambda w, call: w.node(kind, [w.value(argument) for argument in call.args])


def _integers(values: Any) -> list[int]:
    return [int(value) for value in values]


def _transposed(w: HostWriter, name: str, source: str, target: str) -> str:
    """Return a value moved from one layout text to another."""
    if source == target:
        return name
    return w.node("Transpose", [name], perm=[source.index(letter) for letter in target])


def _pads(call: Any) -> list[int]:
    return _integers(call.attrs.padding)


def _convolution(w: HostWriter, call: Any) -> str:
    """Write a convolution; ONNX knows channels first only."""
    attrs = call.attrs
    is_integer = np.dtype(_type_of(call)[1]).kind == "i"
    operands, points = _integer_operands(w, call) if is_integer else (list(call.args), [])
    x = _transposed(w, w.value(operands[0]), str(attrs.data_layout), "NCHW")
    layout = str(attrs.kernel_layout)
    weights = w.constant(operands[1]) if is_integer else w.value(operands[1])
    shape = _type_of(call.args[1])[0]
    if layout == "HWOI" and int(attrs.groups) > 1:
        flat = w.node("Reshape", [weights, w.constant(np.array([*shape[:2], 1, -1], np.int64))])
        weights = w.node("Transpose", [flat], perm=[3, 2, 0, 1])
        kernel = list(shape[:2])
    else:
        weights = _transposed(w, weights, layout, "OIHW")
        kernel = [shape[layout.index(letter)] for letter in "HW"]
    made = w.node(
        "ConvInteger" if is_integer else "Conv", [x, weights, *points],
        strides=_integers(attrs.strides), pads=_pads(call),
        dilations=_integers(attrs.dilation), group=int(attrs.groups), kernel_shape=kernel,
    )  # fmt: skip
    return _transposed(w, made, "NCHW", str(attrs.data_layout))


def _integer_operands(w: HostWriter, call: Any) -> tuple[list[Any], list[str]]:
    """Return the 8-bit operands of an integer convolution and the names of their zero points."""
    x, x_point = narrow_activation(call, w.calls)
    weights, weight_point = narrow_weights(call.args[1])
    return [x, weights], [w.constant(x_point), w.constant(weight_point)]


def _deconvolution(w: HostWriter, call: Any) -> str:
    """Write a transposed convolution."""
    attrs = call.attrs
    x = _transposed(w, w.value(call.args[0]), str(attrs.data_layout), "NCHW")
    weights = _transposed(w, w.value(call.args[1]), str(attrs.kernel_layout), "IOHW")
    made = w.node(
        "ConvTranspose", [x, weights], strides=_integers(attrs.strides), pads=_pads(call),
        dilations=_integers(attrs.dilation), group=int(attrs.groups),
        output_padding=_integers(attrs.output_padding),
    )  # fmt: skip
    return _transposed(w, made, "NCHW", str(attrs.data_layout))


def _pool(kind: str) -> Writer:
    """Return a writer of a pooling."""

    def write(w: HostWriter, call: Any) -> str:
        attrs = call.attrs
        x = _transposed(w, w.value(call.args[0]), str(attrs.layout), "NCHW")
        extra: dict[str, int] = {"ceil_mode": int(bool(attrs.ceil_mode))}
        if kind == "AveragePool":
            extra["count_include_pad"] = int(bool(attrs.count_include_pad))
        else:
            extra["dilations"] = _integers(attrs.dilation)  # pyright: ignore
        made = w.node(
            kind, [x], kernel_shape=_integers(attrs.pool_size), strides=_integers(attrs.strides),
            pads=_pads(call), **extra,
        )  # fmt: skip
        return _transposed(w, made, "NCHW", str(attrs.layout))

    return write


def _reduce(kind: str) -> Writer:
    """Return a writer of a reduction; its axes became an input in different opsets."""

    def write(w: HostWriter, call: Any) -> str:
        axes = call.attrs.axis
        keep = {"keepdims": int(bool(call.attrs.keepdims))}
        operands = [w.value(call.args[0])]
        if axes is None:
            return w.node(kind, operands, **keep)
        if kind == "ReduceSum":
            operands.append(w.constant(np.array(_integers(axes), np.int64)))
            return w.node(kind, operands, **keep)
        return w.node(kind, operands, axes=_integers(axes), **keep)

    return write


def _reshape(w: HostWriter, call: Any) -> str:
    shape = np.array(_type_of(call)[0], np.int64)
    return w.node("Reshape", [w.value(call.args[0]), w.constant(shape)])


def _expand(w: HostWriter, call: Any) -> str:
    shape = np.array(_type_of(call)[0], np.int64)
    return w.node("Expand", [w.value(call.args[0]), w.constant(shape)])


def _transpose(w: HostWriter, call: Any) -> str:
    axes = call.attrs.axes
    rank = len(_type_of(call)[0])
    order = _integers(axes) if axes is not None else list(range(rank))[::-1]
    return w.node("Transpose", [w.value(call.args[0])], perm=order)


def _clip(w: HostWriter, call: Any) -> str:
    dtype = np.dtype(_type_of(call)[1])
    bounds = [float(bound.value) for bound in call.args[1:3]]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        bounds = [min(max(bound, limits.min), limits.max) for bound in bounds]
    ends = [w.constant(np.asarray(bound, dtype)) for bound in bounds]
    return w.node("Clip", [w.value(call.args[0]), *ends])


def _concat(w: HostWriter, call: Any) -> str:
    return w.node("Concat", w.values(call.args[0]), axis=int(call.attrs.axis))


def _slice(w: HostWriter, call: Any) -> str:
    parts = [np.array([int(i.value) for i in part.fields], np.int64) for part in call.args[1:]]
    axes, begin, end = parts[:3]
    operands = [w.value(call.args[0]), *(w.constant(part) for part in (begin, end, axes))]
    if len(parts) > 3:
        operands.append(w.constant(parts[3]))
    return w.node("Slice", operands)


def _pad(w: HostWriter, call: Any) -> str:
    widths = _integers(call.attrs.pad_width)
    pads = np.array(widths[0::2] + widths[1::2], np.int64)
    value = np.asarray(float(call.attrs.pad_value)).astype(_type_of(call)[1])
    operands = [w.value(call.args[0]), w.constant(pads), w.constant(value)]
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}
    return w.node("Pad", operands, mode=mode[str(call.attrs.pad_mode)])


def _resize(w: HostWriter, call: Any) -> str:
    attrs = call.attrs
    x = _transposed(w, w.value(call.args[0]), str(attrs.layout), "NCHW")
    shape = list(_type_of(call)[0])
    order = [str(attrs.layout).index(letter) for letter in "NCHW"]
    sizes = np.array([shape[axis] for axis in order], np.int64)
    modes = {"nearest_neighbor": "nearest", "linear": "linear", "cubic": "cubic"}
    mode = modes.get(str(attrs.method))
    if mode is None:
        raise CompileError(f"resize: the mode must be one of {', '.join(modes)}")
    extra: dict[str, Any] = {}
    if mode == "nearest":
        rounding = str(attrs.rounding_method)
        known = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        extra["nearest_mode"] = rounding if rounding in known else "round_prefer_floor"
    made = w.node(
        "Resize", [x, "", "", w.constant(sizes)], mode=mode,
        coordinate_transformation_mode=str(attrs.coordinate_transformation_mode), **extra,
    )  # fmt: skip
    return _transposed(w, made, "NCHW", str(attrs.layout))


def _cast(w: HostWriter, call: Any) -> str:
    return w.node("Cast", [w.value(call.args[0])], to=_element(_type_of(call)[1]))


def _axis_attribute(kind: str) -> Writer:
    """Return a writer of an operator with one axis."""
    return lambda w, call: w.node(kind, [w.value(call.args[0])], axis=int(call.attrs.axis))


def _rsqrt(w: HostWriter, call: Any) -> str:
    return w.node("Reciprocal", [w.node("Sqrt", [w.value(call.args[0])])])


def _square(w: HostWriter, call: Any) -> str:
    x = w.value(call.args[0])
    return w.node("Mul", [x, x])


def _take(w: HostWriter, call: Any) -> str:
    axis = call.attrs.axis
    operands = [w.value(call.args[0]), w.value(call.args[1])]
    return w.node("Gather", operands, axis=0 if axis is None else int(axis))


def _arg(kind: str) -> Writer:
    """Return a writer of argmax or argmin."""

    def write(w: HostWriter, call: Any) -> str:
        made = w.node(
            kind, [w.value(call.args[0])], axis=int(call.attrs.axis),
            keepdims=int(bool(call.attrs.keepdims)),
        )  # fmt: skip
        return w.node("Cast", [made], to=_element(_type_of(call)[1]))

    return write


def _batch_norm(w: HostWriter, call: Any) -> list[str]:
    """Write an inference batch norm over axis 1; its statistics are passed on unchanged."""
    if int(call.attrs.axis) != 1:
        raise CompileError("a float batch norm on the host must be over axis 1")
    operands = [w.value(argument) for argument in call.args]
    made = w.node("BatchNormalization", operands, epsilon=float(call.attrs.epsilon))
    return [made, operands[3], operands[4]]


def _layer_norm(w: HostWriter, call: Any) -> str:
    operands = [w.value(argument) for argument in call.args]
    axes = _integers(call.attrs.axes)
    return w.node("LayerNormalization", operands, axis=min(axes), epsilon=float(call.attrs.epsilon))


def _lrn(w: HostWriter, call: Any) -> str:
    attrs = call.attrs
    return w.node(
        "LRN", [w.value(call.args[0])], size=int(attrs.size), alpha=float(attrs.alpha),
        beta=float(attrs.beta), bias=float(attrs.bias),
    )  # fmt: skip


_WRITERS: dict[str, Writer] = {
    "quantize": write_quantize,
    "dequantize": write_dequantize,
    "nn.conv2d": _convolution,
    "nn.conv2d_transpose": _deconvolution,
    "nn.max_pool2d": _pool("MaxPool"),
    "nn.avg_pool2d": _pool("AveragePool"),
    "mean": _reduce("ReduceMean"),
    "sum": _reduce("ReduceSum"),
    "max": _reduce("ReduceMax"),
    "min": _reduce("ReduceMin"),
    "prod": _reduce("ReduceProd"),
    "reshape": _reshape,
    "expand_dims": _reshape,
    "squeeze": _reshape,
    "flatten": _reshape,
    "broadcast_to": _expand,
    "permute_dims": _transpose,
    "clip": _clip,
    "concat": _concat,
    "strided_slice": _slice,
    "nn.pad": _pad,
    "image.resize2d": _resize,
    "astype": _cast,
    "nn.softmax": _axis_attribute("Softmax"),
    "nn.log_softmax": _axis_attribute("LogSoftmax"),
    "nn.batch_norm": _batch_norm,
    "nn.layer_norm": _layer_norm,
    "nn.lrn": _lrn,
    "rsqrt": _rsqrt,
    "square": _square,
    "take": _take,
    "argmax": _arg("ArgMax"),
    "argmin": _arg("ArgMin"),
    "lepton.onnx_node": write_verbatim,
    **ACTIVATIONS,
    **MOVES,
} | {
    relax_name: _plain(onnx_name)
    for relax_name, onnx_name in {
        "add": "Add",
        "subtract": "Sub",
        "multiply": "Mul",
        "divide": "Div",
        "maximum": "Max",
        "minimum": "Min",
        "power": "Pow",
        "matmul": "MatMul",
        "sigmoid": "Sigmoid",
        "tanh": "Tanh",
        "exp": "Exp",
        "log": "Log",
        "sqrt": "Sqrt",
        "erf": "Erf",
        "abs": "Abs",
        "negative": "Neg",
        "floor": "Floor",
        "ceil": "Ceil",
        "round": "Round",
        "sign": "Sign",
        "sin": "Sin",
        "cos": "Cos",
        "where": "Where",
        "greater": "Greater",
        "greater_equal": "GreaterOrEqual",
        "less": "Less",
        "less_equal": "LessOrEqual",
        "equal": "Equal",
        "logical_not": "Not",
        "logical_and": "And",
        "logical_or": "Or",
        "nn.relu": "Relu",
        "nn.dropout": "Identity",
    }.items()
}

HOST_OPERATORS = tuple(sorted(name for name in _WRITERS if name != "lepton.onnx_node"))
"""Relax operators that host regions may hold, beside ONNX nodes as they are."""
