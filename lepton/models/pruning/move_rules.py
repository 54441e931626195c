"""Where channels go through operators without weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from lepton.models.onnx_module.step import Step
from lepton.models.pruning.channels import Axis, Tracked, reshaped
from lepton.models.pruning.flow import Flow, Rule

__all__ = ["MOVE_RULES"]

_ZERO_AT_ZERO = (
    "Abs Cast Ceil Celu Dropout Elu Erf Floor Gelu HardSwish Identity LeakyRelu Neg Relu Round "
    "Selu Sign Sin Softsign Sqrt Tanh"
)
_ELSEWHERE_AT_ZERO = "Cos Exp HardSigmoid Log Reciprocal Sigmoid Softplus"
_REDUCTIONS = "ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum"
_POOLS = "AveragePool GlobalAveragePool GlobalMaxPool MaxPool"
_SUMS = "Add Max Mean Min Sub Sum"


def _known(rule: Callable[[Flow, Step, Tracked], None]) -> Rule:
    """Apply a rule where the first input and all extents are known."""

    def apply(flow: Flow, step: Step) -> None:
        tensor = flow.tensors.get(step.inputs[0]) if step.inputs else None
        if tensor is None or not all(flow.shapes.get(name) for name in step.outputs if name):
            return flow.freeze(step, f"{step.place} has unknown extents")
        rule(flow, step, tensor)

    return apply


def _unary(keeps_zero: bool) -> Rule:
    def rule(flow: Flow, step: Step, tensor: Tracked) -> None:
        flow.write(step.outputs[0], tensor.axes, tensor.is_zero and keeps_zero)

    return _known(rule)


def _clip(flow: Flow, step: Step, tensor: Tracked) -> None:
    bounds = [step.get("min", -np.inf), step.get("max", np.inf)]
    for position, name in enumerate(step.inputs[1:]):
        if name:
            bounds[position] = float(flow.constants[name]) if name in flow.constants else np.nan
    flow.write(step.outputs[0], tensor.axes, tensor.is_zero and bounds[0] <= 0 <= bounds[1])


def _pool(flow: Flow, step: Step, tensor: Tracked) -> None:
    flow.fix_axes(tensor, (0, 1), f"{step.place} slides along it")
    rest: list[Axis] = [None] * (len(tensor.axes) - 2)
    flow.write(step.outputs[0], [*tensor.axes[:2], *rest], tensor.is_zero)


def _elementwise(flow: Flow, step: Step) -> None:
    """Tie the operands' channels along every axis of the result."""
    shape = flow.shapes.get(step.outputs[0])
    known = all(name in flow.tensors or name in flow.constants for name in step.inputs)
    if not shape or not known:
        return flow.freeze(step, f"{step.place} has unknown extents")
    axes: list[Axis] = []
    for axis, extent in enumerate(shape):
        facing = [
            tensor.axes[axis - len(shape)]
            for name in step.inputs
            if (tensor := flow.tensors.get(name)) is not None
            and _extent(tensor.shape, axis - len(shape)) == extent
        ]
        reason = f"{step.place} adds or multiplies what has to stay"
        axes.append(_all_tied(flow, facing, reason))
    covers = [axis for axis, labels in enumerate(axes) if labels is not None]
    zeros = [_is_zero(flow, step, name, axes, covers) for name in step.inputs]
    if step.kind in _SUMS.split():
        is_zero = all(zeros)
    elif step.kind == "Mul":
        is_zero = any(zeros)
    else:
        # a quotient, a power with a positive exponent and PRelu are 0 where the first operand is
        is_zero = zeros[0] and (step.kind != "Pow" or _is_positive(flow, step.inputs[1]))
    flow.write(step.outputs[0], axes, is_zero)


def _all_tied(flow: Flow, facing: list[Axis], reason: str) -> Axis:
    if not facing:
        return None
    made = facing[0]
    for other in facing[1:]:
        made = flow.channels.tie(made, other, reason)
    return made


