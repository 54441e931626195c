"""Canonical passes over data movement: do it on the quantized tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.utils import convert_to_expr

from lepton.compiler.importers.constants import array_of
from lepton.compiler.importers.names import Source, inner_source, source_of
from lepton.compiler.importers.rewriting import (
    Rewriter,
    dtype_of,
    is_call,
    is_constant,
    rewrite,
    shape_of,
    with_source,
)
from lepton.compiler.windows import windows_meet_image

_POOLS = ("relax.nn.max_pool1d", "relax.nn.max_pool2d", "relax.nn.max_pool3d")
# These choose among elements of their first operand (or, max pooling, keep their order), so that
# they commute with an increasing function such as a per-tensor dequantize.
_MOVES = (
    "relax.reshape",
    "relax.permute_dims",
    "relax.squeeze",
    "relax.expand_dims",
    "relax.strided_slice",
    "relax.flip",
    "relax.repeat",
    "relax.tile",
    "relax.broadcast_to",
    "relax.take",
    *_POOLS,
)
_RESHAPES = ("relax.reshape", "relax.permute_dims", "relax.squeeze", "relax.expand_dims")


def reshape_units(module: tvm.IRModule) -> tvm.IRModule:
    """Make dimensions of 1 come and go by reshapes; drop broadcasts to the same shape.

    before: y = R.squeeze(x, axis=[1]); z = R.broadcast_to(y, shape of y)
    after:  y = R.reshape(x, shape); z = y
    """

    def rule(_rewriter: Rewriter, variable: Any, value: Any) -> Any:
        if is_call(value, "relax.broadcast_to") and shape_of(variable) is not None:
            return value.args[0] if shape_of(value.args[0]) == shape_of(variable) else None
        if not is_call(value, "relax.squeeze", "relax.expand_dims"):
            return None
        shape = shape_of(variable)
        if shape is None:
            return None
        return _reshaped(value, shape)

    return rewrite(module, rule)


def _reshaped(value: Any, shape: tuple[int, ...]) -> Any:
    """Return the first operand of a call in another shape, in the call's place."""
    # TVM's annotation allows only a tuple of one.
    made = relax.op.reshape(value.args[0], shape)  # pyright: ignore[reportArgumentType]
    return with_source(made, source_of(value))


def slice_splits(module: tvm.IRModule) -> tvm.IRModule:
    """Take the parts of a split by slices.

    before: t = R.split(x, [2, 3], axis=1); y = t[1]
    after:  y = R.strided_slice(x, axes=[1], begin=[2], end=[3])
    before: y = R.split(x, 1, axis=1)                     # one part is no tuple
    after:  y = R.reshape(x, shape)
    """

    def rule(rewriter: Rewriter, variable: Any, value: Any) -> Any:
        whole = shape_of(variable)
        if is_call(value, "relax.split") and whole is not None:
            return _reshaped(value, whole)
        if not isinstance(value, relax.TupleGetItem):
            return None
        split = rewriter.call(value.tuple_value, "relax.split")
        if split is None:
            return None
        shape = shape_of(split.args[0])
        if shape is None:
            return None
        axis = int(split.attrs.axis) % len(shape)
        cuts = _cuts(split.attrs.indices_or_sections, shape[axis])
        begin, end = cuts[value.index], cuts[value.index + 1]
        axes, begins, ends, strides = (convert_to_expr([n]) for n in (axis, begin, end, 1))
        part = relax.op.strided_slice(split.args[0], axes, begins, ends, strides)
        return with_source(part, source_of(value) or source_of(split))

    return rewrite(module, rule)


