"""The tile of a cascade: which of those that fit the memories costs least.

A step is `height x width` output pixels of the depthwise convolution; steps follow each other down
a stripe of columns. Its channels are worked off in chunks: each chunk of the expanded tensor has a
plane in the scratchpad, the rows of the stripe that the window still needs, and the sums of the
projection grow chunk by chunk in the accumulators.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

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
from lepton.cost.closed_forms import depthwise_cycles
from lepton.cost.dataflows import matmul_cycles
from lepton.isa.footprints import REQUANTIZE_BYTES

__all__ = ["MIDDLE_BUFFERS", "Cascade", "CascadePlan", "aligned", "choose_cascade", "parameters_of"]
__all__ += ["step_extents"]

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
    rows: int
    """Of the expanded tensor in a plane, 0 without an expansion."""
    input_bytes: int
    """Of the buffer for input rows that steps share, 0 where each has its input to itself."""
    projections: int
    """Steps whose projected sums are held at a time."""
    cycles: float
    """Estimated, of the whole cascade."""


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
        for plan in _plans(cascade, emitter):
            yield plan.cycles, (plan.height, plan.width, plan.channels), plan

    inside = tuple(tensor.name in emitter.residents for tensor in (cascade.source, cascade.output))
    key = ("cascade", len(cascade.members), room_for_tiles(emitter), *inside)
    return emitter.choices.plan(cascade.members[0], key, candidates)


def _even_parts(extent: int, most: int) -> list[int]:
    """Return the sizes of 1 to `most` even parts of an extent, each once."""
    return list(dict.fromkeys(-(-extent // parts) for parts in range(1, min(extent, most) + 1)))


def _plans(cascade: Cascade, emitter: Emitter) -> Iterator[CascadePlan]:
    """Yield the plans that fit."""
    array = emitter.chip.columns
    count = cascade.channels
    _, oh, ow, _ = cascade.depthwise.output.shape
    for channels in sorted({min(count, array * n) for n in (1, 2, 3, 4, 6, 8)} | {count}):
        if not _fits_weights(cascade, emitter, channels):
            continue
        for height in _even_parts(oh, oh):
            for width in _even_parts(ow, 8):
                plan = _plan(cascade, emitter, (height, width), channels)
                if plan is not None:
                    yield plan


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


def _plan(
    cascade: Cascade, emitter: Emitter, size: tuple[int, int], channels: int
) -> CascadePlan | None:
    """Return the plan of a step, None if it does not fit."""
    extents = step_extents(cascade, size)
    sums = _sums(cascade, extents, size, channels)
    projections = 2
    while sums[0] * projections + 2 * sum(sums[1:]) > emitter.sums.size:
        projections -= 1
        if not projections:
            return None
    if not sums[0]:
        projections = 0
    room = room_for_tiles(emitter) - _fixed_bytes(cascade, emitter, size, channels)
    input_bytes = 0
    if cascade.source.name in emitter.residents:
        pass
    elif extents.overlap:
        first = cascade.members[0]
        tile = size if cascade.expand is None else (extents.advance, extents.window[1])
        rows = rows_of(first.window, tile, first.inputs[0].shape[1:3], first.inputs[0].shape[3])
        least = rows.least
        input_bytes = rows.bytes_within(max(room // 3, least))
        room -= aligned(input_bytes)
    else:
        room -= 2 * aligned(math.prod(extents.source) * cascade.source.shape[3])
    rows_held = _plane_rows(cascade, extents, channels, room)
    if rows_held is None:
        return None
    plan = CascadePlan(*size, channels, rows_held, input_bytes, projections, 0.0)
    cycles = _estimate(cascade, emitter, plan, extents)
    return CascadePlan(*size, channels, rows_held, input_bytes, projections, cycles)


def _sums(
    cascade: Cascade, extents: Extents, size: tuple[int, int], channels: int
) -> tuple[int, int, int]:
    """Return the sums of a step: projected, and of a chunk depthwise and expanded."""
    pixels = size[0] * size[1]
    projected = 0 if cascade.project is None else pixels * cascade.output.shape[3]
    expanded = 0
    if cascade.expand is not None:
        expanded = extents.advance * extents.window[1] * channels
    return projected, pixels * channels, expanded


def _fixed_bytes(cascade: Cascade, emitter: Emitter, size: tuple[int, int], channels: int) -> int:
    """Return the scratchpad bytes of parameters, chunks before the projection, and outputs."""
    pixels = size[0] * size[1]
    total = 2 * _ALIGN
    for node in cascade.members:
        count, part = node.output.shape[3], channels
        if node is cascade.project:
            part = count
        whole, rest = divmod(count, part)
        total += whole * parameters_of(node, part) + parameters_of(node, rest)
    if cascade.project is not None:
        total += MIDDLE_BUFFERS * aligned(pixels * channels)
    if cascade.output.name not in emitter.residents:
        total += 2 * aligned(pixels * cascade.output.shape[3])
    return total


def _plane_rows(cascade: Cascade, extents: Extents, channels: int, room: int) -> int | None:
    """Return the rows that planes of all chunks can have in a room; None if there are too few."""
    if cascade.expand is None:
        return 0 if room >= 0 else None
    chunks = -(-cascade.channels // channels)
    row = extents.window[1] * cascade.channels
    left = (room - _ALIGN * chunks) // row - extents.window[0]
    if left < 0:
        return None
    more = min(left // extents.advance, _MOST_ADVANCES)
    return min(extents.window[0] + more * extents.advance, cascade.depthwise.inputs[0].shape[1])


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
        run = ic * (node.window.kernel[1] if node.window.dilation[1] == 1 else 1)
        expand = issue + matmul_cycles(scalars, taps * ic, plan.channels, area, run)
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
        project = issue + matmul_cycles(scalars, plan.channels, oc, pixels, plan.channels)
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
    projected, depthwise, expanded = _sums(
        cascade, extents, (plan.height, plan.width), plan.channels
    )
    held = (emitter.sums.size - plan.projections * projected) / (depthwise + expanded)
    chain = (matrix + vector + 2 * skew) / held
    if cascade.expand is not None:
        turn = units.matrix[0] + units.matrix[1] + units.vector[0] + units.move + 2 * skew
        chain = max(chain, turn / chunks)
    constants, ifm, ofm = Traffic(chip), Traffic(chip), Traffic(chip)
    decode = _count_constants(cascade, emitter, plan, constants, steps)
    _count_activations(cascade, emitter, plan, extents, (ifm, ofm))
    per_chunk = (4 if cascade.expand else 2) + int(cascade.project is not None)
    constants.fetch(steps * (chunks * per_chunk + 3))
    together = (
        steps * chunks * max(matrix, chain),
        steps * chunks * vector,
        constants.with_others(ifm, ofm).cycles,
        decode,
    )
    begin = chunks * (units.matrix[0] + units.vector[0])
    return overlapped(*together) + begin + (ifm.cycles + ofm.cycles) / steps


def _count_constants(
    cascade: Cascade, emitter: Emitter, plan: CascadePlan, traffic: Traffic, steps: int
) -> float:
    """Count weights and parameters; return decoder cycles."""
    chip = emitter.chip
    memory = chip.memory_index(chip.placement.constants)
    total = sum(node.weights.size for node in cascade.members)
    block = max(_weights(cascade, plan.channels))
    streamed = streamed_bytes(total, block, emitter.weights.size, steps)
    for node in cascade.members:
        size = max(round(node.weights.size * emitter.choices.streams.share(node.weights)), 1)
        traffic.read(memory, size, streamed / total)
        traffic.read(memory, parameters_of(node, node.output.shape[3]))
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
        if cascade.expand is None:
            size = (plan.height, plan.width)
            count_input(cascade.depthwise, size, source.shape[3], 1, (plan.input_bytes, traffic[0]))
        else:
            rows = (extents.window[0] + (down - 1) * extents.advance) / extents.advance
            box = (*extents.source, source.shape[3])
            count_tile(source, box, images * across * rows, traffic[0], is_write=False)
    if output.name not in emitter.residents:
        box = (plan.height, plan.width, output.shape[3])
        count_tile(output, box, images * down * across, traffic[1], is_write=True)
