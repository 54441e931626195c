"""The graph of a region while it grows: its edges, operands and results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lepton.compiler import graph as ir
from lepton.compiler.golden import Golden, tensor_scale, tensor_zero_point
from lepton.compiler.layout import IDENTITY, Builder, Layout, Placed, four, physical
from lepton.compiler.operation import Operation, Value

__all__ = ["Region", "pair"]


def pair(values: tuple[int, ...]) -> tuple[int, int]:
    """Return the two of a window's extents, of which one may stand for both."""
    return values[0], values[-1]


class Region:
    """The graph of one region while it grows, operation by operation."""

    def __init__(self, golden: Golden, prefix: str) -> None:
        self.golden = golden
        self.builder = Builder(prefix)
        self._placed: dict[Any, Placed] = {}
        self._inputs: list[ir.Tensor] = []

    def place(self, variable: Any, placed: Placed) -> None:
        """Make a variable known."""
        self._placed[variable] = placed

    def bind_input(self, variable: Any, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Make a parameter of the region known; it lies row-major in its memory."""
        tensor = ir.Tensor(name, four(shape), dtype == "uint8", 0.0, 0)
        self._inputs.append(tensor)
        self._placed[variable] = Placed(tensor, four(shape), IDENTITY)

    def alias(self, variable: Any, source: Any) -> None:
        """Make a variable another name of a value."""
        self._placed[variable] = self._placed[source]

    def finish(self, results: list[Any], names: list[str]) -> ir.Graph:
        """Return the graph whose outputs are `results`, row-major, called `names`."""
        outputs: list[ir.Tensor] = []
        for variable, name in zip(results, names, strict=True):
            placed = self._placed[variable]
            tensor = self.builder.require(placed, IDENTITY, name)
            outputs.append(self._rename(tensor, name, outputs))
        return ir.Graph(
            tuple(self.builder.nodes), tuple(self._inputs), tuple(outputs), self.builder.names
        )

    def _rename(self, tensor: ir.Tensor, name: str, taken: list[ir.Tensor]) -> ir.Tensor:
        """Give a result its name; what has one already, or is no node's result, is copied."""
        nodes = self.builder.nodes
        made = any(node.output.name == tensor.name for node in nodes)
        if not made or any(other.name == tensor.name for other in taken):
            output = replace(tensor, name=name, constant=None)
            nodes.append(ir.Reshape(name=name, inputs=(tensor,), output=output))
            return output
        renamed = replace(tensor, name=name)
        for index, node in enumerate(nodes):
            inputs = tuple(
                replace(item, name=name) if item.name == tensor.name else item
                for item in node.inputs
            )
            output = renamed if node.output.name == tensor.name else node.output
            nodes[index] = replace(node, inputs=inputs, output=output)
        for variable, placed in list(self._placed.items()):
            if placed.tensor.name == tensor.name:
                self._placed[variable] = replace(placed, tensor=renamed)
        if tensor.name in self.builder.names:
            self.builder.names[name] = self.builder.names.pop(tensor.name)
        return renamed

    def operand(self, value: Value) -> Placed:
        """Return an operand with the quantization that its reader gives it."""
        if value.constant is not None:
            raw = np.ascontiguousarray(value.constant).view(np.uint8).reshape(four(value.shape))
            tensor = ir.Tensor(
                self.builder.fresh(), four(value.shape), value.dtype == "uint8", 0.0, 0, raw
            )
            placed = Placed(tensor, four(value.shape), IDENTITY)
        else:
            placed = self._placed[value.variable]
        if value.quantization is None:
            return placed
        tensor = replace(
            placed.tensor,
            scale=float(tensor_scale(value)),
            zero_point=tensor_zero_point(value),
            unsigned=value.dtype == "uint8",
        )
        return replace(placed, tensor=tensor)

    def result(self, operation: Operation, layout: Layout) -> Placed:
        """Return a new tensor for an operation's result."""
        value = operation.output
        logical = four(value.shape)
        known = value.quantization is not None
        tensor = ir.Tensor(
            self.builder.fresh(),
            physical(logical, layout),
            value.dtype == "uint8",
            float(tensor_scale(value)) if known else 0.0,
            tensor_zero_point(value) if known else 0,
        )
        return Placed(tensor, logical, layout)

    def append(self, node: ir.Node) -> None:
        self.builder.nodes.append(node)
