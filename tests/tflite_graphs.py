"""Seeded random TFLite graphs over the operators that import, with the inputs to run them on."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip, load_chip
from tests.tflite_builder import Tensor, TfliteBuilder

__all__ = ["KINDS", "Kind", "RandomGraph", "draw_graph", "tiny_chip"]

Array = NDArray[Any]
Shape = tuple[int, ...]


def tiny_chip() -> Chip:
    """Return a chip so small that every layer is cut into tiles, blocks and passes."""
    nano = load_chip("nano")
    return replace(
        nano,
        name="tiny",
        array=replace(nano.array, rows=8, columns=4),
        accumulators=replace(nano.accumulators, size_kib=1),
        weight_buffer=replace(nano.weight_buffer, size_kib=1),
        scratchpad=replace(nano.scratchpad, size_kib=10, banks=4),
        dma=replace(nano.dma, load_channels=2),
    )


@dataclass(frozen=True)
class RandomGraph:
    """A model with the arrays of its inputs, and the kinds of its operators in order."""

    model: bytes
    inputs: dict[str, Array]
    kinds: tuple[str, ...]


class Writer:
    """Draws operators, shapes and quantizations into one model."""

    def __init__(self, seed: int, dtype: str) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.builder = TfliteBuilder()
        self.inputs: dict[str, tuple[Tensor, Array]] = {}
        self.made: list[Tensor] = []
        self._count = 0

    # --- drawing ---------------------------------------------------------------------------------

    def pick(self, *choices: Any) -> Any:
        """Return one of the choices."""
        return choices[int(self.rng.integers(len(choices)))]

    def between(self, low: int, high: int) -> int:
        """Return a number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def name(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def limits(self, dtype: str) -> tuple[int, int]:
        return (0, 255) if dtype == "uint8" else (-128, 127)

    def zero_point(self, dtype: str) -> int:
        """Return a zero point, at an end of the range now and then."""
        low, high = self.limits(dtype)
        return self.pick(low, high, self.between(low, high), self.between(low, high))

    def values(self, shape: Sequence[int], dtype: str) -> Array:
        low, high = self.limits(dtype)
        return self.rng.integers(low, high + 1, tuple(shape)).astype(dtype)

    # --- tensors ---------------------------------------------------------------------------------

    def input(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Return a new graph input, with the quantization of another tensor if given."""
        dtype = like.dtype if like is not None else self.made[-1].dtype if self.made else self.dtype
        scale = float(10.0 ** self.rng.uniform(-2.5, -1)) if like is None else float(like.scale)
        point = self.zero_point(dtype) if like is None else like.zero_point
        name = f"x{len(self.inputs)}"
        tensor = self.builder.input(name, shape, dtype, scale, point)
        self.inputs[name] = tensor, self.values(shape, dtype)
        return tensor

    def other(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Return another operand of a shape: an earlier result if one fits, else an input."""
        fitting = [
            t
            for t in self.made[:-1]
            if t.shape == tuple(shape)
            and t.dtype == self.made[-1].dtype
            and (like is None or (t.scale, t.zero_point) == (like.scale, like.zero_point))
        ]
        return (
            self.pick(*fitting) if fitting and self.rng.random() < 0.7 else self.input(shape, like)
        )

    def same(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Return a result with the quantization of an operand."""
        return self.builder.tensor(self.name(), shape, x.dtype, float(x.scale), x.zero_point)

    def fresh(
        self, x: Tensor, shape: Sequence[int], gain: float = 1.0, point: int | None = None
    ) -> Tensor:
        """Return a result of its own quantization, about `gain` times as wide as an operand's."""
        scale = float(x.scale) * gain * float(self.rng.uniform(0.4, 2.0))
        point = self.zero_point(x.dtype) if point is None else point
        return self.builder.tensor(self.name(), shape, x.dtype, scale, point)

    def fixed(self, x: Tensor, scale: float, int8_point: int) -> Tensor:
        """Return a result whose quantization the operator prescribes."""
        point = int8_point if x.dtype == "int8" else int8_point + 128
        return self.builder.tensor(self.name(), x.shape, x.dtype, scale, point)

    def numbers(self, *values: int) -> Tensor:
        """Return an int32 constant."""
        return self.builder.constant(self.name(), np.array(values, np.int32))

    def weights(self, shape: Shape, axis: int, dtype: str) -> Tensor:
        """Return constant weights: per channel for int8, with a zero point for uint8."""
        per_channel = dtype == "int8" and self.rng.random() < 0.7
        count = shape[axis] if per_channel else 1
        scales = self.rng.uniform(0.002, 0.02, count).astype(np.float32)
        point = self.between(0, 255) if dtype == "uint8" else 0
        values = self.values(shape, dtype)
        if self.rng.random() < 0.3:
            values = np.where(self.rng.random(shape) < 0.7, point, values).astype(dtype)
        return self.builder.constant(self.name(), values, scales, point, axis)

    def scalar(self, value: int) -> Tensor:
        """Return an int32 constant of rank 0, as converters write axes."""
        tensor = self.builder.constant(self.name(), np.array([value], np.int32))
        self.builder.tensors[tensor.index] = replace(tensor, shape=())
        return self.builder.tensors[tensor.index]

    def bias(self, x: Tensor, weights: Tensor, count: int, spread: int) -> Tensor:
        """Return an int32 bias."""
        scales = np.array(weights.scales) * float(x.scale)
        values = self.rng.integers(-spread, spread + 1, count).astype(np.int32)
        return self.builder.constant(self.name(), values, scales)

    def activation(self) -> str:
        return self.pick("NONE", "NONE", "RELU", "RELU6", "RELU_N1_TO_1")

    def operator(
        self, kind: str, inputs: Sequence[Tensor | None], output: Tensor, **options: Any
    ) -> Tensor:
        """Add an operator with one result, and return it."""
        self.builder.operator(kind, inputs, [output], **options)
        return output


# --- convolutions and products -------------------------------------------------------------------


def _extent(size: int, kernel: int, stride: int, dilation: int, same: bool) -> int:
    return -(-size // stride) if same else (size - (kernel - 1) * dilation - 1) // stride + 1


def _window(w: Writer, x: Tensor, dilated: bool) -> tuple[list[int], dict[str, Any], list[int]]:
    """Return kernel, options and output extents of a window over an image."""
    same = bool(w.rng.random() < 0.5)
    kernel = [w.between(1, min(size, 5)) for size in x.shape[1:3]]
    stride = [w.between(1, 3), w.between(1, 3)]
    dilation = [1, 1]
    if dilated and w.rng.random() < 0.3:
        stride = [1, 1]
        for axis in range(2):
            most = (x.shape[1 + axis] - 1) // max(kernel[axis] - 1, 1)
            dilation[axis] = w.between(1, max(1, min(3, most)))
    extents = [
        _extent(x.shape[1 + axis], kernel[axis], stride[axis], dilation[axis], same)
        for axis in range(2)
    ]
    options: dict[str, Any] = {"padding": "SAME" if same else "VALID"}
    options |= {"stride_h": stride[0], "stride_w": stride[1]}
    if dilated:
        options |= {"dilation_h_factor": dilation[0], "dilation_w_factor": dilation[1]}
    return kernel, options, extents


def _convolution(w: Writer, x: Tensor) -> Tensor:
    channels = x.shape[3]
    divisors = [n for n in range(1, channels + 1) if channels % n == 0]
    is_grouped = x.dtype == "int8" and w.rng.random() < 0.25
    groups = w.pick(*divisors) if is_grouped else 1
    count = groups * w.between(1, 6) if groups > 1 else w.between(1, 20)
    kernel, options, extents = _window(w, x, True)
    weights = w.weights((count, *kernel, channels // groups), 0, x.dtype)
    taps = math.prod(kernel) * channels // groups
    bias = w.bias(x, weights, count, 60 * taps)
    y = w.fresh(x, [x.shape[0], *extents, count], 0.6 * math.sqrt(taps))
    options["fused_activation_function"] = w.activation()
    return w.operator("CONV_2D", [x, weights, bias], y, **options)


def _depthwise(w: Writer, x: Tensor) -> Tensor:
    multiplier = w.pick(1, 1, 2, 3)
    count = x.shape[3] * multiplier
    kernel, options, extents = _window(w, x, True)
    weights = w.weights((1, *kernel, count), 3, x.dtype)
    bias = w.bias(x, weights, count, 60 * math.prod(kernel))
    y = w.fresh(x, [x.shape[0], *extents, count], 0.6 * math.sqrt(math.prod(kernel)))
    options |= {"fused_activation_function": w.activation(), "depth_multiplier": multiplier}
    return w.operator("DEPTHWISE_CONV_2D", [x, weights, bias], y, **options)


def _connected(w: Writer, x: Tensor) -> Tensor:
    depth, units = x.shape[-1], w.between(1, 24)
    keeps = len(x.shape) > 2
    if keeps and w.rng.random() < 0.5:
        depth, keeps = math.prod(x.shape[1:]), False
    weights = w.weights((units, depth), 0, x.dtype)
    bias = w.bias(x, weights, units, 60 * depth) if w.rng.random() < 0.8 else None
    rows = math.prod(x.shape) // depth
    shape = [*x.shape[:-1], units] if keeps else [rows, units]
    y = w.fresh(x, shape, 0.6 * math.sqrt(depth))
    options = {"fused_activation_function": w.activation(), "keep_num_dims": keeps}
    return w.operator("FULLY_CONNECTED", [x, weights, bias], y, **options)


def _batch_matmul(w: Writer, x: Tensor) -> Tensor:
    turned = bool(w.rng.random() < 0.5)
    k, n = x.shape[-1], w.between(1, 9)
    right = [*x.shape[:-2], n, k] if turned else [*x.shape[:-2], k, n]
    y = w.fresh(x, [*x.shape[:-1], n], 2.0 * math.sqrt(k))
    return w.operator("BATCH_MATMUL", [x, w.other(right)], y, adj_y=turned)


# --- element-wise --------------------------------------------------------------------------------


def _broadcast(w: Writer, shape: Shape) -> list[int]:
    """Return a shape that broadcasts to `shape`, mostly `shape` itself."""
    if w.rng.random() < 0.6:
        return list(shape)
    return [n if w.rng.random() < 0.5 else 1 for n in shape]


def _binary(kind: str, gain: float, is_activated: bool) -> Callable[[Writer, Tensor], Tensor]:
    def make(w: Writer, x: Tensor) -> Tensor:
        shape = _broadcast(w, x.shape)
        if w.rng.random() < 0.2:
            scale, point = float(w.rng.uniform(0.01, 0.1)), w.zero_point(x.dtype)
            other = w.builder.constant(w.name(), w.values(shape, x.dtype), scale, point)
        else:
            other = w.other(shape)
        sources = [x, other] if w.rng.random() < 0.7 else [other, x]
        width = max(float(x.scale), float(other.scale))
        size = gain * (128 * float(other.scale) if kind == "MUL" else width / float(x.scale))
        y = w.fresh(x, x.shape, size)
        options: dict[str, Any] = {}
        if is_activated:
            options["fused_activation_function"] = w.activation()
        return w.operator(kind, sources, y, **options)

    return make


def _divide(w: Writer, x: Tensor) -> Tensor:
    """Divide by a constant that is nowhere zero, which the reference refuses."""
    values = w.rng.integers(1, 256, x.shape).astype(x.dtype)
    other = w.builder.constant(w.name(), values, float(w.rng.uniform(0.01, 0.1)), 0)
    y = w.builder.tensor(w.name(), x.shape, x.dtype, float(w.rng.uniform(0.01, 0.1)), 100)
    return w.operator("DIV", [x, other], y, fused_activation_function=w.activation())


def _extreme(kind: str) -> Callable[[Writer, Tensor], Tensor]:
    def make(w: Writer, x: Tensor) -> Tensor:
        other = w.other(_broadcast(w, x.shape), x)
        return w.operator(kind, [x, other], w.same(x, x.shape))

    return make


def _unary(kind: str, gain: float = 1.0) -> Callable[[Writer, Tensor], Tensor]:
    return lambda w, x: w.operator(kind, [x], w.fresh(x, x.shape, gain))


def _prescribed(kind: str, scale: float, point: int) -> Callable[[Writer, Tensor], Tensor]:
    def make(w: Writer, x: Tensor) -> Tensor:
        options = {"beta": 1.0} if kind == "SOFTMAX" else {}
        return w.operator(kind, [x], w.fixed(x, scale, point), **options)

    return make


def _clamped(kind: str) -> Callable[[Writer, Tensor], Tensor]:
    return lambda w, x: w.operator(kind, [x], w.fresh(x, x.shape))


def _leaky(w: Writer, x: Tensor) -> Tensor:
    y = w.fresh(x, x.shape)
    return w.operator("LEAKY_RELU", [x], y, alpha=float(w.rng.uniform(0.01, 0.9)))


def _gelu(w: Writer, x: Tensor) -> Tensor:
    return w.operator("GELU", [x], w.fresh(x, x.shape), approximate=w.pick(False, True))


def _prelu(w: Writer, x: Tensor) -> Tensor:
    alphas = w.values([1, 1, w.pick(1, x.shape[3], x.shape[3])], x.dtype)
    point = w.zero_point(x.dtype)
    alpha = w.builder.constant(w.name(), alphas, float(w.rng.uniform(0.002, 0.01)), point)
    return w.operator("PRELU", [x, alpha], w.fresh(x, x.shape))


def _of_positives(kind: str) -> Callable[[Writer, Tensor], Tensor]:
    """Return a maker of a function of positive values: its operand has the lowest zero point."""

    def make(w: Writer, x: Tensor) -> Tensor:
        low = w.limits(x.dtype)[0]
        positive = w.builder.tensor(w.name(), x.shape, x.dtype, float(x.scale), low)
        w.operator("QUANTIZE", [x], positive)
        scale = 0.06 if kind == "LOG" else 0.5
        y = w.builder.tensor(w.name(), x.shape, x.dtype, scale, w.zero_point(x.dtype))
        return w.operator(kind, [positive], y)

    return make


def _exp(w: Writer, x: Tensor) -> Tensor:
    top = math.exp(min(4.0, (w.limits(x.dtype)[1] - x.zero_point) * float(x.scale)))
    low = w.limits(x.dtype)[0]
    return w.operator("EXP", [x], w.builder.tensor(w.name(), x.shape, x.dtype, top / 255, low))


def _quantize(w: Writer, x: Tensor) -> Tensor:
    dtype = w.pick("int8", "uint8")
    scale = float(x.scale) * float(w.rng.uniform(0.4, 2.0))
    y = w.builder.tensor(w.name(), x.shape, dtype, scale, w.zero_point(dtype))
    return w.operator("QUANTIZE", [x], y)


# --- windows and reductions ----------------------------------------------------------------------


def _pool(kind: str) -> Callable[[Writer, Tensor], Tensor]:
    def make(w: Writer, x: Tensor) -> Tensor:
        kernel, options, extents = _window(w, x, False)
        if w.rng.random() < 0.2:
            kernel, extents = list(x.shape[1:3]), [1, 1]
            options["padding"] = "VALID"
        options |= {"filter_height": kernel[0], "filter_width": kernel[1]}
        options["fused_activation_function"] = w.activation()
        y = w.same(x, [x.shape[0], *extents, x.shape[3]])
        return w.operator(kind, [x], y, **options)

    return make


def _reduce(kind: str) -> Callable[[Writer, Tensor], Tensor]:
    def make(w: Writer, x: Tensor) -> Tensor:
        rank = len(x.shape)
        axes = sorted({w.between(0, rank - 1) for _ in range(w.between(1, 2))})
        if rank == 4 and w.rng.random() < 0.5:
            axes = [1, 2]
        kept = bool(w.rng.random() < 0.5) or len(axes) == rank
        shape = [1 if axis in axes else n for axis, n in enumerate(x.shape)]
        if not kept:
            shape = [n for axis, n in enumerate(x.shape) if axis not in axes]
        gain = math.prod(x.shape[axis] for axis in axes) ** 0.5 if kind == "SUM" else 0.7
        y = w.same(x, shape) if kind.startswith("REDUCE") else w.fresh(x, shape, gain)
        return w.operator(kind, [x, w.numbers(*axes)], y, keep_dims=kept)

    return make


def _resize(kind: str) -> Callable[[Writer, Tensor], Tensor]:
    def make(w: Writer, x: Tensor) -> Tensor:
        size = [w.between(1, 2 * n + 1) for n in x.shape[1:3]]
        mode = w.pick({}, {"align_corners": True}, {"half_pixel_centers": True})
        y = w.same(x, [x.shape[0], *size, x.shape[3]])
        return w.operator(kind, [x, w.numbers(*size)], y, **mode)

    return make


# --- movement ------------------------------------------------------------------------------------


def _reshape(w: Writer, x: Tensor) -> Tensor:
    total = math.prod(x.shape)
    first = w.pick(*[n for n in range(1, total + 1) if total % n == 0])
    rest = total // first
    second = w.pick(*[n for n in range(1, rest + 1) if rest % n == 0])
    shape = w.pick([1, first, second, rest // second], [first, rest], [1, first, rest])
    return w.operator("RESHAPE", [x, w.numbers(*shape)], w.same(x, shape), new_shape=shape)


def _transpose(w: Writer, x: Tensor) -> Tensor:
    order = [int(axis) for axis in w.rng.permutation(len(x.shape))]
    y = w.same(x, [x.shape[axis] for axis in order])
    return w.operator("TRANSPOSE", [x, w.numbers(*order)], y)


def _concatenation(w: Writer, x: Tensor) -> Tensor:
    axis, count = w.between(0, len(x.shape) - 1), w.between(1, 3)
    like = x if x.dtype == "int8" or w.rng.random() < 0.5 else None
    parts = [x]
    for _ in range(count):
        shape = list(x.shape)
        shape[axis] = w.between(1, 5)
        parts.append(w.other(shape, like))
    shape = list(x.shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    y = w.same(x, shape) if like is not None else w.fresh(x, shape)
    return w.operator("CONCATENATION", parts, y, axis=axis)


def _pad(kind: str) -> Callable[[Writer, Tensor], Tensor]:
    def make(w: Writer, x: Tensor) -> Tensor:
        most = [
            1 if kind == "MIRROR_PAD" and n > 1 else 0 if kind == "MIRROR_PAD" else 3
            for n in x.shape
        ]
        widths = np.array([[w.between(0, n), w.between(0, n)] for n in most], np.int32)
        if len(x.shape) == 4:
            widths[0] = 0
        shape = [n + int(sum(pair)) for n, pair in zip(x.shape, widths, strict=True)]
        inputs: list[Tensor | None] = [x, w.builder.constant(w.name(), widths)]
        options: dict[str, Any] = {}
        if kind == "PADV2":
            value = w.values([1], x.dtype)
            inputs.append(w.builder.constant(w.name(), value, float(x.scale), x.zero_point))
        elif kind == "MIRROR_PAD":
            options["mode"] = "REFLECT"
        return w.operator(kind, inputs, w.same(x, shape), **options)

    return make


def _split(w: Writer, x: Tensor) -> Tensor:
    axis = w.between(0, len(x.shape) - 1)
    counts = [n for n in (1, 2, 3, 4) if x.shape[axis] % n == 0]
    count = w.pick(*counts)
    shape = list(x.shape)
    shape[axis] //= count
    parts = [w.same(x, shape) for _ in range(count)]
    place = w.pick(w.scalar, w.numbers)(axis)
    w.builder.operator("SPLIT", [place, x], parts, num_splits=count)
    w.made += parts[1:]
    return parts[0]


def _split_v(w: Writer, x: Tensor) -> Tensor:
    axis = w.between(0, len(x.shape) - 1)
    first = w.between(1, x.shape[axis])
    sizes = [first, x.shape[axis] - first] if first < x.shape[axis] else [first]
    parts: list[Tensor] = []
    for size in sizes:
        shape = list(x.shape)
        shape[axis] = size
        parts.append(w.same(x, shape))
    inputs = [x, w.numbers(*sizes), w.scalar(axis)]
    w.builder.operator("SPLIT_V", inputs, parts, num_splits=len(sizes))
    w.made += parts[1:]
    return parts[0]


def _slice(w: Writer, x: Tensor) -> Tensor:
    begin = [w.between(0, n - 1) for n in x.shape]
    size = [w.between(1, n - b) for n, b in zip(x.shape, begin, strict=True)]
    y = w.same(x, size)
    return w.operator("SLICE", [x, w.numbers(*begin), w.numbers(*size)], y)


def _strided_slice(w: Writer, x: Tensor) -> Tensor:
    begin = [w.between(0, n - 1) for n in x.shape]
    end = [w.between(b + 1, n) for n, b in zip(x.shape, begin, strict=True)]
    step = [w.between(1, 3) for _ in x.shape]
    shape = [-(-(e - b) // s) for b, e, s in zip(begin, end, step, strict=True)]
    corners = [w.numbers(*values) for values in (begin, end, step)]
    return w.operator("STRIDED_SLICE", [x, *corners], w.same(x, shape))


def _squeeze(w: Writer, x: Tensor) -> Tensor:
    axes = [axis for axis, n in enumerate(x.shape) if n == 1][: len(x.shape) - 1]
    shape = [n for axis, n in enumerate(x.shape) if axis not in axes]
    return w.operator("SQUEEZE", [x], w.same(x, shape), squeeze_dims=axes)


def _expand(w: Writer, x: Tensor) -> Tensor:
    axis = w.between(0, len(x.shape))
    shape = [*x.shape[:axis], 1, *x.shape[axis:]]
    return w.operator("EXPAND_DIMS", [x, w.scalar(axis)], w.same(x, shape))


def _pack(w: Writer, x: Tensor) -> Tensor:
    axis, count = w.between(0, len(x.shape)), w.between(1, 3)
    parts = [x, *(w.other(x.shape, x) for _ in range(count - 1))]
    y = w.same(x, [*x.shape[:axis], count, *x.shape[axis:]])
    return w.operator("PACK", parts, y, axis=axis, values_count=count)


def _unpack(w: Writer, x: Tensor) -> Tensor:
    axis = w.between(0, len(x.shape) - 1)
    shape = [n for at, n in enumerate(x.shape) if at != axis]
    parts = [w.same(x, shape) for _ in range(x.shape[axis])]
    w.builder.operator("UNPACK", [x], parts, axis=axis, num=x.shape[axis])
    w.made += parts[1:]
    return parts[0]


def _tile(w: Writer, x: Tensor) -> Tensor:
    times = [w.between(1, 2) for _ in x.shape]
    y = w.same(x, [n * t for n, t in zip(x.shape, times, strict=True)])
    return w.operator("TILE", [x, w.numbers(*times)], y)


def _gather(w: Writer, x: Tensor) -> Tensor:
    axis, count = w.between(0, len(x.shape) - 1), w.between(1, 4)
    index = w.rng.integers(0, x.shape[axis], count).astype(np.int32)
    shape = list(x.shape)
    shape[axis] = count
    return w.operator("GATHER", [x, w.numbers(*index.tolist())], w.same(x, shape), axis=axis)


def _reverse(w: Writer, x: Tensor) -> Tensor:
    axis = w.between(0, len(x.shape) - 1)
    return w.operator("REVERSE_V2", [x, w.numbers(axis)], w.same(x, x.shape))


def _depth_to_space(w: Writer, x: Tensor) -> Tensor:
    block = w.pick(*[n for n in (1, 2, 3) if x.shape[3] % (n * n) == 0])
    n, h, width, c = x.shape
    y = w.same(x, [n, h * block, width * block, c // (block * block)])
    return w.operator("DEPTH_TO_SPACE", [x], y, block_size=block)


def _space_to_depth(w: Writer, x: Tensor) -> Tensor:
    fitting = [n for n in (1, 2, 3) if x.shape[1] % n == 0 and x.shape[2] % n == 0]
    block = w.pick(*fitting)
    n, h, width, c = x.shape
    y = w.same(x, [n, h // block, width // block, c * block * block])
    return w.operator("SPACE_TO_DEPTH", [x], y, block_size=block)


@dataclass(frozen=True)
class Kind:
    """How an operator is drawn, and what it takes.

    Attributes:
        ranks: of the operand.
        dtypes: that the reference library takes and computes right.
    """

    make: Callable[[Writer, Tensor], Tensor]
    ranks: tuple[int, ...] = (2, 3, 4)
    dtypes: tuple[str, ...] = ("int8", "uint8")


_IMAGE = (4,)
_INT8 = ("int8",)

KINDS: dict[str, Kind] = {
    "CONV_2D": Kind(_convolution, _IMAGE),
    "DEPTHWISE_CONV_2D": Kind(_depthwise, _IMAGE),
    "FULLY_CONNECTED": Kind(_connected, (2, 3, 4)),
    "BATCH_MATMUL": Kind(_batch_matmul, (3, 4), _INT8),
    "ADD": Kind(_binary("ADD", 1.5, True)),
    "SUB": Kind(_binary("SUB", 1.5, True)),
    "MUL": Kind(_binary("MUL", 0.6, True)),
    "DIV": Kind(_divide, dtypes=("uint8",)),
    "SQUARED_DIFFERENCE": Kind(_binary("SQUARED_DIFFERENCE", 4.0, False), dtypes=_INT8),
    "MAXIMUM": Kind(_extreme("MAXIMUM")),
    "MINIMUM": Kind(_extreme("MINIMUM")),
    "LOGISTIC": Kind(_prescribed("LOGISTIC", 1 / 256, -128)),
    "TANH": Kind(_prescribed("TANH", 1 / 128, 0)),
    "SOFTMAX": Kind(_prescribed("SOFTMAX", 1 / 256, -128)),
    "RELU": Kind(_clamped("RELU")),
    "RELU6": Kind(_clamped("RELU6")),
    "RELU_N1_TO_1": Kind(_clamped("RELU_N1_TO_1")),
    "LEAKY_RELU": Kind(_leaky),
    "PRELU": Kind(_prelu, _IMAGE),
    "HARD_SWISH": Kind(_unary("HARD_SWISH", 1.3)),
    "GELU": Kind(_gelu),
    "NEG": Kind(lambda w, x: w.operator("NEG", [x], w.same(x, x.shape)), dtypes=_INT8),
    "ABS": Kind(_unary("ABS"), dtypes=_INT8),
    "EXP": Kind(_exp, dtypes=_INT8),
    "LOG": Kind(_of_positives("LOG"), dtypes=_INT8),
    "RSQRT": Kind(_of_positives("RSQRT"), dtypes=_INT8),
    "QUANTIZE": Kind(_quantize),
    "AVERAGE_POOL_2D": Kind(_pool("AVERAGE_POOL_2D"), _IMAGE),
    "MAX_POOL_2D": Kind(_pool("MAX_POOL_2D"), _IMAGE),
    "MEAN": Kind(_reduce("MEAN"), (3, 4)),
    "SUM": Kind(_reduce("SUM"), (3, 4), ("uint8",)),
    "REDUCE_MAX": Kind(_reduce("REDUCE_MAX"), (3, 4)),
    "REDUCE_MIN": Kind(_reduce("REDUCE_MIN"), (3, 4)),
    "L2_NORMALIZATION": Kind(_prescribed("L2_NORMALIZATION", 1 / 128, 0), _IMAGE),
    "RESIZE_BILINEAR": Kind(_resize("RESIZE_BILINEAR"), _IMAGE),
    "RESIZE_NEAREST_NEIGHBOR": Kind(_resize("RESIZE_NEAREST_NEIGHBOR"), _IMAGE),
    "RESHAPE": Kind(_reshape),
    "TRANSPOSE": Kind(_transpose),
    "CONCATENATION": Kind(_concatenation),
    "PAD": Kind(_pad("PAD")),
    "PADV2": Kind(_pad("PADV2")),
    "MIRROR_PAD": Kind(_pad("MIRROR_PAD")),
    "SPLIT": Kind(_split),
    "SPLIT_V": Kind(_split_v),
    "SLICE": Kind(_slice),
    "STRIDED_SLICE": Kind(_strided_slice),
    "SQUEEZE": Kind(_squeeze),
    "EXPAND_DIMS": Kind(_expand, (2, 3)),
    "PACK": Kind(_pack, (2, 3)),
    "UNPACK": Kind(_unpack, (3, 4)),
    "TILE": Kind(_tile),
    "GATHER": Kind(_gather),
    "REVERSE_V2": Kind(_reverse),
    "DEPTH_TO_SPACE": Kind(_depth_to_space, _IMAGE),
    "SPACE_TO_DEPTH": Kind(_space_to_depth, _IMAGE),
}
"""Operators by their builtin name."""


def _first_shape(w: Writer, ranks: tuple[int, ...]) -> list[int]:
    """Return the shape of the first operand: now and then with extents of 1, or a long one."""
    rank = w.pick(*ranks)
    if rank == 4:
        batch = 2 if w.rng.random() < 0.15 else 1
        return [batch, w.between(1, 13), w.between(1, 13), w.pick(1, 3, w.between(1, 24), 16)]
    return [1, *(w.between(1, 20) for _ in range(rank - 1))]


def draw_graph(
    seed: int,
    dtype: str,
    first: str,
    length: int = 1,
    without: Collection[str] = (),
) -> RandomGraph:
    """Return a chain of operators: `first`, then others drawn from all but `without`."""
    w = Writer(seed, dtype)
    kinds = [first]
    x = w.input(_first_shape(w, KINDS[first].ranks))
    w.made.append(x)
    x = KINDS[first].make(w, x)
    w.made.append(x)
    while len(kinds) < length:
        fitting = [
            name
            for name, kind in KINDS.items()
            if len(x.shape) in kind.ranks and x.dtype in kind.dtypes and name not in without
        ]
        if not fitting or math.prod(x.shape) > 6000:
            break
        kinds.append(w.pick(*fitting))
        x = KINDS[kinds[-1]].make(w, x)
        w.made.append(x)
    tensors = [tensor for tensor, _ in w.inputs.values()]
    arrays = {name: array for name, (_, array) in w.inputs.items()}
    return RandomGraph(w.builder.build(tensors, [x]), arrays, tuple(kinds))
