"""Cycles of a matmul in each dataflow, as scalars; docs/timing.md section 10 derives each."""

from __future__ import annotations

from typing import NamedTuple

from lepton.chip import Dataflow
from lepton.cost.closed_forms import ONE_PIXEL, Walk, divide_up, step_cycles
from lepton.cost.dealing import Row, group_count, row_cycles
from lepton.cost.scalars import CostScalars
from lepton.isa.instructions import Stationary
from lepton.jit import njit

__all__ = ["Product", "matmul_cost", "matmul_cycles"]

_OUTPUT = list(Dataflow).index(Dataflow.OUTPUT_STATIONARY)
_INPUT = list(Dataflow).index(Dataflow.INPUT_STATIONARY)
_BUFFER = int(Stationary.BUFFER)
_SCRATCHPAD = int(Stationary.SCRATCHPAD)
_TRANSPOSED = int(Stationary.SCRATCHPAD_TRANSPOSED)

Cost = tuple[int, int, int, int]
"""Preload, stream, last and drain, as `InstructionCosts` names them."""


class Product(NamedTuple):
    """A matmul: pixels x `reduction` by `reduction` x `columns`.

    Attributes:
        height: rows of output pixels.
        width: pixels of a row.
        walk: where the reduction of a pixel lies.
        distance: bytes from a pixel of a row to the next.
        sums_pitch: accumulators from a pixel to the next.
        second: where the second operand lies, a `Stationary`.
    """

    reduction: int
    columns: int
    height: int
    width: int
    walk: Walk
    distance: int
    sums_pitch: int
    second: int


@njit(inlined=True)
def _last_block(size: int, block: int) -> int:
    """Return the length of the last of the blocks that `size` is cut into."""
    return size - (size - 1) // block * block


@njit(inlined=True)
def _is_in_scratchpad(product: Product) -> bool:
    return product.second == _SCRATCHPAD or product.second == _TRANSPOSED


@njit(inlined=True)
def _row_cycles(p: CostScalars) -> int:
    """Return the cycles in which the feed's port fetches a row of all columns."""
    return divide_up(p.all_columns, p.feed_words * p.rows)


@njit(inlined=True)
def _sequential(p: CostScalars, streamed: int, passes: int) -> Cost:
    """Return the cost of passes without overlap that load and stream in so many cycles."""
    skew = p.rows + p.columns - 2
    return 0, streamed + passes * (p.issue_cycles + skew), 0, 0


@njit(inlined=True)
def _weight_load(p: CostScalars, product: Product, rows: int, columns: int) -> int:
    """Return the cycles in which a block of weights is loaded into the array."""
    load = rows if p.overlap else p.rows
    if product.second == _SCRATCHPAD:
        return max(load, rows * _row_cycles(p))
    return max(load, columns) if product.second == _TRANSPOSED else load


@njit(inlined=True)
def _weight_stationary(p: CostScalars, product: Product) -> Cost:
    """Return the cost with weights in the array, through which all pixels stream.

    With overlap the next pass's weights load meanwhile, unless they take the feed's port.
    """
    reduction = product.reduction
    is_hidden = p.overlap and not _is_in_scratchpad(product)
    wide = divide_up(product.columns, p.all_columns) - 1
    narrow = _last_block(product.columns, p.all_columns)
    groups = group_count(p, product.columns, product.sums_pitch) if is_hidden else 1
    row = Row(product.width, product.distance, groups)
    cycles = last = 0
    first_load = min(reduction, p.rows)
    for start in range(0, reduction, p.rows):
        stop = min(start + p.rows, reduction)
        last = product.height * row_cycles(p, product.walk, (start, stop), row)[0]
        if is_hidden:
            next_load = min(reduction - stop, p.rows) if stop < reduction else first_load
            cycles += (wide + 1) * max(last, next_load)
        else:
            cycles += (wide + 1) * last
            cycles += wide * _weight_load(p, product, stop - start, p.all_columns)
            cycles += _weight_load(p, product, stop - start, narrow)
    if not p.overlap:
        return _sequential(p, cycles, (wide + 1) * divide_up(reduction, p.rows))
    drain = p.rows + p.columns - 2
    if not is_hidden:
        return 0, cycles + p.issue_cycles, last + p.issue_cycles, drain
    cycles += last - max(last, first_load)
    return first_load, cycles + p.issue_cycles, last + p.issue_cycles, drain


