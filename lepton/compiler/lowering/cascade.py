"""Cascades: a convolution, a depthwise one and a 1 x 1 one behind each other, depth first.

What the first makes is consumed in the scratchpad before its next rows are made, so the wide
tensors between the members never cross to a memory. Program order interleaves the members: the
matrix unit goes on with other chunks of channels while the vector unit requantizes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lepton.arith.records import pack_requantize
from lepton.compiler.emit import Box, Emitter, Tile
from lepton.compiler.graph import Binary
from lepton.compiler.lowering.cascade_buffers import Buffers
from lepton.compiler.lowering.cascade_order import (
    AHEAD,
    DEPTHWISE,
    EXPAND,
    PROJECT,
    Action,
    Step,
    order,
    steps_of,
)
from lepton.compiler.lowering.cascade_plan import Cascade, CascadePlan
from lepton.compiler.lowering.kept import KeptBlocks
from lepton.compiler.lowering.rows import RowBuffer
from lepton.compiler.lowering.tiling import input_box, split
from lepton.compiler.lowering.vector import binary
from lepton.compiler.lowering.weighted import Block, matmul_fields, requantize
from lepton.isa.instructions import Copy, Depthwise, Matmul

__all__ = ["lower_cascade"]


def lower_cascade(
    cascade: Cascade, plan: CascadePlan, emitter: Emitter, operators: Sequence[int]
) -> None:
    """Emit a cascade, whose members have these operators."""
    _Emission(cascade, plan, emitter, operators).emit_all()


class _Emission:
    """A cascade while it is emitted."""

    def __init__(
        self, cascade: Cascade, plan: CascadePlan, emitter: Emitter, operators: Sequence[int]
    ) -> None:
        self._cascade, self._plan, self._emitter = cascade, plan, emitter
        self._steps = steps_of(cascade, plan)
        self._chunks = list(split(cascade.channels, plan.channels))
        self._actions = order(cascade, plan, self._steps, len(self._chunks))
        self._operators = operators
        self._nodes = {
            member: node
            for member, node in enumerate((cascade.expand, cascade.depthwise, cascade.project))
            if node is not None
        }
        self._held: dict[tuple[int, int], int] = {}
        self._middle: dict[tuple[int, int], Tile] = {}
        self._input = self._output = self._other = _nothing()
        self._combines = False
        self._whole = self._place_weights()
        self._weights = KeptBlocks(
            [(action.member, action.chunk) for action in self._actions],
            self._load_weights,
            self._release_weights,
        )
        self._rows = None
        if plan.input_bytes:
            self._rows = RowBuffer(emitter, cascade.source, plan.input_bytes)
        self._buffers = Buffers(cascade, plan, emitter)
        pixels = plan.height * plan.width
        self._projected = pixels * cascade.output.shape[3] if plan.projections else 0
        self._sums = 0
        if self._projected:
            self._sums = emitter.sums.allocate_at_edge(plan.projections * self._projected)

    def _span(self, member: int, chunk: int) -> tuple[int, int]:
        """Return first and number of the output channels of a member's chunk."""
        if member == PROJECT:
            return 0, self._cascade.output.shape[3]
        first, last = self._chunks[chunk]
        return first, last - first

    def _place_weights(self) -> dict[tuple[int, int], int]:
        """Return where each block of weights belongs if all fit their buffer, nothing if not."""
        ring = self._emitter.weights
        total = sum(node.weights.size for node in self._nodes.values())
        if total > ring.size:
            return {}
        address = ring.allocate_at_edge(total)
        places: dict[tuple[int, int], int] = {}
        for member, node in self._nodes.items():
            for chunk, (c0, c1) in enumerate(self._chunks):
                places[member, chunk] = address
                address += node.weights.size // self._cascade.channels * (c1 - c0)
        return places

    def _load_weights(self, key: tuple[int, int]) -> int | None:
        """Stream the weights of a member's chunk, or return None if there is no room now."""
        weights = self._nodes[key[0]].weights
        part = slice(*self._chunks[key[1]])
        block = weights[:, :, part] if key[0] == PROJECT else weights[..., part]
        flat = np.ascontiguousarray(block).reshape(-1, block.shape[3])
        if self._whole:
            return self._emitter.stream_weights(flat, self._whole[key])
        return self._emitter.offer_weights(flat)

    def _release_weights(self, address: int) -> None:
        """Give the room of a block back that was not placed with all others."""
        if not self._whole:
            self._emitter.weights.release(address)

    def _parameters_at(self, member: int, chunk: int) -> int:
        """Return where the parameters of a member's chunk are; they come when they are missing."""
        node = self._nodes[member]
        key = member, self._buffers.slot(node.output.name, chunk)
        first, count = self._span(member, chunk)
        address = self._buffers.at(node.output.name, chunk)
        if self._held.get(key) != first:
            content = pack_requantize(node.table.part(first, first + count))
            self._emitter.bring_constant(content, address)
            self._held[key] = first
        return address

    def emit_all(self) -> None:
        """Emit every action in order, and give the room back."""
        emitter = self._emitter
        emit = {EXPAND: self._expand, DEPTHWISE: self._depthwise, PROJECT: self._project}
        numbers = dict(zip(self._nodes, self._operators, strict=False))
        for action in self._actions:
            emitter.operator = numbers[action.member]
            weights = self._weights.address((action.member, action.chunk))
            if action.part == AHEAD:
                self._parameters_at(action.member, action.chunk)
            else:
                emit[action.member](action, weights)
        self._weights.end()
        if self._whole:
            emitter.weights.release(min(self._whole.values()))
        self._buffers.release()
        if self._rows is not None:
            self._rows.release()
        if self._plan.projections:
            emitter.sums.release(self._sums)

    def _fetch(self, n: int, box: Box) -> Tile:
        """Return a tile of the cascade's input, which the chunks of a step share."""
        if self._rows is not None:
            return self._rows.fetch(n, box)
        return self._buffers.fetch("input", self._cascade.source, n, box)

    def _store(self, n: int, tile: Tile) -> None:
        """Store a finished tile if the output lives in a memory."""
        if self._cascade.output.name not in self._emitter.residents:
            self._emitter.store(self._cascade.output, n, tile)

    def _plane(self, step: Step, chunk: int, rows: tuple[int, int]) -> Tile:
        """Return the tile of some rows of a chunk's plane."""
        c0, c1 = self._chunks[chunk]
        box = replace(step.source, y0=rows[0], y1=rows[1], c0=c0, c1=c1)
        # rows of a narrower chunk lie where those of the others do, if they come after each other
        pitch = self._plan.channels if self._plan.chunks_first else box.channels
        row = box.width * pitch
        return Tile(
            self._buffers.at("planes", chunk) + (rows[0] - step.top) * row, row, pitch, box, False
        )

    def _expand(self, action: Action, weights: int) -> None:
        """Emit the expansion of a part of a step's new rows."""
        node, emitter = self._nodes[EXPAND], self._emitter
        step, chunk = self._steps[action.step], action.chunk
        if action.part == 0:
            self._move_rows(step, chunk)
        target = self._plane(step, chunk, step.new[action.part])
        ifm = node.inputs[0]
        source, *pad = input_box(target.box, node.window, ifm.shape[1:3], (0, ifm.shape[3]))
        if chunk == 0 or self._plan.chunks_first:
            self._input = self._fetch(step.n, source)
        box = target.box
        sums = emitter.sums.allocate(box.size)
        block = Block(weights, (0, ifm.shape[3]), (0, node.window.kernel[0]))
        fields = matmul_fields(node, self._input, block, (pad[0], pad[1]), box)
        emitter.emit(
            Matmul(**fields, columns=box.channels, accumulator=sums, accumulator_pitch=box.channels)
        )
        parameters = self._parameters_at(EXPAND, chunk)
        emitter.emit(requantize(node, target, (sums, box.channels), parameters))
        emitter.sums.release(sums)

    def _move_rows(self, step: Step, chunk: int) -> None:
        """Emit the copies of a plane's rows that stay to its start, pieces that do not overlap."""
        first, count = step.moved
        tile = self._plane(step, chunk, (step.top, step.top + 1))
        for y0, y1 in split(count, max(first, 1)):
            self._emitter.emit(
                Copy(
                    height=y1 - y0,
                    width=tile.box.width,
                    channels=tile.pixel_pitch,
                    ifm=tile.address + (first + y0) * tile.row_pitch,
                    ifm_row_pitch=tile.row_pitch,
                    ifm_pixel_pitch=tile.pixel_pitch,
                    ifm_channel_pitch=1,
                    ofm=tile.address + y0 * tile.row_pitch,
                    ofm_row_pitch=tile.row_pitch,
                    ofm_pixel_pitch=tile.pixel_pitch,
                    ofm_channel_pitch=1,
                )
            )

    def _depthwise(self, action: Action, weights: int) -> None:
        """Emit a chunk of the depthwise convolution of a step."""
        node, emitter = self._nodes[DEPTHWISE], self._emitter
        step, chunk = self._steps[action.step], action.chunk
        c0, c1 = self._chunks[chunk]
        count = c1 - c0
        if self._cascade.expand is not None:
            tile, inside = self._plane(step, chunk, (step.source.y0, step.source.y1)), (0, count)
        else:
            if chunk == 0:
                whole = replace(step.source, c0=0, c1=self._cascade.channels)
                self._input = self._fetch(step.n, whole)
            tile, inside = self._input, (c0, c1)
        sums = emitter.sums.allocate(step.pixels.size * count)
        block = Block(weights, inside, (0, node.window.kernel[0]))
        fields = matmul_fields(node, tile, block, step.pad, step.pixels)
        emitter.emit(Depthwise(**fields, multiplier=1, accumulator=sums, accumulator_pitch=count))
        box = replace(step.pixels, c0=c0, c1=c1)
        target = self._between(action, box)
        parameters = self._parameters_at(DEPTHWISE, chunk)
        emitter.emit(requantize(node, target, (sums, count), parameters))
        emitter.sums.release(sums)
        if self._cascade.project is None and (
            self._plan.chunks_first or chunk == len(self._chunks) - 1
        ):
            self._store(step.n, self._output)

    def _between(self, action: Action, box: Box) -> Tile:
        """Return where a chunk of depthwise results goes: to the projection, or to the output."""
        if self._cascade.project is not None:
            tile = self._middle[action.step, action.chunk] = self._buffers.tile("middle", box)
            return tile
        n, output = self._steps[action.step].n, self._cascade.output
        if self._plan.chunks_first:
            self._output = self._buffers.place(output, n, box)
            return self._output
        if action.chunk == 0:
            whole = replace(box, c0=0, c1=self._cascade.channels)
            self._output = self._buffers.place(output, n, whole)
        return replace(self._output, address=self._output.address + box.c0, box=box)

    def _project(self, action: Action, weights: int) -> None:
        """Emit the product of a chunk, and behind the last one the projected results."""
        node, emitter = self._nodes[PROJECT], self._emitter
        step, chunk = self._steps[action.step], action.chunk
        columns = node.output.shape[3]
        whole = replace(step.pixels, c0=0, c1=columns)
        if chunk == 0 and self._cascade.other is not None:
            self._other = self._buffers.fetch("other", self._cascade.other, step.n, whole)
        tile = self._middle.pop((action.step, chunk))
        sums = self._sums + action.step % self._plan.projections * self._projected
        block = Block(weights, (0, tile.box.channels), (0, 1))
        emitter.emit(
            Matmul(
                **matmul_fields(node, tile, block, (0, 0), step.pixels),
                columns=columns,
                accumulator=sums,
                accumulator_pitch=columns,
                accumulate=int(chunk > 0),
            )
        )
        if chunk < len(self._chunks) - 1:
            return
        combine = self._cascade.combine
        if combine is None:
            target = self._buffers.place(node.output, step.n, whole)
        else:
            target = self._buffers.tile("projected", whole)
        parameters = self._parameters_at(PROJECT, 0)
        emitter.emit(requantize(node, target, (sums, columns), parameters))
        if combine is not None:
            target = self._combine(combine, step, target)
        self._store(step.n, target)

    def _combine(self, node: Binary, step: Step, projected: Tile) -> Tile:
        """Emit the element-wise function of a step, and return its result."""
        emitter = self._emitter
        emitter.operator = self._operators[-1]
        parameters = self._buffers.at("combine", 0)
        if not self._combines and node.parameters.size:
            emitter.bring_constant(node.parameters, parameters)
        self._combines = True
        operands = projected, self._other
        if node.inputs[0].name != self._nodes[PROJECT].output.name:
            operands = self._other, projected
        target = self._buffers.place(node.output, step.n, projected.box)
        emitter.emit(binary(node, operands, target, parameters))
        return target


def _nothing() -> Tile:
    """Return a tile of no pixels."""
    return Tile(0, 0, 0, Box(0, 0, 0, 0, 0, 0), False)
