"""Parts of tensors and of nodes: what a core computes of a node, and what it needs for that."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from lepton.compiler import graph as ir

__all__ = ["AXES", "Part", "axes_of", "cut", "needs", "part_of", "split_evenly"]

Span = tuple[int, int]
AXES = (0, 1, 3)
"""Dimensions that a tensor may be split along: images, rows, channels."""


class Part(NamedTuple):
    """A box of a tensor over the whole width: images, rows and channels [start, stop)."""

    n: Span
    y: Span
    c: Span

    def along(self, axis: int) -> Span:
        return (self.n, self.y, self.n, self.c)[axis]

    def with_span(self, axis: int, span: Span) -> Part:
        """Return the part with another span along one of `AXES`."""
        return self._replace(**{"nyxc"[axis]: span})

    def within(self, other: Part) -> bool:
        return all(b[0] <= a[0] and a[1] <= b[1] for a, b in zip(self, other, strict=True))

    def met(self, other: Part) -> Part | None:
        """Return what two parts have in common, or None."""
        spans = [(max(a[0], b[0]), min(a[1], b[1])) for a, b in zip(self, other, strict=True)]
        return None if any(a >= b for a, b in spans) else Part(*spans)

    def shape(self, width: int) -> ir.Shape4:
        return self.n[1] - self.n[0], self.y[1] - self.y[0], width, self.c[1] - self.c[0]


def part_of(tensor: ir.Tensor) -> Part:
    """Return a tensor as a part of itself."""
    n, h, _, c = tensor.shape
    return Part((0, n), (0, h), (0, c))


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
    """Return the dimensions of its output along which a node can be split."""
    if isinstance(node, ir.Convolution):
        ic = node.inputs[0].shape[3]
        depthwise = node.groups == ic and node.output.shape[3] == ic
        return AXES if node.groups == 1 or depthwise else (0, 1)
    if isinstance(node, ir.Pool | ir.Binary | ir.Lut):
        return AXES
    if isinstance(node, ir.Softmax):
        return 0, 1
    if isinstance(node, ir.Resize):
        return 0, 3
    if isinstance(node, ir.Reduce):
        return (0, 3) if node.over == "hw" else (0, 1)
    if isinstance(node, ir.Concat):
        return tuple(axis for axis in AXES if axis != node.axis)
    if isinstance(node, ir.Slice | ir.Pad):
        shapes = node.inputs[0].shape, node.output.shape
        return tuple(axis for axis in AXES if shapes[0][axis] == shapes[1][axis])
    return (0,) if _keeps_images(node) else ()


def _keeps_images(node: ir.Node) -> bool:
    """Return whether image i of the output comes from image i of every input."""
    if isinstance(node, ir.Transpose) and node.order[0] != 0:
        return False
    images = node.output.shape[0]
    return all(tensor.shape[0] == images for tensor in node.inputs)


def _rows(window: ir.Window, span: Span, height: int) -> tuple[Span, Span]:
    """Return the input rows behind output rows, and the padding above and below them."""
    kernel, stride, dilation = window.kernel[0], window.stride[0], window.dilation[0]
    first = span[0] * stride - window.padding[0]
    last = (span[1] - 1) * stride - window.padding[0] + (kernel - 1) * dilation + 1
    inside = max(first, 0), min(last, height)
    return inside, (inside[0] - first, last - inside[1])


def needs(node: ir.Node, part: Part) -> list[Part]:
    """Return the parts of its inputs that a part of a node's output needs."""
    wholes = [part_of(tensor) for tensor in node.inputs]
    if isinstance(node, ir.Convolution | ir.Pool):
        inside, _ = _rows(node.window, part.y, node.inputs[0].shape[1])
        dense = isinstance(node, ir.Convolution) and not _is_depthwise(node)
        return [Part(part.n, inside, wholes[0].c if dense else part.c)]
    if isinstance(node, ir.Resize):
        return [wholes[0]._replace(n=part.n, c=part.c)]
    if isinstance(node, ir.Reduce):
        kept = {"c": part.c} if node.over == "hw" else {"y": part.y}
        return [wholes[0]._replace(n=part.n, **kept)]
    full = part_of(node.output)
    found: list[Part] = []
    for whole in wholes:
        spans = [
            cover if mine == all_of or cover == (0, 1) else mine
            for cover, mine, all_of in zip(whole, part, full, strict=True)
        ]
        found.append(Part(*spans))
    return found


def _is_depthwise(node: ir.Convolution) -> bool:
    return node.groups > 1 and node.groups == node.inputs[0].shape[3]


def cut(node: ir.Node, part: Part, inputs: tuple[ir.Tensor, ...], output: ir.Tensor) -> ir.Node:
    """Return the node that computes a part of another's output from the parts that it needs."""
    share = math.prod(output.shape) / math.prod(node.output.shape)
    made = replace(node, inputs=inputs, output=output, macs=round(node.macs * share))
    columns = slice(*part.c)
    if isinstance(made, ir.Convolution | ir.Pool):
        _, (top, bottom) = _rows(made.window, part.y, node.inputs[0].shape[1])
        _, left, _, right = made.window.padding
        made = replace(made, window=replace(made.window, padding=(top, left, bottom, right)))
    if isinstance(made, ir.Convolution):
        assert isinstance(node, ir.Convolution)
        groups = inputs[0].shape[3] if _is_depthwise(node) else made.groups
        return replace(
            made,
            groups=groups,
            weights=made.weights[:, :, :, columns],
            table=made.table.part(*part.c),
        )
    if isinstance(made, ir.Reduce) and made.over == "hw":
        return replace(made, table=made.table.part(*part.c))
    if isinstance(made, ir.Lut) and made.tables.ndim == 2:
        return replace(made, tables=made.tables[columns])
    return made
