"""Values of the matrix unit: gathers, exact integer products, depthwise convolution.

Bytes are multiplied as they are, unsigned by signed, and summed in int32; the zero points and what
makes a byte signed or not are corrected in the sums.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.jit import njit
from lepton.simulator.dot_tile import (
    DEPTH,
    LANES,
    MOST_VECTORS,
    TILE_ROWS,
    dot_16,
    dot_32,
    dot_64,
    pack_panel,
)

__all__ = ["INT32_END", "Accumulators", "Operand", "Packed", "Window", "accumulate_depthwise"]
__all__ += ["can_multiply", "multiply", "multiply_wide", "pack"]

INT32_END = 1 << 31
_BLOCK_ROWS = 8 * TILE_ROWS


class Window(NamedTuple):
    """How a window walks an input tile; bytes for addresses and pitches, else elements."""

    ifm: int
    row_pitch: int
    pixel_pitch: int
    height: int
    width: int
    channels: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    dilation_y: int
    dilation_x: int
    pad_top: int
    pad_left: int
    ofm_height: int
    ofm_width: int


class Operand(NamedTuple):
    """How a raw byte is read: `(byte ^ flip) - zero_point`, the byte being unsigned."""

    flip: int
    zero_point: int

    @property
    def largest(self) -> int:
        """The largest magnitude of a value."""
        return max(abs(self.zero_point), abs(255 - self.zero_point))


class Accumulators(NamedTuple):
    """Which accumulators an instruction writes: pixel p, column n is `start + p * pitch + n`."""

    flat: NDArray[np.int32]
    start: int
    pitch: int
    is_added: int


class Packed(NamedTuple):
    """A stationary operand as the dot product reads it.

    Attributes:
        panels: `[panels, steps, LANES * DEPTH] int8`, zero behind the last row and column.
        sums: `[panels * LANES] int32` of each column.
    """

    panels: NDArray[np.int8]
    sums: NDArray[np.int32]


def can_multiply(depth: int, x: Operand, weight_zero_point: int) -> bool:
    """Return whether `multiply` is exact: padding is a byte, and each sum fits int32."""
    largest = max(128 + weight_zero_point, 127 - weight_zero_point)
    return 0 <= x.zero_point <= 255 and depth * x.largest * largest < INT32_END


@njit
def pack(raw: NDArray[np.uint8], flip: int) -> Packed:
    """Pack `raw [depth, columns]`, which holds int8 once its bytes are flipped."""
    depth, columns = raw.shape
    steps, count = -(-depth // DEPTH), -(-columns // LANES)
    panels = np.empty((count, steps, LANES * DEPTH), np.int8)
    sums = np.empty((count, LANES), np.int32)
    edge = np.empty((steps * DEPTH, LANES), np.uint8)
    edge[:] = flip
    for panel in range(count):
        block = raw[:, panel * LANES : (panel + 1) * LANES]
        start, pitch = block.ctypes.data, columns
        if depth % DEPTH or block.shape[1] < LANES:
            for row in range(depth):
                for column in range(block.shape[1]):
                    edge[row, column] = block[row, column]
            start, pitch = edge.ctypes.data, LANES
        target = panels[panel].ctypes.data
        pack_panel(start, pitch, steps, flip, target, sums[panel].ctypes.data)
    return Packed(panels, sums.ravel())


@njit(inlined=True)
def _gather_run(
    scratchpad: NDArray[np.uint8], start: int, operand: Operand, row: NDArray[np.generic]
) -> None:
    """Fill a row from neighbouring bytes."""
    source = scratchpad[start : start + row.size]
    flip = np.uint8(operand.flip)
    for c in range(row.size):
        row[c] = source[c] ^ flip


@njit(inlined=True)
def _gather_row(
    scratchpad: NDArray[np.uint8],
    operand: Operand,
    w: Window,
    place: tuple[int, int],
    row: NDArray[np.generic],
) -> None:
    """Fill `row [taps * channels]` with the unsigned operands of one output pixel."""
    y0 = place[0] * w.stride_y - w.pad_top
    x0 = place[1] * w.stride_x - w.pad_left
    length = w.kernel_width * w.channels
    is_inside = x0 >= 0 and x0 + (w.kernel_width - 1) * w.dilation_x < w.width
    is_run = w.kernel_width == 1 or (w.dilation_x == 1 and w.pixel_pitch == w.channels)
    for ky in range(w.kernel_height):
        y = y0 + ky * w.dilation_y
        part = row[ky * length : (ky + 1) * length]
        base = w.ifm + y * w.row_pitch
        if y < 0 or y >= w.height:
            part[:] = operand.zero_point
        elif is_inside and is_run:
            _gather_run(scratchpad, base + x0 * w.pixel_pitch, operand, part)
        else:
            for kx in range(w.kernel_width):
                x = x0 + kx * w.dilation_x
                tap = part[kx * w.channels : (kx + 1) * w.channels]
                if x < 0 or x >= w.width:
                    tap[:] = operand.zero_point
                else:
                    _gather_run(scratchpad, base + x * w.pixel_pitch, operand, tap)


@njit(inlined=True)
def _accumulate(row: NDArray[np.generic], old: NDArray[np.int32], is_added: int) -> int:
    """Write or add integer-valued sums; return the largest magnitude that leaves int32, or 0."""
    low, high = np.int64(0), np.int64(0)
    for n in range(row.size):
        total = np.int64(row[n])
        if is_added:
            total += old[n]
        low, high = min(low, total), max(high, total)
        old[n] = np.int32(total)
    return int(max(high, -low)) if high >= INT32_END or low < -INT32_END else 0


@njit(inlined=True)
def _largest(row: NDArray[np.int32], new: NDArray[np.int32]) -> int:
    """Return the largest magnitude of the totals of which `new` has the low 32 bits."""
    largest = 0
    for n in range(row.size):
        largest = max(largest, abs(int(row[n]) + int(np.int32(new[n] - row[n]))))
    return largest


@njit(inlined=True)
def _add_sums(
    row: NDArray[np.int32],
    offset: int,
    corrections: NDArray[np.int32],
    old: NDArray[np.int32],
    is_added: int,
) -> int:
    """Correct a row of sums, which then fit int32, and write or add it as `_accumulate` does."""
    overflow = np.int32(0)
    for n in range(row.size):
        row[n] = np.int32(row[n] + corrections[n] + offset)
    if not is_added:
        for n in range(row.size):
            old[n] = row[n]
        return 0
    for n in range(row.size):
        new = np.int32(row[n] + old[n])
        overflow |= np.int32((row[n] ^ new) & (old[n] ^ new))
        old[n] = new
    return _largest(row, old) if overflow < 0 else 0


@njit(inlined=True)
def _dot_tile(
    rows: NDArray[np.uint8], packed: Packed, first: int, vectors: int, sums: NDArray[np.int32]
) -> None:
    """Multiply the rows of a tile by the `vectors` panels from `first` on."""
    pitch, steps = rows.shape[1], packed.panels.shape[1]
    weights = packed.panels[first].ctypes.data
    if vectors == 4:
        dot_64(rows.ctypes.data, pitch, weights, steps * LANES * DEPTH, steps, sums.ctypes.data)
    elif vectors == 2:
        dot_32(rows.ctypes.data, pitch, weights, steps * LANES * DEPTH, steps, sums.ctypes.data)
    else:
        dot_16(rows.ctypes.data, pitch, weights, steps * LANES * DEPTH, steps, sums.ctypes.data)


@njit(inlined=True)
def _multiply_block(
    rows: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    packed: Packed,
    corrections: NDArray[np.int32],
    target: Accumulators,
) -> int:
    """Multiply gathered rows; `offsets [pixels]` and `corrections [columns]` are added."""
    worst = 0
    sums = np.empty(TILE_ROWS * MOST_VECTORS * LANES, np.int32)
    columns, panels = corrections.size, len(packed.panels)
    panel = 0
    while panel < panels:
        vectors = MOST_VECTORS
        while vectors > panels - panel:
            vectors //= 2
        wide, n0 = vectors * LANES, panel * LANES
        n1 = min(n0 + wide, columns)
        for top in range(0, offsets.size, TILE_ROWS):
            _dot_tile(rows[top : top + TILE_ROWS], packed, panel, vectors, sums)
            for r in range(min(TILE_ROWS, offsets.size - top)):
                start = target.start + (top + r) * target.pitch
                old = target.flat[start + n0 : start + n1]
                row = sums[r * wide : r * wide + n1 - n0]
                found = _add_sums(row, offsets[top + r], corrections[n0:n1], old, target.is_added)
                worst = max(worst, found)
        panel += vectors
    return worst


@njit
def multiply(
    scratchpad: NDArray[np.uint8],
    x: Operand,
    w: Window,
    packed: Packed,
    stationary: tuple[int, int],
    target: Accumulators,
) -> int:
    """Convolve a tile by the CPU's dot product, as `_accumulate` does.

    Args:
        scratchpad: holds the tile.
        x: how a byte of the tile is read.
        w: the window's walk.
        packed: the stationary operand.
        stationary: its columns, and the zero point of its packed values.
        target: the accumulators.
    """
    columns, weight_zero_point = stationary
    depth = w.kernel_height * w.kernel_width * w.channels
    rows = np.empty((_BLOCK_ROWS, packed.panels.shape[1] * DEPTH), np.uint8)
    offsets = np.zeros(_BLOCK_ROWS, np.int64)
    corrections = np.empty(columns, np.int32)
    for n in range(columns):
        corrections[n] = x.zero_point * (depth * weight_zero_point - packed.sums[n])
    worst = 0
    pixels = w.ofm_height * w.ofm_width
    for first in range(0, pixels, _BLOCK_ROWS):
        count = min(_BLOCK_ROWS, pixels - first)
        for r in range(count):
            place = ((first + r) // w.ofm_width, (first + r) % w.ofm_width)
            _gather_row(scratchpad, x, w, place, rows[r, :depth])
            if weight_zero_point != 0:
                offsets[r] = -weight_zero_point * rows[r, :depth].sum()
        block = Accumulators(
            target.flat, target.start + first * target.pitch, target.pitch, target.is_added
        )
        worst = max(worst, _multiply_block(rows, offsets[:count], packed, corrections, block))
    return worst


@njit
def multiply_wide(
    scratchpad: NDArray[np.uint8],
    x: Operand,
    w: Window,
    weights: NDArray[np.int32],
    target: Accumulators,
) -> int:
    """Convolve a tile in int64, where `multiply` is not exact; as `_accumulate` does.

    Args:
        scratchpad: holds the tile.
        x: how a byte of the tile is read.
        w: the window's walk.
        weights: `[taps * channels, columns]` less their zero point.
        target: the accumulators.
    """
    depth, columns = weights.shape
    values, row = np.empty(depth, np.int16), np.empty(columns, np.int64)
    worst = 0
    for pixel in range(w.ofm_height * w.ofm_width):
        _gather_row(scratchpad, x, w, (pixel // w.ofm_width, pixel % w.ofm_width), values)
        row[:] = 0
        for k in range(depth):
            value = values[k] - x.zero_point
            for n in range(columns):
                row[n] += value * weights[k, n]
        start = target.start + pixel * target.pitch
        old = target.flat[start : start + columns]
        worst = max(worst, _accumulate(row, old, target.is_added))
    return worst


@njit(inlined=True)
def _depthwise_pixel(
    scratchpad: NDArray[np.uint8],
    x: Operand,
    w: Window,
    weights: NDArray[np.int32],
    place: tuple[int, int],
    row: NDArray[np.signedinteger],
) -> None:
    """Fill `row [channels * multiplier]` with the sums of one output pixel."""
    row[:] = 0
    multiplier = row.size // w.channels
    flip = np.uint8(x.flip)
    for ky in range(w.kernel_height):
        y = place[0] * w.stride_y - w.pad_top + ky * w.dilation_y
        if y < 0 or y >= w.height:
            continue
        for kx in range(w.kernel_width):
            at = place[1] * w.stride_x - w.pad_left + kx * w.dilation_x
            if at < 0 or at >= w.width:
                continue
            base = w.ifm + y * w.row_pitch + at * w.pixel_pitch
            source = scratchpad[base : base + w.channels]
            tap = weights[ky * w.kernel_width + kx]
            if multiplier == 1:
                for c in range(w.channels):
                    row[c] += (np.int32(source[c] ^ flip) - x.zero_point) * tap[c]
            else:
                for n in range(row.size):
                    value = np.int32(source[n // multiplier] ^ flip) - x.zero_point
                    row[n] += value * tap[n]


@njit
def accumulate_depthwise(
    scratchpad: NDArray[np.uint8],
    x: Operand,
    w: Window,
    weights: NDArray[np.int32],
    row: NDArray[np.signedinteger],
    target: Accumulators,
) -> int:
    """Convolve each channel on its own, as `_accumulate` does.

    Args:
        scratchpad: holds the tile.
        x: how a byte of the tile is read.
        w: the window's walk.
        weights: `[taps, channels * multiplier]` less their zero point.
        row: `[channels * multiplier]` room for the sums of a pixel, of a type that holds them.
        target: the accumulators.
    """
    worst = 0
    for pixel in range(w.ofm_height * w.ofm_width):
        place = (pixel // w.ofm_width, pixel % w.ofm_width)
        _depthwise_pixel(scratchpad, x, w, weights, place, row)
        start = target.start + pixel * target.pitch
        old = target.flat[start : start + row.size]
        worst = max(worst, _accumulate(row, old, target.is_added))
    return worst
