"""Cycles and counts of every layer of a network on every chip, in closed form.

docs/sweeps.md says what is left out. A dense layer is tried with few tiles, as the compiler tries
many: blocks of columns of one, two, four ... arrays, columns first or pixels first, with the
largest tile of pixels that fits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.cost.closed_forms import Walk, depthwise_cycles
from lepton.cost.dataflows import Product, matmul_cost
from lepton.cost.dealing import Row, group_count, row_cycles
from lepton.cost.scalars import CostScalars
from lepton.explore.analytic.machine import COUNT, Machine, Role
from lepton.explore.analytic.network import CROSSINGS, LAYER, Kind, Layer
from lepton.isa.instructions import Stationary
from lepton.jit import njit

__all__ = ["evaluate_points"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_DENSE, _DEPTHWISE, _PRODUCT = int(Kind.DENSE), int(Kind.DEPTHWISE), int(Kind.PRODUCT)
_SCRATCHPAD, _BUFFER = int(Stationary.SCRATCHPAD), int(Stationary.BUFFER)
_CROSSINGS = CROSSINGS
_LAYER_FIELDS, _MACHINE_FIELDS = len(LAYER), len(Machine._fields)
(_CYCLES, _MACS, _SUM_ROWS, _SUMS, _LATCHED, _ENTERED, _FED, _STREAMED) = range(8)
(_REQUANTIZED, _LANES, _LOADED, _STORED, _INSTRUCTIONS) = range(8, 13)
(_CONSTANT_BYTES, _READ_BYTES, _WRITTEN_BYTES) = range(13, 16)
_COUNTS = COUNT.ALL
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
def _up(numerator: float, denominator: float) -> float:
    return np.ceil(numerator / denominator)


@njit(error_model="numpy", inlined=True)
def _overlapped(a: float, b: float, c: float, d: float) -> float:
    """Return the cycles of work side by side, as the compiler's plans have them: the 4-norm."""
    longest = max(a, b, c, d)
    if longest <= 0.0:
        return 0.0
    scale = 1.0 / (longest * longest)
    squares = a * a * scale, b * b * scale, c * c * scale, d * d * scale
    total = 0.0
    for square in squares:
        total += square * square
    return longest * np.sqrt(np.sqrt(total))


@njit(error_model="numpy", inlined=True)
def _moved(role: Role, run: float, runs: float, flying: float) -> float:
    """Return the cycles of runs of bytes that begin anywhere: the memory's, or its latency's."""
    if run <= 0.0 or runs <= 0.0:
        return 0.0
    units = max((run + role.unit - 1.0) / role.unit, 1.0) if runs > 1 else _up(run, role.unit)
    requests = max((run + role.burst - 1.0) / role.burst, 1.0)
    own = requests * (role.latency + units / requests * role.unit_cycles) / flying
    return runs * max(units * role.unit_cycles, own)


@njit(error_model="numpy", inlined=True)
def _costs(m: Machine) -> CostScalars:
    """Return the scalars of the closed forms."""
    return CostScalars(
        int(m.rows), int(m.columns), int(m.all_columns), int(m.dataflow), m.overlap > 0,
        int(m.dealt), int(m.feed_words), int(m.issue_cycles), int(m.lanes),
        int(m.latency_cycles), int(m.softmax_cycles_per_element), int(m.port_bytes),
        int(m.banks), int(m.decoder_bytes_per_cycle), int(m.entropy_lanes),
    )  # fmt: skip


@njit(error_model="numpy", inlined=True)
def _walk(layer: Layer) -> Walk:
    line = layer.dilation * layer.row_bytes
    if layer.dilation == 1 and layer.groups == 1:
        return Walk(layer.kernel_width * layer.channels, 1, 0, line)
    pitch = layer.dilation * layer.channels * layer.groups
    return Walk(layer.channels, layer.kernel_width, pitch, line)


@njit(error_model="numpy", inlined=True)
def _pixel_cycles(p: CostScalars, layer: Layer, reduction: int) -> float:
    """Return the feed's cycles for a pixel and a block of rows: of four blocks, the mean."""
    walk = _walk(layer)
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
        total += row_cycles(p, walk, rows, row)[0]
        taken += 1
    return total / (taken * layer.width)


