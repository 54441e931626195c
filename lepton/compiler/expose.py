"""Expose the inner tensors of a region, so that each can be compared with the golden library's."""

from __future__ import annotations

from dataclasses import replace

from lepton.compiler import graph as ir
from lepton.compiler.steps import Crossing, NpuStep

__all__ = ["expose_region"]


def expose_region(step: NpuStep, crossings: dict[str, Crossing]) -> tuple[NpuStep, list[str]]:
    """Return the step with every named tensor as an output, and the names that are new.

    `crossings` takes the new tensors in; their shapes are physical, `[n, h, w, c]`.
    """
    graph = step.graph
    present = {tensor.name for tensor in graph.outputs}
    renamed: dict[str, ir.Tensor] = {}
    for node in graph.nodes:
        tensor = node.output
        source = graph.names.get(tensor.name)
        if source is None or tensor.name in present or isinstance(node, ir.Reshape):
            continue
        name = source
        while name in crossings:
            name += "'"
        renamed[tensor.name] = replace(tensor, name=name)
        crossings[name] = Crossing(name, tensor.shape, "uint8" if tensor.unsigned else "int8")

    def rename(tensor: ir.Tensor) -> ir.Tensor:
        known = renamed.get(tensor.name)
        return tensor if known is None else replace(tensor, name=known.name)

    nodes = tuple(
        replace(
            node, inputs=tuple(rename(item) for item in node.inputs), output=rename(node.output)
        )
        for node in graph.nodes
    )
    added = [tensor.name for tensor in renamed.values()]
    outputs = (*graph.outputs, *renamed.values())
    names = {(renamed[k].name if k in renamed else k): v for k, v in graph.names.items()}
    exposed = ir.Graph(nodes, graph.inputs, outputs, names)
    return NpuStep(exposed, step.inputs, (*step.outputs, *added)), added
