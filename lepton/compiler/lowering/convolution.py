"""Convolution and depthwise convolution, as tiles of the matrix unit."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lepton.arith.records import pack_requantize
from lepton.compiler.emit import Box, Emitter, Tile
from lepton.compiler.graph import Binary, Convolution
from lepton.compiler.lowering.addition import Addition, Combination
from lepton.compiler.lowering.dense_plan import Plan
from lepton.compiler.lowering.kept import KeptBlocks
from lepton.compiler.lowering.plan import (
    candidate_sizes,
    choose_plan,
    likeness,
    memory_key,
    no_pixel_fits,
    planned_cost,
    room_for_tiles,
    row_buffers,
    tile_bytes,
)
from lepton.compiler.lowering.plan_cost import Products, Work, plan_cost
from lepton.compiler.lowering.plan_estimate import count_input, count_tile
from lepton.compiler.lowering.rows import RowBuffer
from lepton.compiler.lowering.tiling import input_box, split, stripes
from lepton.compiler.lowering.traffic import Traffic
from lepton.compiler.lowering.weighted import (
    Block,
    emit_requantize,
    kept_parameters,
    matmul_fields,
)
from lepton.cost import cost_scalars
from lepton.cost.closed_forms import depthwise_cycles
from lepton.isa.footprints import REQUANTIZE_BYTES
from lepton.isa.instructions import Depthwise, Matmul

__all__ = ["DepthwisePlan", "convolution_cost", "lower_addition", "lower_convolution"]


def lower_convolution(node: Convolution, emitter: Emitter) -> None:
    """Emit a convolution; groups that are single channels run as depthwise."""
    ic, oc = node.inputs[0].shape[3], node.output.shape[3]
    if node.groups == 1:
        _lower_dense(node, emitter, (0, ic), (0, oc))
        return
    if node.groups == ic:
        _lower_depthwise(node, emitter)
        return
    for group in range(node.groups):
        inputs, outputs = ic // node.groups, oc // node.groups
        span = (group * inputs, (group + 1) * inputs)
        _lower_dense(node, emitter, span, (group * outputs, (group + 1) * outputs))


def convolution_cost(node: Convolution, emitter: Emitter) -> float:
    """Return the estimated cost of a convolution by itself.

    Raises:
        CompileError: not even one pixel fits.
    """
    ic, oc = node.inputs[0].shape[3], node.output.shape[3]
    if node.groups == ic > 1:
        *size, channels, kept = _choose_depthwise(node, emitter, oc // ic)
        return _depthwise_estimate(node, emitter, (size[0], size[1]), channels, kept)
    part = planned_cost(node, emitter, (ic // node.groups, oc // node.groups))
    return part * node.groups


class _Visit(NamedTuple):
    """One tile of pixels with the blocks of columns computed while its input is there."""

    n: int
    pixels: Box
    columns: tuple[tuple[int, int], ...]


class _Block(NamedTuple):
    """Part of the reduction: kernel rows and input channels, counted from the group's first."""

    rows: tuple[int, int]
    channels: tuple[int, int]


class _Dense(NamedTuple):
    """A dense convolution while it is emitted."""

    node: Convolution
    emitter: Emitter
    plan: Plan
    first: int
    """First input channel of the group."""
    loads: tuple[tuple[tuple[int, int], tuple[_Block, ...]], ...]
    """The channels that are loaded together, and the blocks of weights that they meet."""
    rows: RowBuffer | None
    """The input rows that tiles share."""
    weights: KeptBlocks[tuple[_Block, tuple[int, int]]]
    parameters: KeptBlocks[tuple[int, int]]
    combination: Combination | None
    """What comes behind each block of the result."""


def lower_addition(addition: Addition, emitter: Emitter, operator: int) -> None:
    """Emit a convolution of one group with the element-wise function behind it, an operator too."""
    node = addition.convolution
    ic, oc = node.inputs[0].shape[3], node.output.shape[3]
    _lower_dense(node, emitter, (0, ic), (0, oc), (addition.combine, operator))


