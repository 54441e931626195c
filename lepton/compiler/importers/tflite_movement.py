"""TFLite's data movement as slices, concatenations, reshapes and transposes of rank 4 at most.

TVM's forms of these either have no NPU instruction (split, tile) or pass through rank 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tvm import relax

from lepton.compiler.importers.rewriting import shape_of
from lepton.errors import ImportFailure

if TYPE_CHECKING:
    from lepton.compiler.importers.tflite_converters import TfliteConverter

__all__ = ["MOVEMENT"]

# TVM's annotations promise less than its functions take (numbers, plain shapes).
op: Any = relax.op

_MOST_PARTS = 16


def _numbers(converter: TfliteConverter, operator: Any, position: int) -> list[int]:
    """Return a constant integer operand."""
    value = converter.raw(int(operator.Inputs(position)))
    if not hasattr(value, "value"):
        raise ImportFailure("its shape parameters must be constants")
    return [int(number) for number in value.value.numpy().reshape(-1)]


def _data(converter: TfliteConverter, operator: Any, position: int = 0) -> tuple[Any, list[int]]:
    """Return a data operand and its shape."""
    value = converter.raw(int(operator.Inputs(position)))
    return value, list(shape_of(value) or ())


def _options(operator: Any, name: str) -> Any:
    """Return an operator's option table."""
    import importlib

    options = getattr(importlib.import_module(f"tflite.{name}"), name)()
    table = operator.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return options


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise ImportFailure(f"its axis {axis} lies outside of its {rank} dimensions")
    return axis % rank


def _cut(value: Any, begin: Sequence[int], end: Sequence[int]) -> Any:
    """Return a slice of every dimension."""
    axes = list(range(len(begin)))
    return op.strided_slice(value, axes, list(begin), list(end), [1] * len(axes))


def _slice(converter: TfliteConverter, operator: Any) -> Any:
    """SLICE; a size of -1 reaches to the end."""
    value, shape = _data(converter, operator)
    begin, size = (_numbers(converter, operator, position) for position in (1, 2))
    end = [
        extent if count == -1 else start + count
        for extent, start, count in zip(shape, begin, size, strict=True)
    ]
    return _cut(value, begin, end)


def _parts(value: Any, shape: list[int], axis: int, sizes: Sequence[int]) -> Any:
    """Return consecutive parts along an axis."""
    if sum(sizes) != shape[axis]:
        raise ImportFailure(f"its parts do not add up to the extent {shape[axis]} of its axis")
    made: list[Any] = []
    start = 0
    for size in sizes:
        begin, end = [0] * len(shape), list(shape)
        begin[axis], end[axis] = start, start + size
        made.append(_cut(value, begin, end))
        start += size
    return relax.Tuple(made)


def _split(converter: TfliteConverter, operator: Any) -> Any:
    """SPLIT into equal parts; the axis comes first."""
    value, shape = _data(converter, operator, 1)
    axis = _axis(_numbers(converter, operator, 0)[0], len(shape))
    count = int(_options(operator, "SplitOptions").NumSplits())
    return _parts(value, shape, axis, [shape[axis] // max(count, 1)] * count)


def _split_v(converter: TfliteConverter, operator: Any) -> Any:
    """SPLIT_V into parts of given sizes, one of which may be -1: the rest."""
    value, shape = _data(converter, operator)
    sizes = _numbers(converter, operator, 1)
    axis = _axis(_numbers(converter, operator, 2)[0], len(shape))
    rest = shape[axis] - sum(size for size in sizes if size != -1)
    return _parts(value, shape, axis, [rest if size == -1 else size for size in sizes])


def _tile(converter: TfliteConverter, operator: Any) -> Any:
    """TILE as concatenations of a tensor with itself, axis by axis."""
    value, shape = _data(converter, operator)
    counts = _numbers(converter, operator, 1)
    if len(counts) != len(shape):
        raise ImportFailure(f"it repeats {len(counts)} of {len(shape)} dimensions")
    if max(counts, default=1) > _MOST_PARTS or min(counts, default=1) < 1:
        return op.tile(value, counts)
    for axis, count in reversed(list(enumerate(counts))):
        if count > 1:
            value = converter.bb.emit(op.concat([value] * count, axis))
    return value


def _reverse(converter: TfliteConverter, operator: Any) -> Any:
    """REVERSE_V2 along one axis or several."""
    value, shape = _data(converter, operator)
    for axis in _numbers(converter, operator, 1):
        value = converter.bb.emit(op.flip(value, _axis(axis, len(shape))))
    return value


def _pack(converter: TfliteConverter, operator: Any) -> Any:
    """PACK as a concatenation along a new axis."""
    values = [_data(converter, operator, item) for item in range(operator.InputsLength())]
    shape = values[0][1]
    axis = _axis(int(_options(operator, "PackOptions").Axis()), len(shape) + 1)
    widened = [*shape[:axis], 1, *shape[axis:]]
    parts = [converter.bb.emit(op.reshape(value, widened)) for value, _ in values]
    return parts[0] if len(parts) == 1 else op.concat(parts, axis)


def _depth_to_space(converter: TfliteConverter, operator: Any) -> Any:
    """DEPTH_TO_SPACE: [n h, w, b, b c] -> [n h, b, w, b c]."""
    value, (n, h, w, c) = _data(converter, operator)
    block = int(_options(operator, "DepthToSpaceOptions").BlockSize())
    depth = c // block
    value = converter.bb.emit(op.reshape(value, (n * h, w, block, depth)))
    value = converter.bb.emit(op.permute_dims(value, [0, 2, 1, 3]))
    return op.reshape(value, (n, h * block, w * block, depth // block))


def _space_to_depth(converter: TfliteConverter, operator: Any) -> Any:
    """SPACE_TO_DEPTH: [n h / b, b, w / b, b c] -> [n h / b, w / b, b, b c]."""
    value, (n, h, w, c) = _data(converter, operator)
    block = int(_options(operator, "SpaceToDepthOptions").BlockSize())
    rows, columns = h // block, w // block
    value = converter.bb.emit(op.reshape(value, (n * rows, block, columns, block * c)))
    value = converter.bb.emit(op.permute_dims(value, [0, 2, 1, 3]))
    return op.reshape(value, (n, rows, columns, block * block * c))


MOVEMENT: dict[str, Callable[[TfliteConverter, Any], Any]] = {
    "DEPTH_TO_SPACE": _depth_to_space,
    "PACK": _pack,
    "REVERSE_V2": _reverse,
    "SLICE": _slice,
    "SPACE_TO_DEPTH": _space_to_depth,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "TILE": _tile,
}
"""Converters by TFLite operator."""
