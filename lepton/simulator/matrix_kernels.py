"""Values of the matrix unit: gathers, exact integer products, depthwise convolution.

The product runs through BLAS in float32 where every partial sum is an integer below 2**24, which
float32 holds exactly, else in float64, exact below 2**53.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.jit import njit

__all__ = ["Window", "accumulate_depthwise", "byte_values", "gather", "product"]

FLOAT32_EXACT = 1 << 24


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


def byte_values(is_unsigned: int, zero_point: int) -> NDArray[np.float32]:
    """Return `[256] float32`: the value of each raw byte less the zero point."""
    raw = np.arange(256, dtype=np.uint8)
    values = raw if is_unsigned else raw.view(np.int8)
    return values.astype(np.float32) - np.float32(zero_point)


@njit
def gather(
    scratchpad: NDArray[np.uint8],
    table: NDArray[np.float32],
    w: Window,
    out: NDArray[np.float32],
) -> None:
    """Fill `out [pixels, taps * channels] float32` with the operands of each output pixel."""
    for oy in range(w.ofm_height):
        for ox in range(w.ofm_width):
            row = out[oy * w.ofm_width + ox]
            column = 0
            for ky in range(w.kernel_height):
                y = oy * w.stride_y - w.pad_top + ky * w.dilation_y
                for kx in range(w.kernel_width):
                    x = ox * w.stride_x - w.pad_left + kx * w.dilation_x
                    if 0 <= y < w.height and 0 <= x < w.width:
                        base = w.ifm + y * w.row_pitch + x * w.pixel_pitch
                        for c in range(w.channels):
                            row[column + c] = table[scratchpad[base + c]]
                    else:
                        for c in range(w.channels):
                            row[column + c] = 0.0
                    column += w.channels


@njit
def accumulate_depthwise(
    scratchpad: NDArray[np.uint8],
    table: NDArray[np.float32],
    weights: NDArray[np.float32],
    multiplier: int,
    w: Window,
    out: NDArray[np.int64],
) -> None:
    """Fill `out [pixels, channels * multiplier] int64`; `weights [taps, channels * multiplier]`."""
    outputs = w.channels * multiplier
    for oy in range(w.ofm_height):
        for ox in range(w.ofm_width):
            row = out[oy * w.ofm_width + ox]
            row[:] = 0
            for ky in range(w.kernel_height):
                y = oy * w.stride_y - w.pad_top + ky * w.dilation_y
                if y < 0 or y >= w.height:
                    continue
                for kx in range(w.kernel_width):
                    x = ox * w.stride_x - w.pad_left + kx * w.dilation_x
                    if x < 0 or x >= w.width:
                        continue
                    base = w.ifm + y * w.row_pitch + x * w.pixel_pitch
                    tap = weights[ky * w.kernel_width + kx]
                    if multiplier == 1:
                        for c in range(outputs):
                            row[c] += int(table[scratchpad[base + c]] * tap[c])
                    else:
                        for c in range(outputs):
                            row[c] += int(table[scratchpad[base + c // multiplier]] * tap[c])


def product(x: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the exact `[m, n] int64` product of integer-valued `x [m, k]` and `weights [k, n]`."""
    largest = float(np.abs(x).max(initial=0.0))
    bound = largest * float(np.abs(weights).sum(axis=0, dtype=np.float64).max(initial=0.0))
    if bound < FLOAT32_EXACT:
        return (x @ weights).astype(np.int64)
    return (x.astype(np.float64) @ weights.astype(np.float64)).astype(np.int64)