def _lower_dense(
    node: Convolution,
    emitter: Emitter,
    inputs: tuple[int, int],
    outputs: tuple[int, int],
    behind: tuple[Binary, int] | None = None,
) -> None:
    """Emit a convolution of input channels [inputs) to output channels [outputs).

    `behind` is the element-wise function that is computed with it, and its operator.
    """
    extents = inputs[1] - inputs[0], outputs[1] - outputs[0]
    plan = choose_plan(node, emitter, extents, behind and behind[0])
    combination = Combination(node, *behind, emitter) if behind else None
    visits = list(_visits(node, plan, outputs))
    loads = tuple(_loads(node, plan, extents[0]))
    blocks = [block for _, part in loads for block in part]
    columns = [span for visit in visits for span in visit.columns]

    def load_weights(key: tuple[_Block, tuple[int, int]]) -> int | None:
        (rows, channels), span = key
        part = node.weights[slice(*rows), :, slice(*channels), slice(*span)]
        return emitter.offer_weights(np.ascontiguousarray(part).reshape(-1, span[1] - span[0]))

    weights = KeptBlocks(
        [(block, span) for span in columns for block in blocks],
        load_weights,
        emitter.weights.release,
    )
    parameters = kept_parameters(node, emitter, columns, plan.parameter_bytes)
    ifm = node.inputs[0]
    rows = RowBuffer(emitter, ifm, plan.buffer_bytes) if plan.buffer_bytes else None
    dense = _Dense(node, emitter, plan, inputs[0], loads, rows, weights, parameters, combination)
    for visit in visits:
        _pixel_tile(dense, visit, extents[0])
    weights.end()
    parameters.end()
    if combination is not None:
        combination.end()
    if rows is not None:
        rows.release()


def _visits(node: Convolution, plan: Plan, outputs: tuple[int, int]) -> Iterator[_Visit]:
    """Yield the tiles in the order of the plan."""
    n_images, oh, ow, _ = node.output.shape
    columns = tuple(
        (outputs[0] + c0, outputs[0] + c1)
        for c0, c1 in split(outputs[1] - outputs[0], plan.columns)
    )
    for together in [columns] if plan.pixels_first else [(span,) for span in columns]:
        for n in range(n_images):
            for pixels in stripes((oh, ow), (plan.height, plan.width)):
                yield _Visit(n, pixels, together)


def _loads(
    node: Convolution, plan: Plan, channels: int
) -> Iterator[tuple[tuple[int, int], tuple[_Block, ...]]]:
    """Yield the parts of the channels that are loaded at a time, with their blocks."""
    for part in split(channels, plan.loaded):
        yield (
            part,
            tuple(
                _Block(rows, (part[0] + c0, part[0] + c1))
                for rows in split(node.window.kernel[0], plan.kernel_rows)
                for c0, c1 in split(part[1] - part[0], plan.channels)
            ),
        )


def _pixel_tile(dense: _Dense, visit: _Visit, channels: int) -> None:
    """Emit the columns of a visit."""
    node, emitter = dense.node, dense.emitter
    ifm = node.inputs[0]
    source, *pad = input_box(
        visit.pixels,
        node.window,
        (ifm.shape[1], ifm.shape[2]),
        (dense.first, dense.first + channels),
    )
    # either every block reads the whole input, or every slice of the input feeds one block
    if dense.rows is not None:
        shared = nullcontext(dense.rows.fetch(visit.n, source))
    elif len(dense.loads) > 1:
        shared = nullcontext()
    else:
        shared = emitter.fetched(ifm, visit.n, source)
    with shared as whole:
        for span in visit.columns:
            box = replace(visit.pixels, c0=span[0], c1=span[1])
            sums = emitter.sums.allocate(box.size)
            for part, blocks in dense.loads:
                inside = replace(source, c0=dense.first + part[0], c1=dense.first + part[1])
                loaded = nullcontext(whole) if whole else emitter.fetched(ifm, visit.n, inside)
                with loaded as tile:
                    for block in blocks:
                        _add_product(dense, block, (tile, part[0], (pad[0], pad[1])), (box, sums))
            where, results = (visit.n, box), (sums, box.channels)
            parameters = dense.parameters.address(span)
            if dense.combination is None:
                emit_requantize(node, emitter, where, results, parameters)
            else:
                dense.combination.finish(where, results, parameters)


