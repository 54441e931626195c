"""Seeded random layers as programs: the real lowering, without a model file and its front end."""

from __future__ import annotations

import math

import numpy as np

from lepton.arith.records import RequantizeTable
from lepton.chip import PRESETS, Chip, load_chip
from lepton.compiler import graph as ir
from lepton.compiler.schedule import RegionWork, emit_regions
from lepton.isa.instructions import BinaryMode, PoolMode, RequantizeMode
from lepton.program import Operator, Program, ProgramTensor, Region

__all__ = ["KINDS", "graph_program", "random_layer", "random_program"]

KINDS = ("convolution", "pointwise", "depthwise", "dense", "pool", "add")
_BOUNDS = ir.Bounds(0, -128, 127)
_LARGEST_MACS = 400_000_000
"""Keeps the simulation of one layer below a second."""


def _tensor(name: str, *shape: int) -> ir.Tensor:
    return ir.Tensor(name, (1, shape[0], shape[1], shape[2]), False, 0.5, 0)


def _extent(generator: np.random.Generator, low: int, high: int) -> int:
    """Return a whole number whose logarithm is uniform."""
    return int(math.exp(generator.uniform(math.log(low), math.log(high + 1))))


def _channels(generator: np.random.Generator, low: int, high: int) -> int:
    """Return a number of channels: as often a multiple of 8 as any."""
    count = _extent(generator, low, high)
    return -(-count // 8) * 8 if generator.random() < 0.5 else count


def _weighted(
    generator: np.random.Generator, ifm: ir.Tensor, oc: int, window: ir.Window, groups: int
) -> ir.Convolution:
    """Return a convolution with random weights."""
    _, h, w, ic = ifm.shape
    size = [
        (extent + before + behind - (taps - 1) * dilation - 1) // stride + 1
        for extent, before, behind, taps, dilation, stride in zip(
            (h, w), window.padding[:2], window.padding[2:], window.kernel, window.dilation,
            window.stride, strict=True,
        )
    ]  # fmt: skip
    shape = (*window.kernel, ic // groups, oc)
    return ir.Convolution(
        name="layer",
        inputs=(ifm,),
        output=_tensor("y", size[0], size[1], oc),
        macs=math.prod((*size, *shape)),
        window=window,
        groups=groups,
        weights=generator.integers(0, 256, shape, np.uint8),
        weight_unsigned=False,
        weight_zero_point=0,
        table=RequantizeTable(
            np.zeros(oc, np.int32), np.full(oc, 1 << 30, np.int32), np.full(oc, -8, np.int8)
        ),
        mode=RequantizeMode.Q31,
        bounds=_BOUNDS,
    )


def _window(generator: np.random.Generator, kernels: tuple[int, ...]) -> ir.Window:
    """Return a random window with half of its kernel as padding."""
    kernel = int(generator.choice(kernels))
    stride = int(generator.choice([1, 1, 2]))
    dilation = int(generator.choice([1, 1, 1, 2])) if kernel > 1 and stride == 1 else 1
    pad = (kernel - 1) // 2 * dilation
    return ir.Window((kernel, kernel), (stride, stride), (dilation, dilation), (pad, pad, pad, pad))


def random_layer(generator: np.random.Generator, kind: str) -> ir.Node:
    """Return a random layer of one of `KINDS`."""
    size = _extent(generator, 7, 128)
    if kind == "dense":
        ifm = _tensor(
            "x", 1, int(generator.choice([1, 1, 1, 16, 197])), _extent(generator, 16, 4096)
        )
        return _weighted(generator, ifm, _extent(generator, 8, 4096), _window(generator, (1,)), 1)
    if kind == "convolution":
        ifm = _tensor("x", size, size, _channels(generator, 3, 256))
        oc = _channels(generator, 8, 256)
        return _weighted(generator, ifm, oc, _window(generator, (3, 3, 3, 5, 7)), 1)
    if kind == "pointwise":
        ifm = _tensor("x", size, size, _channels(generator, 8, 1024))
        return _weighted(generator, ifm, _channels(generator, 8, 1024), _window(generator, (1,)), 1)
    ifm = _tensor("x", size, size, _channels(generator, 8, 512))
    channels = ifm.shape[3]
    if kind == "depthwise":
        return _weighted(generator, ifm, channels, _window(generator, (3, 3, 5)), channels)
    if kind == "pool":
        kernel = int(generator.choice([2, 3]))
        window = ir.Window((kernel, kernel), (2, 2), (1, 1), (0, 0, 0, 0))
        out = (size - kernel) // 2 + 1
        return ir.Pool(
            name="layer", inputs=(ifm,), output=_tensor("y", out, out, channels), window=window,
            mode=PoolMode.MAXIMUM, count_pad=False, parameters=np.zeros(0, np.uint8),
            bounds=_BOUNDS,
        )  # fmt: skip
    return ir.Binary(
        name="layer", inputs=(ifm, _tensor("z", *ifm.shape[1:])),
        output=_tensor("y", *ifm.shape[1:]), mode=BinaryMode.ADD_Q31,
        parameters=np.zeros(64, np.uint8),
    )  # fmt: skip


def graph_program(graph: ir.Graph, chip: Chip) -> Program:
    """Return the program of one NPU region."""
    crossing = {t.name: t.size_bytes for t in (*graph.inputs, *graph.outputs)}
    made = emit_regions([RegionWork.of_all(graph, 0)], chip, crossing)
    operators = [
        Operator(node.name, type(node).__name__.lower(), "npu", node.macs, 0, 0, "")
        for node in graph.nodes
    ]
    names = tuple(t.name for t in graph.inputs), tuple(t.name for t in graph.outputs)
    return Program(
        source="layer",
        golden="tflite",
        chip=chip,
        instructions=made.instructions,
        operator_of=made.operator_of,
        constants=made.constants,
        program_address=made.program_address,
        constants_address=made.constants_address,
        tensors=tuple(
            ProgramTensor(
                t.name, t.shape, "int8", 0.5, 0, made.locations[t.name].memory,
                made.locations[t.name].address,
            )
            for t in (*graph.inputs, *graph.outputs)
        ),
        inputs=names[0],
        outputs=names[1],
        operators=(*operators, Operator("(end of region)", "halt", "npu", 0, 0, 0, "")),
        regions=(Region("npu", *made.spans[0], *names, -1),),
        host_models=(),
    )  # fmt: skip


def random_program(seed: int) -> tuple[str, Program]:
    """Return the kind and program of random layer `seed`; kinds and presets take turns."""
    generator = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    chip = load_chip(list(PRESETS)[seed // len(KINDS) % len(PRESETS)])
    while True:
        node = random_layer(generator, kind)
        room = min(
            chip.memories[chip.memory_index(n)].size_bytes for n in chip.placement.activations
        )
        moved = node.output.size_bytes + sum(t.size_bytes for t in node.inputs)
        if node.macs <= _LARGEST_MACS and moved <= room:
            break
    return kind, graph_program(ir.Graph((node,), node.inputs, (node.output,)), chip)
