"""Operators that only move bytes as nodes, or as other names of what is there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lepton.compiler import graph as ir
from lepton.compiler.layout import IDENTITY, Placed, as_layout, four, physical, regrouped
from lepton.compiler.nodes.region import Region
from lepton.compiler.operation import Operation

__all__ = ["concat", "pad", "reshape", "strided_slice", "transpose"]


def reshape(region: Region, operation: Operation) -> Placed:
    """Build a reshape, of groups of dimensions where they lie or else of row-major bytes."""
    placed = region.operand(operation.inputs[0])
    before, after = regrouped(placed, four(operation.output.shape)) or (IDENTITY, IDENTITY)
    source = region.builder.require(placed, before, operation.name)
    result = region.result(operation, after)
    output = replace(result.tensor, unsigned=source.unsigned)
    region.append(ir.Reshape(name="", inputs=(source,), output=output))
    return replace(result, tensor=output)


def transpose(region: Region, operation: Operation) -> Placed:
    """Rename the dimensions; no byte moves."""
    placed = region.operand(operation.inputs[0])
    rank = len(operation.output.shape)
    axes = operation.call.attrs.axes
    order = [int(axis) for axis in axes] if axes is not None else list(range(rank))[::-1]
    full = [*range(4 - rank), *(4 - rank + axis for axis in order)]
    layout = as_layout(tuple(full.index(axis) for axis in placed.layout))
    return Placed(placed.tensor, four(operation.output.shape), layout)


def concat(region: Region, operation: Operation) -> Placed:
    """Build a concatenation in the layout of its first operand."""
    placed = [region.operand(value) for value in operation.inputs]
    layout = placed[0].layout
    tensors = tuple(region.builder.require(item, layout, operation.name) for item in placed)
    rank = len(operation.output.shape)
    axis = 4 - rank + int(operation.call.attrs.axis) % rank
    result = region.result(operation, layout)
    tables: list[NDArray[np.uint8] | None] = [None] * len(tensors)
    if operation.output.quantization is not None:
        identity = np.arange(256, dtype=np.uint8)
        for index, value in enumerate(operation.inputs):
            table = region.golden.concat(value, operation.output)
            tables[index] = None if np.array_equal(table, identity) else table
    region.append(
        ir.Concat(
            name="", inputs=tensors, output=result.tensor, axis=layout.index(axis),
            tables=tuple(tables),
        )
    )  # fmt: skip
    return result


def strided_slice(region: Region, operation: Operation) -> Placed:
    """Build a strided slice."""
    placed = region.operand(operation.inputs[0])
    begin, step = [0] * 4, [1] * 4
    rank = len(operation.output.shape)
    arguments = [
        [int(item.value) for item in argument.fields] for argument in operation.call.args[1:]
    ]
    for position, axis in enumerate(arguments[0]):
        extent = operation.inputs[0].shape[axis % rank]
        start = arguments[1][position]
        full = 4 - rank + axis % rank
        begin[full] = min(max(start + extent if start < 0 else start, 0), extent)
        if len(arguments) > 3:
            step[full] = arguments[3][position]
    result = region.result(operation, placed.layout)
    region.append(
        ir.Slice(
            name="",
            inputs=(placed.tensor,),
            output=replace(result.tensor, unsigned=placed.tensor.unsigned),
            begin=physical(four(begin), placed.layout),
            step=physical(four(step), placed.layout),
        )
    )
    return replace(result, tensor=region.builder.nodes[-1].output)


def pad(region: Region, operation: Operation) -> Placed:
    """Build a padding with a constant."""
    placed = region.operand(operation.inputs[0])
    widths = operation.integers("pad_width")
    rank = len(operation.output.shape)
    before = four([0] * (4 - rank) + [widths[2 * axis] for axis in range(rank)])
    result = region.result(operation, placed.layout)
    region.append(
        ir.Pad(
            name="",
            inputs=(placed.tensor,),
            output=result.tensor,
            before=physical(before, placed.layout),
            value=int(operation.call.attrs.pad_value),
        )
    )
    return result
