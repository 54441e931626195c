"""The tile of a cascade: which of those that fit the memories costs least.

A step is `height x width` output pixels of the depthwise convolution; steps follow each other down
a stripe of columns. Its channels are worked off in chunks: each chunk of the expanded tensor has a
plane in the scratchpad, the rows of the stripe that the window still needs, and the sums of the
projection grow chunk by chunk in the accumulators.

Where the weights do not fit their buffer and nothing is projected, all steps of a chunk come before
the next chunk: weights are streamed once, the input stays in the scratchpad, and one plane of all
rows takes the next chunk's as the steps go down it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from lepton.compiler.emit import Emitter
from lepton.compiler.graph import Convolution, Tensor
from lepton.compiler.lowering.kept import streamed_bytes
from lepton.compiler.lowering.plan import (
    count_input,
    count_tile,
    overlapped,
    room_for_tiles,
)
from lepton.compiler.lowering.rows import rows_of
from lepton.compiler.lowering.tiling import halo
from lepton.compiler.lowering.traffic import Traffic
from lepton.cost import cost_scalars
from lepton.cost.closed_forms import Walk, depthwise_cycles
from lepton.cost.dataflows import Product, matmul_cost, matmul_cycles
from lepton.isa.footprints import REQUANTIZE_BYTES
from lepton.isa.instructions import Stationary

__all__ = [
    "HELD_PARAMETERS",
    "MIDDLE_BUFFERS",
    "Cascade",
    "CascadePlan",
    "aligned",
    "cascade_plans",
    "choose_cascade",
    "output_channels",
    "parameters_of",
    "step_extents",
]

HELD_PARAMETERS = 3
"""Chunks whose parameters are in the scratchpad where others follow."""

MIDDLE_BUFFERS = 3
"""Chunks between depthwise and projection: one is read, one is waiting, one is written."""

_ALIGN = 16
_MOST_ADVANCES = 4
"""Steps between two moves of a plane's rows to its start, beyond which little is to be won."""


@dataclass(frozen=True, eq=False)
class Cascade:
    """Convolutions of one region that follow each other and are computed together."""

    expand: Convolution | None
    """Any dense convolution."""
    depthwise: Convolution
    """With as many output as input channels."""
    project: Convolution | None
    """A dense 1 x 1 convolution."""

    @property
    def members(self) -> tuple[Convolution, ...]:
        """The convolutions in order."""
        found = (self.expand, self.depthwise, self.project)
        return tuple(node for node in found if node is not None)

    @property
    def source(self) -> Tensor:
        return self.members[0].inputs[0]

    @property
    def output(self) -> Tensor:
        return self.members[-1].output

    @property
    def channels(self) -> int:
        """Of the depthwise convolution."""
        return self.depthwise.output.shape[3]


@dataclass(frozen=True)
class CascadePlan:
    """Step and buffers of a cascade."""

    height: int
    width: int
    channels: int
    """In a chunk."""
    chunks_first: bool
    """Whether all steps of a chunk come before the next chunk."""
    rows: int
    """Of the expanded tensor in a plane, 0 without an expansion."""
    input_bytes: int
    """Of the buffer for input rows that steps share, 0 where each has its input to itself."""
    projections: int
    """Steps whose projected sums are held at a time."""
    cycles: float
    """Estimated, of the whole cascade."""


class _Shape(NamedTuple):
    """What distinguishes plans; fields as in `CascadePlan`."""

    height: int
    width: int
    channels: int
    chunks_first: bool


@dataclass(frozen=True)
class Extents:
    """What a step of a plan is, in pixels of each tensor."""

    window: tuple[int, int]
    """Rows and columns of the depthwise input."""
    advance: int
    """Rows of it from one step to the next."""
    source: tuple[int, int]
    """Rows and columns of the cascade's input that a step brings, the overlap included."""
    overlap: bool
    """Whether steps share rows of the cascade's input."""


