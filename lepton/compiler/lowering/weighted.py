"""What convolutions, products and reductions have in common: their operands and their finish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lepton.arith.records import pack_requantize
from lepton.compiler.emit import Box, Emitter, Tile
from lepton.compiler.graph import Convolution, Product, Reduce
from lepton.compiler.lowering.kept import KeptBlocks
from lepton.isa.instructions import Requantize, Stationary

__all__ = ["Block", "emit_requantize", "kept_parameters", "matmul_fields", "requantize"]


@dataclass(frozen=True)
class Block:
    """A weight block in the buffer and the part of the reduction it covers."""

    address: int
    channels: tuple[int, int]
    kernel_rows: tuple[int, int]


def matmul_fields(
    node: Convolution, tile: Tile, block: Block, pad: tuple[int, int], pixels: Box
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


def kept_parameters(
    node: Convolution, emitter: Emitter, uses: Sequence[tuple[int, int]], room: int
) -> KeptBlocks[tuple[int, int]]:
    """Return the requantization parameters of spans of channels, kept in `room` bytes if there."""
    held: dict[int, tuple[Tile, int]] = {}

    def load(span: tuple[int, int]) -> int | None:
        content = pack_requantize(node.table.part(*span))
        if held and sum(size for _, size in held.values()) + content.size > room:
            return None
        tile = emitter.load_constant(content)
        held[tile.address] = (tile, content.size)
        return tile.address

    return KeptBlocks(uses, load, lambda address: emitter.release(held.pop(address)[0]))


def emit_requantize(
    node: Convolution | Product | Reduce,
    emitter: Emitter,
    where: tuple[int, Box],
    sums: tuple[int, int],
    parameters: int | None = None,
) -> None:
    """Emit the requantization of a block of sums into the output, and release the sums.

    Args:
        node: whose sums.
        emitter: to emit to.
        where: image and box of the output.
        sums: address and pitch.
        parameters: address of those of the box's channels; by default they are loaded.
    """
    n, box = where
    if parameters is None:
        with emitter.constant_tile(pack_requantize(node.table.part(box.c0, box.c1))) as loaded:
            emit_requantize(node, emitter, where, sums, loaded)
        return
    with emitter.produced(node.output, n, box) as tile:
        emitter.emit(requantize(node, tile, sums, parameters))
    emitter.sums.release(sums[0])


def requantize(
    node: Convolution | Product | Reduce, tile: Tile, sums: tuple[int, int], parameters: int
) -> Requantize:
    """Return the requantization of sums (address and pitch) into a tile."""
    box = tile.box
    return Requantize(
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