@njit(error_model="numpy", inlined=True)
def _unit_cycles(p: CostScalars, layer: Layer, tile: _Tile, reduction: int, pixel: float) -> float:
    """Return the array's cycles for one tile and block of columns."""
    part = int(_up(reduction, tile.parts))
    if p.overlap and p.dataflow == 0:
        wide = _up(tile.columns, p.all_columns)
        passes = tile.parts * _up(part, p.rows)
        stream = max(tile.pixels * pixel, min(part, p.rows))
        return passes * wide * stream + tile.parts * 2 * p.issue_cycles
    product = Product(
        part, tile.columns, 1, int(tile.pixels), _walk(layer), layer.stride * layer.channels,
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
            height = _up(height, 2)
        elif width > 1:
            width = _up(width, 2)
            row = layer.row_bytes * (width / layer.width)
        else:
            return 0.0, 1.0, 0.0
    height = _up(layer.height, _up(layer.height, height))
    width = _up(layer.width, _up(layer.width, width))
    tiles = layer.images * _up(layer.height, height) * _up(layer.width, width)
    return height, width, tiles


@njit(error_model="numpy", inlined=True)
def _tile_cost(
    m: Machine, p: CostScalars, layer: Layer, tile: _Tile, facts: tuple[float, float, float, int]
) -> _Cost:
    """Return what a tile costs; facts are cycles of a pixel, the shares, and what crosses."""
    pixel, stored, packed, crossing = facts
    constants = Role(
        m.constants_unit, m.constants_cycles, m.constants_burst, m.constants_reads,
        m.constants_writes, m.constants_latency,
    )  # fmt: skip
    tensors = Role(
        m.tensors_unit, m.tensors_cycles, m.tensors_burst, m.tensors_reads, m.tensors_writes,
        m.tensors_latency,
    )  # fmt: skip
    reduction = layer.kernel_height * layer.kernel_width * layer.channels
    units = tile.tiles * tile.blocks
    compute = packed * _unit_cycles(p, layer, tile, reduction, pixel) / m.cores
    vector = (_up(tile.pixels * tile.columns, m.lanes) + m.latency_cycles) / m.cores
    weights = float(reduction * layer.columns)
    block = _up(reduction, tile.parts) * tile.columns
    if tile.is_pixels_first or weights <= m.weight_buffer:
        streamed = _kept(weights, block, m.weight_buffer, tile.tiles)
    else:
        each = reduction * tile.columns
        streamed = tile.blocks * _kept(each, block, m.weight_buffer, tile.tiles)
    parameters = float(layer.columns * layer.parameters)
    brought = streamed * stored + parameters
    instructions = units * (tile.parts + 3.0)
    fetched = instructions * m.instruction_bytes
    come = _moved(constants, brought, 1.0, m.constants_reads) + fetched / constants.unit * (
        constants.unit_cycles
    )
    way_in = way_out = 0.0
    if crossing & 1:
        each = layer.ifm * tile.again / layer.groups / units
        way_in = _moved(tensors, each, 1.0, tensors.reads * m.load_channels)
    if crossing & 4:
        whole = tile.columns == layer.columns and layer.groups == 1
        run = tile.pixels * tile.columns if whole else float(tile.columns)
        way_out = _moved(tensors, run, tile.pixels * tile.columns / run, tensors.writes)
    moved = units * (way_in + way_out)
    traffic = come + moved if m.is_one_memory else max(come, moved)
    held = max(m.accumulators // (tile.pixels * tile.columns), 1.0)
    chain = max(
        (compute + vector + p.rows + p.columns) / held,
        (way_in + compute) / 2,
        (vector + way_out) / 2,
    )
    decode = streamed / m.decoder_bytes_per_cycle
    cycles = _overlapped(units * max(compute, chain), units * vector, traffic, decode)
    cycles += way_in + vector + way_out
    return _Cost(cycles, brought, streamed, instructions)


@njit(error_model="numpy", inlined=True)
def _dense(
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
        blocks = _up(layer.columns, tn)
        parts = max(_up(reduction * tn, m.weight_buffer / 2), 1.0)
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
    across = tile.blocks * _up(tile.columns, m.all_columns)
    blocks = tile.parts * _up(_up(reduction, tile.parts), m.rows)
    sums = pixels * blocks * layer.columns
    out[_MACS] += times * operands * layer.columns
    out[_SUM_ROWS] += times * sums * m.rows
    out[_SUMS] += times * sums
    out[_LATCHED] += times * tile.tiles * reduction * layer.columns
    out[_ENTERED] += times * operands * across
    out[_FED] += times * _SLICES * pixels * blocks * across
    out[_STREAMED] += times * cost.streamed
    out[_REQUANTIZED] += times * pixels * layer.columns
    out[_INSTRUCTIONS] += times * cost.instructions
    out[_CONSTANT_BYTES] += times * cost.constants
    _count_tensors(layer, crossing, tile.again, out)


@njit(error_model="numpy", inlined=True)
def _count_tensors(layer: Layer, crossing: int, again: float, out: F64) -> None:
    """Add what crosses the edge of the scratchpad."""
    read = layer.ifm * again if crossing & 1 else 0.0
    if crossing & 2 and not layer.is_constant:
        read += layer.second
    written = float(layer.ofm) if crossing & 4 else 0.0
    out[_READ_BYTES] += read
    out[_LOADED] += read
    out[_WRITTEN_BYTES] += written
    out[_STORED] += written


@njit(error_model="numpy", inlined=True)
def _simple(
    m: Machine, p: CostScalars, layer: Layer, stored: float, crossing: int, out: F64
) -> float:
    """Return the cycles of any other layer: its units side by side; add its counts."""
    constants = Role(
        m.constants_unit, m.constants_cycles, m.constants_burst, m.constants_reads,
        m.constants_writes, m.constants_latency,
    )  # fmt: skip
    tensors = Role(
        m.tensors_unit, m.tensors_cycles, m.tensors_burst, m.tensors_reads, m.tensors_writes,
        m.tensors_latency,
    )  # fmt: skip
    elements = float(layer.ofm)
    compute = 0.0
    if layer.kind == _DEPTHWISE:
        size = layer.height, layer.width
        kernel = layer.kernel_height, layer.kernel_width
        one = depthwise_cycles(p, kernel, layer.stride, layer.dilation, size, layer.columns)[0]
        compute = float(layer.images * one) / m.cores
        out[_MACS] += elements * layer.kernel_height * layer.kernel_width
        out[_SUMS] += elements
        out[_STREAMED] += layer.weights
    elif layer.kind == _PRODUCT:
        walk = Walk(layer.channels, 1, 0, layer.channels)
        product = Product(
            layer.channels, layer.columns, 1, layer.width, walk, layer.channels, layer.columns,
            _SCRATCHPAD,
        )  # fmt: skip
        compute = float(layer.images * matmul_cost(p, product)[1]) / m.cores
        out[_MACS] += elements * layer.channels
        out[_SUMS] += elements * _up(layer.channels, m.rows)
    lanes = elements * layer.steps
    vector = (_up(lanes, m.lanes) + m.latency_cycles) / m.cores
    brought = layer.weights * stored + layer.columns * layer.parameters
    if layer.is_constant:
        brought += layer.second
    come = _moved(constants, brought, 1.0, m.constants_reads)
    read = float(layer.ifm) if crossing & 1 else 0.0
    if crossing & 2 and not layer.is_constant:
        read += layer.second
    way_in = _moved(tensors, read, 1.0, tensors.reads * m.load_channels)
    way_out = _moved(tensors, elements, 1.0, tensors.writes) if crossing & 4 else 0.0
    moved = way_in + way_out
    traffic = come + moved if m.is_one_memory else max(come, moved)
    out[_REQUANTIZED] += elements if layer.kind <= _PRODUCT else 0.0
    out[_LANES] += lanes
    out[_CONSTANT_BYTES] += brought
    out[_INSTRUCTIONS] += 8.0
    _count_tensors(layer, crossing, 1.0, out)
    return _overlapped(compute, vector, traffic, 0.0)


@njit(error_model="numpy")
def _machine(row: F64) -> Machine:
    """Return the fields of a row."""
    return Machine(
        row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10],
        row[11], row[12], row[13], row[14], row[15], row[16], row[17], row[18], row[19], row[20],
        row[21], row[22], row[23], row[24], row[25], row[26], row[27], row[28], row[29], row[30],
        row[31], row[32], row[33], row[34],
    )  # fmt: skip


@njit(error_model="numpy")
def _layer(row: I64) -> Layer:
    """Return the fields of a row."""
    return Layer(
        row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10],
        row[11], row[12], row[13], row[14], row[15], row[16], row[17], row[18],
    )  # fmt: skip


@njit(error_model="numpy")
def evaluate_points(
    machines: F64, layers: I64, shares: F64, rooms: F64, counts: I64, which: I64, out: F64
) -> None:
    """Fill `out [n, COUNT.ALL]` with cycles and counts of a network on n chips.

    Args:
        machines: `[n, len(Machine._fields)]`.
        layers: `[layers, len(LAYER)]`.
        shares: `[decoders, layers, 2]` stored bytes over weights, cycles of packed passes over all.
        rooms: `[sizes]` share of the scratchpad for tiles.
        counts: `[sizes, layers, CROSSINGS]` how often each layer occurs with what crossing.
        which: `[n, 2]` size of the scratchpad, and decoder, of each chip.
        out: zeros.
    """
    one = np.zeros(_COUNTS)
    for n in range(len(machines)):
        m = _machine(machines[n])
        p = _costs(m)
        size, decoder = which[n]
        room = m.scratchpad * float(rooms[size])
        # the first request of a layer, and what fills and empties the units behind it
        start = m.setup_cycles + m.constants_latency + m.rows + m.columns + m.latency_cycles
        for number in range(len(layers)):
            layer = _layer(layers[number])
            stored, packed = shares[decoder, number]
            for crossing in range(_CROSSINGS):
                times = counts[size, number, crossing]
                if times == 0:
                    continue
                one[:] = 0.0
                if layer.kind == _DENSE:
                    cycles = _dense(m, p, layer, (stored, packed, crossing), room, one)
                else:
                    cycles = _simple(m, p, layer, stored, crossing, one)
                one[_CYCLES] = cycles + start
                for k in range(_COUNTS):
                    out[n, k] += times * one[k]
