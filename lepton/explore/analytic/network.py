"""A network as a table of different layers, and what of it stays in a scratchpad of a size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.compiler import graph as ir
from lepton.compiler.allocate import place_lifetimes
from lepton.compiler.lifetimes import (
    bytes_crossing,
    is_free,
    lifetimes_of,
    root_of,
    storage_of,
    with_replaced,
)
from lepton.compiler.steps import FrontModel, NpuStep
from lepton.compiler.views import View, views_of
from lepton.isa.footprints import REQUANTIZE_BYTES

__all__ = ["LAYER", "CROSSINGS", "Kind", "Layer", "Network", "Residency", "WORKING_SHARES"]

I64 = NDArray[np.int64]

WORKING_SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the scratchpad, for tiles: those that the compiler tries."""
_SMALL_TILES = 0.1
"""By which traffic is weighted for small tiles, over the share; as the compiler ranks divisions."""


class Kind(IntEnum):
    """How a layer is evaluated."""

    DENSE = 0
    DEPTHWISE = 1
    PRODUCT = 2
    VECTOR = 3


class Layer(NamedTuple):
    """A layer's row; sizes of tensors are bytes, of which an element has one."""

    kind: int
    images: int
    height: int
    """Of the output, as `width` and `columns`, its channels in a group."""
    width: int
    columns: int
    channels: int
    """Of the input in a group."""
    groups: int
    kernel_height: int
    kernel_width: int
    stride: int
    """Of columns."""
    dilation: int
    row_bytes: int
    """Of a row of the input."""
    ifm: int
    second: int
    """The other operand: an activation, or a constant if `is_constant`."""
    ofm: int
    weights: int
    parameters: int
    """Bytes per output channel."""
    steps: int
    """Lane operations per output element."""
    is_constant: int


LAYER = {name: number for number, name in enumerate(Layer._fields)}
"""Columns of a row."""

CROSSINGS = 8
"""Which of input (1), other operand (2) and output (4) cross the edge of the scratchpad."""


class Residency(NamedTuple):
    """What a scratchpad of one size holds."""

    tile_share: float
    """Of the scratchpad, for tiles."""
    counts: I64
    """`[layers, CROSSINGS]` how often each layer occurs with which tensors crossing."""


class _Occurrence(NamedTuple):
    layer: int
    node: ir.Node


class Network:
    """The NPU's part of a model.

    Attributes:
        rows: `[layers, len(LAYER)]` of the layers that differ.
        members: the convolutions behind each row.
        occurrences: how often each row occurs.
    """

    def __init__(self, front: FrontModel) -> None:
        """Take a model apart."""
        self.name = front.name
        self._graphs = [step.graph for step in front.steps if isinstance(step, NpuStep)]
        known: dict[tuple[Layer, ...], int] = {}
        self.members: list[list[ir.Convolution]] = []
        self._found: list[list[_Occurrence | None]] = []
        for graph in self._graphs:
            row: list[_Occurrence | None] = []
            for node in graph.nodes:
                layer = _layer(node)
                if layer is None:
                    row.append(None)
                    continue
                number = known.setdefault((layer,), len(known))
                if number == len(self.members):
                    self.members.append([])
                if isinstance(node, ir.Convolution):
                    self.members[number].append(node)
                row.append(_Occurrence(number, node))
            self._found.append(row)
        self.rows: I64 = np.array([layer for (layer,) in known], np.int64).reshape(-1, len(LAYER))
        self._known: dict[int, Residency] = {}

    @cached_property
    def macs(self) -> int:
        """Of the model, on the NPU."""
        return sum(node.macs for graph in self._graphs for node in graph.nodes)

    def residency(self, size_bytes: int) -> Residency:
        """Return what a scratchpad of so many bytes holds: the division of least traffic."""
        if size_bytes not in self._known:
            counts = np.zeros((len(self.rows), CROSSINGS), np.int64)
            shares: list[float] = []
            for graph, found in zip(self._graphs, self._found, strict=True):
                shares.append(_count(graph, found, size_bytes, counts))
            self._known[size_bytes] = Residency(min(shares, default=1.0), counts)
        return self._known[size_bytes]


