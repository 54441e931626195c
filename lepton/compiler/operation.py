"""Operators as the partitioner sees them: one matched group of Relax calls, read into one record.

The same reading serves the support rules, at matching time, and the building of the NPU graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.compiler.importers import source_name, tensor_name

__all__ = ["Activation", "Operation", "Quantization", "Value", "read_operation"]


@dataclass(frozen=True)
class Quantization:
    """Real value = scale * (q - zero_point); arrays where it differs by channel along `axis`."""

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int32]
    axis: int

    @property
    def is_per_tensor(self) -> bool:
        return self.scale.size == 1 and self.zero_point.size == 1


@dataclass(frozen=True, eq=False)
class Value:
    """An operand or result.

    Attributes:
        variable: the Relax variable, None for a constant.
        constant: the raw values of a constant.
        quantization: None for a tensor that is moved without being read.
    """

    variable: Any
    shape: tuple[int, ...]
    dtype: str
    quantization: Quantization | None
    constant: NDArray[Any] | None = None


@dataclass(frozen=True)
class Activation:
    """Clamps of a result: of the real value before, of the quantized one after quantize."""

    real_low: float = -np.inf
    real_high: float = np.inf
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True, eq=False)
class Operation:
    """One operator of the source model.

    Attributes:
        op: the Relax operator at its heart, without the `relax.` prefix; `requantize` if none,
            `squared_difference` for the square of one.
        name: the source operator.
        tensor: the source tensor that the result is, or "".
        inputs: data operands in order, weights and constants included, bias not.
        call: the Relax call at its heart, for its attributes.
    """

    op: str
    name: str
    tensor: str
    inputs: tuple[Value, ...]
    output: Value
    bias: Value | None
    activation: Activation
    call: Any

    def integers(self, attribute: str) -> tuple[int, ...]:
        """Return a list attribute of the call as integers."""
        return tuple(int(item) for item in getattr(self.call.attrs, attribute))


class _Reader:
    """Walks back from the root of a match through its bindings."""

    def __init__(self, bindings: Mapping[Any, Any]) -> None:
        self._bindings = bindings

    def value(self, expr: Any) -> Any:
        """Return what a variable is bound to inside the match, or the expression itself."""
        seen = expr
        while seen in self._bindings:
            seen = self._bindings[seen]
        return seen

    def name_of(self, expr: Any) -> str:
        """Return the operator's name of a call, or ""."""
        operator = getattr(self.value(expr), "op", None)
        return str(getattr(operator, "name", "")).removeprefix("relax.")


def _type(expr: Any) -> tuple[tuple[int, ...], str]:
    """Return shape and element type of an expression."""
    shape = tuple(int(extent) for extent in expr.ty.shape.values)
    return shape, str(expr.ty.dtype.dtype if hasattr(expr.ty.dtype, "dtype") else expr.ty.dtype)


def _constant(expr: Any) -> NDArray[Any] | None:
    """Return the array of a constant expression, else None."""
    return np.asarray(expr.value.numpy()) if hasattr(expr, "value") else None


def _quantization(call: Any, shape: tuple[int, ...]) -> Quantization:
    """Return the parameters of a quantize or dequantize call."""
    scale, zero_point = (_constant(argument) for argument in call.args[1:3])
    if scale is None or zero_point is None:
        raise ValueError("quantization parameters must be constants")
    axis = int(call.attrs.axis) % max(len(shape), 1)
    return Quantization(
        np.atleast_1d(scale).astype(np.float32), np.atleast_1d(zero_point).astype(np.int32), axis
    )


def _operand(reader: _Reader, expr: Any) -> Value:
    """Return an operand: what a dequantize reads, or a tensor that is moved as it is."""
    call = reader.value(expr)
    if reader.name_of(expr) == "dequantize":
        inner = call.args[0]
        source = reader.value(inner)
        shape, dtype = _type(source if hasattr(source, "value") else inner)
        constant = _constant(source)
        variable = None if constant is not None else inner
        return Value(variable, shape, dtype, _quantization(call, shape), constant)
    shape, dtype = _type(call)
    constant = _constant(call)
    return Value(None if constant is not None else expr, shape, dtype, None, constant)


