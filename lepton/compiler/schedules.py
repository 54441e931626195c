"""Why each layer is scheduled as it is: the plan taken, what limits it, and the runner-up.

A record of plain values: it crosses from the process that compiles to the one that reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lepton.compiler.activations import Precision
    from lepton.program import Program

__all__ = ["COST_MODEL", "Compiled", "Schedule"]

COST_MODEL = "the planner's closed forms of the layer alone"
"""What the cost of a schedule is by."""


@dataclass(frozen=True)
class Schedule:
    """How a layer is cut into tiles, and what else it could have been.

    Attributes:
        operator: number of the layer's operator in the program.
        plan: the tile, as `field=value` of `lepton.compiler.lowering.plan.Plan`; of layers that are
            computed depth first the step, of `lepton.compiler.lowering.cascade_plan.CascadePlan`.
        layers: how many the plan and its cost are of together.
        cost: of the plan, by `COST_MODEL`.
        unit: of the costs, by what is minimized: cycles, pJ or bytes.
        searched: the plan is not the one that costs least alone: the whole program is better by
            its estimate.
        limit: the buffer that the plan fills most; "" for several layers.
        limit_share: how much of what a tile may take of that buffer, 0 to 1.
        runner_up: the plan that costs least alone among the others, "" if there is no other.
        runner_up_cost: its cost by `COST_MODEL`; None without a runner-up.
    """

    operator: int
    plan: str
    layers: int
    cost: int
    unit: str
    searched: bool
    limit: str
    limit_share: float
    runner_up: str
    runner_up_cost: int | None


@dataclass(frozen=True)
class Compiled:
    """A program, and how it came about.

    Attributes:
        program: what was made.
        schedules: of the layers, if that was asked for.
        precision: of the activations, if it was chosen by a calibration.
    """

    program: Program
    schedules: tuple[Schedule, ...]
    precision: Precision | None = None
