"""Parts of tensors and of nodes: what a core computes of a node, and what it needs for that."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from lepton.compiler import graph as ir

__all__ = ["AXES", "Part", "axes_of", "cut", "is_stretch", "needs", "part_of", "split_evenly"]

Span = tuple[int, int]
AXES = (0, 1, 2, 3)
"""Dimensions of a tensor: images, rows, columns, channels."""


class Part(NamedTuple):
    """A box of a tensor: images, rows, columns and channels [start, stop)."""

    n: Span
    y: Span
    x: Span
    c: Span

    def with_span(self, axis: int, span: Span) -> Part:
        """Return the part with another span along a dimension."""
        return Part(*(span if at == axis else mine for at, mine in enumerate(self)))

    def met(self, other: Part) -> Part | None:
        """Return what two parts have in common, or None."""
        spans = [(max(a[0], b[0]), min(a[1], b[1])) for a, b in zip(self, other, strict=True)]
        return None if any(start >= stop for start, stop in spans) else Part(*spans)

    @property
    def shape(self) -> ir.Shape4:
        n, h, w, c = (stop - start for start, stop in self)
        return n, h, w, c

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def text(self) -> str:
        return ".".join(f"{start}-{stop}" for start, stop in self)


def _whole(shape: ir.Shape4) -> Part:
    n, h, w, c = ((0, extent) for extent in shape)
    return Part(n, h, w, c)


def part_of(tensor: ir.Tensor) -> Part:
    """Return a tensor as a part of itself."""
    return _whole(tensor.shape)


def is_stretch(shape: ir.Shape4, part: Part) -> bool:
    """Return whether a part of a row-major tensor lies in one piece."""
    inner = [span == (0, extent) for span, extent in zip(part, shape, strict=True)]
    single = [stop - start == 1 for start, stop in part]
    return any(all(single[:axis]) and all(inner[axis + 1 :]) for axis in AXES)


def split_evenly(extent: int, count: int, step: int = 1) -> list[Span] | None:
    """Return `count` spans that cover an extent, at multiples of `step` if there are enough."""
    if extent < count:
        return None
    if extent < count * step:
        step = 1
    units = -(-extent // step)
    edges = [min(units * k // count * step, extent) for k in range(count)] + [extent]
    return [(edges[k], edges[k + 1]) for k in range(count)]


def axes_of(node: ir.Node) -> tuple[int, ...]:
    """Return the dimensions of its output along which a node may be split."""
    if isinstance(node, ir.Convolution):
        is_even = node.groups == 1 or (_is_depthwise(node) and _multiplier(node) == 1)
        return AXES if is_even else (0, 1, 2)
    if isinstance(node, ir.Product | ir.Softmax):
        return 0, 1, 2
    if isinstance(node, ir.Resize):
        return 0, 3
    if isinstance(node, ir.Reduce):
        return (0, 3) if node.over == "hw" else (0, 1, 2)
    if isinstance(node, ir.Concat):
        return tuple(axis for axis in AXES if axis != node.axis)
    if isinstance(node, ir.Slice | ir.Pad):
        shapes = node.inputs[0].shape, node.output.shape
        return tuple(axis for axis in AXES if shapes[0][axis] == shapes[1][axis])
    return AXES


def _is_depthwise(node: ir.Convolution) -> bool:
    return node.groups > 1 and node.groups == node.inputs[0].shape[3]


def _multiplier(node: ir.Convolution) -> int:
    return node.output.shape[3] // node.inputs[0].shape[3]


def _slid(window: ir.Window, dim: int, span: Span, extent: int) -> tuple[Span, Span]:
    """Return the input rows (0) or columns (1) behind those of an output, and their padding."""
    kernel, stride = window.kernel[dim], window.stride[dim]
    first = span[0] * stride - window.padding[dim]
    last = first + (span[1] - 1 - span[0]) * stride + (kernel - 1) * window.dilation[dim] + 1
    inside = max(first, 0), min(last, extent)
    return inside, (inside[0] - first, last - inside[1])


def needs(node: ir.Node, part: Part) -> list[Part] | None:
    """Return the parts of its inputs that a part of a node's output needs.

    None where they would be no boxes, or empty ones.
    """
    found = _needs(node, part)
    if found is None or any(start >= stop for need in found for start, stop in need):
        return None
    return found


def _needs(node: ir.Node, part: Part) -> list[Part] | None:
    first = part_of(node.inputs[0])
    if isinstance(node, ir.Convolution | ir.Pool):
        _, h, w, _ = node.inputs[0].shape
        rows, columns = _slid(node.window, 0, part.y, h)[0], _slid(node.window, 1, part.x, w)[0]
        is_dense = isinstance(node, ir.Convolution) and not _is_depthwise(node)
        same = not is_dense and first.c == part_of(node.output).c
        return [Part(part.n, rows, columns, part.c if same else first.c)]
    if isinstance(node, ir.Resize):
        return [first._replace(n=part.n, c=part.c)]
    if isinstance(node, ir.Reduce):
        is_image = node.over == "hw"
        return [first._replace(n=part.n, c=part.c) if is_image else part._replace(c=first.c)]
    if isinstance(node, ir.Product):
        right = part_of(node.inputs[1])
        is_even = (right.n, right.y) == (first.n, first.y)
        return [part._replace(c=first.c), right._replace(n=part.n, y=part.y)] if is_even else None
    if isinstance(node, ir.Transpose):
        spans = {node.order[axis]: span for axis, span in enumerate(part)}
        return [Part(spans[0], spans[1], spans[2], spans[3])]
    if isinstance(node, ir.Reshape):
        found = _reshaped(node.output.shape, part, node.inputs[0].shape)
        return None if found is None else [found]
    return [_covered(tensor, part, node.output) for tensor in node.inputs]


def _covered(tensor: ir.Tensor, part: Part, output: ir.Tensor) -> Part:
    """Return an operand's part: all of a dimension that is not split or that is repeated."""
    whole = part_of(tensor)
    spans = [
        cover if mine == every or cover == (0, 1) else mine
        for cover, mine, every in zip(whole, part, part_of(output), strict=True)
    ]
    return Part(*spans)


