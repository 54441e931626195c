"""Source names: which operator and which tensor of the user's model an expression came from.

Each call carries a `Span`: its source name is `operator US tensor` (US is the unit separator)
and its line is the operator's index in the file. Spans survive TVM's own passes, operator fusion
by pattern with bound constants included; names of variables do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import tvm

_SEPARATOR = "\x1f"
# Operators that dress another one, in rising order of what they say about a group.
_DRESSING = (
    "relax.dequantize",
    "relax.quantize",
    "relax.clip",
    "relax.nn.relu",
    "relax.add",
)


@dataclass(frozen=True)
class Source:
    """Where an expression is from.

    Attributes:
        operator: Node name (ONNX), output tensor name (TFLite), node name (torch).
        tensor: Name of the source tensor that the expression's value is, or `""` if the value
            does not exist in the source model (an inner step of a decomposed operator).
        index: Position of the operator in the source graph, from 0.
    """

    operator: str
    tensor: str
    index: int


def inner_source(source: Source | None) -> Source | None:
    """Return a source without its tensor, for a value that the file does not have."""
    return Source(source.operator, "", source.index) if source is not None else None


def make_span(source: Source) -> tvm.ir.Span:
    """Pack a source into a span."""
    import tvm

    text = tvm.ir.SourceName(f"{source.operator}{_SEPARATOR}{source.tensor}")
    return tvm.ir.Span(text, source.index, source.index, 0, 0)


def source_of(expr: Any) -> Source | None:
    """Return the source recorded on a call, tuple item or variable, or None."""
    span = getattr(expr, "span", None)
    if span is None or span.source_name is None:
        return None
    operator, separator, tensor = str(span.source_name.name).partition(_SEPARATOR)
    return Source(operator, tensor, int(span.line)) if separator else None


def source_name(expr: Any) -> str:
    """Return the name of the source operator of a call, variable or (composite) function.

    For a function it is the name of its main operator: the first that does more than dress
    another one, else its addition, relu, clip, quantize or dequantize, in this order.

    Raises:
        KeyError: The expression carries no source.
    """
    source = _main_source(expr)
    if source is None:
        raise KeyError("the expression carries no source name")
    return source.operator


def tensor_name(expr: Any) -> str:
    """Return the name of the source tensor that a value is, `""` if it is none.

    For a function it is the tensor that the function returns.
    """
    if _is_function(expr):
        sources = [source_of(call) for call in _calls(expr)]
        named = [source.tensor for source in sources if source is not None]
        return named[-1] if named else ""
    source = source_of(expr)
    return source.tensor if source is not None else ""


def _main_source(expr: Any) -> Source | None:
    """Return the source of an expression, of the main operator if it is a function."""
    if not _is_function(expr):
        return source_of(expr)
    found = [(call, source_of(call)) for call in _calls(expr)]
    known = [(call, source) for call, source in found if source is not None]
    best: Source | None = None
    best_rank = -1
    for call, source in known:
        name = call.op.name
        rank = _DRESSING.index(name) if name in _DRESSING else len(_DRESSING)
        # A bias comes after its product; the last addition of a group is the sum itself.
        if rank > best_rank or (rank == best_rank and rank < len(_DRESSING)):
            best, best_rank = source, rank
    return best


def _is_function(expr: Any) -> bool:
    """Return whether an expression is a Relax function."""
    return hasattr(expr, "body") and hasattr(expr, "params")


def _calls(function: Any) -> Iterator[Any]:
    """Yield a function's operator calls in order, those of nested functions included."""
    import tvm

    for block in function.body.blocks:
        for binding in block.bindings:
            value = binding.value
            if _is_function(value):
                yield from _calls(value)
            elif isinstance(value, tvm.ir.Call) and isinstance(value.op, tvm.ir.Op):
                yield value
