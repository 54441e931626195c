"""Average pooling on the host as LiteRT's integer kernel rounds it."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from lepton.compiler.importers.canonical import drop_dead_code
from lepton.compiler.importers.constants import array_of
from lepton.compiler.importers.names import inner_source, source_of
from lepton.compiler.importers.rewriting import Rewriter, dtype_of, is_call, rewrite, scalar

__all__ = ["average_codes"]


def average_codes(module: tvm.IRModule) -> tvm.IRModule:
    """Average the codes of a tensor instead of its real values.

    before: y = R.quantize(R.nn.avg_pool2d(R.dequantize(x, s, z)), s, z)
    after:  a = R.nn.avg_pool2d(R.astype(x, "float32"))
            y = R.astype(R.multiply(R.sign(a), R.floor(R.add(R.abs(a), 0.5))), "int8")

    Sums of codes are exact in float32, and halves go away from zero as in LiteRT.

    Source: LiteRT tflite/kernels/internal/reference/integer_ops/pooling.h, AveragePool.
    """

    def rule(rewriter: Rewriter, _variable: Any, value: Any) -> Any:
        if not is_call(value, "relax.quantize"):
            return None
        pool = rewriter.call(value.args[0], "relax.nn.avg_pool2d")
        if pool is None:
            return None
        source = rewriter.call(pool.args[0], "relax.dequantize")
        if source is None or not _keeps_codes(source, value):
            return None
        origin = inner_source(source_of(pool))
        codes = rewriter.emit(relax.op.astype(source.args[0], "float32"), origin)
        average = rewriter.emit(tvm.ir.Call(pool.op, [codes], pool.attrs, []), origin)
        size = rewriter.emit(relax.op.abs(average), origin)
        size = rewriter.emit(relax.op.add(size, scalar(0.5)), origin)
        size = rewriter.emit(relax.op.floor(size), origin)
        sign = rewriter.emit(relax.op.sign(average), origin)
        rounded = rewriter.emit(relax.op.multiply(sign, size), origin)
        return relax.op.astype(rounded, str(value.attrs.out_dtype))

    return drop_dead_code(rewrite(module, rule))


def _keeps_codes(source: Any, result: Any) -> bool:
    """Return whether a dequantize and a quantize have the same type and parameters per tensor."""
    pairs = zip(source.args[1:], result.args[1:], strict=True)
    return dtype_of(source.args[0]) == str(result.attrs.out_dtype) and all(
        array_of(left).size == 1 and np.array_equal(array_of(left), array_of(right))
        for left, right in pairs
    )