def _count(
    graph: ir.Graph, found: Sequence[_Occurrence | None], size_bytes: int, counts: I64
) -> float:
    """Count a region's layers by what crosses; return the share of the scratchpad for tiles."""
    _, share, storage, residents = min(
        (
            _division(graph, size_bytes, *choice)
            for choice in product(WORKING_SHARES, (0, 1), (0, 1))
        ),
        key=lambda item: item[:2],
    )
    for occurrence in found:
        if occurrence is None or is_free(occurrence.node, storage):
            continue
        tensors = [t for t in occurrence.node.inputs if t.constant is None][:2]
        crossing = 0
        for bit, tensor in [*zip((1, 2), tensors, strict=False), (4, occurrence.node.output)]:
            if root_of(storage, tensor.name) not in residents:
                crossing |= bit
        counts[occurrence.layer, crossing] += 1
    return share


def _division(
    graph: ir.Graph, size_bytes: int, share: float, has_views: int, replaces: int
) -> tuple[float, float, dict[str, str], dict[str, int]]:
    """Return weighted traffic, share for tiles, whose bytes lie where, and what stays inside."""
    views: dict[str, View] = views_of(graph) if has_views else {}
    storage = storage_of(graph, views)
    if replaces:
        storage = with_replaced(graph, storage, views, ())
    room = size_bytes - int(size_bytes * share)
    residents = place_lifetimes(lifetimes_of(graph, storage, {}), room)
    crossing = bytes_crossing(graph, storage, residents, views)
    return crossing * (1.0 + _SMALL_TILES / share), share, storage, residents


def _layer(node: ir.Node) -> Layer | None:
    """Return the row of a node, None for one that may need no instruction and is a copy if not."""
    if isinstance(node, ir.Convolution):
        return _convolution(node)
    if isinstance(node, ir.Product):
        return _product(node)
    if isinstance(node, ir.Reshape):
        return None
    return _vector(node)


def _convolution(node: ir.Convolution) -> Layer:
    n, h, w, c = node.output.shape
    kh, kw, ic, _ = node.weights.shape
    _, _, iw, channels = node.inputs[0].shape
    is_depthwise = node.groups > 1 and ic == 1
    return Layer(
        kind=Kind.DEPTHWISE if is_depthwise else Kind.DENSE,
        images=n, height=h, width=w, columns=c if is_depthwise else c // node.groups, channels=ic,
        groups=1 if is_depthwise else node.groups, kernel_height=kh, kernel_width=kw,
        stride=node.window.stride[1], dilation=node.window.dilation[1], row_bytes=iw * channels,
        ifm=node.inputs[0].size_bytes, second=0, ofm=node.output.size_bytes,
        weights=node.weights.size, parameters=REQUANTIZE_BYTES[node.mode], steps=1, is_constant=0,
    )  # fmt: skip


def _product(node: ir.Product) -> Layer:
    n, h, m, columns = node.output.shape
    second = node.inputs[1]
    reduction = node.inputs[0].shape[3]
    return Layer(
        kind=Kind.PRODUCT, images=n * h, height=1, width=m, columns=columns, channels=reduction,
        groups=1, kernel_height=1, kernel_width=1, stride=1, dilation=1, row_bytes=m * reduction,
        ifm=node.inputs[0].size_bytes, second=second.size_bytes, ofm=node.output.size_bytes,
        weights=0, parameters=REQUANTIZE_BYTES[node.mode], steps=1,
        is_constant=int(second.constant is not None),
    )  # fmt: skip


def _steps(node: ir.Node) -> int:
    """Return the lane operations per output element."""
    if isinstance(node, ir.Pool):
        return math.prod(node.window.kernel)
    if isinstance(node, ir.Softmax | ir.Resize):
        return 4
    if isinstance(node, ir.Reduce):
        return max(node.inputs[0].size_bytes // max(node.output.size_bytes, 1), 1)
    return 1


def _vector(node: ir.Node) -> Layer:
    n, h, w, c = node.output.shape
    operands = [tensor for tensor in node.inputs if tensor.constant is None]
    constants = sum(t.size_bytes for t in node.inputs if t.constant is not None)
    others = sum(tensor.size_bytes for tensor in operands[1:])
    return Layer(
        kind=Kind.VECTOR, images=n, height=h, width=w, columns=c, channels=c, groups=1,
        kernel_height=1, kernel_width=1, stride=1, dilation=1, row_bytes=w * c,
        ifm=sum(tensor.size_bytes for tensor in operands[:1]), second=others or constants,
        ofm=node.output.size_bytes, weights=0, parameters=0, steps=_steps(node),
        is_constant=int(not others and constants > 0),
    )  # fmt: skip
