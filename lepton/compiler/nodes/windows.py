"""Pooling, softmax and resampling as nodes."""

from __future__ import annotations

import numpy as np

from lepton.compiler import graph as ir
from lepton.compiler.golden import limits
from lepton.compiler.layout import IDENTITY, NCHW, Placed, with_last
from lepton.compiler.nodes.reductions import whole_sum
from lepton.compiler.nodes.region import Region, pair
from lepton.compiler.operation import Operation
from lepton.isa.instructions import PoolMode

__all__ = ["pool", "resize", "softmax"]


def pool(region: Region, operation: Operation) -> Placed:
    """Build max or average pooling; an average over a whole image is a mean."""
    attrs = operation.call.attrs
    layout = NCHW if str(attrs.layout) == "NCHW" else IDENTITY
    ifm = region.builder.require(region.operand(operation.inputs[0]), layout, operation.name)
    pads = operation.integers("padding")
    kernel = pair(operation.integers("pool_size"))
    window = ir.Window(
        kernel,
        pair(operation.integers("strides")),
        pair(operation.integers("dilation")),
        (pads[0], pads[1], pads[2], pads[3]),
    )
    result = region.result(operation, layout)
    parameters = np.zeros(0, np.uint8)
    if operation.op == "nn.max_pool2d":
        low, high = limits(operation.output.dtype)
        mode, bounds = PoolMode.MAXIMUM, _clipped(operation, ir.Bounds(0, low, high))
    else:
        if region.golden.mean_is_whole_image(operation, kernel, ifm.shape[1:3], pads):
            return whole_sum(region, operation, ifm, result, "hw")
        mode, parameters, bounds = region.golden.average_pool(operation)
    region.append(
        ir.Pool(
            name="",
            inputs=(ifm,),
            output=result.tensor,
            window=window,
            mode=mode,
            count_pad=bool(getattr(attrs, "count_include_pad", False)),
            parameters=parameters,
            bounds=bounds,
        )
    )
    return result


def softmax(region: Region, operation: Operation) -> Placed:
    """Build a softmax; its axis comes last."""
    placed = region.operand(operation.inputs[0])
    rank = len(operation.output.shape)
    axis = 4 - rank + int(operation.call.attrs.axis) % rank
    layout = with_last(placed.layout, axis)
    ifm = region.builder.require(placed, layout, operation.name)
    result = region.result(operation, layout)
    mode, parameters = region.golden.softmax(operation)
    region.append(
        ir.Softmax(name="", inputs=(ifm,), output=result.tensor, mode=mode, parameters=parameters)
    )
    return result


def resize(region: Region, operation: Operation) -> Placed:
    """Build a resampling of height and width."""
    layout = NCHW if str(operation.call.attrs.layout) == "NCHW" else IDENTITY
    ifm = region.builder.require(region.operand(operation.inputs[0]), layout, operation.name)
    result = region.result(operation, layout)
    sizes = (
        (ifm.shape[1], result.tensor.shape[1]),
        (ifm.shape[2], result.tensor.shape[2]),
    )
    mode, rows, columns, header = region.golden.resize(operation, sizes)
    region.append(
        ir.Resize(
            name="", inputs=(ifm,), output=result.tensor, mode=mode, rows=rows,
            columns=columns, header=header,
        )
    )  # fmt: skip
    return result


def _clipped(operation: Operation, bounds: ir.Bounds) -> ir.Bounds:
    """Return bounds narrowed by the clip behind an operation."""
    low, high = operation.activation.low, operation.activation.high
    return ir.Bounds(
        bounds.zero_point,
        bounds.minimum if low is None else max(low, bounds.minimum),
        bounds.maximum if high is None else min(high, bounds.maximum),
    )
