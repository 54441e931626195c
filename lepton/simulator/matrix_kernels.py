"""Values of the matrix unit: gathers, exact integer products, depthwise convolution.

Where the CPU has a dot-product instruction, `multiply` sums bytes in int32. Elsewhere the product
runs through BLAS: in float32 where every partial sum is an integer below 2**24, which float32
holds exactly, else in float64, exact below 2**53.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.jit import njit
from lepton.simulator.dot_tile import DEPTH, LANES, TILE_ROWS, dot_16, dot_32, dot_64

__all__ = ["INT32_END", "Accumulators", "Operand", "Packed", "Window", "accumulate"]
__all__ += ["accumulate_depthwise", "can_multiply", "gather", "multiply", "pack", "product"]

FLOAT32_EXACT = 1 << 24
INT32_END = 1 << 31
_BLOCK_ROWS = 8 * TILE_ROWS
_MOST_VECTORS = 4


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


def can_multiply(depth: int, x: Operand) -> bool:
    """Return whether `multiply` is exact: it sums bytes in int32, padding among them."""
    return depth * 255 * 128 < INT32_END and 0 <= x.zero_point <= 255


@njit
def pack(raw: NDArray[np.uint8], flip: int) -> Packed:
    """Pack `raw [depth, columns]`, which holds int8 once its bytes are flipped."""
    depth, columns = raw.shape
    steps, count = -(-depth // DEPTH), -(-columns // LANES)
    panels = np.zeros((count, steps, LANES * DEPTH), np.int8)
    sums = np.zeros(count * LANES, np.int32)
    for k in range(depth):
        step, place = k // DEPTH, k % DEPTH
        for panel in range(count):
            first = panel * LANES
            target = panels[panel, step]
            for n in range(min(LANES, columns - first)):
                value = np.int8(raw[k, first + n] ^ flip)
                target[n * DEPTH + place] = value
                sums[first + n] += value
    return Packed(panels, sums)


@njit
def _gather_run(
    scratchpad: NDArray[np.uint8], start: int, operand: Operand, row: NDArray[np.generic]
) -> None:
    """Fill a row from neighbouring bytes."""
    for c in range(row.size):
        row[c] = np.uint8(scratchpad[start + c] ^ operand.flip)


@njit
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


@njit
def gather(
    scratchpad: NDArray[np.uint8], operand: Operand, w: Window, out: NDArray[np.float32]
) -> None:
    """Fill `out [pixels, taps * channels] float32` with the operands of each output pixel."""
    for pixel in range(len(out)):
        place = (pixel // w.ofm_width, pixel % w.ofm_width)
        _gather_row(scratchpad, operand, w, place, out[pixel])
        for k in range(out.shape[1]):
            out[pixel, k] -= np.float32(operand.zero_point)


@njit
def _add_row(
    row: NDArray[np.generic],
    offset: int,
    corrections: NDArray[np.int64],
    target: Accumulators,
    start: int,
) -> tuple[int, int]:
    """Write or add one row of sums; return the least and the largest total, or 0."""
    low, high = np.int64(0), np.int64(0)
    for n in range(row.size):
        total = np.int64(row[n]) + corrections[n] + offset
        if target.is_added:
            total += target.flat[start + n]
        low, high = min(low, total), max(high, total)
        target.flat[start + n] = np.int32(total)
    return low, high


@njit
def accumulate(sums: NDArray[np.generic], target: Accumulators) -> tuple[int, int]:
    """Write or add integer-valued `sums [pixels, columns]`; return the range of the totals."""
    low, high = np.int64(0), np.int64(0)
    none = np.zeros(sums.shape[1], np.int64)
    for pixel in range(len(sums)):
        ends = _add_row(sums[pixel], 0, none, target, target.start + pixel * target.pitch)
        low, high = min(low, ends[0]), max(high, ends[1])
    return low, high


@njit
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


@njit
def _multiply_block(
    rows: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    packed: Packed,
    corrections: NDArray[np.int64],
    target: Accumulators,
) -> tuple[int, int]:
    """Multiply gathered rows; `offsets [pixels]` and `corrections [columns]` are added."""
    low, high = np.int64(0), np.int64(0)
    sums = np.empty(TILE_ROWS * _MOST_VECTORS * LANES, np.int32)
    columns, panels = corrections.size, len(packed.panels)
    panel = 0
    while panel < panels:
        vectors = 4 if panels - panel >= 4 else 2 if panels - panel >= 2 else 1
        wide, n0 = vectors * LANES, panel * LANES
        n1 = min(n0 + wide, columns)
        for top in range(0, offsets.size, TILE_ROWS):
            _dot_tile(rows[top : top + TILE_ROWS], packed, panel, vectors, sums)
            for r in range(min(TILE_ROWS, offsets.size - top)):
                start = target.start + (top + r) * target.pitch + n0
                row = sums[r * wide : r * wide + n1 - n0]
                ends = _add_row(row, offsets[top + r], corrections[n0:n1], target, start)
                low, high = min(low, ends[0]), max(high, ends[1])
        panel += vectors
    return low, high


@njit
def multiply(
    scratchpad: NDArray[np.uint8],
    x: Operand,
    w: Window,
    packed: Packed,
    stationary: tuple[int, int],
    target: Accumulators,
) -> tuple[int, int]:
    """Convolve a tile by the CPU's dot product; return the range of the accumulated totals.

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
    corrections = np.empty(columns, np.int64)
    for n in range(columns):
        corrections[n] = x.zero_point * (depth * weight_zero_point - np.int64(packed.sums[n]))
    low, high = np.int64(0), np.int64(0)
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
        ends = _multiply_block(rows, offsets[:count], packed, corrections, block)
        low, high = min(low, ends[0]), max(high, ends[1])
    return low, high


