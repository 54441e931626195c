"""Instructions whose fields are each in range but mean nothing together, one by one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.isa.declaration import Instruction
from lepton.isa.footprints import BOX
from lepton.isa.instructions import (
    Binary,
    Depthwise,
    Load,
    Lut,
    Matmul,
    Pool,
    Requantize,
    Resize,
    ResizeMode,
    Stationary,
    Store,
    WeightFormat,
    Weights,
)
from lepton.simulator import check_kernels as kernels

__all__ = ["box_fault", "field_fault", "may_replace"]

I64 = NDArray[np.int64]

MOST_RUNS = 1 << 24
MOST_UNITS = 1 << 28
MOST_OPERANDS = 1 << 28
MOST_MACS = {"matmul": 1 << 35, "depthwise": 1 << 32, "pool": 1 << 32}
"""What one instruction may ask for; each is a thousand times what any chip's memories can use."""

_EXTENTS = {
    *("height", "width", "channels", "columns", "reduction", "rows", "planes", "row_bytes"),
    *("ifm_height", "ifm_width", "ofm_height", "ofm_width"),
}


def field_fault(item: Instruction, memories: int) -> str:
    """Return what is wrong with an instruction on a chip of so many memories, or nothing."""
    reason = ""
    if isinstance(item, Load | Store | Weights) and item.memory >= memories:
        return f"memory {item.memory} does not exist"
    if isinstance(item, Weights):
        reason = _stream_fault(item)
    if isinstance(item, Lut) and item.table_pitch not in (0, 256):
        return f"table_pitch must be 0 or 256, not {item.table_pitch}"
    if isinstance(item, Resize) and item.mode != ResizeMode.NEAREST:
        reason = "" if item.ifm_height * item.ifm_width else "a resize needs a source"
    if isinstance(item, Matmul | Depthwise | Pool):
        reason = _window_fault(item)
    if isinstance(item, Requantize | Pool) and not reason:
        reason = _clamp_fault(item.minimum, item.maximum)
    return reason or _extent_fault(item) or _size_fault(item) or _tap_fault(item)


def _stream_fault(item: Weights) -> str:
    """Return what is wrong with the length of a weight stream, or nothing."""
    block = item.reduction * item.columns
    if item.format == WeightFormat.RAW and item.stream_bytes != block:
        return "a raw stream must have reduction x columns bytes"
    if item.format != WeightFormat.RAW and item.stream_bytes >= block:
        return f"an encoded stream must be shorter than its {block} elements"
    return ""


def _window_fault(item: Matmul | Depthwise | Pool) -> str:
    """Return what is wrong with a window, or nothing."""
    if 0 in (item.stride_y, item.stride_x, item.dilation_y, item.dilation_x):
        return "strides and dilations must be at least 1"
    if 0 in (item.kernel_height, item.kernel_width):
        return "the kernel must be at least 1 x 1"
    if isinstance(item, Depthwise):
        if item.stationary not in (Stationary.BUFFER, Stationary.ONES):
            return "depthwise weights must be in the weight buffer, or ones"
        if item.multiplier == 0:
            return "the channel multiplier must be at least 1"
    return ""


def _clamp_fault(minimum: int, maximum: int) -> str:
    """Return what is wrong with the clamp of an 8-bit result, or nothing."""
    if minimum > maximum:
        return f"minimum must not exceed maximum, which {minimum} and {maximum} do"
    if minimum < -128 or maximum > (127 if minimum < 0 else 255):
        return f"minimum and maximum must be 8-bit values of one type, not {minimum} and {maximum}"
    return ""


def _extent_fault(item: Instruction) -> str:
    """Return the first extent of nothing: the cost and the result of no elements are undefined."""
    for field in item.fields:
        if field.name in _EXTENTS and getattr(item, field.name) == 0:
            return f"{field.name} must be at least 1"
    return ""


