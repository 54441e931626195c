"""The compiler's own forms as text: graph, plans, memory, instructions; what `--dump` writes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, cast

import numpy as np

from lepton.compiler.choices import Choices
from lepton.compiler.graph import Node, Tensor
from lepton.compiler.schedule import Emission, RegionWork
from lepton.compiler.steps import FrontModel, HostStep, NpuStep
from lepton.isa import disassemble_one
from lepton.isa.declaration import Instruction
from lepton.program import Operator, one_line

__all__ = ["graph_text", "instructions_text", "memory_text", "plan_text", "plans_text"]


def _value(value: object) -> str:
    """Return a parameter of a node: arrays as shape, type and digest."""
    if isinstance(value, np.ndarray):
        content = np.ascontiguousarray(cast(Any, value))
        digest = hashlib.sha256(content.tobytes()).hexdigest()[:16]
        return f"{content.dtype}{list(content.shape)}#{digest}"
    if isinstance(value, Enum):
        return value.name.lower()
    if dataclasses.is_dataclass(value):
        names = (field.name for field in dataclasses.fields(value))
        return f"({', '.join(f'{name}={_value(getattr(value, name))}' for name in names)})"
    if isinstance(value, tuple):
        return f"({', '.join(_value(item) for item in cast(tuple[object, ...], value))})"
    return str(value)


def _tensor(tensor: Tensor) -> str:
    """Return a tensor with its type and quantization."""
    kind = "uint8" if tensor.unsigned else "int8"
    text = f"{one_line(tensor.name)} {kind}{list(tensor.shape)}"
    if tensor.scale:
        text += f" scale={tensor.scale!r} zero_point={tensor.zero_point}"
    return text if tensor.constant is None else f"{text} = {_value(tensor.constant)}"


def _node(node: Node) -> Iterator[str]:
    """Yield the lines of a node."""
    yield f"{type(node).__name__} '{one_line(node.name)}' macs={node.macs}"
    yield from (f"    reads  {_tensor(tensor)}" for tensor in node.inputs)
    yield f"    writes {_tensor(node.output)}"
    shared = {field.name for field in dataclasses.fields(Node)}
    for field in dataclasses.fields(node):
        if field.name not in shared:
            yield f"    {field.name} = {_value(getattr(node, field.name))}"


def _host(step: HostStep) -> Iterator[str]:
    """Yield the lines of a host region: its operators with their reasons, and its ONNX graph."""
    import onnx

    for item in step.operators:
        yield f"{item.kind} '{one_line(item.name)}' macs={item.macs}: {one_line(item.reason)}"
    for node in onnx.load_from_string(step.graph.model).graph.node:
        operands = ", ".join(one_line(name) for name in node.input)
        yield f"    {', '.join(map(one_line, node.output))} = {node.op_type}({operands})"


def graph_text(front: FrontModel) -> str:
    """Return the steps of a model: the graphs of the NPU, the regions of the host."""
    lines = [f"model {one_line(front.name)}, arithmetic of {front.golden}"]
    for number, step in enumerate(front.steps):
        device, body = ("npu", _nodes(step)) if isinstance(step, NpuStep) else ("host", _host(step))
        edges = step if isinstance(step, NpuStep) else step.graph
        lines += [
            "",
            f"step {number} on the {device}",
            f"inputs  {', '.join(map(one_line, edges.inputs))}",
            f"outputs {', '.join(map(one_line, edges.outputs))}",
            *body,
        ]
    return "\n".join(lines) + "\n"


def _nodes(step: NpuStep) -> Iterator[str]:
    """Yield the lines of a region's nodes."""
    for node in step.graph.nodes:
        yield from _node(node)


def plan_text(plan: object) -> str:
    """Return a plan's fields, without those that are 0 and what it costs."""
    fields = (
        {item.name: getattr(plan, item.name) for item in dataclasses.fields(cast(Any, plan))}
        if dataclasses.is_dataclass(plan)
        else cast(Any, plan)._asdict()
    )
    return " ".join(
        f"{name}={int(value)}" for name, value in fields.items() if value and name != "cost"
    )


def plans_text(works: Sequence[RegionWork], choices: Choices) -> str:
    """Return the plans of every node that had a choice, in the order of the layer's own cost."""
    unit = choices.objective.unit
    lines = [f"plans: {unit} are those of the layer alone by the planner's cost model; > is taken"]
    for work in works:
        for number, node in zip(work.operators, work.graph.nodes, strict=False):
            ranking = choices.ranking(node)
            lines.append(f"L{number} {type(node).__name__} '{one_line(node.name)}'")
            for rank, (cost, plan) in enumerate(ranking.plans if ranking else ()):
                mark = ">" if ranking and rank == ranking.taken else " "
                lines.append(f"  {mark} {cost:14,.0f}  {plan_text(plan)}")
    return "\n".join(lines) + "\n"


def memory_text(works: Sequence[RegionWork], emission: Emission) -> str:
    """Return where every tensor lies: in the scratchpad with its lifetime, in the memories.

    In the scratchpad as emitted: what moves together afterwards, only the program shows.
    """
    lines = ["addresses of the scratchpad before blocks move together; the program has the others"]
    for number, (work, memory) in enumerate(zip(works, emission.memories, strict=True)):
        lines += [f"region {number}: scratchpad", f"  0x000000  {memory.tile_bytes:10,}  tiles"]
        for item, address in sorted(memory.residents, key=lambda pair: (pair[1], pair[0].first)):
            first, last = (work.operators[step] for step in (item.first, item.last))
            lines.append(
                f"  {address:#08x}  {item.size:10,}  L{first} to L{last}  {one_line(item.name)}"
            )
    lines += ["memories"]
    places = sorted(emission.locations.items(), key=lambda pair: (pair[1].memory, pair[1].address))
    for name, place in places:
        lines.append(f"  memory {place.memory}  {place.address:#010x}  {one_line(name)}")
    lines.append(
        f"  constants {emission.constants_address:#010x}, {len(emission.constants):,} bytes"
    )
    lines.append(f"  program   {emission.program_address:#010x}")
    return "\n".join(lines) + "\n"


def instructions_text(
    instructions: Iterable[Instruction], operator_of: Sequence[int], operators: Sequence[Operator]
) -> str:
    """Return instructions as assembly text under their operators."""
    lines: list[str] = []
    current = -1
    for operator, instruction in zip(operator_of, instructions, strict=True):
        if operator != current:
            current = operator
            lines.append(f"; L{operator} {operators[operator].kind} "
                         f"{one_line(operators[operator].name)}")  # fmt: skip
        lines.append(disassemble_one(instruction))
    return "\n".join(lines) + "\n"
