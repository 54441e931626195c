"""Functions of two tensors and of one in random ONNX graphs.

A step draws its parameters to suit the values it is given: a function of a `Piece` (which collects
its nodes), the values made so far and the one to start from. It returns False where it does not
apply, and is then left out. All it draws comes from the piece's own seed, so that a smaller graph
around it is a legal graph again.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from lepton.arith.onnx_float import quantization
from tests.onnx_builder import Quantized
from tests.onnx_piece import (
    MICROSOFT,
    TYPES,
    Array,
    Piece,
    Shape,
    Value,
    prod,
)
from tests.onnx_products import (
    MOST_ELEMENTS,
    Step,
    activation,
    conv,
    gemm,
    matmul,
    product,
)

# --- functions of two tensors ------------------------------------------------------------------


def _broadcast(a: Shape, b: Shape) -> Shape | None:
    """Return the shape of the result, None if there is none."""
    try:
        shape = np.broadcast_shapes(a, b)
    except ValueError:
        return None
    return shape if len(shape) <= 4 and prod(shape) <= MOST_ELEMENTS else None


def _constant_shape(piece: Piece, shape: Shape) -> Shape:
    """Return a shape that broadcasts to `shape`: whole, one axis, one element, or any."""
    kind = piece.pick(["whole", "axis", "one", "any", "last"])
    if kind == "one":
        return piece.pick([(), (1,) * len(shape)])
    if kind == "axis":
        axis = piece.integer(0, len(shape) - 1)
        return tuple(e if i == axis else 1 for i, e in enumerate(shape))
    if kind == "last":
        return shape[-piece.integer(1, len(shape)) :]
    if kind == "any":
        return tuple(e if piece.often(0.5) else 1 for e in shape)
    return shape


def _real_of(op: str, a: float, b: float) -> float:
    """Return about the deviation of a function's result."""
    made = {"Add": a + b, "Sub": a + b, "Mul": a * b, "Div": a / b}
    return made.get(op, max(a, b))


def binary(piece: Piece, values: Sequence[Value], x: Value, op: str = "Add") -> bool:
    """Function of two activations, of one with itself, or of one with a constant."""
    fitting = [v for v in values if v.name != x.name and _broadcast(x.shape, v.shape)]
    kind = piece.pick(["other", "other", "constant", "same"])
    if kind == "other" and fitting:
        triple_of, other = piece.triple, piece.pick(fitting)
    elif kind == "constant" or not fitting:
        made = piece.target(x.real * 2.0 ** piece.rng.uniform(-2, 2), x.dtype, 0.1)
        raw = made.draw(piece.rng, _constant_shape(piece, x.shape))
        if op == "Div":
            point = made.params.zero_point
            raw = np.where(raw == point, point + (1 if point < made.params.hi else -1), raw)
            raw = raw.astype(made.dtype)
        other = Value("", raw.shape, made)

        def triple_of(value: Value) -> list[str]:
            return (
                piece.constant_triple(raw, value.tensor) if not value.name else piece.triple(value)
            )

    else:
        triple_of, other = piece.triple, x
    pair = [x, other] if piece.often(0.7) else [other, x]
    shape = np.broadcast_shapes(pair[0].shape, pair[1].shape)
    qoperator = {"Add": "QLinearAdd", "Mul": "QLinearMul"}.get(op, "")
    is_native = piece.is_qoperator and qoperator and x.dtype == other.dtype
    real = _real_of(op, pair[0].real, pair[1].real)
    tensor = piece.target(real, x.dtype, 0.0 if is_native else 0.08)
    triples = [triple_of(value) for value in pair]
    if is_native:
        parts = [*triples[0], *triples[1], *piece.params(tensor)]
        return piece.give(piece.node(qoperator, parts, MICROSOFT), shape, tensor)
    operands = [piece.node("DequantizeLinear", triple) for triple in triples]
    name, _ = activation(piece, piece.node(op, operands), tensor)
    return piece.quantize(name, shape, tensor)


# --- functions of one tensor -------------------------------------------------------------------


def _unary_node(piece: Piece, op: str, x: Value, real: str) -> str:
    """Add the node of an element-wise function."""
    one = np.float32
    if op == "Clip":
        low, high = sorted(piece.rng.uniform(-2 * x.real, 2 * x.real, 2))
        return piece.node(op, [real, piece.constant(one(low)), piece.constant(one(high))])
    if op == "LeakyRelu":
        return piece.node(op, [real], alpha=float(piece.rng.uniform(0.0, 0.5)))
    if op == "Elu":
        return piece.node(op, [real], alpha=float(piece.pick([1.0, 0.5])))
    if op == "HardSigmoid":
        return piece.node(op, [real], alpha=float(piece.pick([0.2, 1 / 6])), beta=0.5)
    if op == "Gelu":
        return piece.node(op, [real], approximate=piece.pick(["none", "tanh"]))
    if op == "Silu":
        return piece.node("Mul", [real, piece.node("Sigmoid", [real])])
    if op == "PRelu":
        return piece.node(op, [real, piece.constant(_per_channel(piece, x.shape))])
    if op == "Affine":
        factor, offset = _per_channel(piece, x.shape), _per_channel(piece, x.shape) * x.real
        scaled = piece.node("Mul", [real, piece.constant(factor)])
        return piece.node("Add", [scaled, piece.constant(offset.astype(np.float32))])
    return piece.node(op, [real])


