"""Fold what a graph computes from constants alone, and remember where each element is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lepton.errors import ImportFailure
from lepton.models.onnx_module.elementwise import ELEMENTWISE
from lepton.models.onnx_module.moves import MOVES
from lepton.models.onnx_module.reading import stored_array
from lepton.models.onnx_module.step import LAYOUTS, Operator, Step
from lepton.models.onnx_module.windows import WINDOWS

# torch and onnx are typed in part only:
# pyright: reportMissingImports=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

__all__ = ["OPERATORS", "Constant", "compute", "fold", "stored"]

OPERATORS: Mapping[str, Operator] = {**ELEMENTWISE, **MOVES, **WINDOWS}

_FAULTS = (
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    ArithmeticError,
)
"""What torch and Python raise where shapes, types or attributes do not fit."""


@dataclass(frozen=True)
class Constant:
    """A constant tensor.

    Attributes:
        source: the stored tensor that it holds every element of, once; None if it is computed.
        index: its shape; where each element lies in the flat source. None if just there.
    """

    value: torch.Tensor
    source: str | None = None
    index: torch.Tensor | None = None

    @property
    def is_float(self) -> bool:
        """Whether it can be trained."""
        return self.source is not None and self.value.is_floating_point()

    def turned(self, *axes: int) -> Constant:
        """Return it with its axes in another order."""
        return Constant(self.value.permute(*axes), self.source, self.places().permute(*axes))

    def flat(self) -> Constant:
        """Return it as a vector."""
        index = None if self.index is None else self.index.reshape(-1)
        return Constant(self.value.reshape(-1), self.source, index)

    def places(self) -> torch.Tensor:
        """Return `index`, written out."""
        if self.index is None:
            return torch.arange(self.value.numel()).reshape(self.value.shape)
        return self.index


def compute(step: Step, values: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor, ...]:
    """Return a step's outputs.

    Raises:
        ImportFailure: Its values do not fit it.
    """
    try:
        made: Any = OPERATORS[step.kind](step, values)
    except _FAULTS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImportFailure(f"{step.place} cannot be computed: {reason}") from error
    return made if isinstance(made, tuple) else (made,)


def stored(proto: Any, name: str) -> Constant:
    """Return a tensor of the file.

    Raises:
        ImportFailure: It is damaged or of a type that torch does not have.
    """
    array = stored_array(proto, name)
    try:
        value = torch.from_numpy(array.copy())
    except TypeError as error:
        raise ImportFailure(f"constant {name!r} cannot be read: {error}") from error
    return Constant(value, name)


def fold(steps: Sequence[Step], constants: dict[str, Constant]) -> list[Step]:
    """Add to `constants` what follows from them; return the other steps."""
    left: list[Step] = []
    for step in steps:
        if step.kind == "Constant":
            constants[step.outputs[0]] = _constant_node(step)
        elif step.kind in OPERATORS and _is_constant(step, constants):
            constants.update(_folded(step, constants))
        else:
            left.append(step)
    return left


def _is_constant(step: Step, constants: Mapping[str, Constant]) -> bool:
    return any(step.inputs) and all(not name or name in constants for name in step.inputs)


def _folded(step: Step, constants: Mapping[str, Constant]) -> dict[str, Constant]:
    inputs = [constants[name] if name else None for name in step.inputs]
    made = compute(step, [item and item.value for item in inputs])
    first = inputs[0]
    if step.kind in LAYOUTS and first is not None and first.source is not None:
        others = [item and item.value for item in inputs[1:]]
        (index,) = compute(step, [first.places(), *others])
        return {step.outputs[0]: Constant(made[0], first.source, index)}
    return {name: Constant(value) for name, value in zip(step.outputs, made, strict=False)}


def _constant_node(step: Step) -> Constant:
    """Return the value of a Constant node; a tensor can be trained, a list or a number not."""
    if "value" in step.attributes:
        return stored(step.attributes["value"], step.outputs[0])
    for name, kind in (("value_float", torch.float32), ("value_int", torch.int64)):
        for key in (name, f"{name}s"):
            if key in step.attributes:
                return Constant(torch.tensor(step.attributes[key], dtype=kind))
    raise ImportFailure(f"{step.place} has no value that a network can use")
