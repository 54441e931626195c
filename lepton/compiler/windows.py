"""The geometry of pooling windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lepton.chip import Chip
from lepton.isa.footprints import POOL_PARAMETER_BYTES

__all__ = ["pixels_fit", "windows_meet_image"]


def windows_meet_image(attrs: Any, image: Sequence[int], result: Sequence[int]) -> bool:
    """Return whether no window of a pool lies in the padding alone.

    Args:
        attrs: the attributes of a Relax pooling.
        image: the whole shape of its operand.
        result: the whole shape of its result.
    """
    kernel, strides, dilation, padding = (
        [int(number) for number in numbers]
        for numbers in (attrs.pool_size, attrs.strides, attrs.dilation, attrs.padding)
    )
    at = min(str(attrs.layout).index(letter) for letter in "DHW" if letter in str(attrs.layout))
    for axis, taps in enumerate(kernel):
        for step in range(result[at + axis]):
            first = step * strides[axis] - padding[axis]
            reached = range(first, first + taps * dilation[axis], dilation[axis])
            if not any(0 <= tap < image[at + axis] for tap in reached):
                return False
    return True


def pixels_fit(pixels: int, chip: Chip) -> bool:
    """Return whether so many pixels of one channel fit a quarter of the scratchpad."""
    # two of the eight tiles that share what parameters leave, less their alignment
    return pixels <= 2 * ((chip.scratchpad.size_bytes - POOL_PARAMETER_BYTES) // 8 - 16)
