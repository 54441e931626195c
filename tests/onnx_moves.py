"""Windows, reductions and data movement in random ONNX graphs: steps as in `onnx_steps`."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from tests.onnx_builder import Quantized
from tests.onnx_piece import MICROSOFT, Piece, Shape, Value, Window, prod
from tests.onnx_products import MOST_ELEMENTS, Step, activation


def _kept(piece: Piece, x: Value) -> Quantized:
    """Return the quantization of a moved tensor: mostly the input's own."""
    return x.tensor if piece.often(0.75) else piece.target(x.real, x.dtype, 0.2)


def _moved(piece: Piece, x: Value, op: str, extra: list[str], shape: Shape, **more: object) -> bool:
    """Add an operator that moves data: on the codes, or between dequantize and quantize."""
    if piece.is_qoperator:
        return piece.give(piece.node(op, [piece.read(x), *extra], **more), shape, x.tensor)
    real = piece.node(op, [piece.dequantize(x), *extra], **more)
    return _finished(piece, real, shape, _kept(piece, x))


def _finished(piece: Piece, real: str, shape: Shape, tensor: Quantized) -> bool:
    """Quantize a float result, now and then with a Relu or Clip before."""
    if piece.often(0.12):
        real, _ = activation(piece, real, tensor)
    return piece.quantize(real, shape, tensor)


# --- windows -----------------------------------------------------------------------------------


