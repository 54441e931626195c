"""Convolution and depthwise convolution, as tiles of the matrix unit."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lepton.compiler.emit import Box, Emitter, Tile
from lepton.compiler.graph import Convolution
from lepton.compiler.lowering.plan import (
    Plan,
    candidate_sizes,
    choose_plan,
    room_for_tiles,
    tile_bytes,
)
from lepton.compiler.lowering.tiling import boxes, input_box, split
from lepton.compiler.lowering.weighted import Block, emit_requantize, matmul_fields
from lepton.cost import cost_scalars
from lepton.cost.closed_forms import depthwise_cycles
from lepton.errors import CompileError
from lepton.isa.instructions import Depthwise, Matmul

__all__ = ["lower_convolution"]


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


class _Weights:
    """Weight blocks of one convolution: kept in the buffer as long as there is room."""

    def __init__(self, node: Convolution, emitter: Emitter, plan: Plan) -> None:
        self._node, self._emitter, self._plan = node, emitter, plan
        self._kept: dict[tuple[int, int, int], int] = {}
        kh, kw, channels, columns = node.weights.shape
        size = kh * kw * channels * columns // node.groups
        largest = plan.kernel_rows * kw * plan.channels * plan.columns
        self._keeps_all = size + largest <= emitter.weights.size
        is_split = plan.channels < channels or plan.kernel_rows < kh
        self._keeps_columns = not plan.pixels_first and not is_split

    def block(self, at: tuple[int, int], rows: tuple[int, int], out: tuple[int, int]) -> int:
        """Return the buffer address of a block, streaming it in if it is not there."""
        key = (at[0], rows[0], out[0])
        if key in self._kept:
            return self._kept[key]
        part = self._node.weights[rows[0] : rows[1], :, at[0] : at[1], out[0] : out[1]]
        block = np.ascontiguousarray(part).reshape(-1, out[1] - out[0])
        address = self._emitter.load_weights(block)
        self._kept[key] = address
        return address

    def end_block(self) -> None:
        """Release a block behind its product, unless another tile uses it again."""
        if not self._keeps_all and not self._keeps_columns:
            self.release()

    def end_tiles(self) -> None:
        """Release a block of columns behind all of its tiles."""
        if not self._keeps_all:
            self.release()

    def release(self) -> None:
        """Release every block."""
        for address in self._kept.values():
            self._emitter.weights.release(address)
        self._kept.clear()


class _Dense(NamedTuple):
    """A dense convolution while it is emitted."""

    node: Convolution
    emitter: Emitter
    plan: Plan
    weights: _Weights


def _lower_dense(
    node: Convolution, emitter: Emitter, inputs: tuple[int, int], outputs: tuple[int, int]
) -> None:
    """Emit a convolution of input channels [inputs) to output channels [outputs)."""
    plan = choose_plan(node, emitter, inputs[1] - inputs[0], outputs[1] - outputs[0])
    weights = _Weights(node, emitter, plan)
    dense = _Dense(node, emitter, plan, weights)
    n_images, oh, ow, _ = node.output.shape
    for n in range(n_images):
        if plan.pixels_first:
            for pixels in boxes((oh, ow, 1), (plan.height, plan.width, 1)):
                _pixel_tile(dense, (n, pixels), (inputs, outputs))
        else:
            for c0, c1 in split(outputs[1] - outputs[0], plan.columns):
                part = (outputs[0] + c0, outputs[0] + c1)
                for pixels in boxes((oh, ow, 1), (plan.height, plan.width, 1)):
                    _pixel_tile(dense, (n, pixels), (inputs, part))
                weights.end_tiles()
    weights.release()


def _pixel_tile(
    dense: _Dense, where: tuple[int, Box], spans: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    """Emit all columns of [outputs) for one tile of pixels."""
    node, emitter, plan, _ = dense
    n, pixels = where
    inputs, outputs = spans
    ifm = node.inputs[0]
    source, *pad = input_box(pixels, node.window, (ifm.shape[1], ifm.shape[2]), inputs)
    blocks = [
        replace(pixels, c0=outputs[0] + c0, c1=outputs[0] + c1)
        for c0, c1 in split(outputs[1] - outputs[0], plan.columns)
    ]
    # either every block reads the whole input, or every slice of the input feeds one block
    shared = nullcontext() if plan.loaded < source.channels else emitter.fetched(ifm, n, source)
    with shared as whole:
        for box in blocks:
            sums = emitter.sums.allocate(box.size)
            for part in split(source.channels, plan.loaded):
                span = replace(source, c0=inputs[0] + part[0], c1=inputs[0] + part[1])
                loaded = nullcontext(whole) if whole else emitter.fetched(ifm, n, span)
                with loaded as tile:
                    _add_products(dense, (tile, part[0], (pad[0], pad[1])), (box, sums))
            emit_requantize(node, emitter, (n, box), (sums, box.channels))


def _add_products(
    dense: _Dense, source: tuple[Tile, int, tuple[int, int]], target: tuple[Box, int]
) -> None:
    """Emit the products of the channels of a tile, which start at a given one of the group.

    Args:
        dense: what is emitted.
        source: the tile, its first channel, the padding above it and left of it.
        target: the block of the output, the address of its sums.
    """
    node, emitter, plan, weights = dense
    tile, first, pad = source
    box, sums = target
    for rows in split(node.window.kernel[0], plan.kernel_rows):
        for c0, c1 in split(tile.box.channels, plan.channels):
            address = weights.block((first + c0, first + c1), rows, (box.c0, box.c1))
            fields = matmul_fields(node, tile, Block(address, (c0, c1), rows), pad, box)
            emitter.emit(
                Matmul(
                    **fields,
                    columns=box.channels,
                    accumulator=sums,
                    accumulator_pitch=box.channels,
                    accumulate=int(first + c0 > 0 or rows[0] > 0),
                )
            )
            weights.end_block()


# --- depthwise -----------------------------------------------------------------------------------


def _lower_depthwise(node: Convolution, emitter: Emitter) -> None:
    """Emit a depthwise convolution, blocks of channels outermost."""
    ic, oc = node.inputs[0].shape[3], node.output.shape[3]
    multiplier = oc // ic
    kh, kw = node.window.kernel
    height, width, channels = _choose_depthwise(node, emitter, multiplier)
    _, oh, ow, _ = node.output.shape
    for c0, c1 in split(ic, channels):
        out = (c0 * multiplier, c1 * multiplier)
        block = node.weights[:, :, 0, out[0] : out[1]]
        address = emitter.load_weights(np.ascontiguousarray(block).reshape(kh * kw, -1))
        for n in range(node.output.shape[0]):
            for pixels in boxes((oh, ow, 1), (height, width, 1)):
                _depthwise_tile(node, emitter, (n, pixels), (c0, c1), address)
        emitter.weights.release(address)


def _choose_depthwise(node: Convolution, emitter: Emitter, multiplier: int) -> tuple[int, int, int]:
    """Return rows, columns and input channels of a depthwise tile."""
    _, oh, ow, _ = node.output.shape
    ic = node.inputs[0].shape[3]
    taps = math.prod(node.window.kernel)
    room = room_for_tiles(emitter)
    scalars = cost_scalars(emitter.chip)
    best: tuple[float, tuple[int, int, int]] | None = None
    step = max(emitter.chip.columns // multiplier, 1)
    widths = sorted({min(ic, step * n) for n in (1, 2, 4, 8, 16, 32, 64)} | {ic})
    for channels in widths:
        outputs = channels * multiplier
        if taps * outputs > emitter.weights.size // 2 or outputs > 65535:
            continue
        for th, tw in candidate_sizes(oh, ow):
            if th * tw * outputs > emitter.sums.size // 2:
                continue
            if 2 * tile_bytes(node, emitter, (th, tw), channels, outputs) > room:
                continue
            tiles = -(-oh // th) * -(-ow // tw) * -(-ic // channels)
            stream, _ = depthwise_cycles(
                scalars, node.window.kernel, node.window.stride[1], node.window.dilation[1],
                (th, tw), outputs,
            )  # fmt: skip
            vector = th * tw * outputs / emitter.chip.vector.lanes
            cycles = tiles * (max(stream, vector) + 24) + stream + vector
            if best is None or cycles < best[0]:
                best = (cycles, (th, tw, channels))
    if best is not None:
        return best[1]
    if tile_bytes(node, emitter, (1, 1), 1, multiplier) > room:
        raise CompileError(f"'{node.name}': one output pixel does not fit the scratchpad")
    return 1, 1, 1


def _depthwise_tile(
    node: Convolution,
    emitter: Emitter,
    where: tuple[int, Box],
    channels: tuple[int, int],
    weights: int,
) -> None:
    """Emit one tile of a depthwise convolution."""
    n, pixels = where
    ifm = node.inputs[0]
    multiplier = node.output.shape[3] // ifm.shape[3]
    source, pad_top, pad_left = input_box(
        pixels, node.window, (ifm.shape[1], ifm.shape[2]), channels
    )
    count = (channels[1] - channels[0]) * multiplier
    sums = emitter.sums.allocate(pixels.size * count)
    with emitter.fetched(ifm, n, source) as tile:
        fields = matmul_fields(
            node, tile, Block(weights, (0, count // multiplier), (0, node.window.kernel[0])),
            (pad_top, pad_left), pixels,
        )  # fmt: skip
        emitter.emit(
            Depthwise(**fields, multiplier=multiplier, accumulator=sums, accumulator_pitch=count)
        )
    first, last = channels[0] * multiplier, channels[1] * multiplier
    box = Box(pixels.y0, pixels.y1, pixels.x0, pixels.x1, first, last)
    emit_requantize(node, emitter, (n, box), (sums, count))