def _add_product(
    dense: _Dense,
    block: _Block,
    source: tuple[Tile, int, tuple[int, int]],
    target: tuple[Box, int],
) -> None:
    """Emit the product of one block.

    Args:
        dense: what is emitted.
        block: the part of the reduction.
        source: the tile, its first channel counted in the group, the padding above and left of it.
        target: the block of the output, the address of its sums.
    """
    tile, first, pad = source
    box, sums = target
    address = dense.weights.address((block, (box.c0, box.c1)))
    inside = (block.channels[0] - first, block.channels[1] - first)
    fields = matmul_fields(dense.node, tile, Block(address, inside, block.rows), pad, box)
    dense.emitter.emit(
        Matmul(
            **fields,
            columns=box.channels,
            accumulator=sums,
            accumulator_pitch=box.channels,
            accumulate=int(block.channels[0] > 0 or block.rows[0] > 0),
        )
    )


# --- depthwise -----------------------------------------------------------------------------------


def _lower_depthwise(node: Convolution, emitter: Emitter) -> None:
    """Emit a depthwise convolution, blocks of channels outermost."""
    ic, oc = node.inputs[0].shape[3], node.output.shape[3]
    multiplier = oc // ic
    kh, kw = node.window.kernel
    height, width, channels, kept = _choose_depthwise(node, emitter, multiplier)
    rows = RowBuffer(emitter, node.inputs[0], kept) if kept else None
    _, oh, ow, _ = node.output.shape
    for c0, c1 in split(ic, channels):
        out = (c0 * multiplier, c1 * multiplier)
        block = node.weights[:, :, 0, out[0] : out[1]]
        address = emitter.load_weights(np.ascontiguousarray(block).reshape(kh * kw, -1))
        with emitter.constant_tile(pack_requantize(node.table.part(*out))) as parameters:
            for n in range(node.output.shape[0]):
                for pixels in stripes((oh, ow), (height, width)):
                    place = (n, pixels, (c0, c1))
                    _depthwise_tile(node, emitter, rows, place, (address, parameters))
        emitter.weights.release(address)
    if rows is not None:
        rows.release()


class DepthwisePlan(NamedTuple):
    """Tile of a depthwise convolution."""

    height: int
    width: int
    channels: int
    """Input channels."""
    buffer_bytes: int
    """Of the buffer for input rows that tiles share, 0 where each has its input to itself."""


def _choose_depthwise(node: Convolution, emitter: Emitter, multiplier: int) -> DepthwisePlan:
    """Return the tile with the least estimated cost."""
    plan = emitter.choices.plan(
        node,
        (likeness(node, emitter), multiplier, *memory_key(node, emitter)),
        lambda chip: _depthwise_plans(node, emitter.on(chip), multiplier),
    )
    if plan is not None:
        return plan
    each = REQUANTIZE_BYTES[node.mode]
    need = tile_bytes(node, emitter, (1, 1), 1, multiplier) + multiplier * each
    if need > room_for_tiles(emitter):
        raise no_pixel_fits(node, emitter, need)
    return DepthwisePlan(1, 1, 1, 0)


