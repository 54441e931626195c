"""Moving bytes: transpose, concat, slice, pad and the copying kind of reshape."""

from __future__ import annotations

from lepton.compiler.emit import Box, Emitter, Tile
from lepton.compiler.graph import Concat, Pad, Reshape, Slice, Tensor, Transpose
from lepton.compiler.lowering.tiling import boxes, split, tiles_within
from lepton.compiler.lowering.vector import rescale_tile
from lepton.isa import instructions as isa

__all__ = ["lower_concat", "lower_pad", "lower_reshape", "lower_slice", "lower_transpose"]

_SHARES = 6


def _budget(emitter: Emitter) -> int:
    """Return the bytes a tile may take."""
    return max((emitter.tiles.size - emitter.tiles.in_use) // _SHARES - 16, 1)


def _image(tensor: Tensor) -> tuple[int, int, int]:
    return tensor.shape[1], tensor.shape[2], tensor.shape[3]


def _copy(source: Tile, target: Tile) -> isa.Copy:
    """Return the copy of a tile onto one of the same extents."""
    box = target.box
    return isa.Copy(
        height=box.height,
        width=box.width,
        channels=box.channels,
        ifm=source.address,
        ifm_row_pitch=source.row_pitch,
        ifm_pixel_pitch=source.pixel_pitch,
        ifm_channel_pitch=1,
        ofm=target.address,
        ofm_row_pitch=target.row_pitch,
        ofm_pixel_pitch=target.pixel_pitch,
        ofm_channel_pitch=1,
    )


def _flat(tensor: Tensor) -> Tensor:
    """Return a tensor as one long row; bytes and name are the same."""
    content = None if tensor.constant is None else tensor.constant.reshape(1, 1, -1, 1)
    shape = (1, 1, tensor.size_bytes, 1)
    return Tensor(tensor.name, shape, tensor.unsigned, tensor.scale, tensor.zero_point, content)


def lower_reshape(node: Reshape, emitter: Emitter) -> None:
    """Copy the bytes of a reshape whose input and output cannot share their place."""
    source, target = _flat(node.inputs[0]), _flat(node.output)
    for x0, x1 in split(source.size_bytes, min(_budget(emitter), 65535)):
        box = Box(0, 1, x0, x1, 0, 1)
        with emitter.fetched(source, 0, box) as a, emitter.produced(target, 0, box) as b:
            emitter.emit(_copy(a, b))


def lower_concat(node: Concat, emitter: Emitter) -> None:
    """Copy every input to its place along the axis, through its table if it needs one.

    Those that were made there stay.
    """
    offset = 0
    for tensor, table in zip(node.inputs, node.tables, strict=True):
        if emitter.view(tensor).of == node.output.name:
            pass
        elif table is None:
            _concat_part(node, emitter, tensor, offset, None)
        else:
            with emitter.constant_tile(table) as address:
                _concat_part(node, emitter, tensor, offset, address)
        offset += tensor.shape[node.axis]


def _shift(box: Box, axis: int, offset: int) -> Box:
    """Return a box moved along h, w or c (axes 1 to 3)."""
    dy, dx, dc = (offset if axis == a else 0 for a in (1, 2, 3))
    return Box(box.y0 + dy, box.y1 + dy, box.x0 + dx, box.x1 + dx, box.c0 + dc, box.c1 + dc)


def _concat_part(
    node: Concat, emitter: Emitter, tensor: Tensor, offset: int, table: int | None
) -> None:
    """Copy one input of a concatenation."""
    for n in range(tensor.shape[0]):
        for box in boxes(_image(tensor), tiles_within(_image(tensor), _budget(emitter))):
            target = _shift(box, node.axis, offset)
            image = n + offset if node.axis == 0 else n
            with (
                emitter.fetched(tensor, n, box) as a,
                emitter.produced(node.output, image, target) as b,
            ):
                if table is None:
                    emitter.emit(_copy(a, b))
                else:
                    rescale_tile(emitter, a, b, table)


def lower_slice(node: Slice, emitter: Emitter) -> None:
    """Copy every `step`-th element from `begin` on."""
    tensor = node.inputs[0]
    tile_shape = tiles_within(_image(node.output), _budget(emitter) // max(node.step[1:]))
    _, sy, sx, sc = node.step
    for n in range(node.output.shape[0]):
        image = node.begin[0] + n * node.step[0]
        for box in boxes(_image(node.output), tile_shape):
            y0, x0, c0 = (
                node.begin[1] + box.y0 * sy,
                node.begin[2] + box.x0 * sx,
                node.begin[3] + box.c0 * sc,
            )
            source = Box(
                y0, y0 + (box.height - 1) * sy + 1, x0, x0 + (box.width - 1) * sx + 1,
                c0, c0 + (box.channels - 1) * sc + 1,
            )  # fmt: skip
            with (
                emitter.fetched(tensor, image, source) as a,
                emitter.produced(node.output, n, box) as b,
            ):
                emitter.emit(
                    isa.Copy(
                        height=box.height,
                        width=box.width,
                        channels=box.channels,
                        ifm=a.address,
                        ifm_row_pitch=a.row_pitch * sy,
                        ifm_pixel_pitch=a.pixel_pitch * sx,
                        ifm_channel_pitch=sc,
                        ofm=b.address,
                        ofm_row_pitch=b.row_pitch,
                        ofm_pixel_pitch=b.pixel_pitch,
                        ofm_channel_pitch=1,
                    )
                )


def lower_pad(node: Pad, emitter: Emitter) -> None:
    """Fill each tile of the result, then copy over it what the input has."""
    tensor = node.inputs[0]
    for n in range(node.output.shape[0]):
        image = n - node.before[0]
        for box in boxes(_image(node.output), tiles_within(_image(node.output), _budget(emitter))):
            with emitter.produced(node.output, n, box) as target:
                inside = _intersection(node, box) if 0 <= image < tensor.shape[0] else None
                if inside != box:
                    emitter.emit(
                        isa.Fill(
                            height=box.height,
                            width=box.width,
                            channels=box.channels,
                            ofm=target.address,
                            ofm_row_pitch=target.row_pitch,
                            ofm_pixel_pitch=target.pixel_pitch,
                            value=node.value & 255,
                        )
                    )
                if inside is not None:
                    _copy_inside(node, emitter, (image, inside), target)


def _intersection(node: Pad, box: Box) -> Box | None:
    """Return the part of an output box that is not padding, in output coordinates."""
    _, dy, dx, dc = node.before
    _, h, w, c = node.inputs[0].shape
    rows = max(box.y0, dy), min(box.y1, dy + h)
    columns = max(box.x0, dx), min(box.x1, dx + w)
    channels = max(box.c0, dc), min(box.c1, dc + c)
    if rows[0] >= rows[1] or columns[0] >= columns[1] or channels[0] >= channels[1]:
        return None
    return Box(*rows, *columns, *channels)


def _copy_inside(node: Pad, emitter: Emitter, where: tuple[int, Box], target: Tile) -> None:
    """Copy the input under a part of an output tile."""
    n, inside = where
    _, dy, dx, dc = node.before
    source = Box(
        inside.y0 - dy, inside.y1 - dy, inside.x0 - dx, inside.x1 - dx, inside.c0 - dc,
        inside.c1 - dc,
    )  # fmt: skip
    box = target.box
    offset = (inside.y0 - box.y0) * target.row_pitch + (inside.x0 - box.x0) * target.pixel_pitch
    offset += inside.c0 - box.c0
    part = Tile(target.address + offset, target.row_pitch, target.pixel_pitch, inside, False)
    with emitter.fetched(node.inputs[0], n, source) as tile:
        emitter.emit(_copy(tile, part))


def lower_transpose(node: Transpose, emitter: Emitter) -> None:
    """Copy with the strides exchanged, box by box of the result."""
    tensor = node.inputs[0]
    tile_shape = _transposed_tile(node, _budget(emitter))
    order = node.order
    for n in range(node.output.shape[0]):
        for box in boxes(_image(node.output), tile_shape):
            spans = [(n, n + 1), (box.y0, box.y1), (box.x0, box.x1), (box.c0, box.c1)]
            source = [(0, 0)] * 4
            for out_axis, in_axis in enumerate(order):
                source[in_axis] = spans[out_axis]
            with emitter.produced(node.output, n, box) as target:
                _transpose_images(node, emitter, source, (tensor, target))


def _transposed_tile(node: Transpose, budget: int) -> tuple[int, int, int]:
    """Return an output tile, halved along its longest side until it fits."""
    tile = [min(extent, 65535) for extent in _image(node.output)]
    while tile[0] * tile[1] * tile[2] > budget:
        longest = tile.index(max(tile))
        tile[longest] = -(-tile[longest] // 2)
    return tile[0], tile[1], tile[2]


def _transpose_images(
    node: Transpose,
    emitter: Emitter,
    source: list[tuple[int, int]],
    ends: tuple[Tensor, Tile],
) -> None:
    """Copy into one output tile; an input image at a time, as a tile has one."""
    tensor, target = ends
    out_axis_of_batch = node.order.index(0)
    target_strides = {1: target.row_pitch, 2: target.pixel_pitch, 3: 1}
    extents = {1: target.box.height, 2: target.box.width, 3: target.box.channels}
    for index, image in enumerate(range(*source[0])):
        with emitter.fetched(tensor, image, Box(*source[1], *source[2], *source[3])) as tile:
            strides = {1: tile.row_pitch, 2: tile.pixel_pitch, 3: 1}
            ifm_pitch = [strides.get(node.order[axis], 0) for axis in (1, 2, 3)]
            counts = [1 if axis == out_axis_of_batch else extents[axis] for axis in (1, 2, 3)]
            offset = index * target_strides.get(out_axis_of_batch, 0)
            emitter.emit(
                isa.Copy(
                    height=counts[0],
                    width=counts[1],
                    channels=counts[2],
                    ifm=tile.address,
                    ifm_row_pitch=ifm_pitch[0],
                    ifm_pixel_pitch=ifm_pitch[1],
                    ifm_channel_pitch=ifm_pitch[2],
                    ofm=target.address + offset,
                    ofm_row_pitch=target.row_pitch,
                    ofm_pixel_pitch=target.pixel_pitch,
                    ofm_channel_pitch=1,
                )
            )
