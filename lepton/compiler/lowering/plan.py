"""The tile of a convolution: which of those that fit the memories costs least.

A tile is `height x width` output pixels by `columns` output channels whose sums fit half of the
accumulators, so that the vector unit empties one half while the array fills the other; a block of
weights is `taps x channels` by `columns` and fits half of the weight buffer. The reduction is
split over channels, then over kernel rows, where it does not fit. Where even the input of one
pixel does not fit the scratchpad, its channels are loaded in slices whose sums add up.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import product

from lepton.chip import Chip
from lepton.compiler.allocate import shortage
from lepton.compiler.emit import Emitter
from lepton.compiler.graph import Binary, Convolution
from lepton.compiler.lowering.addition import PARAMETER_ROOM, joined, operands_of
from lepton.compiler.lowering.dense_plan import Plan
from lepton.compiler.lowering.plan_estimate import estimated_costs
from lepton.compiler.lowering.rows import rows_of
from lepton.errors import CompileError
from lepton.isa.footprints import REQUANTIZE_BYTES

__all__ = [
    "candidate_sizes",
    "choose_plan",
    "likeness",
    "memory_key",
    "no_pixel_fits",
    "planned_cost",
    "rings_key",
    "room_for_tiles",
    "row_buffers",
    "smallest_plan",
    "tile_bytes",
]

_PIXELS = 65535


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
        plans = list(_plans(whole, seen, *extents))
        costs = estimated_costs(whole, seen, plans, extents).tolist() if plans else []
        for cost, plan in zip(costs, plans, strict=True):
            yield cost, (plan.height, plan.width, plan.columns, plan.pixels_first), plan

    key = (likeness(whole, emitter), *extents, *memory_key(whole, emitter))
    chosen = emitter.choices.plan(node, key, candidates)
    return chosen or smallest_plan(whole, emitter, *extents)


def planned_cost(node: Convolution, emitter: Emitter, extents: tuple[int, int]) -> float:
    """Return the estimated cost of a dense convolution with the plan that it takes."""
    plan = choose_plan(node, emitter, extents)
    return float(estimated_costs(node, emitter, [plan], extents)[0])


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


def smallest_plan(node: Convolution, emitter: Emitter, channels: int, columns: int) -> Plan:
    """Return one pixel without double buffers, of so many input and output channels.

    Raises:
        CompileError: not even one pixel fits.
    """
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
