"""Element-wise functions, tables, pooling, softmax and resizing as tiles of the vector unit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.compiler.allocate import shortage
from lepton.compiler.emit import Box, Emitter, Tile
from lepton.compiler.graph import Binary, Lut, Pool, Resize, Softmax, Tensor
from lepton.compiler.lowering.tiling import boxes, halo, input_box, split, tiles_within
from lepton.isa import instructions as isa
from lepton.isa.instructions import BinaryMode, PoolMode, ResizeMode

__all__ = ["binary", "lower_binary", "lower_lut", "lower_pool", "lower_resize", "lower_softmax"]

_SHARES = 8
"""Tiles that should fit the free scratchpad together: two operands and a result, twice."""


def _budget(emitter: Emitter, reserve: int = 0) -> int:
    """Return the bytes a tile may take."""
    free = emitter.tiles.size - emitter.tiles.in_use - reserve
    return max(free // _SHARES - 16, 1)


def _image(tensor: Tensor) -> tuple[int, int, int]:
    return tensor.shape[1], tensor.shape[2], tensor.shape[3]


def lower_lut(node: Lut, emitter: Emitter) -> None:
    """Emit a table look-up; tables of channels come in with their block of channels."""
    per_channel = node.tables.ndim == 2
    shape = _image(node.output)
    if not per_channel:
        with emitter.constant_tile(node.tables) as table:
            _lut_tiles(node, emitter, tiles_within(shape, _budget(emitter)), table, (0, shape[2]))
        return
    step = max(_budget(emitter) // 256, 1)
    for c0, c1 in split(shape[2], step):
        with emitter.constant_tile(node.tables[c0:c1].reshape(-1)) as table:
            tile = tiles_within((shape[0], shape[1], c1 - c0), _budget(emitter))
            _lut_tiles(node, emitter, tile, table, (c0, c1))


def _lut_tiles(
    node: Lut,
    emitter: Emitter,
    tile_shape: tuple[int, int, int],
    table: int,
    channels: tuple[int, int],
) -> None:
    """Emit the tiles of channels [c0, c1) with the tables at `table`."""
    h, w, _ = _image(node.output)
    pitch = 256 if node.tables.ndim == 2 else 0
    for n in range(node.output.shape[0]):
        for part in boxes((h, w, channels[1] - channels[0]), tile_shape):
            box = Box(
                part.y0, part.y1, part.x0, part.x1, part.c0 + channels[0], part.c1 + channels[0]
            )
            with emitter.fetched(node.inputs[0], n, box) as source:  # noqa: SIM117
                with emitter.produced(node.output, n, box) as target:
                    emitter.emit(_lut(source, target, table + pitch * part.c0, pitch))


def _lut(source: Tile, target: Tile, table: int, pitch: int) -> isa.Lut:
    """Return the look-up of one tile."""
    box = target.box
    return isa.Lut(
        height=box.height,
        width=box.width,
        channels=box.channels,
        ifm=source.address,
        ifm_row_pitch=source.row_pitch,
        ifm_pixel_pitch=source.pixel_pitch,
        ofm=target.address,
        ofm_row_pitch=target.row_pitch,
        ofm_pixel_pitch=target.pixel_pitch,
        table=table,
        table_pitch=pitch,
    )


def rescale_tile(emitter: Emitter, source: Tile, target: Tile, table: int) -> None:
    """Emit one tile through one table."""
    emitter.emit(_lut(source, target, table, 0))


def lower_binary(node: Binary, emitter: Emitter) -> None:
    """Emit an element-wise function; operands of extent 1 repeat."""
    out = _image(node.output)
    plain = node.mode in (BinaryMode.MAXIMUM, BinaryMode.MINIMUM)
    if plain:
        _binary_tiles(node, emitter, tiles_within(out, _budget(emitter)), 0)
        return
    with emitter.constant_tile(node.parameters) as parameters:
        _binary_tiles(node, emitter, tiles_within(out, _budget(emitter)), parameters)


def _binary_tiles(
    node: Binary, emitter: Emitter, tile_shape: tuple[int, int, int], parameters: int
) -> None:
    """Emit the tiles of an element-wise function."""
    left, right = node.inputs
    for n in range(node.output.shape[0]):
        for box in boxes(_image(node.output), tile_shape):
            na, nb = (n if tensor.shape[0] > 1 else 0 for tensor in (left, right))
            with (
                emitter.fetched(left, na, _narrowed(box, left)) as a,
                emitter.fetched(right, nb, _narrowed(box, right)) as b,
                emitter.produced(node.output, n, box) as ofm,
            ):
                emitter.emit(binary(node, (a, b), ofm, parameters))


def _narrowed(box: Box, tensor: Tensor) -> Box:
    """Return the box of an operand: dimensions of extent 1 stay so."""
    _, h, w, c = tensor.shape
    rows = (box.y0, box.y1) if h > 1 else (0, 1)
    columns = (box.x0, box.x1) if w > 1 else (0, 1)
    channels = (box.c0, box.c1) if c > 1 else (0, 1)
    return Box(*rows, *columns, *channels)


def _pitches(name: str, tensor: Tensor, tile: Tile) -> dict[str, int]:
    """Return the operand's fields; a repeated dimension has pitch 0."""
    _, h, w, c = tensor.shape
    return {
        name: tile.address,
        f"{name}_row_pitch": tile.row_pitch if h > 1 else 0,
        f"{name}_pixel_pitch": tile.pixel_pitch if w > 1 else 0,
        f"{name}_channel_pitch": 1 if c > 1 else 0,
        f"{name}_unsigned": int(tensor.unsigned),
    }


