"""Element-wise functions of two quantized operands, by the mode of the `binary` instruction."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.arith import onnx, onnx_elementwise, tflite_binary
from lepton.arith.records import unpack
from lepton.isa.instructions import BinaryMode

__all__ = ["combine"]

Int32Array = NDArray[np.int32]

_Q31: dict[int, tuple[Any, Any]] = {
    BinaryMode.ADD_Q31: (tflite_binary.Adder, tflite_binary.add),
    BinaryMode.SUB_Q31: (tflite_binary.Adder, tflite_binary.sub),
    BinaryMode.SQUARED_DIFFERENCE_Q31: (tflite_binary.Adder, tflite_binary.squared_difference),
    BinaryMode.MUL_Q31: (tflite_binary.Multiplier, tflite_binary.mul),
}
_RATIO: dict[int, tuple[Any, Any]] = {
    BinaryMode.ADD_RATIO: (onnx.AddParams, onnx.add),
    BinaryMode.MUL_RATIO: (onnx.MulParams, onnx.mul),
}
_FLOAT32: dict[int, onnx_elementwise.FloatOp] = {
    BinaryMode.ADD_FLOAT32: onnx_elementwise.FloatOp.ADD,
    BinaryMode.SUB_FLOAT32: onnx_elementwise.FloatOp.SUB,
    BinaryMode.MUL_FLOAT32: onnx_elementwise.FloatOp.MUL,
    BinaryMode.DIV_FLOAT32: onnx_elementwise.FloatOp.DIV,
    BinaryMode.MAXIMUM_FLOAT32: onnx_elementwise.FloatOp.MAX,
    BinaryMode.MINIMUM_FLOAT32: onnx_elementwise.FloatOp.MIN,
}


def combine(mode: int, a: Int32Array, b: Int32Array, parameters: NDArray[np.uint8]) -> Int32Array:
    """Return the function of two flat int32 arrays of 8-bit values; `parameters` as packed."""
    if mode == BinaryMode.MAXIMUM:
        return np.maximum(a, b)
    if mode == BinaryMode.MINIMUM:
        return np.minimum(a, b)
    if mode in _Q31:
        kind, kernel = _Q31[mode]
        return kernel(unpack(kind, parameters), a, b)
    if mode in _RATIO:
        kind, kernel = _RATIO[mode]
        return kernel(a, b, unpack(kind, parameters))
    params = unpack(onnx_elementwise.FloatBinaryParams, parameters)
    return onnx_elementwise.float_binary(a, b, int(_FLOAT32[mode]), params)
