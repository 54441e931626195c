"""The tile of a convolution: which of those that fit the memories costs least.

A tile is `height x width` output pixels by `columns` output channels whose sums fit half of the
accumulators, so that the vector unit empties one half while the array fills the other; a block of
weights is `taps x channels` by `columns` and fits half of the weight buffer. The reduction is
split over channels, then over kernel rows, where it does not fit. Where even the input of one
pixel does not fit the scratchpad, its channels are loaded in slices whose sums add up.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import product

from lepton.chip import Chip
from lepton.compiler.allocate import shortage
from lepton.compiler.emit import Emitter
from lepton.compiler.graph import Binary, Convolution, Tensor
from lepton.compiler.lowering.addition import PARAMETER_ROOM, joined, operands_of
from lepton.compiler.lowering.kept import streamed_bytes
from lepton.compiler.lowering.plan_cost import Products, Work, plan_cost
from lepton.compiler.lowering.rows import rows_of
from lepton.compiler.lowering.traffic import Traffic
from lepton.compiler.stored import stored_part
from lepton.cost import cost_scalars
from lepton.cost.dataflows import matmul_cycles
from lepton.errors import CompileError
from lepton.isa.footprints import REQUANTIZE_BYTES

__all__ = [
    "Plan",
    "candidate_sizes",
    "choose_plan",
    "count_input",
    "count_tile",
    "likeness",
    "memory_key",
    "no_pixel_fits",
    "overlapped",
    "planned_cost",
    "rings_key",
    "room_for_tiles",
    "row_buffers",
    "tile_bytes",
]

_PIXELS = 65535


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


def room_for_tiles(emitter: Emitter) -> int:
    """Return the scratchpad bytes that tiles may take."""
    return emitter.tiles.size - emitter.tiles.in_use


def tile_bytes(
    node: Convolution, emitter: Emitter, size: tuple[int, int], channels: int, columns: int
) -> int:
    """Return the scratchpad bytes of one tile's input and output."""
    total = 32 + _output_bytes(node, emitter, size, columns)
    if node.inputs[0].name not in emitter.residents:
        rows = rows_of(node.window, size, node.inputs[0].shape[1:3], channels)
        total += rows.window * rows.pitch + 16
    return total


def _output_bytes(node: Convolution, emitter: Emitter, size: tuple[int, int], columns: int) -> int:
    """Return the scratchpad bytes of one tile's output and of what is combined with it."""
    operands = operands_of(node)
    count = sum(tensor.name not in emitter.residents for tensor in (node.output, *operands))
    return count * (size[0] * size[1] * columns + 16) + len(operands) * PARAMETER_ROOM


def row_buffers(
    node: Convolution,
    emitter: Emitter,
    size: tuple[int, int],
    channels: tuple[int, int],
    room: int,
) -> list[int]:
    """Return the bytes that a buffer for the input rows that tiles share may have.

    A tile has `size` output pixels, `channels` of input and of output. 0 stands for an input of
    each tile's own. The list is empty where tiles do not fit the `room` in the scratchpad twice;
    a buffer that holds all rows comes last.
    """
    rows = rows_of(node.window, size, node.inputs[0].shape[1:3], channels[0])
    twice = 2 * tile_bytes(node, emitter, size, *channels) <= room
    if node.inputs[0].name in emitter.residents:
        return [0] if twice else []
    left = room - 2 * _output_bytes(node, emitter, size, channels[1]) - 64
    sizes: list[int] = []
    if not rows.overlap:
        sizes += [0] if twice else []
    elif rows.least <= left:
        sizes.append(rows.bytes_within(left))
    if size[1] == node.output.shape[2] and rows.whole <= left:
        sizes.append(rows.whole)
    return sizes


def count_tile(
    tensor: Tensor, size: tuple[int, int, int], times: float, traffic: Traffic, *, is_write: bool
) -> None:
    """Count the transfers of `times` boxes `[h, w, c]` of a tensor that lives in a memory."""
    _, _, w, c = tensor.shape
    memory = traffic.chip.memory_index(traffic.chip.placement.activations[0])
    rows, cols, channels = size
    run, runs, stride = channels, rows * cols, c
    if channels == c:
        run, runs, stride = (rows * w * c, 1, 0) if cols == w else (cols * c, rows, w * c)
    count = traffic.write if is_write else traffic.read
    count(memory, run, runs * times, stride)


