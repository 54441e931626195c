"""The plan of a dense convolution: what a tile is, and how often its parts are done."""

from __future__ import annotations

from dataclasses import dataclass

from lepton.compiler.graph import Convolution

__all__ = ["Counts", "Plan", "counts_of"]


@dataclass(frozen=True)
class Plan:
    """Tile of a convolution."""

    height: int
    width: int
    columns: int
    channels: int
    """Channels of the reduction in a weight block."""
    kernel_rows: int
    """Kernel rows in a weight block."""
    pixels_first: bool
    """Whether all column blocks of a pixel tile come before the next pixel tile."""
    loaded: int
    """Input channels in the scratchpad at a time."""
    parameter_bytes: int
    """Room for the requantization parameters of several blocks of columns."""
    buffer_bytes: int
    """Of the buffer for input rows that tiles share, 0 where each has its input to itself."""


@dataclass(frozen=True)
class Counts:
    """How often the parts of a plan are done."""

    tiles: int
    """Tiles of pixels, of all images."""
    blocks: int
    """Blocks of columns."""
    loads: int
    """Parts of the channels that are loaded one after the other."""
    steps: int
    """Weight blocks of one tile and block of columns."""

    @property
    def units(self) -> int:
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
