"""Cycles of a dense layer by the best of few tiles, where the compiler tries many.

Blocks of columns of one, two, four ... arrays, columns first or pixels first, with the largest tile
of pixels that fits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.cost.dataflows import Product, matmul_cost
from lepton.cost.dealing import Row, group_count, row_cycles
from lepton.cost.scalars import CostScalars
from lepton.explore.analytic.machine import Machine
from lepton.explore.analytic.network import Layer
from lepton.explore.analytic.shared import (
    CONSTANT_BYTES,
    ENTERED,
    FED,
    INSTRUCTIONS,
    LATCHED,
    MACS,
    REQUANTIZED,
    STREAMED,
    SUM_ROWS,
    SUMS,
    constants_role,
    count_tensors,
    moved,
    overlapped,
    tensors_role,
    up,
    walk,
)
from lepton.isa.instructions import Stationary
from lepton.jit import njit

__all__ = ["dense_layer"]

F64 = NDArray[np.float64]

_BUFFER = int(Stationary.BUFFER)
_SLICES = 1.5
"""Slices of the scratchpad that hold a word of the feed, about: docs/energy.md has one or two."""
_HUGE = 1e300


class _Tile(NamedTuple):
    """A way to cut a dense layer."""

    pixels: float
    """Of a tile."""
    tiles: float
    """Of pixels, of all images."""
    columns: int
    blocks: float
    """Of columns."""
    parts: float
    """Blocks that the weights of a block of columns are cut into along the reduction."""
    again: float
    """Times that the input is brought."""
    is_pixels_first: bool


class _Cost(NamedTuple):
    """What a tile comes to."""

    cycles: float
    constants: float
    """Bytes of weights and parameters that are read."""
    streamed: float
    """Weights into the buffer."""
    instructions: float


@njit(error_model="numpy", inlined=True)
def _pixel_cycles(p: CostScalars, layer: Layer, reduction: int) -> float:
    """Return the feed's cycles for a pixel and a block of rows: of four blocks, the mean."""
    runs = walk(layer)
    distance = layer.stride * layer.channels * layer.groups
    groups = group_count(p, layer.columns, layer.columns) if p.overlap else 1
    row = Row(layer.width, distance, groups)
    blocks = -(-reduction // p.rows)
    total, taken, last = 0, 0, -1
    for quarter in range(4):
        block = quarter * (blocks - 1) // 3
        if block == last:
            continue
        last = block
        rows = block * p.rows, min((block + 1) * p.rows, reduction)
        total += row_cycles(p, runs, rows, row)[0]
        taken += 1
    return total / (taken * layer.width)


@njit(error_model="numpy", inlined=True)
def _unit_cycles(p: CostScalars, layer: Layer, tile: _Tile, reduction: int, pixel: float) -> float:
    """Return the array's cycles for one tile and block of columns."""
    part = int(up(reduction, tile.parts))
    if p.overlap and p.dataflow == 0:
        wide = up(tile.columns, p.all_columns)
        passes = tile.parts * up(part, p.rows)
        stream = max(tile.pixels * pixel, min(part, p.rows))
        return passes * wide * stream + tile.parts * 2 * p.issue_cycles
    product = Product(
        part, tile.columns, 1, int(tile.pixels), walk(layer), layer.stride * layer.channels,
        tile.columns, _BUFFER,
    )  # fmt: skip
    return tile.parts * (matmul_cost(p, product)[1] + p.issue_cycles)


@njit(error_model="numpy", inlined=True)
def _kept(total: float, block: float, room: float, sweeps: float) -> float:
    """Return the bytes streamed by sweeps over blocks, as `streamed_bytes` of the compiler."""
    if total <= room:
        return total
    return total + (sweeps - 1) * (total - max(room - 2 * block, 0.0))


@njit(error_model="numpy", inlined=True)
def _shape(
    m: Machine, layer: Layer, columns: int, room: float, crossing: int
) -> tuple[float, float, float]:
    """Return height, width and number of the largest tiles of pixels of which two fit.

    Tiles are whole rows in even parts, or parts of a row. A height of 0 stands for none.
    """
    most = max(m.accumulators / 2 // columns, 1.0)
    height, width = float(layer.height), float(layer.width)
    if height * width > most:
        height = max(most // width, 1.0)
        width = min(width, most)
    gap = max(layer.kernel_height - 1.0, 0.0)
    row = layer.row_bytes * (width / layer.width)
    output = columns if crossing & 4 else 0
    for _ in range(32):
        rows = min(height * layer.stride + gap, layer.ifm / max(layer.row_bytes, 1))
        bytes_in = rows * row if crossing & 1 else 0.0
        if 2 * (bytes_in + height * width * output) <= room:
            break
        if height > 1:
            height = up(height, 2)
        elif width > 1:
            width = up(width, 2)
            row = layer.row_bytes * (width / layer.width)
        else:
            return 0.0, 1.0, 0.0
    height = up(layer.height, up(layer.height, height))
    width = up(layer.width, up(layer.width, width))
    tiles = layer.images * up(layer.height, height) * up(layer.width, width)
    return height, width, tiles


@njit(error_model="numpy", inlined=True)
def _tile_cost(
    m: Machine, p: CostScalars, layer: Layer, tile: _Tile, facts: tuple[float, float, float, int]
) -> _Cost:
    """Return what a tile costs; facts are cycles of a pixel, the shares, and what crosses."""
    pixel, stored, packed, crossing = facts
    constants, tensors = constants_role(m), tensors_role(m)
    reduction = layer.kernel_height * layer.kernel_width * layer.channels
    units = tile.tiles * tile.blocks
    compute = packed * _unit_cycles(p, layer, tile, reduction, pixel) / m.cores
    vector = (up(tile.pixels * tile.columns, m.lanes) + m.latency_cycles) / m.cores
    weights = float(reduction * layer.columns)
    block = up(reduction, tile.parts) * tile.columns
    if tile.is_pixels_first or weights <= m.weight_buffer:
        streamed = _kept(weights, block, m.weight_buffer, tile.tiles)
    else:
        each = reduction * tile.columns
        streamed = tile.blocks * _kept(each, block, m.weight_buffer, tile.tiles)
    parameters = float(layer.columns * layer.parameters)
    brought = streamed * stored + parameters
    instructions = units * (tile.parts + 3.0)
    fetched = instructions * m.instruction_bytes
    come = moved(constants, brought, 1.0, m.constants_reads) + fetched / constants.unit * (
        constants.unit_cycles
    )
    way_in = way_out = 0.0
    if crossing & 1:
        each = layer.ifm * tile.again / layer.groups / units
        way_in = moved(tensors, each, 1.0, tensors.reads * m.load_channels)
    if crossing & 4:
        whole = tile.columns == layer.columns and layer.groups == 1
        run = tile.pixels * tile.columns if whole else float(tile.columns)
        way_out = moved(tensors, run, tile.pixels * tile.columns / run, tensors.writes)
    crossed = units * (way_in + way_out)
    traffic = come + crossed if m.is_one_memory else max(come, crossed)
    held = max(m.accumulators // (tile.pixels * tile.columns), 1.0)
    chain = max(
        (compute + vector + p.rows + p.columns) / held,
        (way_in + compute) / 2,
        (vector + way_out) / 2,
    )
    decode = streamed / m.decoder_bytes_per_cycle
    cycles = overlapped(units * max(compute, chain), units * vector, traffic, decode)
    cycles += way_in + vector + way_out
    return _Cost(cycles, brought, streamed, instructions)


@njit(error_model="numpy", inlined=True)
def dense_layer(
    m: Machine,
    p: CostScalars,
    layer: Layer,
    facts: tuple[float, float, int],
    room: float,
    out: F64,
) -> float:
    """Return a dense layer's cycles by its best tile, and add its counts; facts as `_tile_cost`."""
    stored, packed, crossing = facts
    reduction = layer.kernel_height * layer.kernel_width * layer.channels
    pixel = _pixel_cycles(p, layer, reduction)
    best = _Cost(_HUGE, 0.0, 0.0, 0.0)
    best_tile = _Tile(1.0, 1.0, 1, 1.0, 1.0, 1.0, True)
    columns = p.all_columns
    while True:
        tn = min(columns, layer.columns)
        height, width, tiles = _shape(m, layer, tn, room, crossing)
        if height == 0.0:
            # a pixel does not fit: parts of its channels come one after the other
            height, width, tiles = 1.0, 1.0, float(layer.images * layer.height * layer.width)
        blocks = up(layer.columns, tn)
        parts = max(up(reduction * tn, m.weight_buffer / 2), 1.0)
        pixels = height * width
        fits_whole = layer.ifm / max(layer.images, 1) + 2 * pixels * tn <= room
        for is_pixels_first in (False, True):
            again = 1.0 if is_pixels_first or fits_whole else blocks
            tile = _Tile(pixels, tiles, tn, blocks, parts, again, is_pixels_first)
            cost = _tile_cost(m, p, layer, tile, (pixel, stored, packed, crossing))
            if cost.cycles < best.cycles:
                best, best_tile = cost, tile
        if columns >= layer.columns:
            break
        columns *= 2
    _count_dense(m, layer, best_tile, best, crossing, out)
    return layer.groups * best.cycles


@njit(error_model="numpy", inlined=True)
def _count_dense(
    m: Machine, layer: Layer, tile: _Tile, cost: _Cost, crossing: int, out: F64
) -> None:
    """Add the counts of a layer: docs/energy.md, section 2, has each."""
    times = float(layer.groups)
    reduction = float(layer.kernel_height * layer.kernel_width * layer.channels)
    pixels = float(layer.images * layer.height * layer.width)
    operands = pixels * reduction
    across = tile.blocks * up(tile.columns, m.all_columns)
    blocks = tile.parts * up(up(reduction, tile.parts), m.rows)
    sums = pixels * blocks * layer.columns
    out[MACS] += times * operands * layer.columns
    out[SUM_ROWS] += times * sums * m.rows
    out[SUMS] += times * sums
    out[LATCHED] += times * tile.tiles * reduction * layer.columns
    out[ENTERED] += times * operands * across
    out[FED] += times * _SLICES * pixels * blocks * across
    out[STREAMED] += times * cost.streamed
    out[REQUANTIZED] += times * pixels * layer.columns
    out[INSTRUCTIONS] += times * cost.instructions
    out[CONSTANT_BYTES] += times * cost.constants
    count_tensors(layer, crossing, tile.again, out)