def binary(node: Binary, operands: tuple[Tile, Tile], ofm: Tile, parameters: int) -> isa.Binary:
    """Return the instruction of one tile."""
    fields: dict[str, Any] = _pitches("a", node.inputs[0], operands[0])
    fields |= _pitches("b", node.inputs[1], operands[1])
    return isa.Binary(
        mode=node.mode,
        height=ofm.box.height,
        width=ofm.box.width,
        channels=ofm.box.channels,
        ofm=ofm.address,
        ofm_row_pitch=ofm.row_pitch,
        ofm_pixel_pitch=ofm.pixel_pitch,
        parameters=parameters,
        **fields,
    )


def lower_pool(node: Pool, emitter: Emitter) -> None:
    """Emit max, min or average pooling."""
    if node.mode == PoolMode.AVERAGE_FLOAT32:
        with emitter.constant_tile(node.parameters) as parameters:
            _pool_tiles(node, emitter, parameters)
    else:
        _pool_tiles(node, emitter, 0)


def _window_tile(shape: tuple[int, int, int], node: Pool, budget: int) -> tuple[int, int, int]:
    """Return the largest output tile whose input takes at most `budget` bytes."""
    h, w = node.inputs[0].shape[1:3]
    for channels in (shape[2], max(shape[2] // 4, 1), 16, 1):
        if channels > shape[2]:
            continue
        for height, width in (
            [(shape[0], shape[1])]
            + [(rows, shape[1]) for rows in range(shape[0] - 1, 0, -1)]
            + [(1, cols) for cols in (shape[1] // 2, shape[1] // 4, 1) if cols]
        ):
            rows, cols = halo(node.window, 0, height, h), halo(node.window, 1, width, w)
            if rows * cols * channels <= budget and height * width * channels <= budget:
                return height, width, channels
    rows, cols = halo(node.window, 0, 1, h), halo(node.window, 1, 1, w)
    place = "quarter of the scratchpad that the input of a tile may take"
    raise shortage(f"a window of '{node.name}'", place, rows * cols, budget)


def _pool_tiles(node: Pool, emitter: Emitter, parameters: int) -> None:
    """Emit the tiles of a pooling."""
    ifm = node.inputs[0]
    tile_shape = _window_tile(_image(node.output), node, 2 * _budget(emitter))
    window = node.window
    for n in range(node.output.shape[0]):
        for box in boxes(_image(node.output), tile_shape):
            source, pad_top, pad_left = input_box(
                box, window, (ifm.shape[1], ifm.shape[2]), (box.c0, box.c1)
            )
            with (
                emitter.fetched(ifm, n, source) as tile,
                emitter.produced(node.output, n, box) as ofm,
            ):
                emitter.emit(
                    isa.Pool(
                        mode=node.mode,
                        ifm=tile.address,
                        ifm_row_pitch=tile.row_pitch,
                        ifm_pixel_pitch=tile.pixel_pitch,
                        ifm_height=source.height,
                        ifm_width=source.width,
                        channels=box.channels,
                        kernel_height=window.kernel[0],
                        kernel_width=window.kernel[1],
                        stride_y=window.stride[0],
                        stride_x=window.stride[1],
                        dilation_y=window.dilation[0],
                        dilation_x=window.dilation[1],
                        pad_top=pad_top,
                        pad_left=pad_left,
                        count_pad=int(node.count_pad),
                        ofm_height=box.height,
                        ofm_width=box.width,
                        ofm=ofm.address,
                        ofm_row_pitch=ofm.row_pitch,
                        ofm_pixel_pitch=ofm.pixel_pitch,
                        parameters=parameters,
                        ifm_unsigned=int(ifm.unsigned),
                        minimum=node.bounds.minimum,
                        maximum=node.bounds.maximum,
                    )
                )


def lower_softmax(node: Softmax, emitter: Emitter) -> None:
    """Emit a softmax over the channels, row blocks at a time."""
    ifm = node.inputs[0]
    h, w, c = _image(ifm)
    with emitter.constant_tile(node.parameters) as parameters:
        tile_shape = tiles_within((h, w, c), _budget(emitter))
        if tile_shape[2] < c and 2 * (c + 16) <= emitter.tiles.size - emitter.tiles.in_use:
            tile_shape = (1, 1, c)
        if tile_shape[2] < c:
            free = emitter.tiles.size - emitter.tiles.in_use
            raise shortage(
                f"a row of '{node.name}'", f"scratchpad of chip '{emitter.chip.name}'",
                2 * (c + 16), free,
            )  # fmt: skip
        for n in range(ifm.shape[0]):
            for box in boxes((h, w, c), tile_shape):
                with (
                    emitter.fetched(ifm, n, box) as source,
                    emitter.produced(node.output, n, box) as target,
                ):
                    emitter.emit(
                        isa.Softmax(
                            mode=node.mode,
                            rows=box.height * box.width,
                            channels=c,
                            ifm=source.address,
                            ifm_row_pitch=source.pixel_pitch,
                            ofm=target.address,
                            ofm_row_pitch=target.pixel_pitch,
                            parameters=parameters,
                            ifm_unsigned=int(ifm.unsigned),
                        )
                    )


def _taps(
    steps: tuple[NDArray[Any], ...], span: tuple[int, int], nearest: bool
) -> tuple[tuple[int, int], list[NDArray[Any]]]:
    """Return the source span of output steps [start, stop) and their taps relative to it."""
    part = [array[span[0] : span[1]] for array in steps]
    sources = part[:1] if nearest else part[:2]
    low = min(int(array.min()) for array in sources)
    high = max(int(array.max()) for array in sources) + 1
    count = len(sources)
    return (low, high), [array - low for array in sources] + part[count:]


def lower_resize(node: Resize, emitter: Emitter) -> None:
    """Emit a resampling, rows of the result at a time, blocks of channels where rows are long."""
    ifm = node.inputs[0]
    h, w, c = _image(node.output)
    nearest = node.mode == ResizeMode.NEAREST
    width_in = ifm.shape[2]
    budget = 2 * _budget(emitter, reserve=16 * (h + w) + 64)
    channels = max(min(c, budget // max(2 * width_in, w)), 1)
    if 2 * width_in * channels > 2 * budget:
        place = "quarter of the scratchpad that the input of a tile may take"
        raise shortage(f"a row of '{node.name}'", place, 2 * width_in * channels, 2 * budget)
    per_row = max(w, -(-width_in * ifm.shape[1] // h) + 1) * channels
    height = max(min(h, budget // per_row - 1), 1)
    for n in range(node.output.shape[0]):
        for box in boxes((h, w, c), (height, w, channels)):
            rows, row_taps = _taps(node.rows, (box.y0, box.y1), nearest)
            columns, column_taps = _taps(node.columns, (0, w), nearest)
            raw = [np.ascontiguousarray(a).view(np.uint8) for a in (*row_taps, *column_taps)]
            parts = raw if nearest else [node.header, *raw]
            source_box = Box(*rows, *columns, box.c0, box.c1)
            with (
                emitter.constant_tile(np.concatenate(parts)) as parameters,
                emitter.fetched(ifm, n, source_box) as source,
                emitter.produced(node.output, n, box) as target,
            ):
                emitter.emit(_resize(node, source, target, parameters))


def _resize(node: Resize, source: Tile, target: Tile, parameters: int) -> isa.Resize:
    """Return the instruction of one tile."""
    return isa.Resize(
        mode=node.mode,
        ifm=source.address,
        ifm_row_pitch=source.row_pitch,
        ifm_pixel_pitch=source.pixel_pitch,
        ifm_height=source.box.height,
        ifm_width=source.box.width,
        channels=target.box.channels,
        ofm_height=target.box.height,
        ofm_width=target.box.width,
        ofm=target.address,
        ofm_row_pitch=target.row_pitch,
        ofm_pixel_pitch=target.pixel_pitch,
        parameters=parameters,
        ifm_unsigned=int(node.inputs[0].unsigned),
    )
