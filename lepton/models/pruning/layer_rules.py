"""Where the channels of layers with weights go: convolutions, products, norms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lepton.models.onnx_module.step import Step
from lepton.models.pruning.channels import Axis, Tracked
from lepton.models.pruning.flow import Filters, Flow, Rule

__all__ = ["LAYER_RULES"]


def _as_labels(axis: Axis, extent: int) -> NDArray[np.int64]:
    return np.zeros(extent, np.int64) if axis is None else axis


def _new_filters(flow: Flow, step: Step, weights: str, axis: int) -> NDArray[np.int64]:
    """Return labels for the filters of a layer; the only filter of a layer stays."""
    labels = flow.channels.new(flow.constants[weights].shape[axis])
    if len(labels) == 1:
        flow.channels.fix(labels, "it is the layer's only filter")
    flow.filters.append(Filters(step.name, weights, axis, labels))
    return labels


def _bind_bias(flow: Flow, step: Step, labels: NDArray[np.int64]) -> bool:
    """Label a layer's bias, if it has one; return whether removed channels of the sum are 0."""
    if len(step.inputs) < 3 or not step.inputs[2]:
        return True
    name, reason = step.inputs[2], f"{step.place} shares its bias"
    value = flow.constants[name]
    if value.ndim and value.shape[-1] == len(labels):
        axes: list[Axis] = [None] * (value.ndim - 1) + [labels]
        flow.bind(name, axes, reason, value.ndim - 1)
        return True
    flow.bind(name, [None] * value.ndim, reason)
    return not value.any()


def _readable(flow: Flow, step: Step) -> bool:
    """Return whether a layer's weights and bias are constants and its input's extents are known."""
    constant = all(not name or name in flow.constants for name in step.inputs[1:])
    shapes = [flow.shapes.get(name, ()) for name in (step.inputs[0], step.outputs[0])]
    return constant and step.inputs[0] in flow.tensors and all(shapes)


def _enter(flow: Flow, step: Step, tensor: Tracked, axis: int) -> Axis:
    """Return the labels that a layer reads; they stay where removed channels are not 0."""
    labels = tensor.axes[axis]
    if not tensor.is_zero:
        flow.channels.fix(labels, f"a removed channel would not be 0 where {step.place} reads it")
    return labels