def _extent(shape: tuple[int, ...], axis: int) -> int:
    """Return an extent counted from the end; 1 before the first axis."""
    return shape[axis] if -axis <= len(shape) else 1


def _is_zero(flow: Flow, step: Step, name: str, axes: list[Axis], covers: list[int]) -> bool:
    """Label a constant operand; return whether an operand is 0 where a channel is removed."""
    rank = len(axes)
    if name in flow.tensors:
        tensor = flow.tensors[name]
        return tensor.is_zero and all(
            _extent(tensor.shape, axis - rank) == flow.shapes[step.outputs[0]][axis]
            for axis in covers
        )
    value = flow.constants[name]
    offset = rank - value.ndim
    bound = [axes[axis + offset] if extent > 1 else None for axis, extent in enumerate(value.shape)]
    varying = [axis for axis, labels in enumerate(bound) if labels is not None]
    is_summand = step.kind in _SUMS.split() and len(varying) == len(covers) == 1
    flow.bind(name, bound, f"{step.place} shares a constant", varying[0] if is_summand else None)
    return is_summand or not value.any()


def _is_positive(flow: Flow, name: str) -> bool:
    return name in flow.constants and bool((flow.constants[name] > 0).all())


def _layout(flow: Flow, step: Step, tensor: Tracked) -> None:
    """Label a Reshape, Flatten, Squeeze or Unsqueeze."""
    shape, reason = flow.shapes[step.outputs[0]], f"{step.place} mixes it with other axes"
    if not tensor.labelled:
        flow.write(step.outputs[0], [None] * len(shape))
        return
    is_computed = step.kind == "Reshape" and step.inputs[1] not in flow.constants
    if is_computed or 0 in shape or np.prod(shape) != np.prod(tensor.shape):
        return flow.freeze(step, f"{step.place} has a computed target or unknown extents")
    axes = reshaped(flow.channels, tensor, shape, reason)
    if step.kind == "Reshape":
        flow.targets[step.outputs[0]] = axes
    flow.write(step.outputs[0], axes, tensor.is_zero)


def _transpose(flow: Flow, step: Step, tensor: Tracked) -> None:
    order = step.get("perm", range(len(tensor.axes) - 1, -1, -1))
    flow.write(step.outputs[0], [tensor.axes[axis] for axis in order], tensor.is_zero)


def _concat(flow: Flow, step: Step) -> None:
    shape = flow.shapes.get(step.outputs[0])
    parts = [flow.tensors.get(name) for name in step.inputs]
    tensors = [item for item in parts if item is not None and item.shape]
    if not shape or len(tensors) < len(parts):
        return flow.freeze(step, f"{step.place} joins a constant or unknown extents")
    joined = step.attributes["axis"] % len(shape)
    reason = f"{step.place} joins it with what has to stay"
    axes = [
        _all_tied(flow, [item.axes[axis] for item in tensors], reason)
        if axis != joined
        else _joined(tensors, joined)
        for axis in range(len(shape))
    ]
    flow.write(step.outputs[0], axes, all(item.is_zero for item in tensors))


def _joined(tensors: list[Tracked], axis: int) -> Axis:
    if all(item.axes[axis] is None for item in tensors):
        return None
    return np.concatenate(
        [
            np.zeros(item.shape[axis], np.int64) if (labels := item.axes[axis]) is None else labels
            for item in tensors
        ]
    )


def _split(flow: Flow, step: Step, tensor: Tracked) -> None:
    axis, start = step.get("axis", 0) % len(tensor.axes), 0
    parts: list[Axis] = []
    for name in step.outputs:
        extent = flow.shapes[name][axis]
        whole = tensor.axes[axis]
        labels = None if whole is None else whole[start : start + extent]
        flow.channels.fix(None if labels is None else labels[:1], f"{step.place} keeps each part")
        axes = [*tensor.axes[:axis], labels, *tensor.axes[axis + 1 :]]
        flow.write(name, axes, tensor.is_zero)
        parts.append(labels)
        start += extent
    if tensor.axes[axis] is not None:
        flow.parts[step.outputs[0]] = parts


