"""The tile of a convolution: which of those that fit the memories costs least.

A tile is `height x width` output pixels by `columns` output channels whose sums fit half of the
accumulators, so that the vector unit empties one half while the array fills the other; a block of
weights is `taps x channels` by `columns` and fits half of the weight buffer. The reduction is
split over channels, then over kernel rows, where it does not fit. Where even the input of one
pixel does not fit the scratchpad, its channels are loaded in slices whose sums add up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lepton.compiler.emit import Emitter
from lepton.compiler.graph import Convolution
from lepton.compiler.lowering.tiling import halo
from lepton.cost import cost_scalars
from lepton.cost.dataflows import matmul_cycles
from lepton.errors import CompileError
from lepton.isa.footprints import REQUANTIZE_BYTES

__all__ = ["Plan", "candidate_sizes", "choose_plan", "room_for_tiles", "tile_bytes"]

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


def room_for_tiles(emitter: Emitter) -> int:
    """Return the scratchpad bytes that tiles may take."""
    return emitter.tiles.size - emitter.tiles.in_use


def tile_bytes(
    node: Convolution, emitter: Emitter, size: tuple[int, int], channels: int, columns: int
) -> int:
    """Return the scratchpad bytes of one tile's input, output and parameters."""
    _, h, w, _ = node.inputs[0].shape
    rows, cols = halo(node.window, 0, size[0], h), halo(node.window, 1, size[1], w)
    parameters = columns * REQUANTIZE_BYTES[node.mode]
    total = parameters + 32
    if node.inputs[0].name not in emitter.residents:
        total += rows * cols * channels + 16
    if node.output.name not in emitter.residents:
        total += size[0] * size[1] * columns + 16
    return total


def _halvings(extent: int) -> list[int]:
    """Return extent, then its halves rounded up, down to 1."""
    values = [extent]
    while values[-1] > 1:
        values.append(-(-values[-1] // 2))
    return values


def candidate_sizes(oh: int, ow: int) -> list[tuple[int, int]]:
    """Return tile sizes: whole rows in even parts, then single rows in parts."""
    whole = [(-(-oh // parts), ow) for parts in range(1, oh + 1)]
    sizes = dict.fromkeys(size for size in whole if size[0] * ow <= _PIXELS)
    sizes.update(dict.fromkeys((1, cols) for cols in _halvings(ow)[1:]))
    return list(sizes)


def _blocks(node: Convolution, emitter: Emitter, channels: int, columns: int) -> tuple[int, int]:
    """Return (channels, kernel rows) of the largest weight block that fits half the buffer."""
    half = emitter.weights.size // 2
    kh, kw = node.window.kernel
    for part in _halvings(channels):
        if kh * kw * part * columns <= half:
            return part, kh
    for rows in _halvings(kh):
        for part in _halvings(channels):
            if rows * kw * part * columns <= half:
                return part, rows
    return 0, 0


def choose_plan(node: Convolution, emitter: Emitter, channels: int, columns: int) -> Plan:
    """Return the tile of a dense convolution with the least estimated cycles.

    Raises:
        CompileError: not even one pixel fits.
    """
    for loaded in _halvings(channels):
        plans = list(_plans(node, emitter, columns, loaded))
        if plans:
            return min(plans, key=lambda plan: _estimate(node, emitter, plan, (channels, columns)))
    return _smallest(node, emitter, channels, columns)


def _plans(node: Convolution, emitter: Emitter, columns: int, loaded: int) -> Iterator[Plan]:
    """Yield the tiles that fit twice, with so many input channels in the scratchpad."""
    _, oh, ow, _ = node.output.shape
    room = room_for_tiles(emitter)
    array = emitter.chip.columns
    for tn in sorted({min(columns, array * n) for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)}):
        part, rows = _blocks(node, emitter, loaded, tn)
        if not part:
            continue
        for th, tw in candidate_sizes(oh, ow):
            if th * tw * tn > emitter.sums.size // 2:
                continue
            if 2 * tile_bytes(node, emitter, (th, tw), loaded, tn) > room:
                continue
            yield Plan(th, tw, tn, part, rows, False, loaded)
            yield Plan(th, tw, tn, part, rows, True, loaded)


def _smallest(node: Convolution, emitter: Emitter, channels: int, columns: int) -> Plan:
    """Return one pixel without double buffers, or raise."""
    need = 0
    for tn in _halvings(min(columns, emitter.chip.columns, emitter.sums.size)):
        for loaded in _halvings(channels):
            part, rows = _blocks(node, emitter, loaded, tn)
            need = tile_bytes(node, emitter, (1, 1), loaded, tn)
            if part and need <= room_for_tiles(emitter):
                return Plan(1, 1, tn, part, rows, True, loaded)
    raise CompileError(
        f"'{node.name}': one output pixel needs {need} bytes of scratchpad, and "
        f"{room_for_tiles(emitter)} are free on chip '{emitter.chip.name}'"
    )


def _estimate(node: Convolution, emitter: Emitter, plan: Plan, extents: tuple[int, int]) -> float:
    """Return the estimated cycles of a plan: the larger of arithmetic and traffic."""
    chip = emitter.chip
    channels, columns = extents
    _, oh, ow, _ = node.output.shape
    _, h, w, _ = node.inputs[0].shape
    kh, kw = node.window.kernel
    tiles_y, tiles_x = -(-oh // plan.height), -(-ow // plan.width)
    blocks_n = -(-columns // plan.columns)
    blocks_k = -(-channels // plan.channels) * -(-kh // plan.kernel_rows)
    pixels = plan.height * plan.width
    dense = node.window.dilation[1] == 1 and node.inputs[0].shape[3] == plan.channels
    run = plan.channels * (kw if dense else 1)
    reduction = plan.kernel_rows * kw * plan.channels
    stream = matmul_cycles(cost_scalars(chip), reduction, plan.columns, pixels, run)
    steps = tiles_y * tiles_x * blocks_n * blocks_k
    compute = steps * (stream + chip.array.issue_cycles + 8)
    drain = (
        tiles_y
        * tiles_x
        * blocks_n
        * (-(-pixels * plan.columns // chip.vector.lanes) + chip.vector.latency_cycles + 8)
    )
    weights = kh * kw * channels * columns
    fits = weights <= chip.weight_buffer.elements
    again = tiles_y * tiles_x if (plan.pixels_first or blocks_k > 1) and not fits else 1
    constants = chip.memories[chip.memory_index(chip.placement.constants)]
    weight_cycles = weights * again / float(chip.bytes_per_cycle(constants))
    decode = weights * again / chip.weight_buffer.decoder_bytes_per_cycle
    activations = 0.0
    rate = float(chip.bytes_per_cycle(chip.memories[emitter.activation_memory]))
    if node.inputs[0].name not in emitter.residents:
        rows, cols = halo(node.window, 0, plan.height, h), halo(node.window, 1, plan.width, w)
        loads = 1 if plan.pixels_first and plan.loaded == channels else blocks_n
        activations += tiles_y * tiles_x * rows * cols * channels * loads / rate
    if node.output.name not in emitter.residents:
        activations += oh * ow * columns / rate
    same = emitter.activation_memory == emitter.constants_memory
    traffic = weight_cycles + activations if same else max(weight_cycles, activations)
    fill = 2 * (2 * chip.array.rows + plan.height * plan.width)
    return max(compute, drain, traffic, decode) + 0.05 * (compute + drain + traffic) + fill
