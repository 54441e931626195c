"""Tile shapes: what fits the memories, and which of it costs least."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lepton.compiler.emit import Box
from lepton.compiler.graph import Window
from lepton.cost.elementwise import Number, least

__all__ = ["boxes", "halo", "input_box", "split", "stripes", "tiles_within"]


def split(extent: int, part: int) -> Iterator[tuple[int, int]]:
    """Yield [start, stop) of consecutive parts of at most `part`."""
    for start in range(0, extent, part):
        yield start, min(start + part, extent)


def boxes(shape: tuple[int, int, int], tile: tuple[int, int, int]) -> Iterator[Box]:
    """Yield the boxes of `[h, w, c]` in tiles, channels outermost, rows before columns."""
    for c0, c1 in split(shape[2], tile[2]):
        for y0, y1 in split(shape[0], tile[0]):
            for x0, x1 in split(shape[1], tile[1]):
                yield Box(y0, y1, x0, x1, c0, c1)


def stripes(shape: tuple[int, int], tile: tuple[int, int]) -> Iterator[Box]:
    """Yield the boxes of `[h, w]` in tiles, from top to bottom, stripe of columns by stripe."""
    for x0, x1 in split(shape[1], tile[1]):
        for y0, y1 in split(shape[0], tile[0]):
            yield Box(y0, y1, x0, x1, 0, 1)


def tiles_within(shape: tuple[int, int, int], bytes_each: int) -> tuple[int, int, int]:
    """Return the largest tile of `[h, w, c]` of at most `bytes_each`: whole rows, then parts."""
    h, w, c = shape
    if c > bytes_each:
        return 1, 1, max(bytes_each, 1)
    if w * c > bytes_each:
        return 1, max(bytes_each // c, 1), c
    return min(h, max(bytes_each // (w * c), 1), 65535), w, c


@dataclass(frozen=True)
class _Span:
    """Input rows (or columns) of an output span, and the padding in front of them."""

    start: int
    stop: int
    pad: int


def _span(out: tuple[int, int], window: Window, axis: int, extent: int) -> _Span:
    """Return what output [start, stop) of an axis reads of an input of `extent`."""
    kernel, stride = window.kernel[axis], window.stride[axis]
    first = out[0] * stride - window.padding[axis]
    last = (out[1] - 1) * stride - window.padding[axis] + (kernel - 1) * window.dilation[axis]
    start, stop = max(first, 0), min(last + 1, extent)
    if stop <= start:
        # the span reads padding only; one row keeps the tile from being empty
        start, stop = (0, 1) if last < 0 else (extent - 1, extent)
    return _Span(start, stop, start - first)


def input_box(
    out: Box, window: Window, shape: tuple[int, int], channels: tuple[int, int]
) -> tuple[Box, int, int]:
    """Return the input box of an output box, and the padding above it and left of it.

    `pad` may be negative where the kernel starts inside of the box.
    """
    rows = _span((out.y0, out.y1), window, 0, shape[0])
    columns = _span((out.x0, out.x1), window, 1, shape[1])
    box = Box(rows.start, rows.stop, columns.start, columns.stop, *channels)
    return box, rows.pad, columns.pad


def halo(window: Window, axis: int, out: Number, extent: int) -> Number:
    """Return the input rows (or columns) that `out` output ones read at most."""
    reach = (out - 1) * window.stride[axis]
    reach += (window.kernel[axis] - 1) * window.dilation[axis] + 1
    return least(reach, extent)
