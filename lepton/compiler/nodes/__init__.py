"""From the matched operations of a region to the NPU graph: layouts, exact parameters, nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lepton.compiler.layout import Placed
from lepton.compiler.nodes.elementwise import binary, requantize, table
from lepton.compiler.nodes.movement import concat, pad, reshape, strided_slice, transpose
from lepton.compiler.nodes.products import convolution, product
from lepton.compiler.nodes.reductions import reduce
from lepton.compiler.nodes.region import Region
from lepton.compiler.nodes.windows import pool, resize, softmax
from lepton.compiler.operation import Operation

__all__ = ["Region", "add_operation"]

_BUILDERS: dict[str, Callable[[Region, Operation], Placed]] = {
    "nn.conv2d": convolution,
    "matmul": product,
    "add": binary,
    "subtract": binary,
    "multiply": binary,
    "divide": binary,
    "squared_difference": binary,
    "maximum": binary,
    "minimum": binary,
    "take": table,
    "requantize": requantize,
    "nn.max_pool2d": pool,
    "nn.avg_pool2d": pool,
    "nn.softmax": softmax,
    "image.resize2d": resize,
    "mean": reduce,
    "sum": reduce,
    "max": reduce,
    "min": reduce,
    "reshape": reshape,
    "permute_dims": transpose,
    "concat": concat,
    "strided_slice": strided_slice,
    "nn.pad": pad,
}


def add_operation(region: Region, variable: Any, operation: Operation) -> None:
    """Add the nodes of one operation, whose result is `variable`."""
    nodes = region.builder.nodes
    begin = len(nodes)
    placed = _BUILDERS[operation.op](region, operation)
    region.place(variable, placed)
    for index in range(begin, len(nodes)):
        if not nodes[index].name:
            nodes[index] = replace(nodes[index], name=operation.name)
    if operation.tensor:
        region.builder.names[placed.tensor.name] = operation.tensor
