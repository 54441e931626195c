"""Cascades: a convolution, a depthwise one and a 1 x 1 one behind each other, depth first.

What the first makes is consumed in the scratchpad before its next rows are made, so the wide
tensors between the members never cross to a memory. Program order interleaves the members: the
matrix unit goes on with other chunks of channels while the vector unit requantizes one.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from lepton.arith.records import pack_requantize
from lepton.compiler.emit import Box, Emitter, Tile
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
from lepton.compiler.lowering.cascade_plan import (
    HELD_PARAMETERS,
    MIDDLE_BUFFERS,
    Cascade,
    CascadePlan,
    aligned,
    output_channels,
    parameters_of,
    step_extents,
)
from lepton.compiler.lowering.kept import KeptBlocks
from lepton.compiler.lowering.rows import RowBuffer
from lepton.compiler.lowering.tiling import input_box, split
from lepton.compiler.lowering.weighted import Block, matmul_fields, requantize
from lepton.isa.instructions import Copy, Depthwise, Matmul

__all__ = ["lower_cascade"]


def lower_cascade(cascade: Cascade, plan: CascadePlan, emitter: Emitter) -> None:
    """Emit a cascade; the emitter's operator is that of its first member."""
    _Emission(cascade, plan, emitter).emit_all()


class _Turns:
    """Buffers of one size that are used in turn."""

    def __init__(self, address: int, size: int, count: int) -> None:
        self._address, self._size, self._count = address, size, count
        self._taken = -1

    def take(self) -> int:
        """Return the address of the next buffer."""
        self._taken += 1
        return self.last

    @property
    def last(self) -> int:
        """The address of the buffer taken last."""
        return self._address + self._taken % self._count * self._size