@njit
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
    for ky in range(w.kernel_height):
        y = place[0] * w.stride_y - w.pad_top + ky * w.dilation_y
        if y < 0 or y >= w.height:
            continue
        for kx in range(w.kernel_width):
            at = place[1] * w.stride_x - w.pad_left + kx * w.dilation_x
            if at < 0 or at >= w.width:
                continue
            base = w.ifm + y * w.row_pitch + at * w.pixel_pitch
            tap = weights[ky * w.kernel_width + kx]
            if multiplier == 1:
                for c in range(w.channels):
                    value = np.int32(scratchpad[base + c] ^ x.flip) - x.zero_point
                    row[c] += value * tap[c]
            else:
                for n in range(row.size):
                    value = np.int32(scratchpad[base + n // multiplier] ^ x.flip) - x.zero_point
                    row[n] += value * tap[n]


@njit
def accumulate_depthwise(
    scratchpad: NDArray[np.uint8],
    x: Operand,
    w: Window,
    weights: NDArray[np.int32],
    row: NDArray[np.signedinteger],
    target: Accumulators,
) -> tuple[int, int]:
    """Convolve each channel on its own; return the range of the accumulated totals.

    Args:
        scratchpad: holds the tile.
        x: how a byte of the tile is read.
        w: the window's walk.
        weights: `[taps, channels * multiplier]` less their zero point.
        row: `[channels * multiplier]` room for the sums of a pixel, of a type that holds them.
        target: the accumulators.
    """
    low, high = np.int64(0), np.int64(0)
    none = np.zeros(row.size, np.int64)
    for pixel in range(w.ofm_height * w.ofm_width):
        place = (pixel // w.ofm_width, pixel % w.ofm_width)
        _depthwise_pixel(scratchpad, x, w, weights, place, row)
        ends = _add_row(row, 0, none, target, target.start + pixel * target.pitch)
        low, high = min(low, ends[0]), max(high, ends[1])
    return low, high


def product(
    x: NDArray[np.float32], weights: NDArray[np.float32], largest: int = 255
) -> NDArray[np.floating]:
    """Return the exact product of integer-valued `x [m, k]` and `weights [k, n]`.

    Args:
        x: values of magnitude up to `largest`.
        weights: the stationary operand.
        largest: bound on the magnitudes of `x`.
    """
    bound = largest * float(np.abs(weights).sum(axis=0, dtype=np.float64).max(initial=0.0))
    if bound < FLOAT32_EXACT:
        return x @ weights
    return x.astype(np.float64) @ weights.astype(np.float64)
