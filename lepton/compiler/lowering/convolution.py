"""Convolution, depthwise convolution and matrix products, as tiles of the matrix unit.

A tile is `height x width` output pixels by `columns` output channels whose sums fit half of the
accumulators, so that the vector unit empties one half while the array fills the other; a block of
weights is `taps x channels` by `columns` and fits half of the weight buffer. The reduction is
split over channels, then over kernel rows, where it does not fit. Where even the input of one
pixel does not fit the scratchpad, its channels are loaded in slices whose sums add up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lepton.arith.records import pack_requantize
from lepton.compiler.emit import Box, Emitter, Tile
from lepton.compiler.graph import Convolution, Product, Reduce, Tensor
from lepton.compiler.lowering.tiling import boxes, halo, input_box, split
from lepton.cost import cost_scalars
from lepton.cost.closed_forms import depthwise_cycles, matmul_cycles
from lepton.errors import CompileError
from lepton.isa.footprints import REQUANTIZE_BYTES
from lepton.isa.instructions import Depthwise, Matmul, Requantize, Stationary

__all__ = ["lower_convolution", "lower_product", "lower_reduce"]

_PIXELS = 65535


@dataclass(frozen=True)
class _Plan:
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


def lower_convolution(node: Convolution, emitter: Emitter) -> None:
    """Emit a convolution; groups that are single channels run as depthwise."""
    ic, oc = node.inputs[0].shape[3], node.output.shape[3]
    if node.groups == 1:
        _lower_dense(node, emitter, (0, ic), (0, oc))
        return
    if node.groups == ic:
        _lower_depthwise(node, emitter)
        return
    for group in range(node.groups):
        inputs, outputs = ic // node.groups, oc // node.groups
        span = (group * inputs, (group + 1) * inputs)
        _lower_dense(node, emitter, span, (group * outputs, (group + 1) * outputs))


# --- tile choice -------------------------------------------------------------------------------


def _room(emitter: Emitter) -> int:
    """Return the scratchpad bytes that tiles may take."""
    return emitter.tiles.size - emitter.tiles.in_use


def _tile_bytes(
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


def _candidate_sizes(oh: int, ow: int) -> list[tuple[int, int]]:
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


def _choose(node: Convolution, emitter: Emitter, channels: int, columns: int) -> _Plan:
    """Return the tile of a dense convolution with the least estimated cycles.

    Raises:
        CompileError: not even one pixel fits.
    """
    for loaded in _halvings(channels):
        plans = list(_plans(node, emitter, columns, loaded))
        if plans:
            return min(plans, key=lambda plan: _estimate(node, emitter, plan, (channels, columns)))
    return _smallest(node, emitter, channels, columns)


def _plans(node: Convolution, emitter: Emitter, columns: int, loaded: int) -> Iterator[_Plan]:
    """Yield the tiles that fit twice, with so many input channels in the scratchpad."""
    _, oh, ow, _ = node.output.shape
    room = _room(emitter)
    array = emitter.chip.columns
    for tn in sorted({min(columns, array * n) for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)}):
        part, rows = _blocks(node, emitter, loaded, tn)
        if not part:
            continue
        for th, tw in _candidate_sizes(oh, ow):
            if th * tw * tn > emitter.sums.size // 2:
                continue
            if 2 * _tile_bytes(node, emitter, (th, tw), loaded, tn) > room:
                continue
            yield _Plan(th, tw, tn, part, rows, False, loaded)
            yield _Plan(th, tw, tn, part, rows, True, loaded)


def _smallest(node: Convolution, emitter: Emitter, channels: int, columns: int) -> _Plan:
    """Return one pixel without double buffers, or raise."""
    need = 0
    for tn in _halvings(min(columns, emitter.chip.columns, emitter.sums.size)):
        for loaded in _halvings(channels):
            part, rows = _blocks(node, emitter, loaded, tn)
            need = _tile_bytes(node, emitter, (1, 1), loaded, tn)
            if part and need <= _room(emitter):
                return _Plan(1, 1, tn, part, rows, True, loaded)
    raise CompileError(
        f"'{node.name}': one output pixel needs {need} bytes of scratchpad, and "
        f"{_room(emitter)} are free on chip '{emitter.chip.name}'"
    )


def _estimate(node: Convolution, emitter: Emitter, plan: _Plan, extents: tuple[int, int]) -> float:
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
    stream, _ = matmul_cycles(cost_scalars(chip), reduction, plan.columns, pixels, run)
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
    fill = 2 * (rows_of(chip.array.rows) + plan.height * plan.width)
    return max(compute, drain, traffic, decode) + 0.05 * (compute + drain + traffic) + fill


def rows_of(rows: int) -> int:
    """Return the cycles in which the array fills and drains."""
    return 2 * rows


# --- emission ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    """A weight block in the buffer and the part of the reduction it covers."""

    address: int
    channels: tuple[int, int]
    kernel_rows: tuple[int, int]


class _Weights:
    """Weight blocks of one convolution: kept in the buffer as long as there is room."""

    def __init__(self, node: Convolution, emitter: Emitter, plan: _Plan) -> None:
        self._node, self._emitter, self._plan = node, emitter, plan
        self._kept: dict[tuple[int, int, int], int] = {}
        kh, kw, channels, columns = node.weights.shape
        size = kh * kw * channels * columns // node.groups
        largest = plan.kernel_rows * kw * plan.channels * plan.columns
        self._keeps_all = size + largest <= emitter.weights.size
        is_split = plan.channels < channels or plan.kernel_rows < kh
        self._keeps_columns = not plan.pixels_first and not is_split

    def block(self, at: tuple[int, int], rows: tuple[int, int], out: tuple[int, int]) -> int:
        """Return the buffer address of a block, streaming it in if it is not there."""
        key = (at[0], rows[0], out[0])
        if key in self._kept:
            return self._kept[key]
        part = self._node.weights[rows[0] : rows[1], :, at[0] : at[1], out[0] : out[1]]
        block = np.ascontiguousarray(part).reshape(-1, out[1] - out[0])
        address = self._emitter.load_weights(block)
        self._kept[key] = address
        return address

    def end_block(self) -> None:
        """Release a block behind its product, unless another tile uses it again."""
        if not self._keeps_all and not self._keeps_columns:
            self.release()

    def end_tiles(self) -> None:
        """Release a block of columns behind all of its tiles."""
        if not self._keeps_all:
            self.release()

    def release(self) -> None:
        """Release every block."""
        for address in self._kept.values():
            self._emitter.weights.release(address)
        self._kept.clear()


class _Dense(NamedTuple):
    """A dense convolution while it is emitted."""

    node: Convolution
    emitter: Emitter
    plan: _Plan
    weights: _Weights


def _lower_dense(
    node: Convolution, emitter: Emitter, inputs: tuple[int, int], outputs: tuple[int, int]
) -> None:
    """Emit a convolution of input channels [inputs) to output channels [outputs)."""
    plan = _choose(node, emitter, inputs[1] - inputs[0], outputs[1] - outputs[0])
    weights = _Weights(node, emitter, plan)
    dense = _Dense(node, emitter, plan, weights)
    n_images, oh, ow, _ = node.output.shape
    for n in range(n_images):
        if plan.pixels_first:
            for pixels in boxes((oh, ow, 1), (plan.height, plan.width, 1)):
                _pixel_tile(dense, (n, pixels), (inputs, outputs))
        else:
            for c0, c1 in split(outputs[1] - outputs[0], plan.columns):
                part = (outputs[0] + c0, outputs[0] + c1)
                for pixels in boxes((oh, ow, 1), (plan.height, plan.width, 1)):
                    _pixel_tile(dense, (n, pixels), (inputs, part))
                weights.end_tiles()
    weights.release()


def _pixel_tile(
    dense: _Dense, where: tuple[int, Box], spans: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    """Emit all columns of [outputs) for one tile of pixels."""
    node, emitter, plan, _ = dense
    n, pixels = where
    inputs, outputs = spans
    ifm = node.inputs[0]
    source, *pad = input_box(pixels, node.window, (ifm.shape[1], ifm.shape[2]), inputs)
    blocks = [
        replace(pixels, c0=outputs[0] + c0, c1=outputs[0] + c1)
        for c0, c1 in split(outputs[1] - outputs[0], plan.columns)
    ]
    # either every block reads the whole input, or every slice of the input feeds one block
    shared = nullcontext() if plan.loaded < source.channels else emitter.fetched(ifm, n, source)
    with shared as whole:
        for box in blocks:
            sums = emitter.sums.allocate(box.size)
            for part in split(source.channels, plan.loaded):
                span = replace(source, c0=inputs[0] + part[0], c1=inputs[0] + part[1])
                loaded = nullcontext(whole) if whole else emitter.fetched(ifm, n, span)
                with loaded as tile:
                    _add_products(dense, (tile, part[0], (pad[0], pad[1])), (box, sums))
            _requantize(node, emitter, (n, box), (sums, box.channels))


def _add_products(
    dense: _Dense, source: tuple[Tile, int, tuple[int, int]], target: tuple[Box, int]
) -> None:
    """Emit the products of the channels of a tile, which start at a given one of the group.

    Args:
        dense: what is emitted.
        source: the tile, its first channel, the padding above it and left of it.
        target: the block of the output, the address of its sums.
    """
    node, emitter, plan, weights = dense
    tile, first, pad = source
    box, sums = target
    for rows in split(node.window.kernel[0], plan.kernel_rows):
        for c0, c1 in split(tile.box.channels, plan.channels):
            address = weights.block((first + c0, first + c1), rows, (box.c0, box.c1))
            fields = _matmul(node, tile, _Block(address, (c0, c1), rows), pad, box)
            emitter.emit(
                Matmul(
                    **fields,
                    columns=box.channels,
                    accumulator=sums,
                    accumulator_pitch=box.channels,
                    accumulate=int(first + c0 > 0 or rows[0] > 0),
                )
            )
            weights.end_block()


def _matmul(
    node: Convolution, tile: Tile, block: _Block, pad: tuple[int, int], pixels: Box
) -> dict[str, int]:
    """Return the fields of the matmul of one weight block."""
    window, ifm = node.window, node.inputs[0]
    rows = block.kernel_rows
    return {
        "ifm": tile.address + block.channels[0],
        "ifm_row_pitch": tile.row_pitch,
        "ifm_pixel_pitch": tile.pixel_pitch,
        "ifm_height": tile.box.height,
        "ifm_width": tile.box.width,
        "channels": block.channels[1] - block.channels[0],
        "kernel_height": rows[1] - rows[0],
        "kernel_width": window.kernel[1],
        "stride_y": window.stride[0],
        "stride_x": window.stride[1],
        "dilation_y": window.dilation[0],
        "dilation_x": window.dilation[1],
        "pad_top": pad[0] - rows[0] * window.dilation[0],
        "pad_left": pad[1],
        "ofm_height": pixels.height,
        "ofm_width": pixels.width,
        "stationary": Stationary.BUFFER,
        "stationary_address": block.address,
        "ifm_unsigned": int(ifm.unsigned),
        "ifm_zero_point": ifm.zero_point,
        "weight_unsigned": int(node.weight_unsigned),
        "weight_zero_point": node.weight_zero_point,
    }


def _requantize(
    node: Convolution | Product | Reduce,
    emitter: Emitter,
    where: tuple[int, Box],
    sums: tuple[int, int],
) -> None:
    """Emit the requantization of a block of sums (address, pitch) into the output."""
    n, box = where
    table = node.table.part(box.c0, box.c1)
    with emitter.constant_tile(pack_requantize(table)) as parameters:  # noqa: SIM117 (ends in order)
        with emitter.produced(node.output, n, box) as tile:
            emitter.emit(
                Requantize(
                    accumulator=sums[0],
                    accumulator_pitch=sums[1],
                    height=box.height,
                    width=box.width,
                    channels=box.channels,
                    ofm=tile.address,
                    ofm_row_pitch=tile.row_pitch,
                    ofm_pixel_pitch=tile.pixel_pitch,
                    parameters=parameters,
                    mode=node.mode,
                    ofm_zero_point=node.bounds.zero_point,
                    minimum=node.bounds.minimum,
                    maximum=node.bounds.maximum,
                )
            )
    emitter.sums.release(sums[0])


# --- depthwise ---------------------------------------------------------------------------------


def _lower_depthwise(node: Convolution, emitter: Emitter) -> None:
    """Emit a depthwise convolution, blocks of channels outermost."""
    ic, oc = node.inputs[0].shape[3], node.output.shape[3]
    multiplier = oc // ic
    kh, kw = node.window.kernel
    height, width, channels = _choose_depthwise(node, emitter, multiplier)
    _, oh, ow, _ = node.output.shape
    for c0, c1 in split(ic, channels):
        out = (c0 * multiplier, c1 * multiplier)
        block = node.weights[:, :, 0, out[0] : out[1]]
        address = emitter.load_weights(np.ascontiguousarray(block).reshape(kh * kw, -1))
        for n in range(node.output.shape[0]):
            for pixels in boxes((oh, ow, 1), (height, width, 1)):
                _depthwise_tile(node, emitter, (n, pixels), (c0, c1), address)
        emitter.weights.release(address)


def _choose_depthwise(node: Convolution, emitter: Emitter, multiplier: int) -> tuple[int, int, int]:
    """Return rows, columns and input channels of a depthwise tile."""
    _, oh, ow, _ = node.output.shape
    ic = node.inputs[0].shape[3]
    taps = math.prod(node.window.kernel)
    room = _room(emitter)
    scalars = cost_scalars(emitter.chip)
    best: tuple[float, tuple[int, int, int]] | None = None
    step = max(emitter.chip.columns // multiplier, 1)
    widths = sorted({min(ic, step * n) for n in (1, 2, 4, 8, 16, 32, 64)} | {ic})
    for channels in widths:
        outputs = channels * multiplier
        if taps * outputs > emitter.weights.size // 2 or outputs > 65535:
            continue
        for th, tw in _candidate_sizes(oh, ow):
            if th * tw * outputs > emitter.sums.size // 2:
                continue
            if 2 * _tile_bytes(node, emitter, (th, tw), channels, outputs) > room:
                continue
            tiles = -(-oh // th) * -(-ow // tw) * -(-ic // channels)
            stream, _ = depthwise_cycles(
                scalars, node.window.kernel, node.window.stride[1], node.window.dilation[1],
                (th, tw), outputs,
            )  # fmt: skip
            vector = th * tw * outputs / emitter.chip.vector.lanes
            cycles = tiles * (max(stream, vector) + 24) + stream + vector
            if best is None or cycles < best[0]:
                best = (cycles, (th, tw, channels))
    if best is not None:
        return best[1]
    if _tile_bytes(node, emitter, (1, 1), 1, multiplier) > room:
        raise CompileError(f"'{node.name}': one output pixel does not fit the scratchpad")
    return 1, 1, 1


def _depthwise_tile(
    node: Convolution,
    emitter: Emitter,
    where: tuple[int, Box],
    channels: tuple[int, int],
    weights: int,
) -> None:
    """Emit one tile of a depthwise convolution."""
    n, pixels = where
    ifm = node.inputs[0]
    multiplier = node.output.shape[3] // ifm.shape[3]
    source, pad_top, pad_left = input_box(
        pixels, node.window, (ifm.shape[1], ifm.shape[2]), channels
    )
    count = (channels[1] - channels[0]) * multiplier
    sums = emitter.sums.allocate(pixels.size * count)
    with emitter.fetched(ifm, n, source) as tile:
        fields = _matmul(
            node, tile, _Block(weights, (0, count // multiplier), (0, node.window.kernel[0])),
            (pad_top, pad_left), pixels,
        )  # fmt: skip
        emitter.emit(
            Depthwise(**fields, multiplier=multiplier, accumulator=sums, accumulator_pitch=count)
        )
    first, last = channels[0] * multiplier, channels[1] * multiplier
    box = Box(pixels.y0, pixels.y1, pixels.x0, pixels.x1, first, last)
    _requantize(node, emitter, (n, box), (sums, count))


# --- products of activations and reductions ----------------------------------------------------


def lower_product(node: Product, emitter: Emitter) -> None:
    """Emit a product of two activations; the right one is the stationary operand."""
    batch, heads, m, k = node.inputs[0].shape
    width, depth = _product_block(node, emitter)
    # rows of the result are pixels of one image row; columns of the right operand stay inside
    for b in range(batch):
        for head in range(heads):
            for columns in split(node.output.shape[3], width):
                rows = _product_rows(node, emitter, columns[1] - columns[0], depth)
                places = [Box(head, head + 1, *span, *columns) for span in split(m, rows)]
                if depth < k:
                    for place in places:
                        _split_product(node, emitter, b, place, depth)
                    continue
                right, image, box = _stationary(node, (b, head), columns, (0, k))
                with emitter.fetched(right, image, box) as stationary:
                    for place in places:
                        _whole_product(node, emitter, b, place, stationary)


def _product_block(node: Product, emitter: Emitter) -> tuple[int, int]:
    """Return how many columns, and how much of the reduction, are inside at a time."""
    k, columns = node.inputs[0].shape[3], node.output.shape[3]
    most = max(min(columns, emitter.sums.size // 2), 1)
    # half of the room for two blocks of the right operand, the rest for rows of the others
    fitting = (_room(emitter) // 4) // (k + 24)
    if node.inputs[1].name in emitter.residents:
        return most, k
    if fitting >= 1:
        return min(most, fitting), k
    most = min(most, emitter.chip.columns)
    depth = (_room(emitter) - 24 * most - 256) // (2 * most + 2)
    return most, max(min(depth, k), 1)


def _product_rows(node: Product, emitter: Emitter, columns: int, depth: int) -> int:
    """Return how many rows of the left operand go through at a time."""
    stationary = 0 if node.inputs[1].name in emitter.residents else depth * columns
    free = _room(emitter) - stationary - 64 - 24 * columns
    limit = free // (2 * (depth + columns) + 32)
    return max(min(node.inputs[0].shape[2], emitter.sums.size // 2 // columns, limit), 1)


def _stationary(
    node: Product, at: tuple[int, int], columns: tuple[int, int], reduction: tuple[int, int]
) -> tuple[Tensor, int, Box]:
    """Return tensor, image and box of a block of the right operand."""
    right = node.inputs[1]
    b = at[0] if right.shape[0] > 1 else 0
    head = at[1] if right.shape[1] > 1 else 0
    spans = (*columns, *reduction) if node.transposed else (*reduction, *columns)
    return right, b, Box(head, head + 1, *spans)


def _whole_product(node: Product, emitter: Emitter, image: int, box: Box, right: Tile) -> None:
    """Emit some rows and columns of a product whose reduction is inside."""
    left, columns = node.inputs[0], box.channels
    sums = emitter.sums.allocate(box.size)
    with emitter.fetched(left, image, replace(box, c0=0, c1=left.shape[3])) as tile:
        emitter.emit(_product(node, (tile, right), columns, (sums, 0)))
    _requantize(node, emitter, (image, box), (sums, columns))


def _split_product(node: Product, emitter: Emitter, image: int, box: Box, depth: int) -> None:
    """Emit some rows and columns of a product, `depth` of the reduction at a time."""
    left, columns = node.inputs[0], box.channels
    sums = emitter.sums.allocate(box.size)
    for part in split(left.shape[3], depth):
        right, n, place = _stationary(node, (image, box.y0), (box.c0, box.c1), part)
        with (
            emitter.fetched(right, n, place) as stationary,
            emitter.fetched(left, image, replace(box, c0=part[0], c1=part[1])) as tile,
        ):
            emitter.emit(_product(node, (tile, stationary), columns, (sums, int(part[0] > 0))))
    _requantize(node, emitter, (image, box), (sums, columns))


def _product(
    node: Product, tiles: tuple[Tile, Tile], columns: int, sums: tuple[int, int]
) -> Matmul:
    """Return the instruction of one block; sums are (accumulator, whether to add to it)."""
    tile, right = tiles
    left_tensor, right_tensor = node.inputs
    return Matmul(
        ifm=tile.address,
        ifm_row_pitch=tile.row_pitch,
        ifm_pixel_pitch=tile.pixel_pitch,
        ifm_height=1,
        ifm_width=tile.box.width,
        channels=tile.box.channels,
        kernel_height=1,
        kernel_width=1,
        stride_y=1,
        stride_x=1,
        dilation_y=1,
        dilation_x=1,
        ofm_height=1,
        ofm_width=tile.box.width,
        columns=columns,
        accumulator=sums[0],
        accumulate=sums[1],
        accumulator_pitch=columns,
        stationary=(Stationary.SCRATCHPAD_TRANSPOSED if node.transposed else Stationary.SCRATCHPAD),
        stationary_address=right.address,
        stationary_pitch=right.pixel_pitch,
        ifm_unsigned=int(left_tensor.unsigned),
        ifm_zero_point=left_tensor.zero_point,
        weight_unsigned=int(right_tensor.unsigned),
        weight_zero_point=right_tensor.zero_point,
    )


def lower_reduce(node: Reduce, emitter: Emitter) -> None:
    """Emit a sum over h and w as a depthwise window of ones, over c as a product with ones."""
    for n in range(node.output.shape[0]):
        if node.over == "hw":
            _reduce_pixels(node, emitter, n)
        else:
            _reduce_channels(node, emitter, n)


def _reduce_pixels(node: Reduce, emitter: Emitter, n: int) -> None:
    """Emit the sums over all pixels of an image, in windows of at most 255 x 255."""
    ifm = node.inputs[0]
    _, h, w, c = ifm.shape
    room = _room(emitter)
    step = max(min(c, emitter.sums.size // 2, room // 4 // 16), 1)
    if ifm.name not in emitter.residents:
        step = max(min(step, room // 4), 1)
    for c0, c1 in split(c, step):
        sums = emitter.sums.allocate(c1 - c0)
        adding = 0
        budget = max(room // 4 // (c1 - c0), 1)
        width = min(w, 255, budget)
        height = max(min(h, 255, budget // width), 1)
        for pixels in boxes((h, w, 1), (height, width, 1)):
            box = Box(pixels.y0, pixels.y1, pixels.x0, pixels.x1, c0, c1)
            with emitter.fetched(ifm, n, box) as tile:
                emitter.emit(_ones_window(ifm, tile, sums, adding))
            adding = 1
        _requantize(node, emitter, (n, Box(0, 1, 0, 1, c0, c1)), (sums, c1 - c0))


def _ones_window(ifm: Tensor, tile: Tile, sums: int, adding: int) -> Depthwise:
    """Return the instruction that adds up a whole tile per channel."""
    box = tile.box
    return Depthwise(
        ifm=tile.address,
        ifm_row_pitch=tile.row_pitch,
        ifm_pixel_pitch=tile.pixel_pitch,
        ifm_height=box.height,
        ifm_width=box.width,
        channels=box.channels,
        multiplier=1,
        kernel_height=box.height,
        kernel_width=box.width,
        stride_y=1,
        stride_x=1,
        dilation_y=1,
        dilation_x=1,
        ofm_height=1,
        ofm_width=1,
        accumulator=sums,
        accumulator_pitch=box.channels,
        accumulate=adding,
        stationary=Stationary.ONES,
        ifm_unsigned=int(ifm.unsigned),
        ifm_zero_point=ifm.zero_point,
    )


def _reduce_channels(node: Reduce, emitter: Emitter, n: int) -> None:
    """Emit the sums over the channels of each pixel, in parts where they are many."""
    ifm = node.inputs[0]
    _, h, w, c = ifm.shape
    share = max(_room(emitter) // 4 - 16, 1)
    depth = c if ifm.name in emitter.residents else min(c, share)
    budget = max(share // (depth + 1), 1)
    width = min(w, budget, emitter.sums.size // 2)
    height = max(min(h, budget // width, emitter.sums.size // 2 // width), 1)
    for pixels in boxes((h, w, 1), (height, width, 1)):
        sums = emitter.sums.allocate(pixels.size)
        for c0, c1 in split(c, depth):
            with emitter.fetched(ifm, n, replace(pixels, c0=c0, c1=c1)) as tile:
                emitter.emit(_ones_product(ifm, tile, sums, int(c0 > 0)))
        _requantize(node, emitter, (n, pixels), (sums, 1))


def _ones_product(ifm: Tensor, tile: Tile, sums: int, adding: int) -> Matmul:
    """Return the instruction that adds up the channels of each pixel of a tile."""
    box = tile.box
    return Matmul(
        ifm=tile.address,
        ifm_row_pitch=tile.row_pitch,
        ifm_pixel_pitch=tile.pixel_pitch,
        ifm_height=box.height,
        ifm_width=box.width,
        channels=box.channels,
        kernel_height=1,
        kernel_width=1,
        stride_y=1,
        stride_x=1,
        dilation_y=1,
        dilation_x=1,
        ofm_height=box.height,
        ofm_width=box.width,
        columns=1,
        accumulator=sums,
        accumulator_pitch=1,
        accumulate=adding,
        stationary=Stationary.ONES,
        ifm_unsigned=int(ifm.unsigned),
        ifm_zero_point=ifm.zero_point,
    )
