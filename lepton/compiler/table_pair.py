"""Scale, zero point and type on both sides of a look-up table."""

from __future__ import annotations

from typing import Any

import numpy as np

from lepton.errors import CompileError

__all__ = ["TablePair"]


class TablePair:
    """Scale, zero point and type of a table's input and output."""

    def __init__(self, dequantize: Any, quantize: Any) -> None:
        self.input_type = str(dequantize.args[0].ty.dtype.dtype)
        self.output_type = str(quantize.attrs.out_dtype)
        self.input_scale, self.input_point = _parameters(dequantize)
        self.output_scale, self.output_point = _parameters(quantize)


def _parameters(call: Any) -> tuple[np.float32, int]:
    """Return scale and zero point of a quantize or dequantize per tensor."""
    scale, zero_point = (argument.value.numpy().reshape(-1) for argument in call.args[1:3])
    if scale.size != 1:
        raise CompileError("an activation must be quantized per tensor")
    return np.float32(scale[0]), int(zero_point[0])
