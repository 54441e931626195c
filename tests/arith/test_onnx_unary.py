"""Unary functions of the ONNX golden: tables of all codes, and float values bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lepton.arith import onnx_float, onnx_unary
from tests.arith.test_onnx import DTYPES, ROUNDS, Array, assert_equal, codes, rescaled
from tests.onnx_builder import OnnxBuilder, random_quantized

pytest.importorskip("onnxruntime", reason="ONNX Runtime is the golden")

UNARY: list[tuple[str, dict[str, Any], Callable[[Array], Array]]] = [
    ("Sigmoid", {}, onnx_unary.sigmoid),
    ("LeakyRelu", {"alpha": 0.1}, lambda x: onnx_unary.leaky_relu(x, 0.1)),
    ("Tanh", {}, onnx_unary.tanh),
    ("Exp", {}, onnx_unary.exp),
    ("Erf", {}, onnx_unary.erf),
    ("Gelu", {}, onnx_unary.gelu),
    ("Gelu", {"approximate": "tanh"}, onnx_unary.gelu_tanh),
    ("Relu", {}, onnx_unary.relu),
    ("HardSigmoid", {}, onnx_unary.hard_sigmoid),
    ("HardSwish", {}, onnx_unary.hard_swish),
    ("Elu", {}, onnx_unary.elu),
    ("Softplus", {}, onnx_unary.softplus),
    ("Sqrt", {}, onnx_unary.sqrt),
    ("Log", {}, onnx_unary.log),
    ("Reciprocal", {}, onnx_unary.reciprocal),
    ("Neg", {}, np.negative),
    ("Abs", {}, np.abs),
]
CORRECTLY_ROUNDED = {"Elu", "Softplus", "Log"}


def name_of(value: object) -> str:
    """Return what a test is called by: a function's name, and not where it lies."""
    return str(getattr(value, "__name__", value))[:24]


@pytest.mark.parametrize(("op", "attributes", "function"), UNARY, ids=name_of)
def test_unary(op: str, attributes: dict[str, Any], function: Callable[[Array], Array]) -> None:
    """Tables of 256 codes, and the float values bit by bit where the routine is reproduced."""
    rng = np.random.default_rng(8)
    for step in range(4 * ROUNDS):
        dtype = DTYPES[step % 2]
        ifm = random_quantized(rng, dtype, (-2.5, -0.7))
        every = np.arange(ifm.params.lo, ifm.params.hi + 1).astype(dtype)
        with np.errstate(all="ignore"):
            real = function(onnx_float.dequantize(codes(every), ifm.params))
        finite = np.append(real[np.isfinite(real)], [0.0, 1.0])
        spread = np.quantile(finite, [0.05, 0.95])
        ofm = rescaled(rng, dtype, max(float(spread[1] - spread[0]) / 255, 1e-4))
        builder = OnnxBuilder()
        value = builder.dequantize(builder.feed(every), ifm)
        builder.quantize(builder.node(op, [value], **attributes), ofm)
        assert_equal(onnx_unary.unary_table(function, ifm.params, ofm.params), builder.run())
    if op not in CORRECTLY_ROUNDED:
        sample = np.abs(rng.standard_normal(4096).astype(np.float32) * 3)
        builder = OnnxBuilder()
        builder.output(builder.node(op, [builder.feed(sample)], **attributes), "float32")
        np.testing.assert_array_equal(function(sample), builder.run())
