"""Layouts: how a logical tensor of the model lies in the NPU's `[n, h, w, c]`.

Every tensor is seen with 4 logical dimensions (ones in front). A layout says which logical
dimension each physical one is; the NPU's own is channels last, so an NCHW tensor that a
convolution made has layout (0, 2, 3, 1). A transpose of the model then only renames dimensions,
and bytes move only where an operator needs another layout than the one it finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod

import numpy as np

from lepton.compiler import graph as ir

__all__ = ["IDENTITY", "NCHW", "Builder", "Layout", "Placed", "as_layout", "four", "physical"]
__all__ += ["regrouped", "with_last"]

Layout = tuple[int, int, int, int]
Shape4 = tuple[int, int, int, int]

IDENTITY: Layout = (0, 1, 2, 3)
NCHW: Layout = (0, 2, 3, 1)
"""Layout of a tensor with logical dimensions n, c, h, w."""


def four(shape: Sequence[int]) -> Shape4:
    """Return a shape with ones in front up to 4 dimensions."""
    padded = (1,) * (4 - len(shape)) + tuple(shape)
    return padded[0], padded[1], padded[2], padded[3]


@dataclass(frozen=True)
class Placed:
    """A tensor of the graph with the logical meaning of its dimensions."""

    tensor: ir.Tensor
    logical: Shape4
    layout: Layout

    def axis(self, logical_axis: int) -> int:
        """Return the physical dimension of a logical one."""
        return self.layout.index(logical_axis)


def physical(logical: Shape4, layout: Layout) -> Shape4:
    """Return the physical shape."""
    return logical[layout[0]], logical[layout[1]], logical[layout[2]], logical[layout[3]]


def regrouped(placed: Placed, target: Shape4) -> tuple[Layout, Layout] | None:
    """Return layouts before and after a reshape that leave the order of dimensions alone.

    Dimensions of equal product form a group: of [1, c, h, w] -> [g, c / g, h w] these are c and
    h, w. A group that lies in one piece is reshaped where it lies, so that channels stay last.

    Args:
        placed: what is reshaped.
        target: its new logical shape.

    Returns:
        The layout that the operand must be brought to, and the result's; None if there is but one
        group, or some lie in pieces.
    """
    groups = _groups(placed.logical, target)
    lying = [axis for axis in placed.layout if placed.logical[axis] > 1]
    owner = {axis: number for number, (axes, _) in enumerate(groups) for axis in axes}
    found = list(dict.fromkeys(owner[axis] for axis in lying))
    pieces = [number for number, _ in groupby(lying, key=lambda axis: owner[axis])]
    if len(groups) < 2 or len(pieces) != len(found):
        return None
    before = [axis for number in found for axis in groups[number][0]]
    after = [axis for number in found for axis in groups[number][1]]
    return _whole(before), _whole(after)


def _whole(axes: Sequence[int]) -> Layout:
    """Return a layout of these dimensions behind the others, which are 1."""
    ones = [axis for axis in range(4) if axis not in axes]
    order = (*ones, *axes)
    return order[0], order[1], order[2], order[3]


def _groups(logical: Shape4, target: Shape4) -> list[tuple[list[int], list[int]]]:
    """Return the smallest groups of dimensions longer than 1 of equal product, in order."""
    first = [axis for axis in range(4) if logical[axis] > 1]
    second = [axis for axis in range(4) if target[axis] > 1]
    groups: list[tuple[list[int], list[int]]] = []
    while first:
        left, right = [first.pop(0)], [second.pop(0)]
        while (a := prod(logical[i] for i in left)) != (b := prod(target[i] for i in right)):
            if a < b:
                left.append(first.pop(0))
            else:
                right.append(second.pop(0))
        groups.append((left, right))
    return groups


def _moving(logical: Shape4, layout: Layout) -> list[int]:
    """Return the order of the dimensions longer than 1; equal lists are equal bytes."""
    return [axis for axis in layout if logical[axis] > 1]


class Builder:
    """Collects the nodes of a graph; tensors get unique names."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[ir.Node] = []
        self.names: dict[str, str] = {}
        self._prefix = prefix
        self._count = 0

    def fresh(self) -> str:
        """Return a name that no other tensor has."""
        self._count += 1
        return f"{self._prefix}.{self._count}"

    def like(self, tensor: ir.Tensor, shape: Shape4) -> ir.Tensor:
        """Return a new tensor of another shape and the same type."""
        return replace(tensor, name=self.fresh(), shape=shape, constant=None)

    def require(self, placed: Placed, layout: Layout, name: str) -> ir.Tensor:
        """Return a tensor's bytes in `layout`, moved by a transpose node if they must be."""
        if placed.layout == layout:
            return placed.tensor
        shape = physical(placed.logical, layout)
        if placed.tensor.constant is not None:
            order = [placed.layout.index(axis) for axis in layout]
            moved = np.ascontiguousarray(placed.tensor.constant.transpose(order))
            return replace(placed.tensor, name=self.fresh(), shape=shape, constant=moved)
        output = self.like(placed.tensor, shape)
        if _moving(placed.logical, placed.layout) == _moving(placed.logical, layout):
            self.nodes.append(ir.Reshape(name=name, inputs=(placed.tensor,), output=output))
            return output
        order = tuple(placed.layout.index(axis) for axis in layout)
        self.nodes.append(
            ir.Transpose(
                name=name,
                inputs=(placed.tensor,),
                output=output,
                order=(order[0], order[1], order[2], order[3]),
            )
        )
        return output

    def reshape(self, tensor: ir.Tensor, shape: Shape4, name: str) -> ir.Tensor:
        """Return the same bytes under another shape."""
        if tensor.shape == shape:
            return tensor
        if tensor.constant is not None:
            return replace(
                tensor, name=self.fresh(), shape=shape, constant=tensor.constant.reshape(shape)
            )
        output = self.like(tensor, shape)
        self.nodes.append(ir.Reshape(name=name, inputs=(tensor,), output=output))
        return output


def as_layout(axes: tuple[int, ...]) -> Layout:
    """Return four axes as a layout."""
    return axes[0], axes[1], axes[2], axes[3]


def with_last(layout: Layout, axis: int) -> Layout:
    """Return a layout with a logical axis last; the given one if it has it there."""
    if layout[3] == axis:
        return layout
    return as_layout((*(item for item in layout if item != axis), axis))
