"""Operators on 16-bit activations: ONNX Runtime computes them in float32.

A sum's last bits depend on the order of its terms, and 16-bit results show them where 8-bit ones
hardly do. Relax says what is added, not in which order; an operator of which the golden library
has several kernels must therefore run as the file has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from lepton.compiler.importers.onnx_types import TensorType
from lepton.compiler.rules import SIXTEEN_BITS

__all__ = ["rounds_otherwise", "wide_values"]


def wide_values(graph: Any, types: Mapping[str, TensorType]) -> frozenset[str]:
    """Return the float tensors that are made from 16-bit codes, or become such.

    Args:
        graph: `onnx.GraphProto`.
        types: of its tensors.
    """
    made: set[str] = set()
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and _is_wide(types.get(node.input[0])):
            made.add(node.output[0])
        if node.op_type == "QuantizeLinear" and _is_wide(types.get(node.output[0])):
            made.add(node.input[0])
    return frozenset(made)


def _is_wide(kind: TensorType | None) -> bool:
    return kind is not None and kind.dtype in SIXTEEN_BITS


def rounds_otherwise(node: Any, types: Mapping[str, TensorType], wide: Set[str]) -> bool:
    """Return whether a node's sums, as Relax has them, are added in another order than the file's.

    These are transposed convolutions, which become convolutions of phases, and a product of one
    row with weights that the file has transposed, which the library computes as dot products.

    Args:
        node: `onnx.NodeProto`.
        types: of the graph's tensors.
        wide: as `wide_values` gives them.
    """
    if not wide & {*node.input[:1], *node.output}:
        return False
    if node.op_type != "Gemm":
        return node.op_type == "ConvTranspose"
    is_turned = any(item.name == "transB" and item.i for item in node.attribute)
    kind = types.get(node.output[0])
    return is_turned and (kind is None or kind.shape is None or kind.shape[0] == 1)
