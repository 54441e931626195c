"""Turn every element-wise function of one 8-bit tensor into a look-up table.

before: d = R.dequantize(x, s, z); e = R.sigmoid(d); y = R.quantize(e, t, u)
after:  i = R.astype(x, "int32"); j = R.add(i, offsets); y = R.take(table, j)

`table` holds the golden's own bytes for all 256 codes, once per channel where constants differ by
channel; `offsets` moves the codes of a channel to its part of the table.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import relax

from lepton.arith import onnx_float
from lepton.arith.elementwise import combine
from lepton.compiler.expression import OPERATORS, Expression, evaluate
from lepton.compiler.golden import Golden
from lepton.compiler.importers.canonical import drop_dead_code
from lepton.compiler.importers.rewriting import (
    Rewriter,
    is_call,
    is_constant,
    operator_name,
    rewrite,
)
from lepton.compiler.operation import Operation, read_operation
from lepton.compiler.table_pair import TablePair
from lepton.compiler.tables_tflite import tflite_table
from lepton.errors import CompileError

__all__ = ["tabulate"]

Int32Array = NDArray[np.int32]
_EIGHT_BITS = ("int8", "uint8")
_BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum")


def tabulate(module: tvm.IRModule, golden: Golden, kind: str) -> tvm.IRModule:
    """Replace element-wise functions of one 8-bit tensor by tables; `kind` is the golden's name."""

    def rule(rewriter: Rewriter, _variable: Any, value: Any) -> Any:
        if is_call(value, "relax.clip"):
            return _clipped_take(rewriter, value)
        reading = _Reading(rewriter)
        if not is_call(value, "relax.quantize") or not reading.accepts(value):
            return None
        table = _table(reading, value, golden, kind)
        return None if table is None else _take(rewriter, reading, table, value)

    return drop_dead_code(rewrite(module, rule))