def _cuts(places: Any, extent: int) -> list[int]:
    """Return where the parts of a split begin, and its end."""
    if hasattr(places, "value") or isinstance(places, int):
        part = -(-extent // int(places))
        return [min(part * index, extent) for index in range(int(places) + 1)]
    return [0, *(int(place) for place in places), extent]


def move_quantized(module: tvm.IRModule) -> tvm.IRModule:
    """Do data movement on quantized tensors, and drop requantizations that change nothing.

    before: y = R.quantize(R.reshape(R.dequantize(x, s, z), shape), s, z)
    after:  y = R.reshape(x, shape)
    before: y = R.nn.conv2d(R.nn.max_pool2d(R.dequantize(x, s, z)), w)
    after:  y = R.nn.conv2d(R.dequantize(R.nn.max_pool2d(x), s, z), w)

    Exact: these operators choose elements, and quantize(dequantize(q)) is q for equal parameters.
    A concatenation is moved if all parts have equal parameters; a pooling if each of its windows
    has an element, since the lowest value is another one for codes than for real numbers.
    """

    def rule(rewriter: Rewriter, variable: Any, value: Any) -> Any:
        if is_call(value, "relax.quantize"):
            return _cancel(rewriter, value)
        if is_call(value, "relax.concat"):
            return _move_concat(rewriter, value)
        if is_call(value, *_POOLS) and not _meets_image(variable, value):
            return None
        if is_call(value, *_MOVES) or _is_nearest(value) or is_call(value, "relax.nn.pad"):
            return _move(rewriter, value)
        return None

    return rewrite(module, rule)


def quantize_before_movement(module: tvm.IRModule) -> tvm.IRModule:
    """Quantize, and clip, an operator's result before it is reshaped, not after.

    before: y = R.clip(R.quantize(R.reshape(R.add(...), shape), s, z), low, high)
    after:  q = R.quantize(R.add(...), s, z); c = R.clip(q, low, high); y = R.reshape(c, shape)
    """

    def rule(rewriter: Rewriter, _variable: Any, value: Any) -> Any:
        is_clip = is_call(value, "relax.clip") and dtype_of(value.args[0]) in ("int8", "uint8")
        is_quantize = is_call(value, "relax.quantize") and array_of(value.args[1]).size == 1
        if not is_clip and not is_quantize:
            return None
        chain: list[Any] = []
        data = value.args[0]
        while is_call(rewriter.value(data), *_RESHAPES):
            chain.append(rewriter.value(data))
            data = chain[-1].args[0]
        if not chain or not isinstance(rewriter.value(data), tvm.ir.Call):
            return None
        inner = source_of(rewriter.value(data))
        result = rewriter.emit(_on(value, data), inner_source(inner))
        for call in reversed(chain[1:]):
            result = rewriter.emit(_on(call, result), inner_source(source_of(call)))
        return _sourced(_on(chain[0], result), chain[0], value)

    return rewrite(module, rule)


_UNCLAMPED = ("relax.concat", "relax.image.resize2d", "relax.max", "relax.min")


def clamp_codes(module: tvm.IRModule) -> tvm.IRModule:
    """Quantize before an activation, where no kernel of ours clamps on its way.

    before: y = R.quantize(R.nn.relu(R.concat(...)), s, z)
    after:  q = R.quantize(R.concat(...), s, z); y = R.quantize(R.nn.relu(R.dequantize(q)), s, z)

    Exact: quantize never decreases, so that clamping before it and clamping its codes are one.
    """

    def rule(rewriter: Rewriter, _variable: Any, value: Any) -> Any:
        if not is_call(value, "relax.quantize") or array_of(value.args[1]).size != 1:
            return None
        clamp = rewriter.value(value.args[0])
        if not is_call(clamp, "relax.nn.relu", "relax.clip"):
            return None
        inner = rewriter.value(clamp.args[0])
        if not is_call(inner, *_UNCLAMPED):
            return None
        kind = str(value.attrs.out_dtype)
        source = inner_source(source_of(inner))
        codes = rewriter.emit(
            relax.op.quantize(clamp.args[0], *value.args[1:], axis=0, out_dtype=kind), source
        )
        real = rewriter.emit(
            relax.op.dequantize(codes, *value.args[1:], axis=0, out_dtype="float32"), source
        )
        clamped = rewriter.emit(_on(clamp, real), inner_source(source_of(clamp)))
        result = relax.op.quantize(clamped, *value.args[1:], axis=0, out_dtype=kind)
        return with_source(result, source_of(value))

    return rewrite(module, rule)


def renamed(rewriter: Rewriter, variable: Any, namer: Any) -> Any:
    """Return a variable, or a copy that carries the tensor name of `namer` if it has none."""
    call, source = rewriter.value(variable), source_of(namer)
    own = source_of(call)
    if not isinstance(call, tvm.ir.Call) or source is None or own is None or own.tensor:
        return variable
    copy = with_source(call, Source(own.operator, source.tensor, own.index))
    return rewriter.emit(copy)


def _cancel(rewriter: Rewriter, value: Any) -> Any:
    """Drop quantize(dequantize(x)) of equal parameters."""
    call = rewriter.call(value.args[0], "relax.dequantize")
    if call is None or dtype_of(call.args[0]) != str(value.attrs.out_dtype):
        return None
    if not _same_parameters(call, value):
        return None
    return renamed(rewriter, call.args[0], value)


def _same_parameters(first: Any, second: Any) -> bool:
    """Return whether two (de)quantizes have equal constant per-tensor parameters."""
    pairs = list(zip(first.args[1:], second.args[1:], strict=True))
    if not all(is_constant(item) for pair in pairs for item in pair):
        return False
    arrays = [(array_of(left), array_of(right)) for left, right in pairs]
    return all(left.size == 1 and np.array_equal(left, right) for left, right in arrays)


def _moved_input(rewriter: Rewriter, expr: Any) -> Any:
    """Return the dequantize (per tensor, of a variable) that an expression is, or None."""
    call = rewriter.call(expr, "relax.dequantize")
    if call is None or is_constant(call.args[0]) or not _same_parameters(call, call):
        return None
    return call


def _meets_image(variable: Any, pool: Any) -> bool:
    """Return whether every window of a pooling is known to have an element of the image."""
    image, result = shape_of(pool.args[0]), shape_of(variable)
    if image is None or result is None:
        return False
    return windows_meet_image(pool.attrs, image, result)


def _move(rewriter: Rewriter, value: Any) -> Any:
    """Move one single-input operator before the dequantize of its input."""
    call = _moved_input(rewriter, value.args[0])
    if call is None:
        return None
    if is_call(value, "relax.nn.pad"):
        moved = _moved_pad(value, call)
        if moved is None:
            return None
    else:
        moved = _on(value, call.args[0])
    result = rewriter.emit(moved, inner_source(source_of(value)))
    return _dequantized(result, call, value)


def _move_concat(rewriter: Rewriter, value: Any) -> Any:
    """Move a concatenation before the dequantizes of its inputs."""
    whole = rewriter.value(value.args[0])
    if not isinstance(whole, relax.Tuple):
        return None
    calls = [_moved_input(rewriter, field) for field in whole.fields]
    first = calls[0]
    if first is None or any(call is None for call in calls):
        return None
    kinds = {dtype_of(call.args[0]) for call in calls}
    if len(kinds) != 1 or not all(_same_parameters(first, call) for call in calls):
        return None
    axis = int(value.attrs.axis) if value.attrs.axis is not None else None
    joined = relax.op.concat([call.args[0] for call in calls], axis=axis)
    return _dequantized(rewriter.emit(joined, inner_source(source_of(value))), first, value)


def _moved_pad(value: Any, call: Any) -> Any:
    """Return a padding of the quantized tensor, None if its value is not exactly on the grid."""
    attributes = value.attrs
    widths = [int(width) for width in attributes.pad_width]
    if str(attributes.pad_mode) != "constant":
        return relax.op.nn.pad(call.args[0], widths, str(attributes.pad_mode), 0.0)
    scale, zero_point = (array_of(item).reshape(()) for item in call.args[1:])
    limits = np.iinfo(dtype_of(call.args[0]))
    number = np.float32(attributes.pad_value)
    quantized = int(np.clip(np.rint(number / scale) + zero_point, limits.min, limits.max))
    if np.float32(quantized - int(zero_point)) * scale != number:
        return None
    return relax.op.nn.pad(call.args[0], widths, "constant", float(quantized))


def _is_nearest(value: Any) -> bool:
    """Return whether a call is a nearest-neighbour resize."""
    return is_call(value, "relax.image.resize2d") and str(value.attrs.method) == "nearest_neighbor"


def _on(call: Any, data: Any) -> Any:
    """Return a call of the same operator on another first operand."""
    return tvm.ir.Call(call.op, [data, *call.args[1:]], call.attrs, list(call.ty_args))


def _dequantized(data: Any, like: Any, owner: Any) -> Any:
    """Return `data` dequantized as `like` is, on behalf of `owner`."""
    result = relax.op.dequantize(data, *like.args[1:], axis=0, out_dtype=str(like.attrs.out_dtype))
    return with_source(result, source_of(owner))


def _sourced(call: Any, operator: Any, tensor: Any) -> Any:
    """Return a call with the operator of one expression and the tensor of another."""
    first, second = source_of(operator), source_of(tensor)
    if first is None or second is None:
        return with_source(call, first or second)
    return with_source(call, Source(first.operator, second.tensor, first.index))
