"""Means, sums, maxima and minima over any axes as nodes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from lepton.compiler import graph as ir
from lepton.compiler.golden import limits, tensor_scale, tensor_zero_point
from lepton.compiler.layout import IDENTITY, Placed, as_layout
from lepton.compiler.nodes.region import Region
from lepton.compiler.operation import Operation
from lepton.isa.instructions import PoolMode

__all__ = ["reduce", "whole_sum"]


def reduce(region: Region, operation: Operation) -> Placed:
    """Build a mean, sum, maximum or minimum over any axes."""
    placed = region.operand(operation.inputs[0])
    rank = len(operation.inputs[0].shape)
    axes = _reduced_axes(operation, rank)
    is_extreme = operation.op in ("max", "min")
    kept = [axis for axis in range(4) if axis not in axes]
    at = {placed.axis(axis) for axis in axes if placed.logical[axis] > 1}
    if at <= {1, 2} and _keeps_order(placed, axes):
        ifm = placed.tensor
        shape = (ifm.shape[0], 1, 1, ifm.shape[3])
        over = "hw"
    else:
        layout = (*kept, *axes)
        moved = region.builder.require(placed, as_layout(layout), operation.name)
        outer = math.prod(placed.logical[axis] for axis in kept)
        inner = math.prod(placed.logical[axis] for axis in axes)
        ifm, shape, over = _flattened(region, operation, moved, (outer, inner), is_extreme)
    result = region.result(operation, IDENTITY)
    if is_extreme:
        reduced = _extreme(region, operation, ifm, shape)
    else:
        reduced = region.builder.like(result.tensor, shape)
        whole_sum(region, operation, ifm, Placed(reduced, shape, IDENTITY), over)
    shaped = region.builder.reshape(reduced, result.tensor.shape, operation.name)
    return Placed(shaped, result.logical, IDENTITY)


def _flattened(
    region: Region,
    operation: Operation,
    moved: ir.Tensor,
    extents: tuple[int, int],
    is_extreme: bool,
) -> tuple[ir.Tensor, tuple[int, int, int, int], str]:
    """Return a row-major [outer, inner] operand so shaped that its inner part is reduced."""
    outer, inner = extents
    if not is_extreme:
        flat = region.builder.reshape(moved, (1, 1, outer, inner), operation.name)
        return flat, (1, 1, outer, 1), "c"
    # a maximum runs over pixels: [1, inner, 1, outer], columns become channels
    flat = region.builder.reshape(moved, (1, 1, outer, inner), operation.name)
    turned = region.builder.like(flat, (1, 1, inner, outer))
    region.append(ir.Transpose(name="", inputs=(flat,), output=turned, order=(0, 1, 3, 2)))
    return turned, (1, 1, 1, outer), "hw"


def whole_sum(
    region: Region, operation: Operation, ifm: ir.Tensor, result: Placed, over: str
) -> Placed:
    """Append a mean or sum over all pixels or all channels of `ifm`."""
    count = ifm.shape[1] * ifm.shape[2] if over == "hw" else ifm.shape[3]
    form = region.golden.reduce(operation, count)
    channels = result.tensor.shape[3]
    table = form.table._replace(
        bias=np.repeat(form.table.bias, channels),
        multiplier=np.repeat(form.table.multiplier, channels),
        shift=np.repeat(form.table.shift, channels),
    )
    region.append(
        ir.Reduce(
            name="", inputs=(ifm,), output=result.tensor, over=over, table=table,
            mode=form.mode, bounds=form.bounds,
        )
    )  # fmt: skip
    return result


def _extreme(region: Region, operation: Operation, ifm: ir.Tensor, shape: ir.Shape4) -> ir.Tensor:
    """Append maxima or minima over all pixels, in poolings of at most 255 values.

    The last window may hang over the edge, as padding is never chosen. They are chosen among
    the input's codes; a table brings those to the result's scale.
    """
    _, h, w, _ = ifm.shape
    mode = PoolMode.MAXIMUM if operation.op == "max" else PoolMode.MINIMUM
    bounds = ir.Bounds(0, *limits(operation.inputs[0].dtype))
    while (h, w) != (1, 1):
        kernel = (min(h, 255), min(w, max(255 // h, 1)))
        over = (-h % kernel[0], -w % kernel[1])
        h, w = (h + over[0]) // kernel[0], (w + over[1]) // kernel[1]
        target = region.builder.like(ifm, (ifm.shape[0], h, w, ifm.shape[3]))
        region.append(
            ir.Pool(
                name="", inputs=(ifm,), output=target,
                window=ir.Window(kernel, kernel, (1, 1), (0, 0, *over)), mode=mode,
                count_pad=False, parameters=np.zeros(0, np.uint8), bounds=bounds,
            )
        )  # fmt: skip
        ifm = target
    chosen = region.builder.reshape(ifm, shape, operation.name)
    source, target = operation.inputs[0], operation.output
    if source.quantization is None or target.quantization is None:
        return chosen
    table = region.golden.requantize(source, target)
    if source.dtype == target.dtype and np.array_equal(table, np.arange(256)):
        return chosen
    result = region.builder.like(chosen, shape)
    result = replace(
        result, unsigned=target.dtype == "uint8", scale=float(tensor_scale(target)),
        zero_point=tensor_zero_point(target),
    )  # fmt: skip
    region.append(ir.Lut(name="", inputs=(chosen,), output=result, tables=table))
    return result


def _keeps_order(placed: Placed, axes: tuple[int, ...]) -> bool:
    """Return whether the dimensions left after a reduction lie in logical order."""
    kept = [a for a in placed.layout if a not in axes and placed.logical[a] > 1]
    ends = {placed.layout[0], placed.layout[3]}
    return kept == sorted(kept) and all(axis in ends for axis in kept)


def _reduced_axes(operation: Operation, rank: int) -> tuple[int, ...]:
    """Return the reduced logical axes in 4 dimensions."""
    axes = operation.call.attrs.axis
    if axes is None:
        return tuple(range(4 - rank, 4))
    return tuple(sorted(4 - rank + int(axis) % rank for axis in axes))
