"""Functions of one and two operands as nodes."""

from __future__ import annotations

import math

import numpy as np

from lepton.compiler import graph as ir
from lepton.compiler.golden import BinaryForm, limits
from lepton.compiler.layout import NCHW, Placed, four, with_last
from lepton.compiler.nodes.region import Region
from lepton.compiler.operation import Operation
from lepton.isa.instructions import BinaryMode

__all__ = ["binary", "requantize", "table"]


def binary(region: Region, operation: Operation) -> Placed:
    """Build a function of two operands in the layout of the larger one."""
    form = (
        region.golden.binary(operation)
        if operation.output.quantization is not None
        else _raw_extreme(operation)
    )
    placed = [region.operand(value) for value in operation.inputs]
    leader = max(placed, key=lambda item: (math.prod(item.logical), item.layout == NCHW))
    tensors = [region.builder.require(item, leader.layout, operation.name) for item in placed]
    if form.exchanged:
        tensors.reverse()
    result = region.result(operation, leader.layout)
    region.append(
        ir.Binary(
            name="",
            inputs=(tensors[0], tensors[1]),
            output=result.tensor,
            mode=form.mode,
            parameters=form.parameters,
        )
    )
    return result


def table(region: Region, operation: Operation) -> Placed:
    """Build a look-up: `take(table, astype(x) + offsets)`, a table per channel or one."""
    content, source, offsets = operation.inputs
    assert content.constant is not None and offsets.constant is not None
    placed = region.operand(source)
    low = limits(source.dtype)[0]
    raw = np.ascontiguousarray(content.constant).view(np.uint8).reshape(-1, 256)
    tables = np.ascontiguousarray(np.roll(raw, low, axis=1))
    if len(tables) == 1:
        tables = tables[0]
    else:
        spread = four(offsets.constant.shape)
        layout = with_last(placed.layout, spread.index(max(spread)))
        tensor = region.builder.require(placed, layout, operation.name)
        placed = Placed(tensor, placed.logical, layout)
    result = region.result(operation, placed.layout)
    region.append(ir.Lut(name="", inputs=(placed.tensor,), output=result.tensor, tables=tables))
    return result


def requantize(region: Region, operation: Operation) -> Placed:
    """Build a change of scale as a look-up."""
    table = region.golden.requantize(operation.inputs[0], operation.output)
    low, high = limits(operation.output.dtype)
    if operation.activation.low is not None or operation.activation.high is not None:
        kind = np.uint8 if operation.output.dtype == "uint8" else np.int8
        low = operation.activation.low if operation.activation.low is not None else low
        high = operation.activation.high if operation.activation.high is not None else high
        table = np.clip(table.view(kind), low, high).astype(kind).view(np.uint8)
    placed = region.operand(operation.inputs[0])
    result = region.result(operation, placed.layout)
    region.append(ir.Lut(name="", inputs=(placed.tensor,), output=result.tensor, tables=table))
    return result


def _raw_extreme(operation: Operation) -> BinaryForm:
    """Return the maximum or minimum of raw values."""
    mode = BinaryMode.MAXIMUM if operation.op == "maximum" else BinaryMode.MINIMUM
    return BinaryForm(mode, np.zeros(0, np.uint8))