def _depthwise_plans(
    node: Convolution, emitter: Emitter, multiplier: int
) -> Iterator[tuple[float, Hashable, DepthwisePlan]]:
    """Yield cost, shape and plan of the tiles that fit twice."""
    ic = node.inputs[0].shape[3]
    taps = math.prod(node.window.kernel)
    each = REQUANTIZE_BYTES[node.mode]
    step = max(emitter.chip.columns // multiplier, 1)
    for channels in sorted({min(ic, step * n) for n in (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)} | {ic}):
        outputs = channels * multiplier
        if taps * outputs > emitter.weights.size // 2 or outputs > 65535:
            continue
        room = room_for_tiles(emitter) - min(2, -(-ic // channels)) * outputs * each
        for size in candidate_sizes(node, emitter, outputs, (2,)):
            for kept in row_buffers(node, emitter, size, (channels, outputs), room):
                cost = _depthwise_estimate(node, emitter, size, channels, kept)
                yield cost, (*size, channels), DepthwisePlan(*size, channels, kept)


def _depthwise_estimate(
    node: Convolution, emitter: Emitter, size: tuple[int, int], channels: int, kept: int
) -> float:
    """Return the estimated cost of a depthwise convolution in tiles of `size` x `channels`.

    `kept` is the bytes of the buffer for input rows, or 0.
    """
    chip = emitter.chip
    images, oh, ow, oc = node.output.shape
    ifm, window = node.inputs[0], node.window
    outputs = channels * oc // ifm.shape[3]
    blocks = -(-ifm.shape[3] // channels)
    tiles = images * -(-oh // size[0]) * -(-ow // size[1]) * blocks
    stream, _ = depthwise_cycles(
        chip.derived(cost_scalars),
        window.kernel,
        window.stride[1],
        window.dilation[1],
        size,
        outputs,
    )
    vector = -(-size[0] * size[1] * outputs // chip.vector.lanes) + chip.vector.latency_cycles
    traffic = Traffic(chip, emitter.choices.objective)
    constants = chip.memory_index(chip.placement.constants)
    raw = math.prod(window.kernel) * outputs
    traffic.read(constants, emitter.choices.streams.part(node.weights, raw), blocks)
    traffic.read(constants, REQUANTIZE_BYTES[node.mode] * outputs, blocks)
    if ifm.name not in emitter.residents:
        count_input(node, size, channels, blocks, (kept, traffic))
    if node.output.name not in emitter.residents:
        count_tile(node.output, (*size, outputs), tiles, traffic, is_write=True)
    traffic.fetch(4 * tiles + 2 * blocks)
    longest = max(tiles * (max(stream, vector) + 24), traffic.cycles)
    cycles = longest + (tiles * (stream + vector) + traffic.cycles) / tiles

    def work() -> Work:
        pixels = size[0] * size[1]
        products = Products(tiles, pixels, math.prod(window.kernel), outputs)
        return Work([products], tiles * pixels * outputs, blocks * raw, 2 * blocks)

    return plan_cost(emitter.choices.objective, cycles, traffic, work)


def _depthwise_tile(
    node: Convolution,
    emitter: Emitter,
    rows: RowBuffer | None,
    where: tuple[int, Box, tuple[int, int]],
    constants: tuple[int, int],
) -> None:
    """Emit one tile of a depthwise convolution; constants are its weights and parameters."""
    n, pixels, channels = where
    ifm = node.inputs[0]
    multiplier = node.output.shape[3] // ifm.shape[3]
    source, pad_top, pad_left = input_box(
        pixels, node.window, (ifm.shape[1], ifm.shape[2]), channels
    )
    count = (channels[1] - channels[0]) * multiplier
    sums = emitter.sums.allocate(pixels.size * count)
    fetched = nullcontext(rows.fetch(n, source)) if rows else emitter.fetched(ifm, n, source)
    with fetched as tile:
        fields = matmul_fields(
            node, tile, Block(constants[0], (0, count // multiplier), (0, node.window.kernel[0])),
            (pad_top, pad_left), pixels,
        )  # fmt: skip
        emitter.emit(
            Depthwise(**fields, multiplier=multiplier, accumulator=sums, accumulator_pitch=count)
        )
    first, last = channels[0] * multiplier, channels[1] * multiplier
    box = Box(pixels.y0, pixels.y1, pixels.x0, pixels.x1, first, last)
    emit_requantize(node, emitter, (n, box), (sums, count), constants[1])
