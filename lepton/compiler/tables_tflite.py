"""Look-up tables of known functions, as LiteRT's reference kernels compute them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.arith import tflite, tflite_unary
from lepton.arith import tflite_table as tables
from lepton.compiler.expression import Expression, signature
from lepton.compiler.table_pair import TablePair

__all__ = ["tflite_table"]

Int32Array = NDArray[np.int32]
_HARD_SWISH = "divide(multiply(x,clip(add(x,3.0),0.0,6.0)),6.0)"
_ELU = "add(multiply(nn.relu(subtract(1.0,exp(x))),-1.0),nn.relu(x))"
_GELU = "multiply(x,add(multiply(erf(multiply(x,0.70710677)),0.5),0.5))"
_RELUS = {
    "nn.relu(x)": "RELU",
    "clip(x,0.0,6.0)": "RELU6",
    "clip(x,-1.0,1.0)": "RELU_N1_TO_1",
    "clip(x,0.0,1.0)": "RELU_0_TO_1",
}
_ANY_TYPE: dict[str, Callable[[tflite.Quantization, tflite.Quantization, str], Any]] = {
    "sigmoid(x)": tables.table_logistic,
    "tanh(x)": tables.table_tanh,
    _HARD_SWISH: tables.table_hard_swish,
    _GELU: lambda a, b, dtype: tables.table_gelu(a, b, False, dtype),
    "nn.gelu(x)": lambda a, b, dtype: tables.table_gelu(a, b, False, dtype),
    "nn.gelu_tanh(x)": lambda a, b, dtype: tables.table_gelu(a, b, True, dtype),
}
_INT8_ONLY: dict[str, Callable[[tflite.Quantization, tflite.Quantization], Any]] = {
    "exp(x)": tables.table_exp,
    "log(x)": tables.table_log,
    "rsqrt(x)": tables.table_rsqrt,
    "abs(x)": tables.table_abs,
    "negative(x)": lambda a, b: tables.table_neg(),
    _ELU: tables.table_elu,
}


def tflite_table(tree: Expression, pair: TablePair) -> Int32Array | None:
    """Return the table of a known function as LiteRT's reference kernel computes it."""
    source = tflite.Quantization(pair.input_scale, pair.input_point)
    target = tflite.Quantization(pair.output_scale, pair.output_point)
    if pair.input_type != pair.output_type:
        return None
    if tree.op == "nn.prelu":
        return _prelu_table(tree, source, target, pair.input_type)
    name = signature(tree)
    raw: Any = None
    if name in _ANY_TYPE:
        raw = _ANY_TYPE[name](source, target, pair.input_type)
    elif name in _INT8_ONLY and pair.input_type == "int8":
        raw = _INT8_ONLY[name](source, target)
    elif name in _RELUS:
        raw = tables.table_relu(_RELUS[name], source, target, pair.input_type)
    elif tree.op == "nn.leakyrelu" and tree.operands[0].op == "x":
        slope = np.float32(tree.attributes[0])
        raw = tables.table_leaky_relu(source, target, slope, pair.input_type)
    if raw is None:
        return None
    low = 0 if pair.input_type == "uint8" else -128
    return np.roll(np.asarray(raw, np.int32), -low)[None]


def _prelu_table(
    tree: Expression, source: tflite.Quantization, target: tflite.Quantization, dtype: str
) -> Int32Array | None:
    """Return prelu's table per channel, None unless the slope's scale is known.

    A slope that was dequantized per tensor is a constant with its scale as the attribute, so that
    its code less the zero point, which is what the kernel multiplies by, can be had back.
    """
    x, slope = tree.operands
    if x.op != "x" or slope.value is None or len(slope.attributes) != 1:
        return None
    scale = np.float32(slope.attributes[0])
    steps = np.rint(slope.value.reshape(-1).astype(np.float64) / float(scale)).astype(np.int32)
    bounds = tflite.type_range(dtype)
    ready = tflite_unary.prepare_prelu(source, tflite.Quantization(scale, 0), target, bounds)
    codes = np.arange(bounds.low, bounds.high + 1, dtype=np.int32)
    rows = [tflite_unary.prelu(ready, codes, np.full(256, step, np.int32)) for step in steps]
    return np.stack(rows)
