"""Compilation: a model becomes a program."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lepton.chip import Chip
from lepton.compiler import graph as ir
from lepton.compiler.allocate import Block
from lepton.compiler.cache import CompilerCache, process_cache
from lepton.compiler.choices import Choices
from lepton.compiler.compact import compacted
from lepton.compiler.copies import Staging
from lepton.compiler.describe import graph_text, instructions_text, memory_text, plans_text
from lepton.compiler.dump import Dump, dump_of
from lepton.compiler.emit import Location
from lepton.compiler.explain import explained
from lepton.compiler.front_folder import front_key
from lepton.compiler.judge import Judge, judge_of, refuse_objective
from lepton.compiler.options import CompileOptions, plain_shapes
from lepton.compiler.refine import refined
from lepton.compiler.schedule import Emission, RegionWork, emit_regions
from lepton.compiler.schedules import Compiled
from lepton.compiler.shard import Stretch, core_of, shard
from lepton.compiler.shard_choice import layouts_of
from lepton.compiler.shorten import shortened
from lepton.compiler.stage import can_stage, staged
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
    return FrontModel(
        front.name, front.golden, tuple(steps), crossings, front.inputs, outputs,
        front.quantizations, front.verdicts,
    )  # fmt: skip


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
    works, exchanged, views = _works(graphs, chip)

    def emit(choices: Choices, staging: Staging | None) -> Emission:
        return emit_regions(works, chip, crossing | exchanged, choices, staging, views)

    def assemble(emission: Emission) -> Program:
        return _assemble(front, chip, emission, operators, options.objective)

    dump("graph", lambda: graph_text(front))
    made = _best(_Back(works, chip, cache, emit, assemble), options)
    if not options.explain and options.dump is None:
        return Compiled(made.program, ())
    # once more, as the program that won: the last trial may have been another one
    emission = emit(made.choices, made.staging)
    _dump_back(dump, works, made.choices, emission, made.program)
    return Compiled(made.program, explained(works, made.choices, emission, chip))


@dataclass(frozen=True)
class _Back:
    """How the NPU regions of a model become a program."""

    works: list[RegionWork]
    chip: Chip
    cache: CompilerCache | None
    emit: Callable[[Choices, Staging | None], Emission]
    assemble: Callable[[Emission], Program]


class _Made(NamedTuple):
    """A program, and what emits it again."""

    program: Program
    choices: Choices
    staging: Staging | None


def _best(back: _Back, options: CompileOptions) -> _Made:
    """Return the program that is best by what is minimized.

    Where that is not latency the fastest program is a candidate too: plans that look best alone may
    add up to a slow program, in which standby and leakage cost more than they save.
    """
    objective = options.objective
    refuse_objective(objective, back.chip)
    judge = judge_of(objective, options.evaluate)
    tried = tuple(dict.fromkeys((objective, Objective.LATENCY)))
    found: list[_Made] = []
    for number, each in enumerate(tried):

        def progress(share: float, done: int = number) -> None:
            if options.progress is not None:
                options.progress((done + share) / len(tried))

        own = judge if each == objective else judge_of(each)
        found.append(_searched(back, each, own, (options.effort, progress)))
    return min(found, key=lambda made: judge.score(made.program)) if len(found) > 1 else found[0]


def _searched(
    back: _Back, objective: Objective, judge: Judge, search: tuple[int, Callable[[float], None]]
) -> _Made:
    """Return the best program of a search; its effort is given, and who is told its progress."""
    choices = Choices(core_of(back.chip), objective, back.cache)
    stagings: dict[bytes, Staging] = {}
    blocks: dict[bytes, list[Block]] = {}

    def build(staging: Staging | None = None) -> Program:
        emission = back.emit(choices, staging)
        if staging is not None:
            stagings[emission.instructions] = staging
        blocks[emission.instructions] = [b for held in emission.memories for b in held.blocks]
        return back.assemble(emission)

    program = refined(build, _convolutions(back.works), choices, judge, *search)
    copies = objective != Objective.SIZE and len(back.works) == 1 and can_stage(back.chip)
    if search[0] and copies:
        faster = staged(program, build)
        if faster is not program and judge.score(faster) < judge.score(program):
            program = faster
    staging = stagings.get(program.instructions)
    if search[0] and objective == Objective.LATENCY:
        program = shortened(program, choices.streams, lambda: build(staging))
    if search[0] and back.works and back.chip.cores == 1:
        program = compacted(program, blocks[program.instructions])
    return _Made(program, choices, staging)


def _works(
    graphs: list[tuple[ir.Graph, int]], chip: Chip
) -> tuple[list[RegionWork], dict[str, int], dict[str, Stretch]]:
    """Return what each core does in each region, what they exchange, and parts of tensors."""
    if chip.cores == 1:
        return [RegionWork.of_all(graph, first) for graph, first in graphs], {}, {}
    works: list[RegionWork] = []
    exchanged: dict[str, int] = {}
    views: dict[str, Stretch] = {}
    for graph, first in graphs:
        made = shard(graph, layouts_of(graph, chip))
        exchanged |= made.exchanged
        views |= made.views
        for core in made.cores:
            operators = [first + source for source in core.sources]
            works.append(RegionWork(core.graph, operators, core.turns))
    return works, exchanged, views


def _convolutions(works: list[RegionWork]) -> list[list[ir.Convolution]]:
    """Return the convolutions in order, the parts of one that cores share together."""
    found: dict[int, list[ir.Convolution]] = {}
    for work in works:
        for number, node in zip(work.operators, work.graph.nodes, strict=True):
            if isinstance(node, ir.Convolution):
                found.setdefault(number, []).append(node)
    return list(found.values())


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