def _softmax(flow: Flow, step: Step, tensor: Tracked) -> None:
    rank = len(tensor.axes)
    axis = step.get("axis", -1 if step.opset >= 13 else 1) % rank
    over = [axis] if step.opset >= 13 else range(axis, rank)
    free = [item for item in range(rank) if item not in over]
    flow.fix_axes(tensor, free, f"{step.place} normalizes over it")
    axes = [tensor.axes[item] if item in free else None for item in range(rank)]
    flow.write(step.outputs[0], axes, False)


def _reduction(flow: Flow, step: Step, tensor: Tracked) -> None:
    rank = len(tensor.axes)
    given = step.inputs[1] if len(step.inputs) > 1 else ""
    if given and given not in flow.constants:
        return flow.freeze(step, f"{step.place} computes its axes")
    axes = flow.constants[given].tolist() if given else step.get("axes")
    if not axes and step.get("noop_with_empty_axes", 0):
        return flow.write(step.outputs[0], tensor.axes, tensor.is_zero)
    over = {axis % rank for axis in axes or range(rank)}
    is_sum = step.kind in ("ReduceSum", "ReduceL2") and tensor.is_zero
    free = range(rank) if is_sum else [axis for axis in range(rank) if axis not in over]
    flow.fix_axes(tensor, free, f"{step.place} reduces it")
    keeps = bool(step.get("keepdims", 1))
    left = [
        None if axis in over else tensor.axes[axis]
        for axis in range(rank)
        if keeps or axis not in over
    ]
    flow.write(step.outputs[0], left, tensor.is_zero)


def _resized(flow: Flow, step: Step, tensor: Tracked) -> None:
    """Label a padding, a slice or an enlargement: an axis whose extent changes stays whole."""
    shape, reason = flow.shapes[step.outputs[0]], f"{step.place} changes its extent"
    if not tensor.labelled:
        flow.write(step.outputs[0], [None] * len(shape))
        return
    constant = [flow.constants.get(name) for name in step.inputs[1:] if name]
    if any(item is None for item in constant) or len(shape) != len(tensor.shape):
        return flow.freeze(step, f"{step.place} is computed")
    steps = constant[3] if step.kind == "Slice" and len(constant) > 3 else None
    if steps is not None and (steps < 0).any():
        return flow.freeze(step, f"{step.place} turns it round")
    free = [axis for axis in range(len(shape)) if shape[axis] == tensor.shape[axis]]
    if step.kind == "Pad" and _moves(step, constant):
        free = []
    flow.fix_axes(tensor, free, reason)
    fill = float(step.get("value", 0.0))
    if step.kind == "Pad" and len(constant) > 1 and constant[1] is not None:
        fill = float(constant[1])
    axes = [tensor.axes[axis] if axis in free else None for axis in range(len(shape))]
    flow.write(step.outputs[0], axes, tensor.is_zero and fill == 0)


def _moves(step: Step, constant: list[np.ndarray | None]) -> bool:
    """Return whether a padding cuts one side, so that an axis may move at the same extent."""
    pads = constant[0] if constant else np.array(step.get("pads", [0]))
    return pads is None or bool((pads < 0).any())


MOVE_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_ZERO_AT_ZERO.split(), _unary(True)),
    **dict.fromkeys(_ELSEWHERE_AT_ZERO.split(), _unary(False)),
    **dict.fromkeys(_POOLS.split(), _known(_pool)),
    **dict.fromkeys([*_SUMS.split(), "Div", "Mul", "PRelu", "Pow"], _elementwise),
    **dict.fromkeys(_REDUCTIONS.split(), _known(_reduction)),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _known(_layout)),
    **dict.fromkeys(("Pad", "Resize", "Slice", "Upsample"), _known(_resized)),
    **dict.fromkeys(("LogSoftmax", "Softmax"), _known(_softmax)),
    "Clip": _known(_clip),
    "Concat": _concat,
    "Split": _known(_split),
    "Transpose": _known(_transpose),
}
"""Operator -> what it does to labels."""
