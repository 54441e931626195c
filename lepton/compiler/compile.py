"""Compilation: a model becomes a program."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lepton.chip import Chip
from lepton.compiler import graph as ir
from lepton.compiler.cache import CompilerCache, process_cache
from lepton.compiler.choices import Choices
from lepton.compiler.copies import Staging
from lepton.compiler.describe import graph_text, instructions_text, memory_text, plans_text
from lepton.compiler.dump import Dump, dump_of
from lepton.compiler.emit import Location
from lepton.compiler.explain import explained
from lepton.compiler.front_folder import front_key
from lepton.compiler.options import CompileOptions, plain_shapes
from lepton.compiler.schedule import Emission, RegionWork, emit_regions
from lepton.compiler.schedules import Compiled
from lepton.compiler.search import Back, best_program
from lepton.compiler.shard import Layout, Stretch, shard
from lepton.compiler.shard_choice import layouts_of
from lepton.compiler.steps import FrontModel, HostStep, NpuStep
from lepton.errors import CompileError
from lepton.listing import listing
from lepton.program import (
    MAXIMUM_TENSOR_ELEMENTS,
    Objective,
    Operator,
    Program,
    ProgramTensor,
    Region,
)

__all__ = ["CompileOptions", "compile_explained", "compile_front", "compile_model"]

_SPLITS = (1, 3, 8, 8)
"""Ways to split the work over several cores that are tried, by effort."""


def compile_model(
    model: str | Path | object,
    chip: Chip,
    options: CompileOptions | None = None,
    cache: CompilerCache | None = None,
) -> Program:
    """Compile a model in this process.

    Args:
        model: path of an `.onnx` or `.tflite` file, `onnx.ModelProto`, `torch.export` program or
            Relax `IRModule`.
        chip: the chip to compile for.
        options: shapes and what to expose.
        cache: what earlier compilations found; by default the process's own.

    Raises:
        ImportFailure: the model cannot be read.
        CompileError: the chip cannot hold it, or an operator runs nowhere.
    """
    return compile_explained(model, chip, options, cache).program


def compile_explained(
    model: str | Path | object,
    chip: Chip,
    options: CompileOptions | None = None,
    cache: CompilerCache | None = None,
) -> Compiled:
    """Compile a model like `compile_model`, and say which schedules there were to choose from."""
    chosen = options or CompileOptions()
    known = process_cache() if cache is None else cache
    dump = dump_of(chosen.dump)
    front = _front(model, chip, chosen, known, dump)
    front = expose_all(front) if chosen.keep_all else front
    return compile_front(front, chip, chosen, dump, known)


def _front(
    model: str | Path | object,
    chip: Chip,
    options: CompileOptions,
    cache: CompilerCache,
    dump: Dump,
) -> FrontModel:
    """Return the front of a model, of a file from the cache unless its way there is to be dumped.

    Raises:
        ImportFailure: the model cannot be read.
    """
    shapes = plain_shapes(options.shapes)

    def make() -> FrontModel:
        # late, for TVM takes as long to load as a compilation
        from lepton.compiler.front import front_model
        from lepton.compiler.importers import import_model

        return front_model(import_model(model, shapes, dump), chip, dump)

    if not isinstance(model, str | Path) or options.dump is not None:
        return make()
    key = front_key(Path(model), shapes)
    # importing a file that cannot be read says why
    return make() if key is None else cache.fronts.front(key, chip, make)


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
    return replace(front, steps=tuple(steps), crossings=crossings, outputs=outputs)


def compile_front(
    front: FrontModel,
    chip: Chip,
    options: CompileOptions,
    dump: Dump,
    cache: CompilerCache | None = None,
) -> Compiled:
    """Return the program of a model that has been partitioned, and its schedules if asked for."""
    graphs, operators = _graphs(front)
    crossing = _crossing_bytes(front)

    def back(split: _Split) -> Back:
        def emit(choices: Choices, staging: Staging | None) -> Emission:
            return emit_regions(
                split.works, chip, crossing | split.exchanged, choices, staging, split.views
            )

        def assemble(emission: Emission) -> Program:
            return _assemble(front, chip, emission, operators, options.objective)

        return Back(split.works, chip, cache, emit, assemble)

    dump("graph", lambda: graph_text(front))
    made = best_program([back(split) for split in _splits(graphs, chip, options.effort)], options)
    if not options.explain and options.dump is None:
        return Compiled(made.program, ())
    # once more, as the program that won: the last trial may have been another one
    works, emission = made.back.works, made.back.emit(made.choices, made.staging)
    _dump_back(dump, works, made.choices, emission, made.program)
    return Compiled(made.program, explained(works, made.choices, emission, chip))


class _Split(NamedTuple):
    """What each core does in each region, what cores exchange, and parts of tensors."""

    works: list[RegionWork]
    exchanged: dict[str, int]
    views: dict[str, Stretch]


def _splits(graphs: list[tuple[ir.Graph, int]], chip: Chip, effort: int) -> list[_Split]:
    """Return the ways to split the work over the cores that are to be tried."""
    if chip.cores == 1:
        return [_Split([RegionWork.of_all(graph, first) for graph, first in graphs], {}, {})]
    layouts = [layouts_of(graph, chip) for graph, _ in graphs]
    tried = min(max((len(found) for found in layouts), default=1), _SPLITS[effort])
    return [
        _split(graphs, [found[min(rank, len(found) - 1)] for found in layouts])
        for rank in range(tried)
    ]


def _split(graphs: list[tuple[ir.Graph, int]], layouts: list[list[Layout]]) -> _Split:
    """Return the work of the cores whose parts of every node of each region are given."""
    split = _Split([], {}, {})
    for (graph, first), parts in zip(graphs, layouts, strict=True):
        made = shard(graph, parts)
        split.exchanged.update(made.exchanged)
        split.views.update(made.views)
        for core in made.cores:
            operators = [first + source for source in core.sources]
            split.works.append(RegionWork(core.graph, operators, core.turns))
    return split


def _graphs(front: FrontModel) -> tuple[list[tuple[ir.Graph, int]], list[Operator]]:
    """Return the NPU regions, each with its first operator, and the lines of all operators."""
    works: list[tuple[ir.Graph, int]] = []
    operators: list[Operator] = []
    for step in front.steps:
        if isinstance(step, HostStep):
            operators += [
                Operator(item.name or item.kind, item.kind, "host", item.macs, 0, 0, item.reason)
                for item in step.operators
            ]
            continue
        works.append((step.graph, len(operators)))
        operators += [_operator(node) for node in step.graph.nodes]
        operators.append(Operator("(end of region)", "halt", "npu", 0, 0, 0, ""))
    return works, operators


def _crossing_bytes(front: FrontModel) -> dict[str, int]:
    """Return the bytes of each tensor that enters or leaves an NPU region."""
    touched = {
        tensor.name
        for step in front.steps
        if isinstance(step, NpuStep)
        for tensor in (*step.graph.inputs, *step.graph.outputs)
    }
    return {
        name: math.prod(item.shape) * np.dtype(item.dtype).itemsize
        for name, item in front.crossings.items()
        if name in touched
    }


def _dump_back(
    dump: Dump, works: list[RegionWork], choices: Choices, emission: Emission, program: Program
) -> None:
    """Dump what lowering chose and made."""
    owners = [int(number) for number in emission.operator_of]
    before, after = emission.unordered, program.decoded
    dump("plans", lambda: plans_text(works, choices))
    dump("memory", lambda: memory_text(works, emission))
    dump("schedule", lambda: instructions_text(before, owners, program.operators))
    dump("synchronized", lambda: instructions_text(after, owners, program.operators))
    dump("program", lambda: listing(program, code_only=True))


def _operator(node: ir.Node) -> Operator:
    """Return the report line of a node."""
    weights = node.weights.size if isinstance(node, ir.Convolution) else 0
    kind = type(node).__name__.lower()
    if isinstance(node, ir.Convolution):
        kind = "depthwise" if node.groups > 1 else "convolution"
    return Operator(node.name, kind, "npu", node.macs, weights, 0, "")


def _assemble(
    front: FrontModel,
    chip: Chip,
    emission: Emission,
    operators: list[Operator],
    objective: Objective,
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
        arenas=emission.arenas,
        objective=objective,
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
