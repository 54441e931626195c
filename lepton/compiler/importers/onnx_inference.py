"""Converters of ONNX operators for inference, where TVM's do something else or too much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from lepton.compiler.importers.constants import array_of
from lepton.compiler.importers.rewriting import dtype_of, is_constant, scalar, shape_of

__all__ = ["batch_norm", "dropout", "gather", "hard_swish"]

# TVM's annotations promise less than its functions take (numbers, plain shapes).
op: Any = relax.op
Inputs = Sequence[Any]


def batch_norm(bb: Any, inputs: Inputs, attributes: dict[str, Any], opset: int) -> Any:
    """BatchNormalization of inference (TVM overlooks the training mode)."""
    if attributes.get("training_mode", 0):
        raise ValueError("training mode is not expressed")
    converter = onnx_frontend._get_convert_map()["BatchNormalization"].get_converter(opset)  # pyright: ignore[reportPrivateUsage]
    return converter(bb, onnx_frontend.onnx_input(inputs), attributes, [{}, {}])


def dropout(_bb: Any, inputs: Inputs, attributes: dict[str, Any], _opset: int) -> Any:
    """Dropout of inference: its input."""
    if any(item is not None for item in inputs[2:]) or attributes["tvm_custom"]["num_outputs"] > 1:
        raise ValueError("training mode and the mask are not expressed")
    return inputs[0]


def gather(bb: Any, inputs: Inputs, attributes: dict[str, Any], _opset: int) -> Any:
    """Gather by indices from either end (TVM asks for the extent while it runs)."""
    shape = shape_of(inputs[0])
    axis = int(attributes.get("axis", 0))
    if shape is None or not -len(shape) <= axis < len(shape):
        raise ValueError("its data need a known shape")
    indices, extent = inputs[1], shape[axis]
    if is_constant(indices):
        array = array_of(indices)
        indices = relax.const(np.where(array < 0, array + extent, array))
    else:
        kind = dtype_of(indices)
        is_negative = bb.normalize(op.less(indices, relax.const(0, kind)))
        wrapped = bb.normalize(op.add(indices, relax.const(extent, kind)))
        indices = bb.normalize(op.where(is_negative, wrapped, indices))
    return op.take(inputs[0], indices, axis=axis % len(shape))


def hard_swish(bb: Any, inputs: Inputs, _attributes: dict[str, Any], _opset: int) -> Any:
    """HardSwish in the standard's order of operations: x * clip(x / 6 + 1 / 2)."""
    scaled = bb.normalize(op.multiply(inputs[0], scalar(1.0 / 6.0)))
    gate = bb.normalize(op.clip(bb.normalize(op.add(scaled, scalar(0.5))), 0.0, 1.0))
    return op.multiply(inputs[0], gate)