def _size_fault(item: Instruction) -> str:
    """Return what is too large to be meant, or nothing; bounds the work of a few bytes."""
    if not isinstance(item, Matmul | Depthwise | Pool):
        return ""
    pixels, taps = item.ofm_height * item.ofm_width, item.kernel_height * item.kernel_width
    outputs = item.columns if isinstance(item, Matmul) else item.channels
    if isinstance(item, Depthwise):
        outputs *= item.multiplier
    reduction = taps * item.channels if isinstance(item, Matmul) else taps
    operands = max(pixels * reduction, reduction * outputs)
    if isinstance(item, Matmul | Depthwise) and operands > MOST_OPERANDS:
        return f"needs {operands} operands at a time, more than {MOST_OPERANDS}"
    if pixels * reduction * outputs > MOST_MACS[item.mnemonic]:
        return (
            f"asks for {pixels * reduction * outputs} operations, more than "
            f"{MOST_MACS[item.mnemonic]}"
        )
    return ""


def _tap_fault(item: Instruction) -> str:
    """Return the fault of a pool with a window beside its tile, or nothing."""
    if not isinstance(item, Pool):
        return ""
    axes = (
        ("row", item.ofm_height, item.stride_y, item.pad_top, item.dilation_y, item.kernel_height,
         item.ifm_height),
        ("column", item.ofm_width, item.stride_x, item.pad_left, item.dilation_x,
         item.kernel_width, item.ifm_width),
    )  # fmt: skip
    for axis, count, stride, pad, dilation, kernel, extent in axes:
        start = np.arange(count, dtype=np.int64) * stride - pad
        first = np.maximum(-(start // dilation), 0)
        bare = np.flatnonzero((first >= kernel) | (start + first * dilation >= extent))
        if len(bare):
            return f"the window of output {axis} {int(bare[0])} has no tap inside the tile"
    return ""


def box_fault(box: I64) -> str:
    """Return what is wrong with one box: too many runs, or a write that meets itself."""
    row: dict[str, int] = dict(zip(BOX, map(int, box), strict=True))
    runs = row["n0"] * row["n1"] * row["n2"]
    if runs > MOST_RUNS or runs * row["run"] > MOST_UNITS:
        return f"touches {runs} runs of {row['run']}, more than an instruction may"
    if row["write"] and _may_meet_itself(row):
        extent = sum((row[f"n{d}"] - 1) * row[f"s{d}"] for d in range(3)) + row["run"]
        if runs * row["run"] > extent or kernels.runs_overlap(box):
            return "writes the same place twice"
    return ""


def may_replace(item: Instruction, address: int) -> bool:
    """Return whether an instruction may write over its operand at `address`, as far as they meet.

    The array adds to accumulators; `binary` and `lut` read each element before they write the one
    at the same place of the walk, so a result may lie exactly on an operand.
    """
    if isinstance(item, Matmul | Depthwise):
        return True
    if isinstance(item, Lut):
        return address == item.ifm and _lies_on(item, "ifm")
    if not isinstance(item, Binary):
        return False
    there = [name for name in ("a", "b") if getattr(item, name) == address]
    return bool(there) and all(_lies_on(item, name) for name in there)


def _lies_on(item: Binary | Lut, operand: str) -> bool:
    """Return whether an operand's elements are where the result's are."""
    walked = {"row": item.height, "pixel": item.width}
    return (
        getattr(item, operand) == item.ofm
        and (item.channels == 1 or getattr(item, f"{operand}_channel_pitch", 1) == 1)
        and all(
            count == 1
            or getattr(item, f"{operand}_{part}_pitch") == getattr(item, f"ofm_{part}_pitch")
            for part, count in walked.items()
        )
    )


def _may_meet_itself(row: dict[str, int]) -> bool:
    """Return whether the runs of a box are not simply nested, each stride past the inner ones."""
    reach = row["run"]
    for stride, count in sorted((row[f"s{d}"], row[f"n{d}"]) for d in range(3)):
        if count > 1:
            if stride < reach:
                return True
            reach += (count - 1) * stride
    return False