def _pool_extent(window: Window, extent: int, axis: int, ceil_mode: bool) -> int:
    """Return the output extent of a pool, 0 if there is none that all agree upon."""
    reach = (window.kernel[axis] - 1) * window.dilation[axis] + 1
    before, stride = window.padding[axis], window.stride[axis]
    free = extent + before + window.padding[axis + 2] - reach
    if free < 0:
        return 0
    count = (-(-free // stride) if ceil_mode else free // stride) + 1
    # ONNX Runtime's shape inference leaves a window in the padding alone, its kernels do not
    return 0 if ceil_mode and (count - 1) * stride >= extent + before else count


def _pool_window(piece: Piece, x: Value, is_max: bool, ceil_mode: bool) -> Window | None:
    """Return a window no part of whose padding is wider than the kernel."""
    for _ in range(30):
        kernel = (piece.integer(1, 4), piece.integer(1, 4))
        if piece.often(0.08):
            kernel = (x.shape[2], x.shape[3])
        stride = (piece.integer(1, 3), piece.integer(1, 3))
        dilation = (1, 1)
        if is_max and piece.often(0.2):
            dilation = (piece.integer(1, 2), piece.integer(1, 2))
        pads = [0, 0, 0, 0]
        if piece.often(0.5):
            pads = [piece.integer(0, kernel[axis % 2] - 1) for axis in range(4)]
        window = Window(kernel, stride, dilation, (pads[0], pads[1], pads[2], pads[3]))
        if all(_pool_extent(window, x.shape[2 + axis], axis, ceil_mode) > 0 for axis in (0, 1)):
            return window
    return None


def _meets(window: Window, extent: int, axis: int, count: int) -> bool:
    """Return whether every window has a tap inside the image."""
    taps = np.arange(window.kernel[axis]) * window.dilation[axis] - window.padding[axis]
    places = np.arange(count)[:, None] * window.stride[axis] + taps
    return bool(((places >= 0) & (places < extent)).any(axis=1).all())


def pool(piece: Piece, values: Sequence[Value], x: Value, is_max: bool = True) -> bool:
    """MaxPool or AveragePool."""
    if len(x.shape) != 4:
        return False
    ceil_mode = piece.often(0.3)
    window = _pool_window(piece, x, is_max, ceil_mode)
    if window is None:
        return False
    spatial = [_pool_extent(window, x.shape[2 + axis], axis, ceil_mode) for axis in (0, 1)]
    shape = (*x.shape[:2], *spatial)
    attributes: dict[str, object] = {**window.attributes(), "ceil_mode": int(ceil_mode)}
    if is_max:
        if not all(_meets(window, x.shape[2 + axis], axis, shape[2 + axis]) for axis in (0, 1)):
            piece.on_host = "nn.max_pool2d"
        return _moved(piece, x, "MaxPool", [], shape, **attributes)
    del attributes["dilations"]
    attributes["count_include_pad"] = int(piece.often(0.4))
    is_plain = bool(attributes["count_include_pad"]) and ceil_mode
    tensor = piece.target(x.real, x.dtype, 0.0 if piece.is_qoperator or is_plain else 0.1)
    if piece.is_qoperator:
        parts = [*piece.triple(x), *piece.params(tensor)]
        made = piece.node("QLinearAveragePool", parts, MICROSOFT, **attributes)
        return piece.give(made, shape, tensor)
    real = piece.node("AveragePool", [piece.dequantize(x)], **attributes)
    if is_plain:
        return piece.quantize(real, shape, tensor)
    piece.tolerant = True  # an integer kernel only without an activation and between equal types
    return _finished(piece, real, shape, tensor)


def global_pool(piece: Piece, values: Sequence[Value], x: Value, is_max: bool = False) -> bool:
    """GlobalAveragePool or GlobalMaxPool."""
    if len(x.shape) != 4:
        return False
    shape = (*x.shape[:2], 1, 1)
    if is_max:
        real = piece.node("GlobalMaxPool", [piece.dequantize(x)])
        return _finished(piece, real, shape, _kept(piece, x))
    tensor = piece.target(x.real / 2, x.dtype, 0.0 if piece.is_qoperator else 0.1)
    if piece.is_qoperator:
        parts = [*piece.triple(x), *piece.params(tensor)]
        made = piece.node("QLinearGlobalAveragePool", parts, MICROSOFT, channels_last=0)
        return piece.give(made, shape, tensor)
    real = piece.node("GlobalAveragePool", [piece.dequantize(x)])
    piece.tolerant = True  # an integer kernel only without an activation and between equal types
    return _finished(piece, real, shape, tensor)


def reduce(piece: Piece, values: Sequence[Value], x: Value, op: str = "ReduceMean") -> bool:
    """Reduction over any axes."""
    rank = len(x.shape)
    count = piece.integer(1, rank)
    axes = [int(axis) for axis in piece.rng.choice(rank, count, replace=False)]
    keep = piece.often(0.5)
    shape = tuple(
        1 if axis in axes else extent
        for axis, extent in enumerate(x.shape)
        if keep or axis not in axes
    )
    if not shape:
        return False
    number = prod(x.shape) // prod(shape)
    factor = {"ReduceSum": number**0.5, "ReduceMean": number**-0.5}.get(op, 1.0)
    is_extreme = op in ("ReduceMax", "ReduceMin")
    is_same = is_extreme and piece.often(0.5)
    tensor = x.tensor if is_same else piece.target(x.real * factor, x.dtype, 0.1)
    piece.tolerant = not is_extreme
    signed = [axis - rank if piece.often(0.3) else axis for axis in axes]
    names = [piece.dequantize(x), piece.constant(np.array(signed, np.int64))]
    return _finished(piece, piece.node(op, names, keepdims=int(keep)), shape, tensor)


# --- movement ----------------------------------------------------------------------------------


def pad(piece: Piece, values: Sequence[Value], x: Value) -> bool:
    """Padding with a constant that the input's quantization can hold."""
    before = [piece.integer(0, 2) for _ in x.shape]
    after = [piece.integer(0, 2) for _ in x.shape]
    if piece.often(0.6) and len(x.shape) == 4:
        before[:2] = after[:2] = [0, 0]
    shape = tuple(b + e + a for b, e, a in zip(before, x.shape, after, strict=True))
    if prod(shape) > MOST_ELEMENTS:
        return False
    extra = [piece.constant(np.array([*before, *after], np.int64))]
    if piece.often(0.1) and all(
        max(b, a) < e for b, e, a in zip(before, x.shape, after, strict=True)
    ):
        piece.on_host = "nn.pad"
        return _moved(piece, x, "Pad", extra, shape, mode=piece.pick(["reflect", "edge"]))
    if piece.is_qoperator:
        point = x.tensor.params.zero_point
        code = piece.pick([point, piece.integer(x.tensor.params.lo, x.tensor.params.hi)])
        extra.append(piece.constant(np.array(code, x.dtype)))
    elif piece.often(0.5):
        point, scale = x.tensor.params.zero_point, x.tensor.params.scale
        code = piece.integer(x.tensor.params.lo, x.tensor.params.hi)
        extra.append(piece.constant(np.float32(code - point) * scale))
    return _moved(piece, x, "Pad", extra, shape)


def concat(piece: Piece, values: Sequence[Value], x: Value) -> bool:
    """Concatenation along any axis, of equal or differing quantizations."""
    axis = piece.integer(0, len(x.shape) - 1)

    def fits(value: Value) -> bool:
        if len(value.shape) != len(x.shape) or value.dtype != x.dtype:
            return False
        return all(
            i == axis or a == b for i, (a, b) in enumerate(zip(value.shape, x.shape, strict=True))
        )

    fitting = [value for value in values if fits(value)]
    parts = [x, *(piece.pick(fitting) for _ in range(piece.integer(1, 3)))]
    extent = sum(value.shape[axis] for value in parts)
    shape = (*x.shape[:axis], extent, *x.shape[axis + 1 :])
    if prod(shape) > MOST_ELEMENTS:
        return False
    tensor = _kept(piece, x)
    if tensor.dtype != x.dtype:
        tensor = x.tensor
    signed = piece.pick([axis, axis - len(shape)])
    if piece.is_qoperator:
        names = [*piece.params(tensor), *(name for value in parts for name in piece.triple(value))]
        made = piece.node("QLinearConcat", names, MICROSOFT, axis=signed)
        return piece.give(made, shape, tensor)
    real = piece.node("Concat", [piece.dequantize(value) for value in parts], axis=signed)
    return _finished(piece, real, shape, tensor)


def split(piece: Piece, values: Sequence[Value], x: Value) -> bool:
    """Split into two or three parts, all of which stay in the graph."""
    wide = [axis for axis, extent in enumerate(x.shape) if extent > 1]
    if not wide:
        return False
    axis = int(piece.pick(wide))
    extent = x.shape[axis]
    cuts = sorted({piece.integer(1, extent - 1) for _ in range(piece.integer(1, 2))})
    sizes = np.diff([0, *cuts, extent]).tolist()
    extra = [piece.constant(np.array(sizes, np.int64))]
    shapes = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in sizes]
    if piece.is_qoperator:
        names = piece.nodes_of("Split", [piece.read(x), *extra], len(sizes), axis=axis)
        for name, shape in zip(names, shapes, strict=True):
            piece.give(name, shape, x.tensor)
        return True
    names = piece.nodes_of("Split", [piece.dequantize(x), *extra], len(sizes), axis=axis)
    tensor = _kept(piece, x)
    for name, shape in zip(names, shapes, strict=True):
        piece.quantize(name, shape, tensor)
    return True


def slice_step(piece: Piece, values: Sequence[Value], x: Value) -> bool:
    """Slice, mostly with positive steps, some ends beyond the tensor, some counted from its end."""
    rank = len(x.shape)
    axes = sorted(int(a) for a in piece.rng.choice(rank, piece.integer(1, rank), replace=False))
    starts, ends, steps = [], [], []
    shape = list(x.shape)
    for axis in axes:
        extent = x.shape[axis]
        start = piece.integer(0, extent - 1)
        end = piece.integer(start + 1, extent)
        step = piece.integer(1, 3)
        shape[axis] = -(-(end - start) // step)
        starts.append(start - extent if piece.often(0.2) else start)
        beyond = end == extent and piece.often(0.3)
        ends.append(extent + 1000 if beyond else (end - extent if end < extent else end))
        steps.append(step)
        if piece.often(0.04):
            # from the last element that it takes back to the first
            starts[-1], steps[-1] = start + (shape[axis] - 1) * step, -step
            ends[-1] = start - 1 if start > 0 else -extent - 1
            piece.on_host = "strided_slice"
    extra = [piece.constant(np.array(part, np.int64)) for part in (starts, ends, axes, steps)]
    return _moved(piece, x, "Slice", extra, tuple(shape))


def _regrouped(piece: Piece, shape: Shape) -> Shape:
    """Return another shape of as many elements and 1 to 4 dimensions."""
    left, made = prod(shape), []
    for _ in range(piece.integer(0, 3)):
        divisors = [d for d in range(1, min(left, 64) + 1) if left % d == 0]
        made.append(int(piece.pick(divisors)))
        left //= made[-1]
    made.append(left)
    piece.rng.shuffle(made)
    return tuple(made)


def reshape(piece: Piece, values: Sequence[Value], x: Value) -> bool:
    """Reshape, Flatten, Squeeze or Unsqueeze."""
    kind = piece.pick(["Reshape", "Reshape", "Flatten", "Squeeze", "Unsqueeze"])
    rank = len(x.shape)
    if kind == "Flatten":
        axis = piece.integer(0, rank)
        shape = (prod(x.shape[:axis]), prod(x.shape[axis:]))
        return _moved(piece, x, kind, [], shape, axis=axis)
    if kind == "Squeeze":
        ones = [axis for axis, extent in enumerate(x.shape) if extent == 1]
        if not ones or rank == len(ones):
            return False
        shape = tuple(e for axis, e in enumerate(x.shape) if axis not in ones)
        return _moved(piece, x, kind, [piece.constant(np.array(ones, np.int64))], shape)
    if kind == "Unsqueeze":
        if rank >= 4:
            return False
        axis = piece.integer(0, rank)
        shape = (*x.shape[:axis], 1, *x.shape[axis:])
        return _moved(piece, x, kind, [piece.constant(np.array([axis], np.int64))], shape)
    shape = _regrouped(piece, x.shape)
    return _moved(piece, x, kind, [piece.constant(np.array(shape, np.int64))], shape)


def transpose(piece: Piece, values: Sequence[Value], x: Value) -> bool:
    """Transpose by any order."""
    order = [int(axis) for axis in piece.rng.permutation(len(x.shape))]
    shape = tuple(x.shape[axis] for axis in order)
    return _moved(piece, x, "Transpose", [], shape, perm=order)


def resize(piece: Piece, values: Sequence[Value], x: Value) -> bool:
    """Resize of height and width: nearest in all its modes, or linear."""
    if len(x.shape) != 4:
        return False
    mode = piece.pick(["nearest", "nearest", "linear"])
    size = [
        piece.pick([e, 2 * e, 3 * e, max(e // 2, 1), piece.integer(1, 20)]) for e in x.shape[2:]
    ]
    shape = (*x.shape[:2], *(int(extent) for extent in size))
    if prod(shape) > MOST_ELEMENTS:
        return False
    attributes: dict[str, object] = {
        "mode": mode,
        "coordinate_transformation_mode": piece.pick(
            ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
        ),
    }
    if mode == "nearest":
        attributes["nearest_mode"] = piece.pick(
            ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]
        )
    extra = ["", "", piece.constant(np.array(shape, np.int64))]
    if piece.is_qoperator and mode == "nearest":
        made = piece.node("Resize", [piece.read(x), *extra], **attributes)
        return piece.give(made, shape, x.tensor)
    real = piece.node("Resize", [piece.dequantize(x), *extra], **attributes)
    return _finished(piece, real, shape, _kept(piece, x))


MOVES: dict[str, tuple[float, Step]] = {
    "MaxPool": (1.5, pool),
    "AveragePool": (1.5, functools.partial(pool, is_max=False)),
    "GlobalAveragePool": (0.7, global_pool),
    "GlobalMaxPool": (0.5, functools.partial(global_pool, is_max=True)),
    **{
        op: (0.7, functools.partial(reduce, op=op))
        for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
    },
    "Pad": (1.5, pad),
    "Concat": (2.0, concat),
    "Split": (1.5, split),
    "Slice": (1.5, slice_step),
    "Reshape": (2.0, reshape),
    "Transpose": (2.0, transpose),
    "Resize": (1.5, resize),
}
"""Kind -> how often it is drawn, and the step."""
