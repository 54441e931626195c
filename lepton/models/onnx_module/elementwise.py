"""Element-wise operators, comparisons and reductions on torch tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F

from lepton.models.onnx_module.step import Step

if TYPE_CHECKING:
    from lepton.models.onnx_module.step import Operator

# torch is typed in part only:
# pyright: reportMissingImports=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

__all__ = ["ELEMENTWISE"]

Values = Sequence[torch.Tensor | None]


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
    return lambda step, values: function(cast("torch.Tensor", values[0]))


def _binary(function: Callable[[Any, Any], torch.Tensor]) -> Operator:
    return lambda step, values: function(values[0], values[1])


def _divided(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Divide; whole numbers round toward zero."""
    return (
        left / right if left.is_floating_point() else torch.div(left, right, rounding_mode="trunc")
    )


def _clip(step: Step, values: Values) -> torch.Tensor:
    bounds: list[Any] = [step.get("min"), step.get("max")]
    for position, value in enumerate(values[1:3]):
        bounds[position] = value
    low, high = (b if b is None else float(b) for b in bounds)
    tensor = cast("torch.Tensor", values[0])
    return tensor if low is None and high is None else torch.clamp(tensor, low, high)


def _gelu(step: Step, values: Values) -> torch.Tensor:
    return F.gelu(cast("torch.Tensor", values[0]), approximate=step.get("approximate", "none"))


def _prelu(step: Step, values: Values) -> torch.Tensor:
    tensor, slope = cast("Sequence[torch.Tensor]", values)
    return torch.where(tensor < 0, tensor * slope, tensor)


def _hard_sigmoid(step: Step, values: Values) -> torch.Tensor:
    tensor = cast("torch.Tensor", values[0])
    return (tensor * step.get("alpha", 0.2) + step.get("beta", 0.5)).clamp(0, 1)


def _selu(step: Step, values: Values) -> torch.Tensor:
    alpha, gamma = (
        step.get("alpha", 1.67326319217681884765625),
        step.get("gamma", 1.05070102214813232421875),
    )
    return gamma * F.elu(cast("torch.Tensor", values[0]), alpha)


def _with_alpha(function: Callable[..., torch.Tensor], default: float) -> Operator:
    return lambda step, values: function(values[0], step.get("alpha", default))


def _softmax(function: Callable[..., torch.Tensor]) -> Operator:
    """Along one axis; before opset 13, over all axes from it on as one."""

    def run(step: Step, values: Values) -> torch.Tensor:
        tensor = cast("torch.Tensor", values[0])
        if step.opset >= 13:
            return function(tensor, dim=step.get("axis", -1))
        axis = step.get("axis", 1) % max(tensor.ndim, 1)
        return function(tensor.flatten(axis), dim=axis).reshape(tensor.shape)

    return run


def _fold(function: Callable[[Any, Any], torch.Tensor]) -> Operator:
    return lambda step, values: functools.reduce(function, values)


def _mean(step: Step, values: Values) -> torch.Tensor:
    return functools.reduce(torch.add, cast("Sequence[torch.Tensor]", values)) / len(values)


def _cast(step: Step, values: Values) -> torch.Tensor:
    from onnx import helper

    kind = helper.tensor_dtype_to_np_dtype(step.attributes["to"])
    return cast("torch.Tensor", values[0]).to(getattr(torch, kind.name))


def _where(step: Step, values: Values) -> torch.Tensor:
    condition, left, right = cast("Sequence[torch.Tensor]", values)
    return torch.where(condition, left, right)


def _reduction(function: Callable[..., torch.Tensor]) -> Operator:
    """Over `axes`, an attribute or an input; over all where there are none."""

    def run(step: Step, values: Values) -> torch.Tensor:
        tensor = cast("torch.Tensor", values[0])
        given = values[1] if len(values) > 1 else None
        axes = step.get("axes") if given is None else given.tolist()
        if not axes and step.get("noop_with_empty_axes", 0):
            return tensor
        return function(tensor, tuple(axes or range(tensor.ndim)), bool(step.get("keepdims", 1)))

    return run


def _l2(tensor: torch.Tensor, axes: tuple[int, ...], keep: bool) -> torch.Tensor:
    return tensor.square().sum(axes, keep).sqrt()


ELEMENTWISE: Mapping[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "And": _binary(torch.logical_and),
    "Cast": _cast,
    "Ceil": _unary(torch.ceil),
    "Celu": _with_alpha(F.celu, 1.0),
    "Clip": _clip,
    "Cos": _unary(torch.cos),
    "Div": _binary(_divided),
    "Elu": _with_alpha(F.elu, 1.0),
    "Equal": _binary(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "Gelu": _gelu,
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(F.hardswish),
    "LeakyRelu": _with_alpha(F.leaky_relu, 0.01),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Log": _unary(torch.log),
    "LogSoftmax": _softmax(torch.log_softmax),
    "MatMul": _binary(torch.matmul),
    "Max": _fold(torch.maximum),
    "Mean": _mean,
    "Min": _fold(torch.minimum),
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Or": _binary(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _binary(torch.pow),
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceL2": _reduction(_l2),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceSum": _reduction(torch.sum),
    "Relu": _unary(torch.relu),
    "Round": _unary(torch.round),
    "Selu": _selu,
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Softmax": _softmax(torch.softmax),
    "Softplus": _unary(F.softplus),
    "Softsign": _unary(F.softsign),
    "Sqrt": _unary(torch.sqrt),
    "Sub": _binary(torch.sub),
    "Sum": _fold(torch.add),
    "Tanh": _unary(torch.tanh),
    "Where": _where,
}
"""Operator -> its function."""