def _peel_after(reader: _Reader, root: Any) -> tuple[Any, Quantization | None, Activation]:
    """Take clip, quantize and real activation off the root of a match."""
    low = high = None
    expr = root
    shape, _ = _type(reader.value(root))
    if reader.name_of(expr) == "clip" and _type(reader.value(expr))[1] in ("int8", "uint8"):
        call = reader.value(expr)
        low, high = (int(float(bound.value)) for bound in call.args[1:3])
        expr = call.args[0]
    quantization = None
    if reader.name_of(expr) == "quantize":
        call = reader.value(expr)
        quantization = _quantization(call, shape)
        expr = call.args[0]
    real = (-np.inf, np.inf)
    name = reader.name_of(expr)
    inner = reader.value(expr)
    if name in ("nn.relu", "clip") and reader.name_of(inner.args[0]) not in ("dequantize", ""):
        real = (0.0, np.inf)
        if name == "clip":
            real = (float(inner.args[1].value), float(inner.args[2].value))
        expr = inner.args[0]
    return expr, quantization, Activation(real[0], real[1], low, high)


_WEIGHTED = ("nn.conv2d", "matmul")


def _peel_bias(reader: _Reader, expr: Any) -> tuple[Any, Value | None]:
    """Take the bias off a convolution or product."""
    call = reader.value(expr)
    if reader.name_of(expr) != "add" or reader.name_of(call.args[0]) not in _WEIGHTED:
        return expr, None
    return call.args[0], _operand(reader, call.args[1])


def _operands(reader: _Reader, call: Any) -> tuple[Value, ...]:
    """Return the data operands of the call at the heart of a match."""
    name = str(call.op.name).removeprefix("relax.")
    fields = call.args
    if name == "take":
        moved = reader.value(call.args[1])
        fields = [call.args[0], reader.value(moved.args[0]).args[0], moved.args[1]]
    elif name == "concat":
        whole = reader.value(call.args[0])
        fields = whole.fields
    elif name in ("reshape", "nn.pad", "strided_slice", "clip", "image.resize2d", "broadcast_to"):
        fields = call.args[:1]
    return tuple(_operand(reader, field) for field in fields)


def _is_squared_difference(reader: _Reader, power: Any) -> bool:
    """Return whether a power is the square of a difference."""
    exponent = _constant(power.args[1])
    is_square = exponent is not None and exponent.size == 1 and float(exponent.reshape(())) == 2.0
    return is_square and reader.name_of(power.args[0]) == "subtract"


def read_operation(bindings: Mapping[Any, Any], root: Any, named: Any) -> Operation:
    """Return the operation of a match.

    Args:
        bindings: variable -> value, inside the match.
        root: the expression that the match returns.
        named: what carries the source names: the root call, or the composite function.
    """
    reader = _Reader(bindings)
    expr, quantization, activation = _peel_after(reader, root)
    expr, bias = _peel_bias(reader, expr)
    call = reader.value(expr)
    op = reader.name_of(expr)
    if op == "power" and _is_squared_difference(reader, call):
        op, call = "squared_difference", reader.value(call.args[0])
    shape, dtype = _type(reader.value(root))
    output = Value(None, shape, dtype, quantization)
    if op == "dequantize":
        return Operation(
            "requantize", _source(named), tensor_name(named), (_operand(reader, expr),), output,
            None, activation, call,
        )  # fmt: skip
    return Operation(
        op, _source(named), tensor_name(named), _operands(reader, call), output, bias,
        activation, call,
    )  # fmt: skip


def _source(named: Any) -> str:
    """Return the source operator's name, "" if it has none."""
    try:
        return source_name(named)
    except KeyError:
        return ""
