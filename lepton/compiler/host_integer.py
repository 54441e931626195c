"""Integer convolutions of host regions, in ONNX Runtime's ConvInteger.

Relax computes them from operands widened to int32, which Conv does not take: the 8-bit operands
and their zero points are found again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import CompileError

__all__ = ["EightBits", "narrow_activation", "narrow_weights"]

EightBits = tuple[Any, NDArray[Any]]
"""An 8-bit expression or array, and its zero point."""


def narrow_activation(call: Any, calls: dict[Any, Any]) -> EightBits:
    """Return the 8-bit expression and the zero point that an int32 operand was made from.

    Args:
        call: the convolution.
        calls: what each variable of the host region is bound to.

    Raises:
        CompileError: it was not made from 8 bits.
    """
    value = calls.get(call.args[0], call.args[0])
    zero_point = np.zeros((), np.int64)
    if _is(value, "relax.subtract") and hasattr(value.args[1], "value"):
        zero_point = np.asarray(value.args[1].value.numpy(), np.int64)
        value = calls.get(value.args[0], value.args[0])
    dtype = str(value.args[0].ty.dtype.dtype) if _is(value, "relax.astype") else ""
    if dtype not in ("int8", "uint8") or zero_point.size != 1:
        raise CompileError("an integer convolution on the host must take 8-bit operands")
    return value.args[0], zero_point.reshape(()).astype(dtype)


def narrow_weights(weights: Any) -> EightBits:
    """Return int32 weights as uint8 with a zero point.

    Raises:
        CompileError: they are not constant, or their range with 0 exceeds 8 bits.
    """
    if not hasattr(weights, "value"):
        raise CompileError("an integer convolution on the host must have constant weights")
    content = np.asarray(weights.value.numpy(), np.int64)
    lowest = min(int(content.min(initial=0)), 0)
    if int(content.max(initial=0)) - lowest > 255 or lowest < -255:
        raise CompileError("the weights of an integer convolution on the host exceed 8 bits")
    return (content - lowest).astype(np.uint8), np.asarray(-lowest, np.uint8)


def _is(value: Any, name: str) -> bool:
    """Return whether a value is a call of an operator."""
    return str(getattr(getattr(value, "op", None), "name", "")) == name
