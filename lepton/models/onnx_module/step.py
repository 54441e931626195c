"""One operator of a graph, its attributes as Python values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from lepton.errors import ImportFailure
from lepton.models.onnx_module.reading import node_name

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["LAYOUTS", "Operator", "Step", "step_of"]

LAYOUTS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Those that keep every element exactly once."""


@dataclass(frozen=True)
class Step:
    """An operator: how it is called, what it reads (empty: left out) and what it makes."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    @property
    def place(self) -> str:
        """How messages call it."""
        return f"{self.kind} {self.name!r}"

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute's value, or what it is if left out."""
        return self.attributes.get(name, default)


Operator: TypeAlias = "Callable[[Step, Sequence[torch.Tensor | None]], Any]"
"""Computes a step's output, or a tuple of several; a value left out is None."""


def step_of(node: onnx.NodeProto, opset: int) -> Step:
    """Return a node as a step.

    Raises:
        ImportFailure: An attribute cannot be read.
    """
    from onnx import helper

    try:
        values = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    except (ValueError, TypeError) as error:
        raise ImportFailure(f"{node.op_type} {node_name(node)!r}: {error}") from error
    texts = {
        name: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for name, value in values.items()
    }
    return Step(node.op_type, node_name(node), tuple(node.input), tuple(node.output), texts, opset)
