"""Products with weights and of two activations in random ONNX graphs: steps as in `onnx_steps`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.onnx_builder import Quantized
from tests.onnx_piece import (
    MICROSOFT,
    TYPES,
    Array,
    Finish,
    Piece,
    Shape,
    Value,
    Window,
    centred,
    convolve,
    prod,
)

Step = Callable[[Piece, Sequence[Value], Value], bool]
MOST_ELEMENTS = 12_000
MOST_MACS = 1_500_000


# --- products with weights ---------------------------------------------------------------------


class Weights:
    """Random weights of a convolution or product, their scales and the bias."""

    def __init__(self, piece: Piece, x: Value, shape: Shape, axis: int) -> None:
        """Draw weights of `shape` whose output channels are along `axis`."""
        channels, rng = shape[axis], piece.rng
        self.axis = axis
        self.depth = prod(shape) // channels
        unsigned = piece.often(0.3 if x.dtype == "uint8" else 0.05)
        self.dtype = TYPES[unsigned]
        self.per_channel = piece.often(0.5) and not unsigned
        count = channels if self.per_channel else 1
        self.scale = (10.0 ** rng.uniform(-3, 0, count)).astype(np.float32)
        if self.per_channel:
            self.scale = (self.scale[0] * 2.0 ** rng.uniform(-2, 2, count)).astype(np.float32)
        self.zero_point = piece.integer(0, 255) if unsigned else 0
        limits = np.iinfo(self.dtype)
        self.raw = rng.integers(limits.min, limits.max + 1, shape).astype(self.dtype)
        if piece.often(0.2):
            keep = rng.random(shape) < 0.4
            self.raw = np.where(keep, self.raw, self.zero_point).astype(self.dtype)
        self.bias: Array | None = None
        self.is_float_bias = False
        if piece.often(0.7):
            top = int(74 * 74 * self.depth**0.5)
            self.bias = rng.integers(-top, top + 1, channels).astype(np.int32)
            self.is_float_bias = piece.often(0.15)
        self.bias_scale = (np.float32(x.tensor.scale) * self.scale).astype(np.float32)

    def names(self, piece: Piece) -> list[str]:
        """Return codes, scale and zero point as initializers."""
        shape = self.scale.shape if self.per_channel else ()
        point = np.full(shape, self.zero_point, self.dtype)
        return [
            piece.constant(self.raw),
            piece.constant(self.scale.reshape(shape)),
            piece.constant(point),
        ]

    def dequantized(self, piece: Piece) -> str:
        """Return the weights in float."""
        attributes = {"axis": self.axis} if self.per_channel else {}
        return piece.node("DequantizeLinear", self.names(piece), **attributes)

    def dequantized_bias(self, piece: Piece) -> list[str]:
        """Return the bias in float, as a list of none or one."""
        if self.bias is None:
            return []
        scale = self.bias_scale if self.per_channel else self.bias_scale.reshape(())
        if self.is_float_bias:
            return [piece.constant(self.bias.astype(np.float32) * scale)]
        parts = [piece.constant(self.bias), piece.constant(scale)]
        parts.append(piece.constant(np.zeros(scale.shape, np.int32)))
        attributes = {"axis": 0} if self.per_channel else {}
        return [piece.node("DequantizeLinear", parts, **attributes)]

    def centred(self) -> Array:
        """Return the weights less their zero point."""
        return self.raw.astype(np.int64) - self.zero_point

    def target(self, piece: Piece, x: Value) -> Quantized:
        """Draw the quantization of the result."""
        real = x.real * 74.0 * float(np.median(self.scale)) * self.depth**0.5
        return piece.target(real, x.dtype, 0.0 if piece.is_qoperator else 0.08)

    def finish(self, x: Value, tensor: Quantized, bounds: tuple[float, float]) -> Finish:
        """Return the end of the integer formula."""
        return Finish((self.bias_scale / tensor.params.scale).astype(np.float32), tensor, *bounds)


def activation(piece: Piece, real: str, tensor: Quantized) -> tuple[str, tuple[float, float]]:
    """Put a Relu or a Clip behind a float value, or nothing; return its bounds."""
    kind = piece.pick(["none", "none", "none", "relu", "clip"])
    if kind == "relu":
        return piece.node("Relu", [real]), (0.0, np.inf)
    if kind == "clip":
        span = float(tensor.params.scale) * 255
        low = piece.pick([0.0, 0.0, -span / 4])
        high = float(np.float32(span * piece.rng.uniform(0.05, 1.2)))
        low = float(np.float32(low))
        names = [piece.constant(np.float32(low)), piece.constant(np.float32(high))]
        return piece.node("Clip", [real, *names]), (low, high)
    return real, (-np.inf, np.inf)


def _is_fused(x: Value, weight_dtype: str, tensor: Quantized, bounds: tuple[float, float]) -> bool:
    """Return whether ONNX Runtime runs a product as an integer kernel: docs/onnx_golden.md."""
    if tensor.dtype != x.dtype or (x.dtype == "int8" and weight_dtype == "uint8"):
        return False
    return bounds == (-np.inf, np.inf)


def _random_window(piece: Piece, shape: Shape, most: int, dilated: bool) -> Window | None:
    """Return a window that fits images of `[n, c, h, w]`, None if none was found."""
    for _ in range(30):
        kernel = (piece.integer(1, most), piece.integer(1, most))
        if piece.often(0.25):
            kernel = (1, 1)
        step = (piece.integer(1, 3), piece.integer(1, 3)) if piece.often(0.4) else (1, 1)
        dilation = (1, 1)
        if dilated and piece.often(0.25):
            dilation = (piece.integer(1, 3), piece.integer(1, 3))
        most_pad = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)] * 2
        pads = [0, 0, 0, 0]
        if piece.often(0.7):
            pads = [min(piece.integer(0, top), top) for top in most_pad]
        window = Window(kernel, step, dilation, (pads[0], pads[1], pads[2], pads[3]))
        if window.out(shape[2], 0) >= 1 and window.out(shape[3], 1) >= 1:
            return window
    return None


def _groups(piece: Piece, channels: int) -> tuple[int, int]:
    """Return groups and output channels."""
    kind = piece.pick(["dense", "dense", "dense", "depthwise", "grouped"])
    if kind == "depthwise":
        return channels, channels * piece.pick([1, 1, 1, 2, 3])
    divisors = [g for g in range(2, channels) if channels % g == 0]
    if kind == "grouped" and divisors:
        groups = int(piece.pick(divisors))
        return groups, groups * piece.integer(1, 5)
    return 1, int(piece.pick([1, 2, 3, 5, 8, 16, 17, 33, piece.integer(1, 48)]))


def conv(piece: Piece, values: Sequence[Value], x: Value) -> bool:
    """Convolution of every kind."""
    if len(x.shape) != 4:
        return False
    n, c, h, w = x.shape
    groups, oc = _groups(piece, c)
    window = _random_window(piece, x.shape, 5, True)
    if window is None:
        return False
    shape = (n, oc, window.out(h, 0), window.out(w, 1))
    depth = prod(window.kernel) * c // groups
    if prod(shape) > MOST_ELEMENTS or prod(shape) * depth > MOST_MACS:
        return False
    weights = Weights(piece, x, (oc, c // groups, *window.kernel), 0)
    tensor = weights.target(piece, x)
    attributes: dict[str, Any] = {**window.attributes(), "group": groups}
    bounds = (-np.inf, np.inf)
    if piece.is_qoperator and not (x.dtype == "int8" and weights.dtype == "uint8"):
        parts = [*piece.triple(x), *weights.names(piece), *piece.params(tensor)]
        if weights.bias is not None:
            parts.append(piece.constant(weights.bias))
        return piece.give(piece.node("QLinearConv", parts, **attributes), shape, tensor)
    parts = [piece.dequantize(x), weights.dequantized(piece), *weights.dequantized_bias(piece)]
    piece.has_bias_scale = weights.bias is not None and not weights.is_float_bias
    real, bounds = activation(piece, piece.node("Conv", parts, **attributes), tensor)
    finish = weights.finish(x, tensor, bounds)

    def formula(inputs: Sequence[Array]) -> Array:
        sums = convolve(centred(inputs[0], x.tensor), weights.centred(), window, groups)
        sums = sums if weights.bias is None else sums + weights.bias
        return np.ascontiguousarray(finish(sums).transpose(0, 3, 1, 2))

    if not _is_fused(x, weights.dtype, tensor, bounds):
        piece.formula = formula
    return piece.quantize(real, shape, tensor)


def gemm(piece: Piece, values: Sequence[Value], x: Value) -> bool:
    """Gemm of a matrix with weights, transposed or not, with or without bias."""
    if len(x.shape) != 2:
        return False
    swapped = piece.often(0.15) and not piece.is_qoperator
    m, k = x.shape[::-1] if swapped else x.shape
    n = int(piece.pick([1, 3, 8, 16, 17, 40, piece.integer(1, 64)]))
    transposed = piece.often(0.5)
    weights = Weights(piece, x, (n, k) if transposed else (k, n), 0 if transposed else 1)
    tensor = weights.target(piece, x)
    attributes = {"transB": int(transposed), "transA": int(swapped)}
    if piece.is_qoperator and not (x.dtype == "int8" and weights.dtype == "uint8"):
        bias = "" if weights.bias is None else piece.constant(weights.bias)
        parts = [*piece.triple(x), *weights.names(piece), bias, *piece.params(tensor)]
        result = piece.node("QGemm", parts, MICROSOFT, alpha=1.0, **attributes)
        return piece.give(result, (m, n), tensor)
    parts = [piece.dequantize(x), weights.dequantized(piece), *weights.dequantized_bias(piece)]
    real, bounds = activation(piece, piece.node("Gemm", parts, **attributes), tensor)
    finish = weights.finish(x, tensor, bounds)
    matrix = weights.centred().T if transposed else weights.centred()

    def formula(inputs: Sequence[Array]) -> Array:
        rows = centred(inputs[0], x.tensor)
        sums = (rows.T if swapped else rows) @ matrix
        return finish(sums if weights.bias is None else sums + weights.bias)

    if swapped or not _is_fused(x, weights.dtype, tensor, bounds):
        piece.formula = formula
    return piece.quantize(real, (m, n), tensor)


def matmul(piece: Piece, values: Sequence[Value], x: Value) -> bool:
    """MatMul of an activation of 2 to 4 dimensions with constant weights, no bias."""
    if len(x.shape) < 2:
        return False
    k, n = x.shape[-1], int(piece.pick([1, 3, 8, 16, 17, piece.integer(1, 40)]))
    shape = (*x.shape[:-1], n)
    if prod(shape) > MOST_ELEMENTS or prod(shape) * k > MOST_MACS:
        return False
    weights = Weights(piece, x, (k, n), 1)
    weights.bias = None
    tensor = weights.target(piece, x)
    if piece.is_qoperator and not (x.dtype == "int8" and weights.dtype == "uint8"):
        parts = [*piece.triple(x), *weights.names(piece), *piece.params(tensor)]
        return piece.give(piece.node("QLinearMatMul", parts), shape, tensor)
    real = piece.node("MatMul", [piece.dequantize(x), weights.dequantized(piece)])
    real, bounds = activation(piece, real, tensor)
    finish = weights.finish(x, tensor, bounds)
    if not _is_fused(x, weights.dtype, tensor, bounds):
        piece.formula = lambda inputs: finish(centred(inputs[0], x.tensor) @ weights.centred())
    return piece.quantize(real, shape, tensor)


def _right_operands(values: Sequence[Value], left: Shape) -> list[tuple[Value, bool]]:
    """Return what can be multiplied from the right, each with whether to transpose it."""
    options: list[tuple[Value, bool]] = []
    for value in values:
        if len(value.shape) < 2 or value.shape[:-2] not in (left[:-2], ()):
            continue
        options += [(value, False)] if value.shape[-2] == left[-1] else []
        options += [(value, True)] if value.shape[-1] == left[-1] else []
    return options


def product(piece: Piece, values: Sequence[Value], x: Value) -> bool:
    """MatMul of two activations, the right one transposed if that makes it fit."""
    if len(x.shape) < 2:
        return False
    right, transposed = piece.pick(_right_operands(values, x.shape))
    swapped = (*right.shape[:-2], right.shape[-1], right.shape[-2])
    n = swapped[-1] if transposed else right.shape[-1]
    shape = (*x.shape[:-1], n)
    if prod(shape) > MOST_ELEMENTS or prod(shape) * x.shape[-1] > MOST_MACS:
        return False
    real = x.real * right.real * x.shape[-1] ** 0.5
    tensor = piece.target(real, x.dtype, 0.0 if piece.is_qoperator else 0.08)
    order = [*range(len(right.shape) - 2), len(right.shape) - 1, len(right.shape) - 2]
    is_mixed = x.dtype == "int8" and right.dtype == "uint8"
    if piece.is_qoperator and not is_mixed:
        codes = piece.read(right)
        if transposed:
            codes = piece.node("Transpose", [codes], perm=order)
        parts = [*piece.triple(x), codes, *piece.params(right.tensor), *piece.params(tensor)]
        return piece.give(piece.node("QLinearMatMul", parts), shape, tensor)
    left, other = piece.dequantize(x), piece.dequantize(right)
    if transposed:
        other = piece.node("Transpose", [other], perm=order)
        if piece.often(0.7):
            again = piece.node("QuantizeLinear", [other, *piece.params(right.tensor)])
            other = piece.node("DequantizeLinear", [again, *piece.params(right.tensor)])
    real_name, bounds = activation(piece, piece.node("MatMul", [left, other]), tensor)
    scale = np.float32(x.tensor.params.scale) * np.float32(right.tensor.params.scale)
    finish = Finish(np.asarray(scale / tensor.params.scale, np.float32), tensor, *bounds)

    def formula(inputs: Sequence[Array]) -> Array:
        b = centred(inputs[-1], right.tensor)
        return finish(centred(inputs[0], x.tensor) @ (b.swapaxes(-1, -2) if transposed else b))

    if not _is_fused(x, right.dtype, tensor, bounds):
        piece.formula = formula
    return piece.quantize(real_name, shape, tensor)
