"""Multiply-accumulates of host operators, counted as the NPU's are."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["host_macs"]


def host_macs(call: Any) -> int:
    """Return the MACs of a Relax call: of convolutions and matrix products, else 0."""
    kind = str(getattr(getattr(call, "op", None), "name", ""))
    if kind == "relax.matmul":
        return math.prod(_shape(call)) * _shape(call.args[0])[-1]
    if kind not in ("relax.nn.conv2d", "relax.nn.conv2d_transpose"):
        return 0
    # every weight meets each position of its own output channel, or input channel if transposed
    side = call if kind == "relax.nn.conv2d" else call.args[0]
    shape = _shape(side)
    channels = shape[str(call.attrs.data_layout).index("C")]
    return math.prod(shape) // channels * math.prod(_shape(call.args[1]))


def _shape(expr: Any) -> tuple[int, ...]:
    return tuple(int(extent) for extent in expr.ty.shape.values)
