"""Canonical passes over constants: folding, quantization parameters, biases."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax

from lepton.compiler.importers.names import inner_source, source_of
from lepton.compiler.importers.rewriting import (
    Rewriter,
    dtype_of,
    is_call,
    is_constant,
    rewrite,
    shape_of,
)

Array = npt.NDArray[Any]
_LAYOUT = (
    "relax.permute_dims",
    "relax.reshape",
    "relax.expand_dims",
    "relax.squeeze",
)
_ARITHMETIC = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
}
_MAX_BROADCAST = 1 << 20


def array_of(expr: Any) -> Array:
    """Return the value of a constant."""
    return cast("Array", expr.value.numpy())


def is_fixed(rewriter: Rewriter, expr: Any) -> bool:
    """Return whether an expression is a constant or the dequantized form of one."""
    call = rewriter.call(expr, "relax.dequantize")
    return is_constant(expr) or (call is not None and is_constant(call.args[0]))


def fold_constants(module: tvm.IRModule) -> tvm.IRModule:
    """Compute what depends on constants only; dequantized weights stay dequantized.

    before: w1 = R.permute_dims(R.dequantize(W[o, i], s[o], z[o], axis=0))
    after:  w1 = R.dequantize(W.T[i, o], s[o], z[o], axis=1)
    before: s = R.multiply(R.const(0.5), R.const(0.25))          after: R.const(0.125)
    before: q = R.quantize(R.const([0.5]), R.const(0.1), R.const(3), "int8")
    after:  R.const([8], "int8")
    """

    def rule(rewriter: Rewriter, _variable: Any, value: Any) -> Any:
        if not isinstance(value, tvm.ir.Call) or not isinstance(value.op, tvm.ir.Op):
            return None
        if is_call(value, *_LAYOUT):
            return _fold_layout(rewriter, value)
        if not all(is_constant(argument) for argument in value.args[:1]):
            return None
        if is_call(value, "relax.quantize"):
            return _fold_quantize(value)
        return _fold_plain(rewriter, value)

    return rewrite(module, rule)


def normalize_parameters(module: tvm.IRModule) -> tvm.IRModule:
    """Give scales and zero points one form, and channel axes their non-negative number.

    before: R.dequantize(x, R.const([0.5]), R.const(3, "int8"), axis=-1)
    after:  R.dequantize(x, R.const(0.5), R.const(3, "int32"), axis=0)
    before: R.dequantize(w[o, i, h, w], s[o], R.const(0, "int8"), axis=-4)
    after:  R.dequantize(w[o, i, h, w], s[o], R.const([0] * o, "int32"), axis=0)
    """

    def rule(_rewriter: Rewriter, _variable: Any, value: Any) -> Any:
        if not is_call(value, "relax.quantize", "relax.dequantize"):
            return None
        data, scale, zero_point = value.args
        if not (is_constant(scale) and is_constant(zero_point)):
            return None
        parameters = _parameters(array_of(scale), array_of(zero_point))
        rank = len(shape_of(data) or ()) or 1
        axis = int(value.attrs.axis) % rank if parameters[0].ndim else 0
        make = relax.op.quantize if is_call(value, "relax.quantize") else relax.op.dequantize
        kind = str(value.attrs.out_dtype)
        return make(data, *(relax.const(array) for array in parameters), axis=axis, out_dtype=kind)

    return rewrite(module, rule)


def quantize_float_bias(module: tvm.IRModule) -> tvm.IRModule:
    """Turn the float bias of a quantized convolution or matmul into int32.

    before: R.add(R.nn.conv2d(R.dequantize(x, sx), R.dequantize(W, sw)), R.const(b))
    after:  R.add(..., R.dequantize(R.const(round(b / (sx * sw)), "int32"), sx * sw))

    The array accumulates in int32, so a float bias has to be put on its grid; the scale product
    is formed in float32, the quotient in float64, ties go to even.
    """

    def rule(rewriter: Rewriter, _variable: Any, value: Any) -> Any:
        if not is_call(value, "relax.add") or not is_constant(value.args[1]):
            return None
        scale = _accumulator_scale(rewriter, rewriter.value(value.args[0]))
        bias = value.args[1]
        if scale is None or dtype_of(bias) != "float32":
            return None
        result = _bias_on_grid(array_of(bias), scale, value)
        if result is None:
            return None
        bias_variable = rewriter.emit(result, inner_source(source_of(value)))
        return tvm.ir.Call(value.op, [value.args[0], bias_variable], None, [], value.span)

    return rewrite(module, rule)


def _parameters(scale: Array, zero_point: Array) -> tuple[Array, Array]:
    """Return scale (float32) and zero point (int32) of equal rank: 0, or 1 per channel."""
    if scale.size == 1 and zero_point.size == 1:
        return scale.reshape(()).astype(np.float32), zero_point.reshape(()).astype(np.int32)
    size = max(scale.size, zero_point.size)
    return (
        np.ascontiguousarray(np.broadcast_to(scale.reshape(-1), size).astype(np.float32)),
        np.ascontiguousarray(np.broadcast_to(zero_point.reshape(-1), size).astype(np.int32)),
    )


def _fold_layout(rewriter: Rewriter, value: Any) -> Any:
    """Fold a change of layout of a constant, also under a dequantize."""
    target = shape_of(rewriter_type(value))
    if is_constant(value.args[0]):
        return relax.const(_relaid(array_of(value.args[0]), value, target), None)
    call = rewriter.call(value.args[0], "relax.dequantize")
    if call is None or not all(is_constant(argument) for argument in call.args):
        return None
    data = array_of(call.args[0])
    moved = _relaid(data, value, target)
    axis = 0
    if array_of(call.args[1]).size > 1 or array_of(call.args[2]).size > 1:
        found = _moved_axis(data.shape, int(call.attrs.axis) % data.ndim, value, moved.shape)
        if found is None:
            return None
        axis = found
    return relax.op.dequantize(
        relax.const(moved), call.args[1], call.args[2], axis, str(call.attrs.out_dtype)
    )


def rewriter_type(value: Any) -> Any:
    """Return a call with its result type inferred."""
    return relax.BlockBuilder().normalize(value)


def _relaid(data: Array, value: Any, target: tuple[int, ...] | None) -> Array:
    """Apply a layout operator to an array."""
    if is_call(value, "relax.permute_dims"):
        axes = value.attrs.axes
        return np.ascontiguousarray(
            np.transpose(data, None if axes is None else [int(axis) for axis in axes])
        )
    assert target is not None
    return np.ascontiguousarray(data.reshape(target))


def _moved_axis(
    before: tuple[int, ...], axis: int, value: Any, after: tuple[int, ...]
) -> int | None:
    """Return where a channel axis is after a layout operator, None if it was split or merged."""
    if is_call(value, "relax.permute_dims"):
        axes = value.attrs.axes
        order = [int(item) % len(before) for item in axes] if axes is not None else None
        return order.index(axis) if order is not None else len(before) - 1 - axis
    outer = int(np.prod(before[:axis]))
    for position, extent in enumerate(after):
        if extent == before[axis] and int(np.prod(after[:position])) == outer:
            return position
    return None


def _fold_quantize(value: Any) -> Any:
    """Quantize a float constant."""
    if not all(is_constant(argument) for argument in value.args):
        return None
    data = array_of(value.args[0])
    scale, zero_point = _parameters(array_of(value.args[1]), array_of(value.args[2]))
    kind = np.dtype(str(value.attrs.out_dtype))
    if scale.ndim:
        shape = [1] * data.ndim
        shape[int(value.attrs.axis) % data.ndim] = -1
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    limits = np.iinfo(kind)
    return relax.const(
        np.clip(np.rint(data / scale) + zero_point, limits.min, limits.max).astype(kind)
    )


def _fold_plain(rewriter: Rewriter, value: Any) -> Any:
    """Fold arithmetic, casts and broadcasts of constants."""
    del rewriter
    if value.op.name in _ARITHMETIC and is_constant(value.args[1]):
        left, right = array_of(value.args[0]), array_of(value.args[1])
        result = np.asarray(_ARITHMETIC[value.op.name](left, right))
        return relax.const(result.astype(left.dtype)) if result.size <= _MAX_BROADCAST else None
    if is_call(value, "relax.astype"):
        return relax.const(array_of(value.args[0]).astype(str(value.attrs.dtype)))
    if is_call(value, "relax.broadcast_to"):
        target = shape_of(rewriter_type(value))
        if target is None or int(np.prod(target)) > _MAX_BROADCAST:
            return None
        return relax.const(np.ascontiguousarray(np.broadcast_to(array_of(value.args[0]), target)))
    return None


_TRANSPOSED = "relax.nn.conv2d_transpose"


def _accumulator_scale(rewriter: Rewriter, call: Any) -> Array | None:
    """Return sx * sw (float32, per output channel or rank 0) of a quantized product."""
    if not is_call(call, "relax.nn.conv2d", "relax.nn.conv1d", "relax.matmul", _TRANSPOSED):
        return None
    data, weights = (rewriter.call(argument, "relax.dequantize") for argument in call.args)
    if data is None or weights is None or not is_constant(weights.args[0]):
        return None
    if not all(is_constant(item) for item in (*data.args[1:], *weights.args[1:])):
        return None
    scale = array_of(data.args[1])
    if scale.size != 1 or dtype_of(data.args[0]) not in ("int8", "uint8"):
        return None
    return (scale.astype(np.float32) * array_of(weights.args[1]).astype(np.float32)).astype(
        np.float32
    )


def _bias_on_grid(bias: Array, scale: Array, value: Any) -> Any:
    """Return the dequantized int32 form of a float bias, None if it does not fit or is no bias."""
    del value
    channels = [axis for axis, extent in enumerate(bias.shape) if extent != 1]
    if len(channels) > 1 or np.any(scale <= 0):
        return None
    axis = channels[0] if channels else 0
    per_channel = scale.size > 1
    if per_channel and (not channels or bias.shape[axis] != scale.size):
        return None
    shape = [1] * bias.ndim
    if per_channel:
        shape[axis] = scale.size
    grid = np.rint(bias.astype(np.float64) / scale.astype(np.float64).reshape(shape))
    if np.any(np.abs(grid) > np.iinfo(np.int32).max) or not np.all(np.isfinite(grid)):
        return None
    zero_point = np.zeros(scale.shape if per_channel else (), np.int32)
    return relax.op.dequantize(
        relax.const(grid.astype(np.int32)),
        relax.const(scale if per_channel else scale.reshape(())),
        relax.const(zero_point),
        axis=axis if per_channel else 0,
    )