def count_input(
    node: Convolution,
    size: tuple[int, int],
    channels: int,
    times: int,
    buffer: tuple[int, Traffic],
) -> None:
    """Count the transfers of the input of all tiles of `size` output pixels.

    So many `channels` are loaded at a time, and each tile is visited `times`. `buffer` is the bytes
    of the buffer for rows or 0, and where to count; what it holds whole is loaded once.
    """
    ifm, (_, oh, ow, _) = node.inputs[0], node.output.shape
    rows = rows_of(node.window, size, ifm.shape[1:3], channels)
    down, across = -(-oh // size[0]), -(-ow // size[1])
    brought = rows.brought(buffer[0], down) if buffer[0] else down * rows.window
    if across == 1 and channels == ifm.shape[3] and buffer[0] >= rows.whole:
        times = 1
    stripes = ifm.shape[0] * across * times
    columns = rows.pitch // channels
    if columns == ifm.shape[2] and channels == ifm.shape[3]:
        count_tile(
            ifm, (brought // down, columns, channels), stripes * down, buffer[1], is_write=False
        )
    else:
        count_tile(ifm, (brought, columns, channels), stripes, buffer[1], is_write=False)


def _halvings(extent: int) -> list[int]:
    """Return extent, then its halves rounded up, down to 1."""
    values = [extent]
    while values[-1] > 1:
        values.append(-(-values[-1] // 2))
    return values


def candidate_sizes(
    node: Convolution, emitter: Emitter, columns: int, held: tuple[int, ...]
) -> list[tuple[int, int]]:
    """Return sizes of tiles, in output pixels, whose sums of so many columns fit `held` times.

    Whole rows in even parts come first, largest first and each at most three quarters of the one
    before. Then come stripes of columns in even parts, as high as they can be, if windows of rows
    overlap, and parts of single rows otherwise: whole rows move in longer runs.
    """
    sizes: dict[tuple[int, int], None] = {}
    for times in held:
        most = min(emitter.sums.size // times // columns, _PIXELS)
        sizes |= dict.fromkeys(_sizes_within(node, most))
    return list(sizes)


def _sizes_within(node: Convolution, most: int) -> list[tuple[int, int]]:
    """Return sizes of tiles of at most so many output pixels."""
    _, oh, ow, _ = node.output.shape
    high = oh if node.window.kernel[0] > node.window.stride[0] else 1
    sizes: list[tuple[int, int]] = []
    for parts in range(1, oh + 1):
        height = -(-oh // parts)
        if height * ow <= most and (not sizes or height <= 0.75 * sizes[-1][0]):
            sizes.append((height, ow))
    widths = {-(-ow // parts) for parts in range(2, 9)} | set(_halvings(ow)[1:])
    for width in sorted(widths - {ow}, reverse=True):
        if width <= most:
            parts = -(-oh // min(most // width, high))
            sizes.append((-(-oh // parts), width))
    return sizes


def _blocks(node: Convolution, room: int, channels: int, columns: int) -> Iterator[tuple[int, int]]:
    """Yield (channels, kernel rows) of the largest weight blocks of at most `room` elements."""
    kh, kw = node.window.kernel
    for part in _halvings(channels):
        if kh * kw * part * columns <= room:
            yield part, kh
            return
    for rows in _halvings(kh):
        for part in _halvings(channels):
            if rows * kw * part * columns <= room:
                yield part, rows
                return


def choose_plan(
    node: Convolution, emitter: Emitter, extents: tuple[int, int], combine: Binary | None = None
) -> Plan:
    """Return the tile of a dense convolution with the least estimated cost.

    Args:
        node: the convolution, or of its groups those of
        emitter: for which it is to be emitted.
        extents: so many input and output channels.
        combine: an element-wise function of its result that is computed with it.

    Raises:
        CompileError: not even one pixel fits.
    """
    whole = joined(node, combine)

    def candidates(chip: Chip) -> Iterator[tuple[float, Hashable, Plan]]:
        seen = emitter.on(chip)
        for plan in _plans(whole, seen, *extents):
            cost = _estimate(whole, seen, plan, extents)
            yield cost, (plan.height, plan.width, plan.columns, plan.pixels_first), plan

    key = (likeness(whole, emitter), *extents, *memory_key(whole, emitter))
    chosen = emitter.choices.plan(node, key, candidates)
    return chosen or _smallest(whole, emitter, *extents)


def planned_cost(
    node: Convolution, emitter: Emitter, extents: tuple[int, int], combine: Binary | None = None
) -> float:
    """Return the estimated cost of a dense convolution with the plan that it takes."""
    plan = choose_plan(node, emitter, extents, combine)
    return _estimate(joined(node, combine), emitter, plan, extents)


def likeness(node: Convolution, emitter: Emitter) -> tuple[Hashable, ...]:
    """Return what the plans of a convolution depend on but for the memories: its kind and sizes."""
    shapes = *(tensor.shape for tensor in node.inputs), node.output.shape, node.weights.shape
    shares = emitter.choices.streams.share(node.weights), emitter.choices.packed.share(node)
    return *shapes, node.window, node.groups, node.mode, *shares


def memory_key(node: Convolution, emitter: Emitter) -> tuple[Hashable, ...]:
    """Return what a plan of a node depends on in the memories."""
    tensors = (*node.inputs, node.output)
    return *rings_key(emitter), *(tensor.name in emitter.residents for tensor in tensors)


def rings_key(emitter: Emitter) -> tuple[Hashable, ...]:
    """Return what a plan depends on in the room of each memory on the chip."""
    return room_for_tiles(emitter), emitter.sums.size, emitter.weights.size


def _plans(node: Convolution, emitter: Emitter, channels: int, columns: int) -> Iterator[Plan]:
    """Yield the tiles that fit twice."""
    array = emitter.chip.columns
    each = REQUANTIZE_BYTES[node.mode]
    for tn in sorted({min(columns, array * n) for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)}):
        few = min(2 * tn, columns) * each
        every = columns * each
        if every > room_for_tiles(emitter) // 4:
            every = few
        for pixels_first, kept in dict.fromkeys([(False, few), (True, every)]):
            if pixels_first and tn == columns:
                continue
            yield from _shapes(node, emitter, (channels, tn), (pixels_first, kept))


def _shapes(
    node: Convolution, emitter: Emitter, extents: tuple[int, int], order: tuple[bool, int]
) -> Iterator[Plan]:
    """Yield the tiles of a block of columns: loaded channels, weight blocks, pixels."""
    channels, tn = extents
    room = room_for_tiles(emitter) - order[1]
    sizes = candidate_sizes(node, emitter, tn, (1, 2))
    parts = dict.fromkeys(
        block
        for share in (2, 3, 6)
        for block in _blocks(node, emitter.weights.size // share, channels, tn)
    )
    for loaded in _halvings(channels):
        fitting: dict[tuple[int, int], list[int]] = {}
        for size in sizes:
            if loaded < channels:
                kept = [0] if 2 * tile_bytes(node, emitter, size, loaded, tn) <= room else []
            else:
                kept = row_buffers(node, emitter, size, (loaded, tn), room)
            if kept:
                fitting[size] = kept
        weights = dict.fromkeys((min(part, loaded), rows) for part, rows in parts)
        for ((height, width), kept), (part, rows) in product(fitting.items(), weights):
            for held in kept:
                yield Plan(height, width, tn, part, rows, *order[:1], loaded, order[1], held)
        if sizes[:1] == list(fitting)[:1]:
            # the accumulators bound the tile: loading fewer channels makes it no larger
            return


def _smallest(node: Convolution, emitter: Emitter, channels: int, columns: int) -> Plan:
    """Return one pixel without double buffers, or raise."""
    need = 0
    for tn in _halvings(min(columns, emitter.chip.columns, emitter.sums.size)):
        parameters = tn * REQUANTIZE_BYTES[node.mode]
        for loaded in _halvings(channels):
            need = tile_bytes(node, emitter, (1, 1), loaded, tn) + parameters
            for part, rows in _blocks(node, emitter.weights.size // 2, loaded, tn):
                if need <= room_for_tiles(emitter):
                    return Plan(1, 1, tn, part, rows, True, loaded, parameters, 0)
    raise no_pixel_fits(node, emitter, need)


def no_pixel_fits(node: Convolution, emitter: Emitter, need: int) -> CompileError:
    """Return the error of a convolution that needs so many bytes for one output pixel."""
    place = f"scratchpad of chip '{emitter.chip.name}'"
    return shortage(f"one output pixel of '{node.name}'", place, need, room_for_tiles(emitter))


@dataclass(frozen=True)
class _Counts:
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


def _counts(node: Convolution, plan: Plan, extents: tuple[int, int]) -> _Counts:
    images, oh, ow, _ = node.output.shape
    loads = -(-extents[0] // plan.loaded)
    rows = -(-node.window.kernel[0] // plan.kernel_rows)
    return _Counts(
        images * -(-oh // plan.height) * -(-ow // plan.width),
        -(-extents[1] // plan.columns),
        loads,
        loads * rows * -(-plan.loaded // plan.channels),
    )


def _estimate(node: Convolution, emitter: Emitter, plan: Plan, extents: tuple[int, int]) -> float:
    """Return the estimated cost of a plan.

    Its cycles are the longest of arithmetic, traffic and their chain.
    """
    chip = emitter.chip
    n = _counts(node, plan, extents)
    compute, vector = _unit_cycles(node, emitter, plan, n)
    constants, ifm, ofm = (Traffic(chip, emitter.choices.objective) for _ in range(3))
    weights = math.prod(node.window.kernel) * extents[0] * extents[1]
    share = emitter.choices.streams.share(node.weights)
    decode = _count_constants(node, plan, constants, n, (weights, share))
    _count_activations(node, emitter, plan, (ifm, ofm), n)
    constants.fetch(n.units * (n.steps + 2 + n.loads + 2 * len(operands_of(node))))
    exposed = 0.0
    if not plan.pixels_first:
        block = weights // n.blocks
        exposed = _exposed_weights(chip, (block, share), compute * n.tiles, n.tiles)
    way_in, way_out = ifm.cycles / n.units, ofm.cycles / n.units
    # what is in flight at a time: sums of so many tiles, and two tiles of input and of output
    held = emitter.sums.size // (plan.height * plan.width * plan.columns)
    chain = max(
        (compute + vector + chip.array.rows + chip.array.columns) / held,
        (way_in + compute + ifm.latency) / _inputs_held(node, plan),
        (vector + way_out + ofm.latency) / 2,
    )
    arithmetic = n.units * max(compute, chain)
    if _brings_once(node, plan) and not plan.pixels_first:
        # all of the input comes with the first block of columns, none with the others
        exposed += max(ifm.cycles / n.blocks - arithmetic / n.blocks**2, 0.0)
    traffic = constants.with_others(ifm, ofm)
    together = (
        arithmetic + exposed * (n.blocks - 1),
        n.units * vector,
        traffic.cycles,
        decode,
    )
    cycles = overlapped(*together) + way_in + vector + way_out

    def work() -> Work:
        streamed = decode * chip.weight_buffer.decoder_bytes_per_cycle
        return _work(node, plan, n, streamed)

    return plan_cost(emitter.choices.objective, cycles, traffic, work)


def _work(node: Convolution, plan: Plan, n: _Counts, streamed: float) -> Work:
    """Return the work of a plan that streams so many weights."""
    size = plan.height * plan.width
    reduction = plan.kernel_rows * node.window.kernel[1] * plan.channels
    products = Products(n.units * n.steps, size, reduction, plan.columns)
    return Work([products], n.units * size * plan.columns, streamed, n.blocks * (n.steps + 1))


def overlapped(*parts: float) -> float:
    """Return the cycles of work done side by side: the longest, and more if others are close.

    Units that are all busy most of the time get in each other's way: the 4-norm adds 19 % where
    two take equally long, and 1.5 % where one takes half of the other's.
    """
    longest = max(parts)
    return longest * math.fsum((part / longest) ** 4 for part in parts) ** 0.25 if longest else 0.0


def _inputs_held(node: Convolution, plan: Plan) -> int:
    """Return the tiles whose inputs are in the scratchpad at a time."""
    if not plan.buffer_bytes:
        return 2
    size = plan.height, plan.width
    rows = rows_of(node.window, size, node.inputs[0].shape[1:3], plan.loaded)
    return max(rows.windows(plan.buffer_bytes), 2)


def _brings_once(node: Convolution, plan: Plan) -> bool:
    """Return whether the buffer holds the whole input."""
    size = plan.height, plan.width
    rows = rows_of(node.window, size, node.inputs[0].shape[1:3], plan.loaded)
    return size[1] == node.output.shape[2] and plan.buffer_bytes >= rows.whole


def _unit_cycles(
    node: Convolution, emitter: Emitter, plan: Plan, n: _Counts
) -> tuple[float, float]:
    """Return the matrix and the vector unit's cycles for one tile and block of columns."""
    chip = emitter.chip
    size = plan.height, plan.width
    dense = node.window.dilation[1] == 1 and node.inputs[0].shape[3] == plan.channels
    run = plan.channels * (node.window.kernel[1] if dense else 1)
    reduction = plan.kernel_rows * node.window.kernel[1] * plan.channels
    distance = node.window.stride[1] * node.inputs[0].shape[3]
    stream = matmul_cycles(chip.derived(cost_scalars), size, reduction, plan.columns, run, distance)
    stream *= emitter.choices.packed.share(node)
    compute = n.steps * (stream + chip.array.issue_cycles)
    vector = -(-math.prod(size) * plan.columns // chip.vector.lanes) + chip.vector.latency_cycles
    return compute, vector * (1 + len(operands_of(node)))


def _exposed_weights(chip: Chip, weights: tuple[int, float], compute: float, tiles: int) -> float:
    """Return the cycles for which the array waits for the next block of columns.

    What the buffer holds beside the block in use comes early; the rest, as the last tile of pixels
    is done with the block part by part. The weights are the block's bytes and the share stored.
    """
    block, share = weights
    rate = Traffic(chip)
    rate.read(chip.memory_index(chip.placement.constants), stored_part(block, share))
    late = 1.0 - min(max(chip.weight_buffer.elements - block, 0) / block, 1.0)
    return max(late * rate.cycles - compute / tiles, 0.0)


def _count_constants(
    node: Convolution, plan: Plan, traffic: Traffic, n: _Counts, size: tuple[int, float]
) -> float:
    """Count the weights, bytes and share stored, and the parameters; return decoder cycles."""
    weights, share = size
    chip = traffic.chip
    buffer = chip.weight_buffer.elements
    block = plan.kernel_rows * node.window.kernel[1] * plan.channels * plan.columns
    if plan.pixels_first or weights <= buffer:
        streamed = streamed_bytes(weights, block, buffer, n.tiles)
    else:
        streamed = n.blocks * streamed_bytes(weights // n.blocks, block, buffer, n.tiles)
    memory = chip.memory_index(chip.placement.constants)
    traffic.read(memory, stored_part(block, share), streamed / block)
    traffic.fetch(streamed / block)
    each = plan.columns * REQUANTIZE_BYTES[node.mode]
    parameters = n.blocks * each
    if plan.pixels_first:
        parameters = streamed_bytes(parameters, each, plan.parameter_bytes, n.tiles)
    traffic.read(memory, each, parameters / each)
    traffic.fetch(parameters / each)
    return streamed / chip.weight_buffer.decoder_bytes_per_cycle


def _count_activations(
    node: Convolution, emitter: Emitter, plan: Plan, traffic: tuple[Traffic, Traffic], n: _Counts
) -> None:
    """Count the input and the output of a plan."""
    ifm = node.inputs[0]
    if ifm.name not in emitter.residents:
        again = n.loads * (1 if plan.pixels_first and n.loads == 1 else n.blocks)
        size = (plan.height, plan.width)
        count_input(node, size, plan.loaded, again, (plan.buffer_bytes, traffic[0]))
    tile = (plan.height, plan.width, plan.columns)
    for tensor in operands_of(node):
        if tensor.name not in emitter.residents:
            count_tile(tensor, tile, n.units, traffic[0], is_write=False)
    if node.output.name not in emitter.residents:
        count_tile(node.output, tile, n.units, traffic[1], is_write=True)
