"""Checks of an ONNX graph that the standard's own checker lacks, or words badly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import ImportFailure

_SCALES = {
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
    "QLinearAdd": (1, 4, 6),
    "QLinearMul": (1, 4, 6),
    "QGemm": (1, 4, 7),
    "QLinearSigmoid": (1, 3),
    "QLinearLeakyRelu": (1, 3),
    "QLinearSoftmax": (1, 3),
    "QLinearAveragePool": (1, 3),
    "QLinearGlobalAveragePool": (1, 3),
}
"""Operator -> the positions of its scales among its inputs."""


def refuse_bad_names(graph: Any, name: str) -> None:
    """Refuse a node that reads what nothing makes, or what only a later node makes.

    Raises:
        ImportFailure: naming the node and the tensor.
    """
    known = {item.name for item in (*graph.input, *graph.initializer)}
    known |= {item.values.name for item in graph.sparse_initializer}
    made = {output for node in graph.node for output in node.output}
    for node in graph.node:
        unknown = [item for item in node.input if item and item not in known]
        if unknown:
            label = f"{node.op_type} {node.name or (node.output[0] if node.output else '')!r}"
            why = (
                "which a later node makes: the nodes form a cycle, or are out of order"
                if unknown[0] in made
                else "which nothing makes"
            )
            raise ImportFailure(
                f"{name} is not a valid ONNX model: {label} reads {unknown[0]!r}, {why}"
            )
        known |= set(node.output)


def refuse_bad_scales(graph: Any) -> None:
    """Refuse constant scales that are not positive and finite.

    Raises:
        ImportFailure: naming the operator and the scale.
    """
    constants = _constants(graph)
    for node in graph.node:
        for scale_name in (node.input[position] for position in _positions(node)):
            scale = constants.get(scale_name)
            if scale is None:
                continue
            bad = scale[~(np.isfinite(scale) & (scale > 0))]
            if bad.size:
                raise ImportFailure(
                    f"{node.op_type} {node.name or node.output[0]!r}: its scale {scale_name!r} "
                    f"must be positive and finite, not {float(bad.reshape(-1)[0])}"
                )


def _positions(node: Any) -> Sequence[int]:
    """Return where a node's inputs hold scales."""
    count = len(node.input)
    if node.op_type == "QLinearConcat":
        return range(0, count, 3)
    return [position for position in _SCALES.get(node.op_type, ()) if position < count]


def _constants(graph: Any) -> dict[str, NDArray[Any]]:
    """Return the small float constants of a graph: initializers and values of Constant nodes."""
    from onnx import TensorProto, numpy_helper

    tensors = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], a.t) for a in node.attribute if a.HasField("t"))
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    return {
        name: np.asarray(numpy_helper.to_array(item), np.float64)
        for name, item in tensors.items()
        if item.data_type in kinds and len(item.dims) < 2
    }
