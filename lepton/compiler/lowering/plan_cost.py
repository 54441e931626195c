"""What a plan costs by what the compilation minimizes: cycles, picojoules or bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lepton.chip import Chip
from lepton.compiler.lowering.traffic import PACKED_BYTES, Traffic
from lepton.cost.action_names import Action
from lepton.cost.elementwise import Number
from lepton.cost.energy_estimate import prices
from lepton.program import Objective

__all__ = ["Products", "Work", "plan_cost"]

_BLOCK_BYTES = 48
"""That a block of constants takes beside its symbols, about: half of the alignment to 64 bytes, and
the header of its code."""
_TIE = 1e-9
"""Bytes that a cycle counts for: it tells apart what is equally large."""
_SLICES = 1.5
"""Slices of the scratchpad that hold a word of the feed, about: docs/energy.md has one or two."""


class Products(NamedTuple):
    """Equal matmuls or depthwise products of `[pixels, reduction]` and `[reduction, columns]`."""

    times: Number
    pixels: Number
    reduction: Number
    columns: Number


@dataclass(frozen=True)
class Work:
    """What a plan does that neither its cycles nor its traffic say."""

    products: Sequence[Products] = ()
    requantized: Number = 0.0
    """Elements."""
    streamed: Number = 0.0
    """Weights into their buffer."""
    blocks: Number = 0.0
    """Different blocks of weights and parameters, each stored by itself."""


def plan_cost(
    objective: Objective, cycles: Number, traffic: Traffic, work: Callable[[], Work]
) -> Number:
    """Return a plan's cost in the objective's unit, to be compared with other plans' only."""
    if objective is Objective.LATENCY:
        return cycles
    if objective is Objective.SIZE:
        size = traffic.instructions * PACKED_BYTES + work().blocks * _BLOCK_BYTES
        return size + _TIE * cycles
    chip = traffic.chip
    idle = cycles * chip.derived(prices).cycle_pj
    return idle + traffic.energy_pj + _work_pj(chip, work())


def _work_pj(chip: Chip, work: Work) -> Number:
    """Return the energy of the array, of what surrounds it, and of requantization."""
    each = chip.derived(prices).actions
    decoded = Action.ENTROPY_SYMBOL if chip.weight_buffer.entropy_lanes else Action.WEIGHT_SYMBOL
    weight = (Action.DECODER_BYTE, Action.WEIGHT_BUFFER_WRITE, decoded)
    element = (Action.REQUANTIZE_Q31, Action.LANE_STEP, Action.VECTOR_WRITE)
    spent = work.streamed * sum(each[action] for action in weight)
    spent += work.requantized * sum(each[action] for action in element)
    return spent + sum(_products_pj(chip, item) for item in work.products)


def _products_pj(chip: Chip, work: Products) -> Number:
    """Return the energy of products in the array; docs/energy.md, section 2, has the counts.

    The sums' last read is that of their requantization.
    """
    each = chip.derived(prices).actions
    times, pixels, reduction, columns = work
    across = -(-columns // chip.columns)
    rows = -(-reduction // chip.array.rows)
    operands, sums = pixels * reduction, pixels * rows * columns
    spent = operands * columns * (each[Action.MAC] + each[Action.OPERAND_SHIFT])
    spent += sums * chip.array.rows * each[Action.SUM_SHIFT]
    spent += sums * (each[Action.ACCUMULATOR_READ] + each[Action.ACCUMULATOR_WRITE])
    spent += reduction * columns * (each[Action.WEIGHT_LATCH] + each[Action.WEIGHT_BUFFER_READ])
    spent += operands * across * (each[Action.ROW_SUM] + each[Action.LINE_BUFFER])
    spent += _SLICES * pixels * rows * across * each[Action.FEED_SLICE]
    return times * spent
