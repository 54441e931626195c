"""ONNX forms of activation functions that opset 17 has not, or has in another shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lepton.compiler.host import HostWriter

__all__ = ["ACTIVATIONS"]


def _leaky(w: HostWriter, call: Any) -> str:
    return w.node("LeakyRelu", [w.value(call.args[0])], alpha=float(call.attrs.alpha))


def _prelu(w: HostWriter, call: Any) -> str:
    """Write prelu; the slope takes the shape that broadcasts along its axis."""
    rank = len(call.ty.shape.values)
    shape = [1] * rank
    shape[int(call.attrs.axis) % rank] = -1
    slope = w.node("Reshape", [w.value(call.args[1]), w.constant(np.array(shape, np.int64))])
    return w.node("PRelu", [w.value(call.args[0]), slope])


def _gelu(w: HostWriter, call: Any) -> str:
    x = w.value(call.args[0])
    inner = w.node("Mul", [x, w.constant(np.float32(math.sqrt(0.5)))])
    return _gated(w, x, w.node("Erf", [inner]))


def _gelu_tanh(w: HostWriter, call: Any) -> str:
    """Write gelu's approximation tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))."""
    x = w.value(call.args[0])
    cube = w.node("Mul", [x, w.node("Mul", [x, x])])
    grown = w.node("Add", [x, w.node("Mul", [cube, w.constant(np.float32(0.044715))])])
    inner = w.node("Mul", [grown, w.constant(np.float32(math.sqrt(2 / math.pi)))])
    return _gated(w, x, w.node("Tanh", [inner]))


def _gated(w: HostWriter, x: str, share: str) -> str:
    """Write x / 2 * (1 + share)."""
    grown = w.node("Add", [share, w.constant(np.float32(1))])
    return w.node("Mul", [w.node("Mul", [x, w.constant(np.float32(0.5))]), grown])


def _silu(w: HostWriter, call: Any) -> str:
    x = w.value(call.args[0])
    return w.node("Mul", [x, w.node("Sigmoid", [x])])


ACTIVATIONS: dict[str, Callable[[HostWriter, Any], str | list[str]]] = {
    "nn.gelu": _gelu,
    "nn.gelu_tanh": _gelu_tanh,
    "nn.leakyrelu": _leaky,
    "nn.prelu": _prelu,
    "nn.silu": _silu,
}
"""Writers by Relax operator."""