class _Emission:
    """A cascade while it is emitted."""

    def __init__(self, cascade: Cascade, plan: CascadePlan, emitter: Emitter) -> None:
        self._cascade, self._plan, self._emitter = cascade, plan, emitter
        self._steps = steps_of(cascade, plan)
        self._chunks = list(split(cascade.channels, plan.channels))
        self._actions = order(cascade, plan, self._steps, len(self._chunks))
        self._operator = emitter.operator
        self._nodes = {
            member: node
            for member, node in enumerate((cascade.expand, cascade.depthwise, cascade.project))
            if node is not None
        }
        self._held: dict[tuple[int, int], int] = {}
        self._middle: dict[tuple[int, int], Tile] = {}
        self._input = self._output = _nothing()
        self._weights = KeptBlocks(
            [(action.member, action.chunk) for action in self._actions],
            self._load_weights,
            emitter.weights.release,
        )
        self._place_buffers()
        sums = plan.height * plan.width * cascade.output.shape[3]
        self._sums = emitter.sums.allocate_at_edge(plan.projections * sums) if sums else 0
        self._projected = _Turns(self._sums, sums, plan.projections)

    def _place_buffers(self) -> None:
        """Take the room of everything in the scratchpad, and divide it."""
        cascade, plan, emitter = self._cascade, self._plan, self._emitter
        extents = step_extents(cascade, (plan.height, plan.width))
        pixels = plan.height * plan.width
        middle = aligned(pixels * plan.channels) if cascade.project else 0
        output = source = 0
        if cascade.output.name not in emitter.residents:
            output = aligned(pixels * output_channels(cascade, plan))
        if cascade.source.name not in emitter.residents and not plan.input_bytes:
            source = aligned(math.prod(extents.source) * cascade.source.shape[3])
        planes = self._plane_sizes(extents.window[1] * plan.rows)
        sizes = self._parameter_sizes()
        self._rows = None
        if plan.input_bytes:
            self._rows = RowBuffer(emitter, cascade.source, plan.input_bytes)
        sections = (2 * source, *planes, MIDDLE_BUFFERS * middle, 2 * output, *sizes.values())
        self._block = emitter.tiles.allocate_at_edge(max(sum(sections), 1))
        starts = [self._block + sum(sections[:n]) for n in range(len(sections))]
        self._inputs = _Turns(starts[0], source, 2)
        self._planes = starts[1 : 1 + len(planes)]
        self._middles = _Turns(starts[1 + len(planes)], middle, MIDDLE_BUFFERS)
        self._outputs = _Turns(starts[2 + len(planes)], output, 2)
        self._places = dict(zip(sizes, starts[3 + len(planes) :], strict=True))

    def _plane_sizes(self, pixels: int) -> list[int]:
        """Return the bytes of each plane; one serves all chunks that come after each other."""
        if self._cascade.expand is None:
            return []
        held = self._chunks[:1] if self._plan.chunks_first else self._chunks
        return [aligned(pixels * (c1 - c0)) for c0, c1 in held]

    def _slot(self, member: int, chunk: int) -> int:
        """Return in which of a member's places the parameters of a chunk are."""
        if member == PROJECT:
            return 0
        return chunk % HELD_PARAMETERS if self._plan.chunks_first else chunk

    def _parameter_sizes(self) -> dict[tuple[int, int], int]:
        """Return the bytes of each place for parameters, by member and slot."""
        sizes: dict[tuple[int, int], int] = {}
        for member, node in self._nodes.items():
            for chunk in range(len(self._chunks)):
                key = member, self._slot(member, chunk)
                size = parameters_of(node, self._span(member, chunk)[1])
                sizes[key] = max(size, sizes.get(key, 0))
        return sizes

    def _span(self, member: int, chunk: int) -> tuple[int, int]:
        """Return first and number of the output channels of a member's chunk."""
        if member == PROJECT:
            return 0, self._cascade.output.shape[3]
        first, last = self._chunks[chunk]
        return first, last - first

    def _load_weights(self, key: tuple[int, int]) -> int | None:
        """Stream the weights of a member's chunk, or return None if there is no room now."""
        weights = self._nodes[key[0]].weights
        part = slice(*self._chunks[key[1]])
        block = weights[:, :, part] if key[0] == PROJECT else weights[..., part]
        flat = np.ascontiguousarray(block).reshape(-1, block.shape[3])
        return self._emitter.offer_weights(flat)

    def _parameters_at(self, member: int, chunk: int) -> int:
        """Return where the parameters of a member's chunk are; they come when they are missing."""
        slot = member, self._slot(member, chunk)
        first, count = self._span(member, chunk)
        if self._held.get(slot) != first:
            table = self._nodes[member].table.part(first, first + count)
            self._emitter.bring_constant(pack_requantize(table), self._places[slot])
            self._held[slot] = first
        return self._places[slot]

    def emit_all(self) -> None:
        """Emit every action in order, and give the room back."""
        emitter = self._emitter
        emit = {EXPAND: self._expand, DEPTHWISE: self._depthwise, PROJECT: self._project}
        numbers = {member: self._operator + at for at, member in enumerate(self._nodes)}
        for action in self._actions:
            emitter.operator = numbers[action.member]
            weights = self._weights.address((action.member, action.chunk))
            if action.part == AHEAD:
                self._parameters_at(action.member, action.chunk)
            else:
                emit[action.member](action, weights)
        self._weights.end()
        emitter.tiles.release(self._block)
        if self._rows is not None:
            self._rows.release()
        if self._plan.projections:
            emitter.sums.release(self._sums)

    def _fetch(self, n: int, box: Box) -> Tile:
        """Return a tile of the cascade's input, which the chunks of a step share."""
        tensor = self._cascade.source
        if self._rows is not None:
            return self._rows.fetch(n, box)
        if tensor.name in self._emitter.residents:
            return self._emitter.fetch(tensor, n, box)
        tile = _packed(self._inputs.take(), box)
        self._emitter.bring(tensor, n, tile)
        return tile

    def _place(self, n: int, box: Box) -> Tile:
        """Return the tile that a step's result is to be written to."""
        if self._cascade.output.name in self._emitter.residents:
            return self._emitter.place(self._cascade.output, n, box)
        return _packed(self._outputs.take(), box)

    def _store(self, n: int, tile: Tile) -> None:
        """Store a finished tile if the output lives in a memory."""
        if self._cascade.output.name not in self._emitter.residents:
            self._emitter.store(self._cascade.output, n, tile)

    def _plane(self, step: Step, chunk: int, rows: tuple[int, int]) -> Tile:
        """Return the tile of some rows of a chunk's plane."""
        c0, c1 = self._chunks[chunk]
        box = replace(step.source, y0=rows[0], y1=rows[1], c0=c0, c1=c1)
        if self._plan.chunks_first:
            # rows of a narrower chunk lie where those of the others do
            address, pitch = self._planes[0], self._plan.channels
        else:
            address, pitch = self._planes[chunk], box.channels
        row = box.width * pitch
        return Tile(address + (rows[0] - step.top) * row, row, pitch, box, False)

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
                    height=1,
                    width=1,
                    channels=(y1 - y0) * tile.row_pitch,
                    ifm=tile.address + (first + y0) * tile.row_pitch,
                    ifm_row_pitch=0,
                    ifm_pixel_pitch=0,
                    ifm_channel_pitch=1,
                    ofm=tile.address + y0 * tile.row_pitch,
                    ofm_row_pitch=0,
                    ofm_pixel_pitch=0,
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
            tile = self._middle[action.step, action.chunk] = _packed(self._middles.take(), box)
            return tile
        step = self._steps[action.step]
        if self._plan.chunks_first:
            self._output = self._place(step.n, box)
            return self._output
        if action.chunk == 0:
            self._output = self._place(step.n, replace(box, c0=0, c1=self._cascade.channels))
        return replace(self._output, address=self._output.address + box.c0, box=box)

    def _project(self, action: Action, weights: int) -> None:
        """Emit the product of a chunk, and behind the last one the projected results."""
        node, emitter = self._nodes[PROJECT], self._emitter
        step, chunk = self._steps[action.step], action.chunk
        columns = node.output.shape[3]
        tile = self._middle.pop((action.step, chunk))
        sums = self._projected.take() if chunk == 0 else self._projected.last
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
        if chunk == len(self._chunks) - 1:
            target = self._place(step.n, replace(step.pixels, c0=0, c1=columns))
            parameters = self._parameters_at(PROJECT, 0)
            emitter.emit(requantize(node, target, (sums, columns), parameters))
            self._store(step.n, target)


def _packed(address: int, box: Box) -> Tile:
    """Return the tile of a box without gaps at an address."""
    return Tile(address, box.width * box.channels, box.channels, box, False)


def _nothing() -> Tile:
    """Return a tile of no pixels."""
    return _packed(0, Box(0, 0, 0, 0, 0, 0))
