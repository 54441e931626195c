"""Concatenations and splits that move nothing: the parts lie in the whole."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from lepton.compiler.graph import Concat, Graph, Reshape, Slice, Tensor

__all__ = ["View", "packed_view", "views_of"]


class View(NamedTuple):
    """Where a tensor lies in the one that holds its bytes."""

    of: str
    """The tensor that it is part of, its own name if it is part of none."""
    offset: int
    """Its first byte."""
    image: int
    """Bytes from image to image, and so on; channels lie side by side."""
    row: int
    pixel: int


def packed_view(tensor: Tensor) -> View:
    """Return where a tensor lies that is part of no other."""
    _, h, w, c = tensor.shape
    return View(tensor.name, 0, h * w * c, w * c, c)


def views_of(graph: Graph) -> dict[str, View]:
    """Return the tensors that lie in another one, so that nothing is copied, by name.

    Not one whose bytes must lie side by side (on the region's edge, reshaped), nor one that is cut
    or joined along its columns, because rows of a tile are taken to lie at one distance.
    """
    fixed = _fixed(graph)
    views = _joins(graph, fixed)
    for node in graph.nodes:
        tensor, name = node.inputs[0], node.output.name
        if not isinstance(node, Slice) or not _is_span(node) or tensor.constant is not None:
            continue
        if name not in fixed and name not in views:
            views[name] = _slice_view(node, views.get(tensor.name, packed_view(tensor)))
    return views


def _is_span(node: Slice) -> bool:
    """Return whether what is cut out is whole rows of elements that follow each other."""
    return set(node.step) == {1} and node.output.shape[2] == node.inputs[0].shape[2]


def _slice_view(node: Slice, whole: View) -> View:
    """Return where a slice lies; before: y = x[:, 2:4]     after: y is part of x."""
    strides = (whole.image, whole.row, whole.pixel, 1)
    first = sum(begin * stride for begin, stride in zip(node.begin, strides, strict=True))
    return whole._replace(of=node.inputs[0].name, offset=whole.offset + first)


def _joins(graph: Graph, fixed: set[str]) -> dict[str, View]:
    """Return the operands of concatenations that are made in place, by name.

    before: a = conv(x); b = conv(y); z = concat(a, b)     after: a, b are parts of z; z is free
    Not an operand that is rescaled, a constant or there twice.
    """
    views: dict[str, View] = {}
    # the last first: a result that is itself joined knows where
    for node in reversed(graph.nodes):
        if not isinstance(node, Concat) or node.axis == 2:
            continue
        whole = views.get(node.output.name, packed_view(node.output))
        stride = (whole.image, whole.row, whole.pixel, 1)[node.axis]
        times = Counter(tensor.name for tensor in node.inputs)
        place = whole.offset
        for tensor, table in zip(node.inputs, node.tables, strict=True):
            is_free = table is None and tensor.constant is None and times[tensor.name] == 1
            if is_free and tensor.name not in fixed and tensor.name not in views:
                views[tensor.name] = whole._replace(of=node.output.name, offset=place)
            place += tensor.shape[node.axis] * stride
    return views


def _fixed(graph: Graph) -> set[str]:
    """Return the tensors whose bytes must lie side by side or where they are."""
    edges = (*graph.inputs, *graph.outputs)
    reshaped = (
        tensor
        for node in graph.nodes
        if isinstance(node, Reshape)
        for tensor in (*node.inputs, node.output)
    )
    return {tensor.name for tensor in (*edges, *reshaped)}
