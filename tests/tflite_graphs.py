"""Seeded random TFLite graphs over the operators that import, with the inputs to run them on."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from lepton.chip import Chip, load_chip
from tests.tflite_builder import Tensor
from tests.tflite_moves import MOVES
from tests.tflite_writer import Writer

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
    "RESHAPE": Kind(MOVES["RESHAPE"]),
    "TRANSPOSE": Kind(MOVES["TRANSPOSE"]),
    "CONCATENATION": Kind(MOVES["CONCATENATION"]),
    "PAD": Kind(MOVES["PAD"]),
    "PADV2": Kind(MOVES["PADV2"]),
    "MIRROR_PAD": Kind(MOVES["MIRROR_PAD"]),
    "SPLIT": Kind(MOVES["SPLIT"]),
    "SPLIT_V": Kind(MOVES["SPLIT_V"]),
    "SLICE": Kind(MOVES["SLICE"]),
    "STRIDED_SLICE": Kind(MOVES["STRIDED_SLICE"]),
    "SQUEEZE": Kind(MOVES["SQUEEZE"]),
    "EXPAND_DIMS": Kind(MOVES["EXPAND_DIMS"], (2, 3)),
    "PACK": Kind(MOVES["PACK"], (2, 3)),
    "UNPACK": Kind(MOVES["UNPACK"], (3, 4)),
    "TILE": Kind(MOVES["TILE"]),
    "GATHER": Kind(MOVES["GATHER"]),
    "REVERSE_V2": Kind(MOVES["REVERSE_V2"]),
    "DEPTH_TO_SPACE": Kind(MOVES["DEPTH_TO_SPACE"], _IMAGE),
    "SPACE_TO_DEPTH": Kind(MOVES["SPACE_TO_DEPTH"], _IMAGE),
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
