"""Float expressions of one quantized tensor: read from Relax, recognized, evaluated.

An expression is a tree whose leaves are the tensor `x` and constants. Its signature, such as
`divide(multiply(x,clip(add(x,3.0),0.0,6.0)),6.0)`, tells known functions apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.arith import onnx_unary

__all__ = ["Expression", "evaluate", "signature"]

Float32Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Expression:
    """A node: `op` with operands, the leaf `x`, or `constant` with a value.

    Attributes:
        attributes: numbers of the call that are not operands: bounds of a clip, a slope.
    """

    op: str
    operands: tuple[Expression, ...] = ()
    attributes: tuple[float, ...] = ()
    value: Float32Array | None = None


def signature(expression: Expression) -> str:
    """Return the text of an expression; constants of one value by their shortest decimal."""
    if expression.op == "constant":
        assert expression.value is not None
        flat = expression.value.reshape(-1)
        return str(np.float32(flat[0])) if flat.size == 1 else "[]"
    if expression.op == "x":
        return "x"
    inner = [signature(operand) for operand in expression.operands]
    inner += [str(np.float32(number)) for number in expression.attributes]
    return f"{expression.op}({','.join(inner)})"


def _float32(function: Callable[[Any], Any]) -> Callable[..., Float32Array]:
    """Return a function of float64 evaluated once and rounded to float32."""

    def rounded(x: Float32Array) -> Float32Array:
        with np.errstate(all="ignore"):
            return np.asarray(function(x.astype(np.float64)), np.float32)

    return rounded


def _prelu(x: Float32Array, slope: Float32Array) -> Float32Array:
    return np.where(x > 0, x, x * slope).astype(np.float32)


def _divide(a: Float32Array | np.float32, b: Float32Array) -> Float32Array:
    with np.errstate(all="ignore"):
        return np.asarray(a / b, np.float32)


def _rsqrt(x: Float32Array) -> Float32Array:
    return _divide(np.float32(1), np.asarray(np.sqrt(np.maximum(x, 0))))


def _power(a: Float32Array, b: Float32Array) -> Float32Array:
    return np.power(a.astype(np.float64), b).astype(np.float32)


def _as_float32(x: NDArray[Any]) -> Float32Array:
    return np.asarray(x, np.float32)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sigmoid": onnx_unary.sigmoid,
    "tanh": onnx_unary.tanh,
    "exp": onnx_unary.exp,
    "erf": onnx_unary.erf,
    "log": onnx_unary.log,
    "sqrt": onnx_unary.sqrt,
    "rsqrt": _rsqrt,
    "abs": np.abs,
    "negative": np.negative,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "sign": np.sign,
    "sin": _float32(np.sin),
    "cos": _float32(np.cos),
    "square": np.square,
    "nn.relu": onnx_unary.relu,
    "nn.gelu": onnx_unary.gelu,
    "nn.gelu_tanh": onnx_unary.gelu_tanh,
    "nn.silu": onnx_unary.silu,
    "nn.leakyrelu": onnx_unary.leaky_relu,
    "clip": onnx_unary.clip,
    "nn.prelu": _prelu,
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": _divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "power": _power,
    "greater": np.greater,
    "astype": _as_float32,
}
"""Element-wise operators and how the ONNX golden computes each in float32."""

OPERATORS = frozenset(_FUNCTIONS)


def evaluate(expression: Expression, x: Float32Array) -> Float32Array:
    """Return the expression's float32 value for `x`, an operator at a time."""
    if expression.op == "x":
        return x
    if expression.op == "constant":
        assert expression.value is not None
        return expression.value
    operands = [evaluate(operand, x) for operand in expression.operands]
    with np.errstate(all="ignore"):
        result = _FUNCTIONS[expression.op](*operands, *expression.attributes)
    return np.asarray(result, np.float32)
