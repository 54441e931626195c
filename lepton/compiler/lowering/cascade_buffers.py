"""What a cascade keeps in the scratchpad: one stretch, divided among buffers that take turns."""

from __future__ import annotations

import math
from collections.abc import Container
from typing import NamedTuple

from lepton.compiler.allocate import TILE_ALIGN
from lepton.compiler.emit import Box, Emitter, Tile
from lepton.compiler.graph import Tensor
from lepton.compiler.lowering.cascade_plan import (
    Cascade,
    CascadePlan,
    output_channels,
    step_extents,
)
from lepton.isa.footprints import REQUANTIZE_BYTES

__all__ = ["Buffers", "buffer_bytes_of"]

_HELD_PARAMETERS = 3
"""Chunks whose parameters are there where others follow: in use, next, and on their way."""

_MIDDLES = 3
"""Chunks between depthwise and projection: one is read, one is waiting, one is written."""


class _Kind(NamedTuple):
    """Buffers of one size that are used in turn."""

    size: int
    number: int


def _aligned(size: int) -> int:
    return -(-size // TILE_ALIGN) * TILE_ALIGN


def _kinds(cascade: Cascade, plan: CascadePlan, residents: Container[str]) -> dict[str, _Kind]:
    """Return the buffers of a cascade; tensors that stay in the scratchpad anyway have none."""

    def crossing(tensor: Tensor | None, size: int) -> _Kind:
        return _Kind(0 if tensor is None or tensor.name in residents else _aligned(size), 2)

    extents = step_extents(cascade, (plan.height, plan.width))
    pixels, chunks = plan.height * plan.width, -(-cascade.channels // plan.channels)
    source = 0 if plan.input_bytes else math.prod(extents.source) * cascade.source.shape[3]
    result = pixels * output_channels(cascade, plan)
    kinds = {
        "input": crossing(cascade.source, source),
        "output": crossing(cascade.output, result),
        "other": crossing(cascade.other, result),
        "planes": _Kind(
            _aligned(plan.rows * extents.window[1] * plan.channels),
            1 if plan.chunks_first else chunks,
        ),
    }
    if cascade.project is not None:
        kinds["middle"] = _Kind(_aligned(pixels * plan.channels), _MIDDLES)
    if cascade.combine is not None:
        kinds["projected"] = _Kind(_aligned(result), 1)
        kinds["combine"] = _Kind(_aligned(cascade.combine.parameters.size), 1)
    held = min(chunks, _HELD_PARAMETERS) if plan.chunks_first else chunks
    for node in cascade.convolutions:
        each = REQUANTIZE_BYTES[node.mode]
        if node is cascade.project:
            kinds[node.output.name] = _Kind(_aligned(node.output.shape[3] * each), 1)
        else:
            kinds[node.output.name] = _Kind(_aligned(plan.channels * each), held)
    return kinds


def buffer_bytes_of(cascade: Cascade, plan: CascadePlan, residents: Container[str]) -> int:
    """Return the scratchpad bytes of a cascade's buffers, without that for input rows."""
    kinds = _kinds(cascade, plan, residents).values()
    return max(sum(kind.size * kind.number for kind in kinds), TILE_ALIGN)


class Buffers:
    """The buffers of a cascade while it is emitted.

    Kinds are input, output, planes, middle (between depthwise and projection), projected and other
    (the operands of the element-wise function), combine (its parameters), and the parameters of
    each convolution by the name of its output.
    """

    def __init__(self, cascade: Cascade, plan: CascadePlan, emitter: Emitter) -> None:
        self._emitter = emitter
        self._kinds = _kinds(cascade, plan, emitter.residents)
        self._block = emitter.tiles.allocate_at_edge(
            buffer_bytes_of(cascade, plan, emitter.residents)
        )
        self._starts: dict[str, int] = {}
        self._taken = dict.fromkeys(self._kinds, 0)
        address = self._block
        for name, kind in self._kinds.items():
            self._starts[name] = address
            address += kind.size * kind.number

    def slot(self, name: str, number: int) -> int:
        """Return which of a kind's buffers serves a chunk."""
        return number % self._kinds[name].number

    def at(self, name: str, number: int) -> int:
        """Return the address of the buffer that serves a chunk."""
        return self._starts[name] + self.slot(name, number) * self._kinds[name].size

    def take(self, name: str) -> int:
        """Return the address of the next buffer of a kind in turn."""
        self._taken[name] += 1
        return self.at(name, self._taken[name])

    def fetch(self, name: str, tensor: Tensor, n: int, box: Box) -> Tile:
        """Return a tile of a tensor, brought into a buffer if the tensor does not stay inside."""
        if tensor.name in self._emitter.residents:
            return self._emitter.fetch(tensor, n, box)
        tile = self.tile(name, box)
        self._emitter.bring(tensor, n, tile)
        return tile

    def place(self, tensor: Tensor, n: int, box: Box) -> Tile:
        """Return the tile that a result of the cascade is to be written to."""
        if tensor.name in self._emitter.residents:
            return self._emitter.place(tensor, n, box)
        return self.tile("output", box)

    def tile(self, name: str, box: Box) -> Tile:
        """Return a packed tile in the next buffer of a kind."""
        pitch = box.width * box.channels
        return Tile(self.take(name), pitch, box.channels, box, False)

    def release(self) -> None:
        """Give the room back."""
        self._emitter.tiles.release(self._block)