@njit(inlined=True)
def _output_stationary(p: CostScalars, product: Product) -> Cost:
    """Return the cost with a sum in every element, to which the whole reduction streams.

    A pass waits for the feed: each step beyond the first cycle of each pixel and block of the
    reduction, and whatever of the second operand takes its port.
    """
    reduction, pixels = product.reduction, product.height * product.width
    blocks = divide_up(reduction, p.rows)
    waits = -blocks
    for start in range(0, reduction, p.rows):
        rows = start, min(start + p.rows, reduction)
        waits += step_cycles(p, product.walk, rows, ONE_PIXEL)
    high = divide_up(pixels, p.rows)
    wide = divide_up(product.columns, p.all_columns)
    last_pixels = _last_block(pixels, p.rows)
    fetch = last_fetch = 0
    if product.second == _SCRATCHPAD:
        last_fetch = reduction * _row_cycles(p)
        fetch = wide * last_fetch
    elif product.second == _TRANSPOSED:
        last_fetch = blocks * _last_block(product.columns, p.all_columns)
        fetch = blocks * product.columns
    cycles = wide * (high * reduction + pixels * waits) + high * fetch
    if not p.overlap:
        return _sequential(p, cycles, high * wide)
    # pixels of a pass that are fetched after its last operands have entered row 0
    last_rows = _last_block(reduction, p.rows)
    late = max(last_pixels - last_rows, 0)
    cycles += wide * ((high - 1) * max(p.rows - last_rows, 0) + late) + p.issue_cycles
    last = reduction + last_pixels * waits + last_fetch + late + p.issue_cycles
    return 0, cycles, last, p.rows + p.columns - 2 - late


@njit(inlined=True)
def _input_stationary(p: CostScalars, product: Product) -> Cost:
    """Return the cost with pixels in the array, through which all columns stream.

    With overlap the next pass's pixels load meanwhile, unless the columns take the feed's port.
    """
    reduction, pixels = product.reduction, product.height * product.width
    is_hidden = p.overlap and not _is_in_scratchpad(product)
    full = divide_up(pixels, p.all_columns) - 1
    few = _last_block(pixels, p.all_columns)
    cycles = 0
    stream = product.columns
    for start in range(0, reduction, p.rows):
        stop = min(start + p.rows, reduction)
        step = step_cycles(p, product.walk, (start, stop), ONE_PIXEL)
        stream = product.columns
        if product.second == _SCRATCHPAD:
            blocks = divide_up(product.columns, p.all_columns)
            stream += blocks * (stop - start) * _row_cycles(p)
        least = stream if is_hidden else 0 if p.overlap else p.rows
        cycles += full * max(p.all_columns * step, least) + max(few * step, least)
        if not is_hidden:
            cycles += (full + 1) * stream
    if not p.overlap:
        return _sequential(p, cycles, (full + 1) * divide_up(reduction, p.rows))
    preload = 0
    if is_hidden:
        first = step_cycles(p, product.walk, (0, min(reduction, p.rows)), ONE_PIXEL)
        preload = min(pixels, p.all_columns) * first
        cycles += stream - max(preload, stream)
    last = stream + p.issue_cycles
    return preload, cycles + p.issue_cycles, last, p.rows + p.columns - 2


@njit
def matmul_cost(p: CostScalars, product: Product) -> Cost:
    """Return preload, stream, last and drain of a matmul."""
    if p.dataflow == _OUTPUT:
        return _output_stationary(p, product)
    if p.dataflow == _INPUT:
        return _input_stationary(p, product)
    return _weight_stationary(p, product)


@njit
def matmul_cycles(
    p: CostScalars, size: tuple[int, int], reduction: int, columns: int, run: int, distance: int
) -> int:
    """Return the stream of a tile of `size` pixels with weights from the buffer.

    The words of a pixel, runs of `run` bytes, never conflict; pixels are `distance` bytes apart.
    """
    walk = Walk(run, 1, 0, run)
    product = Product(reduction, columns, *size, walk, distance, columns, _BUFFER)
    return matmul_cost(p, product)[1]
