"""The banks that an instruction uses: the table of section 8.3 of docs/timing.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lepton.chip import Chip
from lepton.isa import Instruction
from lepton.isa import instructions as isa

__all__ = ["ACCUMULATORS", "SCRATCHPAD", "Span"]
__all__ += ["banks_of", "parameter_bytes", "spans", "table_bytes"]

SCRATCHPAD, ACCUMULATORS = "scratchpad", "accumulators"

Span = tuple[str, bool, int, int]
"""Memory, whether it is written, first unit and number of units."""


def _tile(it: Any, name: str) -> tuple[int, int]:
    """Return the first byte and the span of an operand."""
    rows, width = it.rows if isinstance(it, isa.Softmax) else 0, 1
    if not rows:
        extent = ("ifm_" if name == "ifm" else "ofm_") if hasattr(it, "ofm_height") else ""
        rows, width = getattr(it, f"{extent}height"), getattr(it, f"{extent}width")
    pixel, channel = (getattr(it, f"{name}_{part}_pitch", 1) for part in ("pixel", "channel"))
    reach = (rows - 1) * getattr(it, f"{name}_row_pitch") + (width - 1) * pixel
    return getattr(it, name), reach + (it.channels - 1) * channel + 1


def _sums(it: isa.Matmul | isa.Depthwise | isa.Requantize) -> tuple[int, int]:
    """Return the first accumulator and their span."""
    if isinstance(it, isa.Requantize):
        pixels, columns = it.height * it.width, it.channels
    else:
        pixels = it.ofm_height * it.ofm_width
        is_matmul = isinstance(it, isa.Matmul)
        columns = it.columns if is_matmul else it.channels * it.multiplier
    return it.accumulator, (pixels - 1) * it.accumulator_pitch + columns


def parameter_bytes(it: Instruction) -> int:
    """Return the bytes of the parameters that an instruction reads."""
    match it:
        case isa.Requantize():
            return (9, 8, 12)[it.mode] * it.channels
        case isa.Binary():
            return 0 if it.mode in (isa.BinaryMode.MAXIMUM, isa.BinaryMode.MINIMUM) else 64
        case isa.Pool():
            return 32 if it.mode == isa.PoolMode.AVERAGE_FLOAT32 else 0
        case isa.Softmax():
            return 1056
        case isa.Resize():
            steps = it.ofm_height + it.ofm_width
            return 4 * steps if it.mode == isa.ResizeMode.NEAREST else 32 + 16 * steps
        case _:
            return 0


def table_bytes(it: Instruction) -> int:
    """Return the bytes of the tables that an instruction reads."""
    if not isinstance(it, isa.Lut):
        return 0
    return 256 * it.channels if it.table_pitch else 256


def _stationary(it: isa.Matmul) -> int:
    """Return the span of the stationary operand, 0 if it is not in the scratchpad."""
    reduction = it.kernel_height * it.kernel_width * it.channels
    if it.stationary == isa.Stationary.SCRATCHPAD:
        return (reduction - 1) * it.stationary_pitch + it.columns
    if it.stationary == isa.Stationary.SCRATCHPAD_TRANSPOSED:
        return (it.columns - 1) * it.stationary_pitch + reduction
    return 0


def spans(it: Instruction) -> Iterator[Span]:
    """Yield the operands of an instruction of the matrix or the vector unit; 0 units: none."""
    for name in ("ifm", "a", "b"):
        if hasattr(it, name):
            yield SCRATCHPAD, False, *_tile(it, name)
    if hasattr(it, "ofm"):
        yield SCRATCHPAD, True, *_tile(it, "ofm")
    if isinstance(it, isa.Requantize):
        yield ACCUMULATORS, False, *_sums(it)
    if isinstance(it, isa.Matmul | isa.Depthwise):
        yield ACCUMULATORS, True, *_sums(it)
        if it.accumulate:
            yield ACCUMULATORS, False, *_sums(it)
    if isinstance(it, isa.Matmul):
        yield SCRATCHPAD, False, it.stationary_address, _stationary(it)
    if isinstance(it, isa.Lut):
        yield SCRATCHPAD, False, it.table, table_bytes(it)
    yield SCRATCHPAD, False, getattr(it, "parameters", 0), parameter_bytes(it)


def banks_of(it: Instruction, chip: Chip) -> dict[tuple[str, bool], set[int]]:
    """Return the banks that an instruction streams through, by memory and whether it writes."""
    share = {
        SCRATCHPAD: chip.scratchpad.bank_bytes,
        ACCUMULATORS: chip.accumulators.bank_elements,
    }
    used: dict[tuple[str, bool], set[int]] = {}
    for memory, is_write, first, count in spans(it):
        last = (first + count - 1) // share[memory]
        if count:
            banks = used.setdefault((memory, is_write), set())
            banks.update(range(first // share[memory], last + 1))
    return used
