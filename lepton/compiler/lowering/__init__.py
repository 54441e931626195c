"""Lowering: a node of the NPU graph becomes instructions; one function per node type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lepton.compiler import graph as ir
from lepton.compiler.emit import Emitter
from lepton.compiler.lowering.convolution import lower_convolution
from lepton.compiler.lowering.movement import (
    lower_concat,
    lower_pad,
    lower_reshape,
    lower_slice,
    lower_transpose,
)
from lepton.compiler.lowering.product import lower_product, lower_reduce
from lepton.compiler.lowering.vector import (
    lower_binary,
    lower_lut,
    lower_pool,
    lower_resize,
    lower_softmax,
)

__all__ = ["lower"]

_LOWERINGS: dict[type[ir.Node], Callable[[Any, Emitter], None]] = {
    ir.Convolution: lower_convolution,
    ir.Product: lower_product,
    ir.Reduce: lower_reduce,
    ir.Lut: lower_lut,
    ir.Binary: lower_binary,
    ir.Pool: lower_pool,
    ir.Softmax: lower_softmax,
    ir.Resize: lower_resize,
    ir.Reshape: lower_reshape,
    ir.Transpose: lower_transpose,
    ir.Concat: lower_concat,
    ir.Slice: lower_slice,
    ir.Pad: lower_pad,
}


def lower(node: ir.Node, emitter: Emitter) -> None:
    """Emit the instructions of one node."""
    _LOWERINGS[type(node)](node, emitter)