class _Bindings:
    """The rewriter's bindings as a mapping."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._rewriter = rewriter

    def __contains__(self, expr: Any) -> bool:
        return self._rewriter.value(expr) is not expr

    def __getitem__(self, expr: Any) -> Any:
        return self._rewriter.value(expr)


class _Reading:
    """One candidate: the tree behind a quantize and the tensor at its leaves."""

    def __init__(self, rewriter: Rewriter) -> None:
        self._rewriter = rewriter
        self.leaf: Any = None
        self.leaf_call: Any = None
        self.tree: Expression | None = None
        self.constants: list[NDArray[Any]] = []

    def accepts(self, call: Any) -> bool:
        """Read the tree behind a quantize; return whether it is of one 8-bit tensor."""
        if str(call.attrs.out_dtype) not in _EIGHT_BITS:
            return False
        self.tree = self._read(call.args[0])
        return (
            self.tree is not None
            and self.leaf is not None
            and self.tree.op != "x"
            and str(self.leaf.ty.dtype.dtype) in _EIGHT_BITS
            and len(self.leaf.ty.shape.values) <= 4
            and self.axis(call) is not None
        )

    def axis(self, call: Any) -> int | None:
        """Return the one axis along which constants differ, -1 for none, None for several."""
        # a call that has just been rebuilt has no type yet; its operand, a variable, has
        shape = [int(extent) for extent in call.args[0].ty.shape.values]
        leaf = [int(extent) for extent in self.leaf.ty.shape.values]
        if shape != leaf:
            return None
        axes: set[int] = set()
        for constant in self.constants:
            if constant.ndim > len(leaf):
                return None
            spread = (1,) * (len(leaf) - constant.ndim) + constant.shape
            axes |= {index for index, extent in enumerate(spread) if extent > 1}
        if len(axes) > 1:
            return None
        return axes.pop() if axes else -1

    def _read(self, expr: Any) -> Expression | None:
        """Return the tree of an expression, None if it holds anything else."""
        call = self._rewriter.value(expr)
        if hasattr(call, "value") and not isinstance(call, tvm.ir.Call):
            return self._constant(np.asarray(call.value.numpy()))
        name = operator_name(call).removeprefix("relax.")
        if name == "dequantize":
            return self._leaf(call)
        if name not in OPERATORS or len(self.constants) > 32:
            return None
        return self._call(name, call)

    def _call(self, name: str, call: Any) -> Expression | None:
        """Return the tree of an element-wise call."""
        arguments = list(call.args)
        attributes: tuple[float, ...] = ()
        if name == "clip":
            attributes = tuple(float(bound.value) for bound in arguments[1:3])
            arguments = arguments[:1]
        elif name == "nn.leakyrelu":
            attributes = (float(call.attrs.alpha),)
        operands = tuple(self._read(argument) for argument in arguments)
        if name == "nn.prelu":
            operands = self._slope(call, operands)
        if any(operand is None for operand in operands):
            return None
        return Expression(name, tuple(op for op in operands if op is not None), attributes)

    def _slope(
        self, call: Any, operands: tuple[Expression | None, ...]
    ) -> tuple[Expression | None, ...]:
        """Give a slope per channel the shape that broadcasts along its axis."""
        x, slope = operands
        if slope is None or slope.value is None or slope.value.size == 1:
            return operands
        rank = len(call.args[0].ty.shape.values)
        shape = [1] * rank
        shape[int(call.attrs.axis) % rank] = -1
        value = slope.value.reshape(shape)
        self.constants[-1] = value
        return x, Expression("constant", (), slope.attributes, value)

    def _constant(self, value: NDArray[Any]) -> Expression:
        self.constants.append(value)
        return Expression("constant", value=value.astype(np.float32))

    def _leaf(self, call: Any) -> Expression | None:
        """Return the leaf of a dequantize, or the constant it makes."""
        inner = self._rewriter.value(call.args[0])
        if hasattr(inner, "value") and not isinstance(inner, tvm.ir.Call):
            return self._dequantized(call, np.asarray(inner.value.numpy()))
        scale = call.args[1].value.numpy()
        if scale.size != 1 or (self.leaf is not None and not self._same_leaf(call)):
            return None
        self.leaf, self.leaf_call = call.args[0], call
        return Expression("x")

    def _same_leaf(self, call: Any) -> bool:
        """Return whether another dequantize is of the same tensor with the same parameters."""
        if not call.args[0].same_as(self.leaf):
            return False
        return all(
            np.array_equal(a.value.numpy(), b.value.numpy())
            for a, b in zip(call.args[1:3], self.leaf_call.args[1:3], strict=True)
        )

    def _dequantized(self, call: Any, raw: NDArray[Any]) -> Expression:
        """Return a dequantized constant, with its scale as the attribute if it has only one."""
        scale, zero_point = (argument.value.numpy() for argument in call.args[1:3])
        if scale.size > 1:
            shape = [1] * raw.ndim
            shape[int(call.attrs.axis)] = -1
            scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
        real = (raw.astype(np.int32) - zero_point.astype(np.int32)).astype(np.float32) * scale
        constant = self._constant(np.asarray(real, np.float32))
        return replace(constant, attributes=(float(scale),)) if scale.size == 1 else constant


def _codes(dtype: str) -> Int32Array:
    """Return all codes of a type, rising."""
    low = 0 if dtype == "uint8" else -128
    return np.arange(low, low + 256, dtype=np.int32)


def _table(reading: _Reading, call: Any, golden: Golden, kind: str) -> Int32Array | None:
    """Return the codes `[channels, 256]` by rising input code, or None if the golden has none."""
    bindings: Any = _Bindings(reading._rewriter)  # pyright: ignore[reportPrivateUsage]
    operation = read_operation(bindings, call, call)
    if operation.op in _BINARY and _is_plain_binary(operation):
        return _binary_table(operation, golden)
    assert reading.tree is not None
    quantizations = TablePair(reading.leaf_call, call)
    if kind == "tflite":
        return tflite_table(reading.tree, quantizations)
    return _onnx_table(reading, quantizations)


def _is_plain_binary(operation: Operation) -> bool:
    """Return whether an operation is of the tensor and a quantized constant, or itself."""
    if len(operation.inputs) != 2:
        return False
    return all(value.quantization is not None for value in operation.inputs)


def _binary_table(operation: Operation, golden: Golden) -> Int32Array | None:
    """Return the table of a function of the tensor and a constant, or of the tensor twice."""
    try:
        form = golden.binary(operation)
    except CompileError:
        return None
    values = [value.constant for value in operation.inputs]
    position = 0 if values[0] is None else 1
    constant = values[1 - position]
    codes = _codes(operation.inputs[position].dtype)
    if constant is None:
        twice = combine(form.mode, codes, codes, form.parameters)
        return np.asarray(twice, np.int32).reshape(1, 256)
    rows: list[Int32Array] = []
    for item in constant.reshape(-1).astype(np.int32):
        pair = [codes, np.full(256, item, np.int32)]
        if position == 1:
            pair.reverse()
        if form.exchanged:
            pair.reverse()
        rows.append(np.asarray(combine(form.mode, pair[0], pair[1], form.parameters), np.int32))
    return np.stack(rows)


def _onnx_table(reading: _Reading, pair: TablePair) -> Int32Array:
    """Return the table of a float32 expression between dequantize and quantize."""
    source = onnx_float.quantization(float(pair.input_scale), pair.input_point, pair.input_type)
    target = onnx_float.quantization(float(pair.output_scale), pair.output_point, pair.output_type)
    real = onnx_float.dequantize(_codes(pair.input_type), source)
    channels = max((constant.size for constant in reading.constants), default=1)
    rows: list[Int32Array] = []
    assert reading.tree is not None
    for channel in range(channels):
        value = evaluate(_of_channel(reading.tree, channel), real)
        flat = np.ascontiguousarray(np.broadcast_to(value, 256), np.float32)
        rows.append(onnx_float.quantize(flat, target))
    return np.stack(rows)


def _of_channel(tree: Expression, channel: int) -> Expression:
    """Return a tree with each constant's value of one channel."""
    if tree.value is not None:
        flat = tree.value.reshape(-1)
        item = flat[channel] if flat.size > 1 else flat[0]
        return Expression("constant", value=np.full(1, item, np.float32))
    operands = tuple(_of_channel(operand, channel) for operand in tree.operands)
    return Expression(tree.op, operands, tree.attributes)