def _convolution(flow: Flow, step: Step) -> None:
    if not _readable(flow, step):
        return flow.freeze(step, f"{step.place} has weights that are computed, or unknown extents")
    tensor, weights = flow.read(step.inputs[0]), flow.constants[step.inputs[1]]
    reason = f"{step.place} slides along it"
    flow.fix_axes(tensor, (0, 1), reason)
    made = _new_filters(flow, step, step.inputs[1], 0)
    inputs, groups = tensor.shape[1], step.get("group", 1)
    if weights.shape[1] * groups != inputs or weights.shape[0] % groups:
        raise ValueError(f"{inputs} channels in {groups} groups for weights {weights.shape}")
    shared = f"{step.place} shares its weights"
    window: list[Axis] = [None] * (weights.ndim - 2)
    if groups == 1:
        entered = _enter(flow, step, tensor, 1)
        flow.bind(step.inputs[1], [made, entered, *window], shared, 0)
    elif groups == inputs:
        read = _as_labels(tensor.axes[1], inputs)
        tied = f"{step.place} is depthwise and its input has to stay"
        flow.channels.tie(np.repeat(read, len(made) // inputs), made, tied)
        flow.groups[step.outputs[0]] = read
        flow.bind(step.inputs[1], [made, None, *window], shared, 0)
    else:
        entered = _enter(flow, step, tensor, 1)
        read = _tied_groups(flow, step, _as_labels(entered, inputs), groups)
        _tied_groups(flow, step, made, groups)
        flow.bind(step.inputs[1], [made, read, *window], shared, 0)
    _bind_bias(flow, step, made)
    flow.write(step.outputs[0], [tensor.axes[0], made, *window])


def _tied_groups(
    flow: Flow, step: Step, labels: NDArray[np.int64], groups: int
) -> NDArray[np.int64]:
    """Let each group lose the same channels, so that groups stay equal; return the first's."""
    rows = labels.reshape(groups, -1)
    for row in rows[1:]:
        flow.channels.tie(rows[0], row, f"the groups of {step.place} stay equal")
    return rows[0]


def _transposed(flow: Flow, step: Step) -> None:
    if not _readable(flow, step) or step.get("group", 1) != 1:
        return flow.freeze(step, f"{step.place} has groups or weights that are computed")
    tensor, weights = flow.read(step.inputs[0]), flow.constants[step.inputs[1]]
    flow.fix_axes(tensor, (0, 1), f"{step.place} slides along it")
    made = _new_filters(flow, step, step.inputs[1], 1)
    window: list[Axis] = [None] * (weights.ndim - 2)
    axes = [_enter(flow, step, tensor, 1), made, *window]
    flow.bind(step.inputs[1], axes, f"{step.place} shares its weights", 1)
    _bind_bias(flow, step, made)
    flow.write(step.outputs[0], [tensor.axes[0], made, *window])


def _gemm(flow: Flow, step: Step) -> None:
    if not _readable(flow, step) or step.get("transA", 0):
        return flow.freeze(step, f"{step.place} has no constant weights on its right")
    _product(flow, step, 0 if step.get("transB", 0) else 1)


def _matmul(flow: Flow, step: Step) -> None:
    left, right = (flow.tensors.get(name) for name in step.inputs)
    if left is not None and right is not None and left.shape and right.shape:
        return _activations(flow, step, left, right)
    if not _readable(flow, step) or flow.constants[step.inputs[1]].ndim != 2:
        return flow.freeze(step, f"{step.place} has no constant matrix on its right")
    _product(flow, step, 1)


def _product(flow: Flow, step: Step, axis: int) -> None:
    """Label a product with weights whose filters lie along one axis."""
    tensor = flow.read(step.inputs[0])
    made = _new_filters(flow, step, step.inputs[1], axis)
    axes: list[Axis] = [made, made]
    axes[1 - axis] = _enter(flow, step, tensor, len(tensor.axes) - 1)
    flow.bind(step.inputs[1], axes, f"{step.place} shares its weights", axis)
    if not tensor.is_zero or _has_bias(step):
        flow.fix_axes(tensor, (len(tensor.axes) - 1,), f"{step.place} makes rows of it")
    is_zero = _bind_bias(flow, step, made)
    flow.write(step.outputs[0], [*tensor.axes[:-1], made], is_zero)


def _has_bias(step: Step) -> bool:
    return len(step.inputs) > 2 and bool(step.inputs[2])


def _activations(flow: Flow, step: Step, left: Tracked, right: Tracked) -> None:
    """Label a product of two activations: what it sums over is tied."""
    reason = f"{step.place} sums over it"
    is_paired = len(left.shape) == len(right.shape) > 1 and left.shape[:-2] == right.shape[:-2]
    if not is_paired or step.outputs[0] not in flow.shapes:
        return flow.freeze(step, f"{step.place} broadcasts its operands")
    flow.channels.tie(left.axes[-1], right.axes[-2], reason)
    if not (left.is_zero or right.is_zero):
        flow.channels.fix(left.axes[-1], reason)
    batch = [
        flow.channels.tie(one, other, f"{step.place} pairs it with what has to stay")
        for one, other in zip(left.axes[:-2], right.axes[:-2], strict=True)
    ]
    rows, columns = left.axes[-2], right.axes[-1]
    is_zero = (rows is None or left.is_zero) and (columns is None or right.is_zero)
    if any(labels is not None for labels in batch):
        is_zero = is_zero and (left.is_zero or right.is_zero)
    flow.write(step.outputs[0], [*batch, rows, columns], is_zero)


def _channel_norm(flow: Flow, step: Step) -> None:
    """Label a norm with a scale and a bias per channel, both 0 where it is removed."""
    if not _readable(flow, step) or len([name for name in step.outputs if name]) > 1:
        return flow.freeze(step, f"{step.place} has parameters that are computed")
    tensor = flow.read(step.inputs[0])
    flow.fix_axes(tensor, (0, 1), f"{step.place} averages over it")
    for position, name in enumerate(step.inputs[1:]):
        zeroed = 0 if position < 2 else None
        flow.bind(name, [tensor.axes[1]], f"{step.place} shares its parameters", zeroed)
    flow.write(step.outputs[0], tensor.axes)


def _layer_norm(flow: Flow, step: Step) -> None:
    if not _readable(flow, step):
        return flow.freeze(step, f"{step.place} has parameters that are computed")
    tensor = flow.read(step.inputs[0])
    first = step.get("axis", -1) % len(tensor.axes)
    reason = f"{step.place} averages over it"
    flow.fix_axes(tensor, range(first), reason)
    for name in step.inputs[1:]:
        if name:
            flow.bind(name, [None] * flow.constants[name].ndim, reason)
    rest: list[Axis] = [None] * (len(tensor.axes) - first)
    flow.write(step.outputs[0], [*tensor.axes[:first], *rest], False)


LAYER_RULES: Mapping[str, Rule] = {
    "BatchNormalization": _channel_norm,
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Gemm": _gemm,
    "InstanceNormalization": _channel_norm,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
}
"""Operator -> what it does to labels."""