def aligned(size: int) -> int:
    """Return a size rounded up to what buffers begin at."""
    return -(-size // _ALIGN) * _ALIGN


def parameters_of(node: Convolution, channels: int) -> int:
    """Return the bytes of the requantization parameters of so many channels."""
    return aligned(channels * REQUANTIZE_BYTES[node.mode])


def choose_cascade(cascade: Cascade, emitter: Emitter) -> CascadePlan | None:
    """Return the plan with the least estimated cycles, None if none fits."""

    def candidates() -> Iterator[tuple[float, Hashable, CascadePlan]]:
        for plan in cascade_plans(cascade, emitter):
            yield plan.cycles, (plan.height, plan.width, plan.channels, plan.chunks_first), plan

    inside = tuple(tensor.name in emitter.residents for tensor in (cascade.source, cascade.output))
    key = ("cascade", len(cascade.members), room_for_tiles(emitter), *inside)
    return emitter.choices.plan(cascade.members[0], key, candidates)


def _even_parts(extent: int, most: int) -> list[int]:
    """Return the sizes of 1 to `most` even parts of an extent, each once."""
    return list(dict.fromkeys(-(-extent // parts) for parts in range(1, min(extent, most) + 1)))


def cascade_plans(cascade: Cascade, emitter: Emitter) -> Iterator[CascadePlan]:
    """Yield the plans that fit."""
    array = emitter.chip.columns
    count = cascade.channels
    _, oh, ow, _ = cascade.depthwise.output.shape
    orders = (False,) if cascade.expand is None or cascade.project is not None else (False, True)
    for channels in sorted({min(count, array * n) for n in (1, 2, 3, 4, 6, 8)} | {count}):
        if not _fits_weights(cascade, emitter, channels):
            continue
        for height in _even_parts(oh, oh):
            for width in _even_parts(ow, 8):
                for chunks_first in orders if width == ow else orders[:1]:
                    shape = _Shape(height, width, channels, chunks_first)
                    yield from _plan(cascade, emitter, shape)


def _weights(cascade: Cascade, channels: int) -> tuple[int, ...]:
    """Return the weights of each member for a chunk of channels."""
    total = cascade.channels
    return tuple(-(-node.weights.size * channels // total) for node in cascade.members)


def _fits_weights(cascade: Cascade, emitter: Emitter, channels: int) -> bool:
    """Return whether the weights of a chunk leave room for those of the next."""
    return 2 * sum(_weights(cascade, channels)) <= emitter.weights.size


def step_extents(cascade: Cascade, size: tuple[int, int]) -> Extents:
    """Return what a step of so many output pixels is."""
    window, expand = cascade.depthwise.window, cascade.expand
    shape = cascade.depthwise.inputs[0].shape
    seen = halo(window, 0, size[0], shape[1]), halo(window, 1, size[1], shape[2])
    advance = min(size[0] * window.stride[0], seen[0])
    if expand is None:
        return Extents(seen, advance, seen, seen[0] > advance)
    inner, ifm = expand.window, expand.inputs[0].shape
    source = halo(inner, 0, advance, ifm[1]), halo(inner, 1, seen[1], ifm[2])
    return Extents(seen, advance, source, source[0] > advance * inner.stride[0])


def _plan(cascade: Cascade, emitter: Emitter, shape: _Shape) -> Iterator[CascadePlan]:
    """Yield the plan of a shape if it fits."""
    extents = step_extents(cascade, (shape.height, shape.width))
    projected, *sums = _sums(cascade, extents, shape)
    left = emitter.sums.size - sum(sums) - max(sums)
    if left < projected or left < 0:
        return
    input_bytes, taken = _input_bytes(cascade, emitter, extents, shape)
    room = room_for_tiles(emitter) - _fixed_bytes(cascade, emitter, shape) - taken
    rows = _plane_rows(cascade, extents, shape, room)
    if rows is None:
        return
    held = min(left // projected, 2) if projected else 0
    for projections in range(min(held, 1), held + 1):
        plan = CascadePlan(*shape, rows, input_bytes, projections, 0.0)
        yield replace(plan, cycles=_estimate(cascade, emitter, plan, extents))


def _input_bytes(
    cascade: Cascade, emitter: Emitter, extents: Extents, shape: _Shape
) -> tuple[int, int]:
    """Return the bytes of a buffer for input rows, or 0, and all bytes that the input takes."""
    ifm = cascade.source
    if ifm.name in emitter.residents:
        return 0, 0
    if shape.chunks_first:
        whole = aligned(ifm.size_bytes // ifm.shape[0])
        return whole, whole
    if not extents.overlap:
        return 0, 2 * aligned(math.prod(extents.source) * ifm.shape[3])
    tile = (shape.height, shape.width)
    if cascade.expand is not None:
        tile = extents.advance, extents.window[1]
    rows = rows_of(cascade.members[0].window, tile, ifm.shape[1:3], ifm.shape[3])
    size = aligned(rows.bytes_within(max(room_for_tiles(emitter) // 4, rows.least)))
    return size, size


def _sums(cascade: Cascade, extents: Extents, shape: _Shape) -> tuple[int, int, int]:
    """Return the sums of a step: projected, and of a chunk depthwise and expanded."""
    pixels = shape.height * shape.width
    projected = 0 if cascade.project is None else pixels * cascade.output.shape[3]
    expanded = 0
    if cascade.expand is not None:
        expanded = extents.advance * extents.window[1] * shape.channels
    return projected, pixels * shape.channels, expanded


def _fixed_bytes(cascade: Cascade, emitter: Emitter, shape: _Shape) -> int:
    """Return the scratchpad bytes of parameters, chunks before the projection, and outputs."""
    pixels = shape.height * shape.width
    chunks = -(-cascade.channels // shape.channels)
    total = 2 * _ALIGN
    for node in cascade.members:
        if node is cascade.project:
            total += parameters_of(node, node.output.shape[3])
        else:
            held = min(chunks, HELD_PARAMETERS) if shape.chunks_first else chunks
            total += held * parameters_of(node, shape.channels)
    if cascade.project is not None:
        total += MIDDLE_BUFFERS * aligned(pixels * shape.channels)
    if cascade.output.name not in emitter.residents:
        total += 2 * aligned(pixels * output_channels(cascade, shape))
    return total


def output_channels(cascade: Cascade, plan: CascadePlan | _Shape) -> int:
    """Return the channels of the output that are stored together."""
    return plan.channels if plan.chunks_first else cascade.output.shape[3]


def _plane_rows(cascade: Cascade, extents: Extents, shape: _Shape, room: int) -> int | None:
    """Return the rows that planes can have in a room; None if there are too few."""
    if cascade.expand is None:
        return 0 if room >= 0 else None
    height = cascade.depthwise.inputs[0].shape[1]
    if shape.chunks_first:
        return height if aligned(height * extents.window[1] * shape.channels) <= room else None
    chunks = -(-cascade.channels // shape.channels)
    row = extents.window[1] * cascade.channels
    left = (room - _ALIGN * chunks) // row - extents.window[0]
    if left < 0:
        return None
    more = min(left // extents.advance, _MOST_ADVANCES)
    return min(extents.window[0] + more * extents.advance, height)


# --- cost ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Units:
    """Cycles of the matrix and the vector unit for one chunk of one step."""

    matrix: tuple[float, float, float]
    """Expansion, depthwise, projection."""
    vector: tuple[float, float, float]
    move: float
    """Of the rows that stay to the plane's start."""


def _units(cascade: Cascade, emitter: Emitter, plan: CascadePlan, extents: Extents) -> _Units:
    chip = emitter.chip
    scalars = cost_scalars(chip)
    depthwise, pixels = cascade.depthwise, plan.height * plan.width

    def requantize(node: Convolution, pixels: int, channels: int) -> float:
        parameters = parameters_of(node, channels) / chip.scratchpad.port_bytes
        return chip.vector.latency_cycles + parameters + pixels * channels / chip.vector.lanes

    issue = chip.array.issue_cycles
    expand = project = expand_out = project_out = move = 0.0
    if cascade.expand is not None:
        node, area = cascade.expand, extents.advance * extents.window[1]
        ic, taps = node.inputs[0].shape[3], math.prod(node.window.kernel)
        pitch = extents.source[1] * ic
        if node.window.dilation[1] == 1:
            walk = Walk(ic * node.window.kernel[1], 1, 0, node.window.dilation[0] * pitch)
        else:
            walk = Walk(ic, node.window.kernel[1], ic * node.window.dilation[1], pitch)
        product = Product(taps * ic, plan.channels, area, walk, int(Stationary.BUFFER))
        expand = matmul_cost(scalars, product)[1]
        expand_out = requantize(node, area, plan.channels)
        kept = (extents.window[0] - extents.advance) * extents.window[1] * plan.channels
        often = 1 + (plan.rows - extents.window[0]) // extents.advance
        if kept and plan.rows < depthwise.inputs[0].shape[1]:
            move = (chip.vector.latency_cycles + kept / chip.vector.lanes) / often
    window = depthwise.window
    stream, _ = depthwise_cycles(
        scalars, window.kernel, window.stride[1], window.dilation[1],
        (plan.height, plan.width), plan.channels,
    )  # fmt: skip
    if cascade.project is not None:
        oc = cascade.output.shape[3]
        project = matmul_cycles(scalars, plan.channels, oc, pixels, plan.channels)
        chunks = -(-cascade.channels // plan.channels)
        project_out = requantize(cascade.project, pixels, oc) / chunks
    out = requantize(depthwise, pixels, plan.channels)
    return _Units((expand, stream + issue, project), (expand_out, out, project_out), move)


def _estimate(cascade: Cascade, emitter: Emitter, plan: CascadePlan, extents: Extents) -> float:
    """Return the estimated cycles of a plan: the longest of arithmetic, traffic and their chain."""
    chip = emitter.chip
    units = _units(cascade, emitter, plan, extents)
    images, oh, ow, _ = cascade.depthwise.output.shape
    chunks = -(-cascade.channels // plan.channels)
    down, across = -(-oh // plan.height), -(-ow // plan.width)
    steps = images * down * across
    # the rows of a stripe are expanded once, those of its first window before anything else
    expansions = 1.0
    if cascade.expand is not None:
        rows = (extents.window[0] + (down - 1) * extents.advance) / extents.advance
        expansions = rows / down
    matrix = expansions * units.matrix[0] + units.matrix[1] + units.matrix[2]
    vector = expansions * units.vector[0] + units.vector[1] + units.vector[2] + units.move
    skew = chip.array.rows + chip.array.columns
    shape = _Shape(plan.height, plan.width, plan.channels, plan.chunks_first)
    projected, depthwise, expanded = _sums(cascade, extents, shape)
    # sums are taken from the first cycle of their matmul to the last of their requantization
    taken = depthwise * (units.matrix[1] + units.vector[1] + skew)
    taken += expansions * expanded * (units.matrix[0] + units.vector[0] + skew)
    chain = taken / (emitter.sums.size - plan.projections * projected)
    if cascade.expand is not None and not plan.chunks_first:
        turn = units.matrix[0] + units.matrix[1] + units.vector[0] + units.move + 2 * skew
        chain = max(chain, turn / chunks)
    exposed = 0.0
    if plan.projections == 1:
        # the sums of the next step must wait until those of this one have been requantized
        queued = units.vector[0] + chunks * units.vector[2]
        exposed = max(queued + skew - matrix, 0.0) / chunks
    constants, ifm, ofm = Traffic(chip), Traffic(chip), Traffic(chip)
    decode = _count_constants(cascade, emitter, plan, constants, steps)
    _count_activations(cascade, emitter, plan, extents, (ifm, ofm))
    per_chunk = (4 if cascade.expand else 2) + int(cascade.project is not None)
    constants.fetch(steps * (chunks * per_chunk + 3))
    together = (
        steps * chunks * max(matrix + exposed, chain),
        steps * chunks * vector,
        constants.with_others(ifm, ofm).cycles,
        decode,
    )
    begin = max(units.matrix[0], units.vector[0]) * (down if plan.chunks_first else chunks)
    moves = steps * chunks if plan.chunks_first else steps
    return overlapped(*together) + begin + (ifm.cycles + ofm.cycles) / moves


def _count_constants(
    cascade: Cascade, emitter: Emitter, plan: CascadePlan, traffic: Traffic, steps: int
) -> float:
    """Count weights and parameters; return decoder cycles."""
    chip = emitter.chip
    memory = chip.memory_index(chip.placement.constants)
    total = sum(node.weights.size for node in cascade.members)
    block = sum(_weights(cascade, plan.channels))
    sweeps = cascade.source.shape[0] if plan.chunks_first else steps
    streamed = streamed_bytes(total, block, emitter.weights.size, sweeps)
    again = cascade.source.shape[0] if plan.chunks_first else 1
    for node in cascade.members:
        size = max(round(node.weights.size * emitter.choices.streams.share(node.weights)), 1)
        traffic.read(memory, size, streamed / total)
        traffic.read(memory, parameters_of(node, node.output.shape[3]), again)
    traffic.fetch(streamed / block)
    return streamed / chip.weight_buffer.decoder_bytes_per_cycle


def _count_activations(
    cascade: Cascade,
    emitter: Emitter,
    plan: CascadePlan,
    extents: Extents,
    traffic: tuple[Traffic, Traffic],
) -> None:
    """Count the input and the output of a plan."""
    images, oh, ow, _ = cascade.depthwise.output.shape
    down, across = -(-oh // plan.height), -(-ow // plan.width)
    source, output = cascade.source, cascade.output
    if source.name not in emitter.residents:
        if plan.chunks_first:
            count_tile(source, source.shape[1:], images, traffic[0], is_write=False)
        elif cascade.expand is None:
            size = (plan.height, plan.width)
            count_input(cascade.depthwise, size, source.shape[3], 1, (plan.input_bytes, traffic[0]))
        else:
            rows = (extents.window[0] + (down - 1) * extents.advance) / extents.advance
            box = (*extents.source, source.shape[3])
            count_tile(source, box, images * across * rows, traffic[0], is_write=False)
    if output.name not in emitter.residents:
        box = (plan.height, plan.width, output_channels(cascade, plan))
        times = images * down * across * output.shape[3] / box[2]
        count_tile(output, box, times, traffic[1], is_write=True)