def _clipped_take(rewriter: Rewriter, clip: Any) -> Any:
    """Return a look-up in a clipped table for the clip of a look-up, None for another clip.

    before: t = R.take(table, i); y = R.clip(t, low, high)
    after:  y = R.take(clip(table, low, high), i)
    """
    taken = rewriter.call(clip.args[0], "relax.take")
    if taken is None or not is_constant(taken.args[0]):
        return None
    low, high = (float(bound.value) for bound in clip.args[1:3])
    content = np.asarray(taken.args[0].value.numpy())
    clipped = relax.const(np.clip(content, low, high).astype(content.dtype))
    return tvm.ir.Call(taken.op, [clipped, taken.args[1]], taken.attrs, [], clip.span)


# --- the result --------------------------------------------------------------------------------


def _take(rewriter: Rewriter, reading: _Reading, table: Int32Array, call: Any) -> Any:
    """Return the look-up that replaces a quantize."""
    pair = TablePair(reading.leaf_call, call)
    kind = np.uint8 if pair.output_type == "uint8" else np.int8
    low = 0 if pair.input_type == "uint8" else -128
    rank = len(reading.leaf.ty.shape.values)
    offsets = np.arange(len(table), dtype=np.int32) * 256 - low
    axis = reading.axis(call)
    shape = [1] * rank
    if axis is not None and axis >= 0 and len(table) > 1:
        shape[axis] = -1
    spread = offsets.reshape(shape) if len(table) > 1 else np.asarray(offsets[0], np.int32)
    widened = rewriter.emit(relax.op.astype(reading.leaf, "int32"))
    moved = rewriter.emit(relax.op.add(widened, relax.const(spread, "int32")))
    content = relax.const(np.ascontiguousarray(table.reshape(-1)).astype(kind))
    return relax.op.take(content, moved, axis=0)
