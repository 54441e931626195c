"""Patterns of canonical Relax that an NPU operator has, most specific first.

An operand is `R.dequantize(x, scale, zero_point)`; a result is `R.quantize(...)`, with the real
activation before it and, as TFLite does, a clip of the quantized value behind it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from typing import Any

from tvm.relax.dpl import is_const, is_op, is_tuple, wildcard

__all__ = ["NAME_PREFIX", "NUMBER", "patterns"]

NAME_PREFIX = "lepton."
NUMBER = "lepton.match"
"""Attribute of a composite function: the number of the match that it came from."""
_MOST_INPUTS = 16
_HEARTS = {"squared_difference": "power", "requantize": "quantize"}
"""Operator without which a pattern of another name cannot match."""
_BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum")
_UNARY_WINDOWS = ("nn.avg_pool2d", "nn.max_pool2d", "nn.softmax", "image.resize2d")
_REDUCTIONS = ("mean", "sum", "max", "min")
_MOVES = (
    "reshape",
    "permute_dims",
    "strided_slice",
    "nn.pad",
    "nn.max_pool2d",
    "image.resize2d",
    "max",
    "min",
    "maximum",
    "minimum",
)


def _dequantize(operand: Any) -> Any:
    return is_op("relax.dequantize")(operand, is_const(), is_const())


def _quantize(value: Any) -> Any:
    return is_op("relax.quantize")(value, is_const(), is_const())


def _finishes(value: Callable[[], Any]) -> Iterator[Any]:
    """Yield a result with every combination of real activation and clip, longest first."""
    for clipped in (True, False):
        for activation in ("relu", "clip", None):
            inner = value()
            if activation == "relu":
                inner = is_op("relax.nn.relu")(inner)
            elif activation == "clip":
                inner = is_op("relax.clip")(inner, wildcard(), wildcard())
            result = _quantize(inner)
            yield is_op("relax.clip")(result, wildcard(), wildcard()) if clipped else result


def _arity(operator: str) -> int:
    """Return how many arguments a data-movement operator takes after its data."""
    return {"reshape": 1, "strided_slice": 4, "nn.pad": 0, "image.resize2d": 1}.get(operator, 0)


def _weighted(operator: str, bias: bool) -> Callable[[], Any]:
    """Return a maker of a convolution or a product with constant weights."""

    def make() -> Any:
        value = is_op(f"relax.{operator}")(_dequantize(wildcard()), _dequantize(is_const()))
        return is_op("relax.add")(value, _dequantize(is_const())) if bias else value

    return make


def _products() -> Iterator[tuple[str, Any]]:
    """Yield convolutions, products with constants, and products of two activations."""
    for operator in ("nn.conv2d", "matmul"):
        for bias in (True, False):
            for pattern in _finishes(_weighted(operator, bias)):
                yield operator, pattern

    def both() -> Any:
        return is_op("relax.matmul")(_dequantize(wildcard()), _dequantize(wildcard()))

    for pattern in _finishes(both):
        yield "matmul", pattern


def _elementwise() -> Iterator[tuple[str, Any]]:
    """Yield functions of two operands."""
    for operator in _BINARY:

        def make(operator: str = operator) -> Any:
            name = f"relax.{operator}"
            return is_op(name)(_dequantize(wildcard()), _dequantize(wildcard()))

        for pattern in _finishes(make):
            yield operator, pattern


def _squared_differences() -> Iterator[tuple[str, Any]]:
    """Yield squares of a difference."""

    def make() -> Any:
        difference = is_op("relax.subtract")(_dequantize(wildcard()), _dequantize(wildcard()))
        return is_op("relax.power")(difference, is_const())

    for pattern in _finishes(make):
        yield "squared_difference", pattern


def _windows() -> Iterator[tuple[str, Any]]:
    """Yield pooling, softmax, resizing and reductions."""
    for operator in (*_UNARY_WINDOWS, *_REDUCTIONS):

        def make(operator: str = operator) -> Any:
            extra = [wildcard()] if operator == "image.resize2d" else []
            return is_op(f"relax.{operator}")(_dequantize(wildcard()), *extra)

        for pattern in _finishes(make):
            yield operator, pattern


def _concatenations() -> Iterator[tuple[str, Any]]:
    """Yield concatenations of operands with different parameters, and of equal ones."""
    for count in range(2, _MOST_INPUTS + 1):
        parts = [_dequantize(wildcard()) for _ in range(count)]
        yield "concat", _quantize(is_op("relax.concat")(is_tuple(parts)))
    for count in range(2, _MOST_INPUTS + 1):
        yield "concat", is_op("relax.concat")(is_tuple([wildcard() for _ in range(count)]))


def _moves() -> Iterator[tuple[str, Any]]:
    """Yield what moves, or picks from, quantized values directly, and tables."""
    pooled = is_op("relax.nn.max_pool2d")(wildcard())
    yield "nn.max_pool2d", is_op("relax.clip")(pooled, wildcard(), wildcard())
    for operator in _MOVES:
        if operator in ("maximum", "minimum"):
            yield operator, is_op(f"relax.{operator}")(wildcard(), wildcard())
            continue
        extra = [wildcard() for _ in range(_arity(operator))]
        yield operator, is_op(f"relax.{operator}")(wildcard(), *extra)
    codes = is_op("relax.add")(is_op("relax.astype")(wildcard()), is_const())
    yield "take", is_op("relax.take")(is_const(), codes)
    yield "requantize", _quantize(_dequantize(wildcard()))


def patterns(
    check: Callable[[Any], bool], present: Collection[str]
) -> list[tuple[str, Any, dict[str, Any], Any, Any]]:
    """Return the entries that `FuseOpsByPattern` takes.

    Each match gets a number as an attribute: TVM looks functions up by a hash without constants,
    and would compare those of alike layers with each other.

    Args:
        check: accepts or refuses each match.
        present: Relax operators of the module, without `relax.`; patterns of others cannot match,
            and TVM goes through the whole module for each.
    """
    numbers = itertools.count()

    def number(_: object) -> dict[str, str]:
        return {NUMBER: str(next(numbers))}

    sources = (_products, _elementwise, _squared_differences, _windows, _concatenations, _moves)
    return [
        (f"{NAME_PREFIX}{name}", pattern, {"root": pattern}, check, number)
        for source in sources
        for name, pattern in source()
        if _HEARTS.get(name, name) in present
    ]
