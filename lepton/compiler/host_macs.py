"""Multiply-accumulates of host operators, counted as the NPU's are."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["host_macs"]

_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "DeformConv": 1}
"""ONNX operator -> which of its inputs are the weights."""


def host_macs(call: Any) -> int:
    """Return the MACs of a Relax call: of convolutions and matrix products, else 0."""
    kind = str(getattr(getattr(call, "op", None), "name", ""))
    if kind == "lepton.onnx_node":
        return _node_macs(call)
    if kind == "relax.matmul":
        return math.prod(_shape(call)) * _shape(call.args[0])[-1]
    if kind not in ("relax.nn.conv2d", "relax.nn.conv2d_transpose"):
        return 0
    # every weight meets each position of its own output channel, or input channel if transposed
    side = call if kind == "relax.nn.conv2d" else call.args[0]
    shape = _shape(side)
    channels = shape[str(call.attrs.data_layout).index("C")]
    return math.prod(shape) // channels * math.prod(_shape(call.args[1]))


def _shape(expr: Any) -> tuple[int, ...]:
    return tuple(int(extent) for extent in expr.ty.shape.values)


def _node_macs(call: Any) -> int:
    """Return the MACs of a node that runs as it is in its file."""
    from lepton.compiler.importers.onnx_verbatim import read_verbatim

    verbatim = read_verbatim(call)
    assert verbatim is not None
    node, shapes = verbatim.node, [_shape(item) for item in verbatim.inputs]
    result = call.ty.fields[0] if hasattr(call.ty, "fields") else call.ty
    made = tuple(int(extent) for extent in result.shape.values)
    attributes = {item.name: item for item in node.attribute}
    kind = node.op_type
    if kind in _CONVOLUTIONS:
        return math.prod(made) * math.prod(shapes[_CONVOLUTIONS[kind]][1:])
    if kind == "ConvTranspose":
        return math.prod(shapes[0]) * math.prod(shapes[1][1:])
    if kind in ("MatMul", "MatMulInteger", "QLinearMatMul"):
        return math.prod(made) * shapes[0][-1]
    if kind == "Gemm":
        is_turned = "transA" in attributes and attributes["transA"].i
        return math.prod(made) * shapes[0][0 if is_turned else 1]
    if kind in ("RNN", "GRU", "LSTM"):
        return math.prod(shapes[0][:2]) * (math.prod(shapes[1]) + math.prod(shapes[2]))
    if kind == "Attention":
        return _attention_macs(node, shapes, made)
    return _einsum_macs(attributes["equation"].s.decode(), shapes) if kind == "Einsum" else 0


def _attention_macs(node: Any, shapes: list[tuple[int, ...]], made: tuple[int, ...]) -> int:
    """Return the MACs of both products: each query element, and each result, meets all keys."""
    present = [name for name in node.input if name]
    keys = shapes[1][-2]
    if len(node.input) > 4 and node.input[4]:
        keys += shapes[present.index(node.input[4])][-2]
    return (math.prod(shapes[0]) + math.prod(made)) * keys


def _einsum_macs(equation: str, shapes: list[tuple[int, ...]]) -> int:
    """Return the MACs of an Einsum of several operands: all combinations of its indices."""
    extents: dict[str, int] = {}
    for term, shape in zip(equation.split("->")[0].split(","), shapes, strict=True):
        letters = term.replace(" ", "")
        missing = len(shape) - len(letters.replace("...", ""))
        letters = letters.replace("...", "0123456789"[:missing])
        for letter, extent in zip(letters, shape, strict=True):
            extents[letter] = max(extent, extents.get(letter, 1))
    return math.prod(extents.values()) if len(shapes) > 1 else 0