def _reshaped(shape: ir.Shape4, part: Part, source: ir.Shape4) -> Part | None:
    """Return the box of the same bytes under another shape, if it is one."""
    if part == _whole(shape):
        return _whole(source)
    if not is_stretch(shape, part):
        return None
    strides = [math.prod(shape[axis + 1 :]) for axis in AXES]
    begin = sum(span[0] * stride for span, stride in zip(part, strides, strict=True))
    end = begin + part.size
    for axis in AXES:
        inner = math.prod(source[axis + 1 :])
        leading = math.prod(source[:axis])
        if leading == 1 and begin % inner == 0 and end % inner == 0:
            return _whole(source).with_span(axis, (begin // inner, end // inner))
    return None


def cut(node: ir.Node, part: Part, inputs: tuple[ir.Tensor, ...], output: ir.Tensor) -> ir.Node:
    """Return the node that computes a part of another's output from the parts that it needs."""
    macs = round(node.macs * part.size / math.prod(node.output.shape))
    made = replace(node, inputs=inputs, output=output, macs=macs)
    if isinstance(made, ir.Convolution | ir.Pool):
        _, h, w, _ = node.inputs[0].shape
        _, (top, bottom) = _slid(made.window, 0, part.y, h)
        _, (left, right) = _slid(made.window, 1, part.x, w)
        made = replace(made, window=replace(made.window, padding=(top, left, bottom, right)))
    columns = slice(*part.c)
    if isinstance(made, ir.Convolution):
        weights, table = made.weights[:, :, :, columns], made.table.part(*part.c)
        groups = made.groups * inputs[0].shape[3] // node.inputs[0].shape[3]
        return replace(made, groups=max(groups, 1), weights=weights, table=table)
    if isinstance(made, ir.Reduce) and made.over == "hw":
        return replace(made, table=made.table.part(*part.c))
    if isinstance(made, ir.Lut) and made.tables.ndim == 2:
        return replace(made, tables=made.tables[columns])
    return made
