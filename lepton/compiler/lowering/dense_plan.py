"""The plan of a dense convolution: what a tile is, and how often its parts are done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lepton.compiler.graph import Convolution
from lepton.cost.elementwise import Number

__all__ = ["Counts", "Plan", "counts_of"]


class Plan(NamedTuple):
    """Tile of a convolution, or of many plans the numbers of all as arrays."""

    height: Number
    width: Number
    columns: Number
    channels: Number
    """Channels of the reduction in a weight block."""
    kernel_rows: Number
    """Kernel rows in a weight block."""
    pixels_first: Number
    """Whether all column blocks of a pixel tile come before the next pixel tile."""
    loaded: Number
    """Input channels in the scratchpad at a time."""
    parameter_bytes: Number
    """Room for the requantization parameters of several blocks of columns."""
    buffer_bytes: Number
    """Of the buffer for input rows that tiles share, 0 where each has its input to itself."""


@dataclass(frozen=True)
class Counts:
    """How often the parts of a plan are done."""

    tiles: Number
    """Tiles of pixels, of all images."""
    blocks: Number
    """Blocks of columns."""
    loads: Number
    """Parts of the channels that are loaded one after the other."""
    steps: Number
    """Weight blocks of one tile and block of columns."""

    @property
    def units(self) -> Number:
        return self.tiles * self.blocks


def counts_of(node: Convolution, plan: Plan, extents: tuple[int, int]) -> Counts:
    images, oh, ow, _ = node.output.shape
    loads = -(-extents[0] // plan.loaded)
    rows = -(-node.window.kernel[0] // plan.kernel_rows)
    return Counts(
        images * -(-oh // plan.height) * -(-ow // plan.width),
        -(-extents[1] // plan.columns),
        loads,
        loads * rows * -(-plan.loaded // plan.channels),
    )