def _per_channel(piece: Piece, shape: Shape) -> Array:
    """Return factors, one per channel of axis 1 or one for all."""
    channels = shape[1] if len(shape) > 1 and piece.often(0.7) else 1
    factors = piece.rng.uniform(-1, 1, channels).astype(np.float32)
    return factors.reshape(channels, *(1,) * max(len(shape) - 2, 0))


_BOUNDED = {"Sigmoid": 0.4, "HardSigmoid": 0.4, "Tanh": 0.8, "Erf": 0.8}
UNARY = ("Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid")
UNARY += ("Gelu", "Exp", "Elu", "Erf", "Softplus", "Sqrt", "Silu", "Affine", "Neg", "Abs", "Log")
UNARY += ("Reciprocal", "Floor", "Ceil", "Round")


def _real_of_unary(op: str, real: float) -> float:
    """Return about the deviation of a function's result."""
    if op in _BOUNDED:
        return _BOUNDED[op]
    if op == "Exp":
        return float(np.exp(min(real, 20.0)))
    made = {"Sqrt": real**0.5, "Log": 1.0 + abs(float(np.log(real))), "Reciprocal": 4 / real}
    return made.get(op, real)


def unary(piece: Piece, values: Sequence[Value], x: Value, op: str = "Relu") -> bool:
    """Element-wise function of one tensor."""
    native = {"Sigmoid": "QLinearSigmoid", "LeakyRelu": "QLinearLeakyRelu"}.get(op, "")
    is_native = bool(native) and piece.is_qoperator
    tensor = piece.target(_real_of_unary(op, x.real), x.dtype, 0.0 if is_native else 0.1)
    if is_native:
        attributes = {"alpha": float(piece.rng.uniform(0, 0.5))} if op == "LeakyRelu" else {}
        parts = [*piece.triple(x), *piece.params(tensor)]
        return piece.give(piece.node(native, parts, MICROSOFT, **attributes), x.shape, tensor)
    if op in ("Relu", "Clip") and piece.often(0.3):
        tensor = x.tensor
    real = _unary_node(piece, op, x, piece.dequantize(x))
    return piece.quantize(real, x.shape, tensor)


def requantize(piece: Piece, values: Sequence[Value], x: Value) -> bool:
    """Change of type, scale and zero point."""
    return piece.quantize(piece.dequantize(x), x.shape, piece.target(x.real, x.dtype, 0.6))


def softmax(piece: Piece, values: Sequence[Value], x: Value) -> bool:
    """Softmax over any axis; its result's scale is near 1/256 or such that it never saturates."""
    axis = piece.integer(-len(x.shape), len(x.shape) - 1)
    if x.shape[axis] < 2:
        return False
    scale = float(piece.pick([1 / 256, 1 / 255, 0.01, piece.rng.uniform(0.004, 0.02)]))
    low = int(np.iinfo(x.dtype).min)
    tensor = Quantized(x.dtype, quantization(scale, piece.pick([low, low, low + 7]), x.dtype))
    if not piece.is_qoperator and piece.often(0.07):
        piece.on_host = "nn.softmax"  # between different types the golden computes it in float
        other = TYPES[1 - TYPES.index(x.dtype)]
        tensor = Quantized(other, quantization(scale, int(np.iinfo(other).min), other))
    if piece.is_qoperator:
        parts = [*piece.triple(x), *piece.params(tensor)]
        made = piece.node("QLinearSoftmax", parts, MICROSOFT, axis=axis, opset=13)
        return piece.give(made, x.shape, tensor)
    return piece.quantize(piece.node("Softmax", [piece.dequantize(x)], axis=axis), x.shape, tensor)


STEPS: dict[str, tuple[float, Step]] = {
    "Conv": (8.0, conv),
    "Gemm": (2.0, gemm),
    "MatMul": (2.0, matmul),
    "MatMul2": (2.0, product),
    "Requantize": (1.0, requantize),
    "Softmax": (1.5, softmax),
    **{
        op: (weight, functools.partial(binary, op=op))
        for op, weight in (
            ("Add", 3.0), ("Mul", 2.0), ("Sub", 1.0), ("Div", 1.0), ("Max", 0.7), ("Min", 0.7)
        )
    },
    **{op: (0.35, functools.partial(unary, op=op)) for op in UNARY},
}  # fmt: skip
"""Kind -> how often it is drawn, and the step."""
