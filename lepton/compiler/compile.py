"""Compilation: a model becomes a program."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from lepton.chip import Chip
from lepton.compiler import graph as ir
from lepton.compiler.choices import Choices
from lepton.compiler.copies import Staging
from lepton.compiler.emit import Location
from lepton.compiler.front import FrontModel, HostStep, NpuStep
from lepton.compiler.options import CompileOptions, plain_shapes
from lepton.compiler.refine import refined
from lepton.compiler.schedule import Emission, RegionWork, emit_regions
from lepton.compiler.stage import can_stage, staged
from lepton.cost.estimate import estimate_program
from lepton.errors import CompileError
from lepton.program import MAXIMUM_TENSOR_ELEMENTS, Operator, Program, ProgramTensor, Region

__all__ = ["CompileOptions", "compile_front", "compile_model"]


def compile_model(
    model: str | Path | object, chip: Chip, options: CompileOptions | None = None
) -> Program:
    """Compile a model in this process.

    Args:
        model: path of an `.onnx` or `.tflite` file, `onnx.ModelProto`, `torch.export` program or
            Relax `IRModule`.
        chip: the chip to compile for.
        options: shapes and what to expose.

    Raises:
        ImportFailure: the model cannot be read.
        CompileError: the chip cannot hold it, or an operator runs nowhere.
    """
    from lepton.compiler.front import front_model
    from lepton.compiler.importers import import_model

    chosen = options or CompileOptions()
    front = front_model(import_model(model, plain_shapes(chosen.shapes)), chip)
    return compile_front(expose_all(front) if chosen.keep_all else front, chip, chosen.effort)


def expose_all(front: FrontModel) -> FrontModel:
    """Return a model whose NPU regions also output every tensor of the source model."""
    from lepton.compiler.expose import expose_region

    steps: list[NpuStep | HostStep] = []
    crossings = dict(front.crossings)
    extra: list[str] = []
    for step in front.steps:
        if isinstance(step, NpuStep):
            step, added = expose_region(step, crossings)
            extra += added
        steps.append(step)
    outputs = (*front.outputs, *(name for name in extra if name not in front.outputs))
    return FrontModel(
        front.name, front.golden, tuple(steps), crossings, front.inputs, outputs,
        front.quantizations,
    )  # fmt: skip


def compile_front(front: FrontModel, chip: Chip, effort: int = 1) -> Program:
    """Return the program of a model that has been partitioned; `effort` is 0 to 3."""
    works: list[RegionWork] = []
    operators: list[Operator] = []
    touched: set[str] = set()
    for step in front.steps:
        if isinstance(step, HostStep):
            operators += [
                Operator(item.name or item.kind, item.kind, "host", item.macs, 0, 0, item.reason)
                for item in step.operators
            ]
            continue
        works.append(RegionWork(step.graph, len(operators)))
        operators += [_operator(node) for node in step.graph.nodes]
        operators.append(Operator("(end of region)", "halt", "npu", 0, 0, 0, ""))
        touched |= {tensor.name for tensor in (*step.graph.inputs, *step.graph.outputs)}
    crossing = {
        name: math.prod(item.shape) * np.dtype(item.dtype).itemsize
        for name, item in front.crossings.items()
        if name in touched
    }
    choices = Choices(chip)
    convolutions = [
        node for work in works for node in work.graph.nodes if isinstance(node, ir.Convolution)
    ]

    def build(staging: Staging | None = None) -> Program:
        emission = emit_regions(works, chip, crossing, choices, staging)
        return _assemble(front, chip, emission, operators)

    def evaluate(program: Program) -> float:
        return estimate_program(program).cycles

    program = refined(build, convolutions, choices, evaluate, effort)
    if effort == 0 or len(works) != 1 or not can_stage(chip):
        return program
    return staged(program, build)


def _operator(node: ir.Node) -> Operator:
    """Return the report line of a node."""
    weights = node.weights.size if isinstance(node, ir.Convolution) else 0
    kind = type(node).__name__.lower()
    if isinstance(node, ir.Convolution):
        kind = "depthwise" if node.groups > 1 else "convolution"
    return Operator(node.name, kind, "npu", node.macs, weights, 0, "")


def _assemble(
    front: FrontModel, chip: Chip, emission: Emission, operators: list[Operator]
) -> Program:
    """Return the program."""
    spans = iter(emission.spans)
    regions: list[Region] = []
    models: list[bytes] = []
    for step in front.steps:
        if isinstance(step, HostStep):
            graph = step.graph
            regions.append(Region("host", 0, 0, graph.inputs, graph.outputs, len(models)))
            models.append(graph.model)
        else:
            start, stop = next(spans)
            regions.append(Region("npu", start, stop, step.inputs, step.outputs, -1))
    stored = emission.stored_bytes
    if not any(region.device == "npu" for region in regions) and not models:
        raise CompileError(f"'{front.name}' computes nothing: its outputs are its inputs")
    return Program(
        source=front.name,
        golden="tflite" if front.golden == "tflite" else "onnx",
        chip=chip,
        instructions=emission.instructions,
        operator_of=emission.operator_of,
        constants=emission.constants,
        program_address=emission.program_address,
        constants_address=emission.constants_address,
        tensors=_tensors(front, emission.locations),
        inputs=front.inputs,
        outputs=front.outputs,
        operators=tuple(
            replace(o, stored_bytes=stored.get(i, 0), reason=emission.reasons.get(i, o.reason))
            for i, o in enumerate(operators)
        ),
        regions=tuple(regions),
        host_models=tuple(models),
    )


def _tensors(front: FrontModel, locations: dict[str, Location]) -> tuple[ProgramTensor, ...]:
    """Return the crossing tensors with their places."""
    made: list[ProgramTensor] = []
    for name, item in front.crossings.items():
        if math.prod(item.shape) > MAXIMUM_TENSOR_ELEMENTS:
            raise CompileError(
                f"tensor '{name}' of shape {list(item.shape)} is too large: a program's tensors "
                f"have at most {MAXIMUM_TENSOR_ELEMENTS} elements"
            )
        place = locations.get(name)
        scale, zero_point = front.quantizations.get(name, (None, 0))
        made.append(
            ProgramTensor(
                name,
                item.shape,
                item.dtype,
                scale,
                zero_point,
                -1 if place is None else place.memory,
                0 if place is None else place.address,
            )
        )
    return tuple(made)
