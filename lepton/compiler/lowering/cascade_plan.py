"""Cascades and their plans: what a step is, and what it takes of the memories.

A step is `height x width` output pixels of the depthwise convolution; steps follow each other down
a stripe of columns. Its channels are worked off in chunks: each chunk of the expanded tensor has a
plane in the scratchpad, the rows of the stripe that the window still needs, and the sums of the
projection grow chunk by chunk in the accumulators.

Where the weights do not fit their buffer and nothing is projected, all steps of a chunk come before
the next chunk: weights are streamed once, the input stays in the scratchpad, and one plane of all
rows takes the next chunk's as the steps go down it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lepton.compiler.graph import Binary, Convolution, Tensor
from lepton.compiler.lowering.tiling import halo
from lepton.cost.elementwise import Number, choose, least
from lepton.isa.footprints import REQUANTIZE_BYTES

__all__ = [
    "Cascade",
    "CascadePlan",
    "Extents",
    "output_channels",
    "parameters_of",
    "step_extents",
    "step_sums",
    "weights_of",
]


@dataclass(frozen=True, eq=False)
class Cascade:
    """Nodes of one region that follow each other and are computed together."""

    expand: Convolution | None
    """Any dense convolution."""
    depthwise: Convolution
    """With as many output as input channels."""
    project: Convolution | None
    """A dense 1 x 1 convolution."""
    combine: Binary | None = None
    """An element-wise function of what is projected and another tensor: a residual add."""

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """The convolutions in order."""
        found = (self.expand, self.depthwise, self.project)
        return tuple(node for node in found if node is not None)

    @property
    def members(self) -> tuple[Convolution | Binary, ...]:
        """All nodes in order."""
        return self.convolutions if self.combine is None else (*self.convolutions, self.combine)

    @property
    def source(self) -> Tensor:
        return self.convolutions[0].inputs[0]

    @property
    def output(self) -> Tensor:
        return self.members[-1].output

    @property
    def other(self) -> Tensor | None:
        """The other operand of the element-wise function."""
        return self.combine and self.combine.beside(self.convolutions[-1].output)

    @property
    def channels(self) -> int:
        """Of the depthwise convolution."""
        return self.depthwise.output.shape[3]


class CascadePlan(NamedTuple):
    """Step and buffers of a cascade, or of many plans the numbers of all as arrays."""

    height: Number
    width: Number
    channels: Number
    """In a chunk."""
    chunks_first: Number
    """Whether all steps of a chunk come before the next chunk."""
    rows: Number = 0
    """Of the expanded tensor in a plane, 0 without an expansion."""
    input_bytes: Number = 0
    """Of the buffer for input rows that steps share, 0 where each has its input to itself."""
    projections: Number = 0
    """Steps whose projected sums are held at a time."""
    cost: Number = 0.0
    """Estimated, of the whole cascade, in the objective's unit."""


@dataclass(frozen=True)
class Extents:
    """What a step of a plan is, in pixels of each tensor."""

    window: tuple[Number, Number]
    """Rows and columns of the depthwise input."""
    advance: Number
    """Rows of it from one step to the next."""
    source: tuple[Number, Number]
    """Rows and columns of the cascade's input that a step brings, the overlap included."""
    overlap: Number
    """Whether steps share rows of the cascade's input."""


def parameters_of(node: Convolution, channels: Number) -> Number:
    """Return the bytes of the requantization parameters of so many channels."""
    return channels * REQUANTIZE_BYTES[node.mode]


def weights_of(cascade: Cascade, channels: Number) -> tuple[Number, ...]:
    """Return the weights of each member for a chunk of channels."""
    total = cascade.channels
    return tuple(-(-node.weights.size * channels // total) for node in cascade.convolutions)


def step_extents(cascade: Cascade, size: tuple[Number, Number]) -> Extents:
    """Return what a step of so many output pixels is."""
    window, expand = cascade.depthwise.window, cascade.expand
    shape = cascade.depthwise.inputs[0].shape
    seen = halo(window, 0, size[0], shape[1]), halo(window, 1, size[1], shape[2])
    advance = least(size[0] * window.stride[0], seen[0])
    if expand is None:
        return Extents(seen, advance, seen, seen[0] > advance)
    inner, ifm = expand.window, expand.inputs[0].shape
    source = halo(inner, 0, advance, ifm[1]), halo(inner, 1, seen[1], ifm[2])
    return Extents(seen, advance, source, source[0] > advance * inner.stride[0])


def step_sums(
    cascade: Cascade, extents: Extents, plan: CascadePlan
) -> tuple[Number, Number, Number]:
    """Return the sums of a step: projected, and of a chunk depthwise and expanded."""
    pixels = plan.height * plan.width
    projected = 0 if cascade.project is None else pixels * cascade.output.shape[3]
    expanded = 0
    if cascade.expand is not None:
        expanded = extents.advance * extents.window[1] * plan.channels
    return projected, pixels * plan.channels, expanded


def output_channels(cascade: Cascade, plan: CascadePlan) -> Number:
    """Return the channels of the output that are stored together."""
    return choose(plan.chunks_first, plan.channels, cascade.output.shape[3])
