"""Changes of scale of host regions, to and from 8, 16 and 32 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.compiler.rules import SIXTEEN_BITS

if TYPE_CHECKING:
    from lepton.compiler.host import HostWriter

__all__ = ["MICROSOFT", "write_dequantize", "write_quantize"]

MICROSOFT = "com.microsoft"
"""The domain whose changes of scale know 16 bits in any opset; the standard's do from 21 on."""


def write_quantize(w: HostWriter, call: Any) -> str:
    """Write a quantize; the zero point takes the type of the result."""
    return _write(w, "QuantizeLinear", call, np.dtype(str(call.attrs.out_dtype)))


def write_dequantize(w: HostWriter, call: Any) -> str:
    """Write a dequantize."""
    dtype = np.dtype(str(call.args[0].ty.dtype.dtype))
    return _write(w, "DequantizeLinear", call, dtype)


def _write(w: HostWriter, kind: str, call: Any, dtype: np.dtype[Any]) -> str:
    scale, zero_point = (argument.value.numpy() for argument in call.args[1:3])
    operands = [w.value(call.args[0]), w.constant(scale), w.constant(zero_point.astype(dtype))]
    domain = {"domain": MICROSOFT} if dtype.name in SIXTEEN_BITS else {}
    return w.node(kind, operands, **domain, **_axis_of(call, scale))


def _axis_of(call: Any, scale: NDArray[Any]) -> dict[str, int]:
    return {"axis": int(call.attrs.axis)} if scale.ndim else {}
