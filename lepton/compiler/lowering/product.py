"""Products of two activations, and sums of one, as tiles of the matrix unit."""

from __future__ import annotations

from dataclasses import replace

from lepton.compiler.emit import Box, Emitter, Tile
from lepton.compiler.graph import Product, Reduce, Tensor
from lepton.compiler.lowering.plan import room_for_tiles
from lepton.compiler.lowering.tiling import boxes, split
from lepton.compiler.lowering.weighted import emit_requantize
from lepton.isa.instructions import Depthwise, Matmul, Stationary

__all__ = ["lower_product", "lower_reduce"]


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
    fitting = (room_for_tiles(emitter) // 4) // (k + 24)
    if node.inputs[1].name in emitter.residents:
        return most, k
    if fitting >= 1:
        return min(most, fitting), k
    most = min(most, emitter.chip.columns)
    depth = (room_for_tiles(emitter) - 24 * most - 256) // (2 * most + 2)
    return most, max(min(depth, k), 1)


def _product_rows(node: Product, emitter: Emitter, columns: int, depth: int) -> int:
    """Return how many rows of the left operand go through at a time."""
    stationary = 0 if node.inputs[1].name in emitter.residents else depth * columns
    free = room_for_tiles(emitter) - stationary - 64 - 24 * columns
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
    emit_requantize(node, emitter, (image, box), (sums, columns))


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
    emit_requantize(node, emitter, (image, box), (sums, columns))


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
    room = room_for_tiles(emitter)
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
        emit_requantize(node, emitter, (n, Box(0, 1, 0, 1, c0, c1)), (sums, c1 - c0))


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
    share = max(room_for_tiles(emitter) // 4 - 16, 1)
    depth = c if ifm.name in emitter.residents else min(c, share)
    budget = max(share // (depth + 1), 1)
    width = min(w, budget, emitter.sums.size // 2)
    height = max(min(h, budget // width, emitter.sums.size // 2 // width), 1)
    for pixels in boxes((h, w, 1), (height, width, 1)):
        sums = emitter.sums.allocate(pixels.size)
        for c0, c1 in split(c, depth):
            with emitter.fetched(ifm, n, replace(pixels, c0=c0, c1=c1)) as tile:
                emitter.emit(_ones_product(ifm, tile, sums, int(c0 > 0)))
        emit_requantize(node, emitter, (n, pixels), (sums, 1))


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
