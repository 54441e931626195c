"""Why each layer runs where and as it does: device, unit, bound, what decided, the runner-up.

What is on the host is there for a rule. What is on the NPU takes the time of the queue that it
occupies longest, by the estimate of the whole program (`lepton.cost.estimate`); its tiles are the
planner's, whose costs are those of the layer alone (`lepton.compiler.schedules`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from lepton.compiler.schedules import COST_MODEL, Schedule
from lepton.cost.estimate import Estimate
from lepton.program import Objective, Operator, Program, one_line
from lepton.report.attribution import attribute, computing_unit
from lepton.report.estimated import estimated_trace
from lepton.report.names import tidy_names
from lepton.report.summary import bound_of, occupied_cycles

__all__ = ["Why", "why_layers", "why_text"]


@dataclass(frozen=True)
class Why:
    """What decided about one layer.

    Attributes:
        index: number of the operator in the program.
        unit: the unit that computes it: matrix, vector or transfer; "" for none.
        bound: as `lepton.report.summary` has it, by the estimate.
        estimated_cycles: None on the host.
        decided_by: the rule that keeps the layer off the NPU, or the queue it occupies longest.
        occupied_cycles: for how long it occupies that queue; None on the host.
        schedule: its plan and the runner-up, with others where it is computed depth first; None
            where there was no choice.
    """

    index: int
    operator: Operator
    unit: str
    bound: str
    estimated_cycles: int | None
    decided_by: str
    occupied_cycles: int | None
    schedule: Schedule | None

    def to_json(self) -> dict[str, object]:
        """Return plain types."""
        made: dict[str, object] = {
            name: getattr(self, name)
            for name in ("unit", "bound", "estimated_cycles", "decided_by", "occupied_cycles")
        }
        made["reason"] = self.operator.reason
        made["schedule"] = (
            None
            if self.schedule is None
            else {"cost_model": COST_MODEL} | dataclasses.asdict(self.schedule)
        )
        return made


def why_layers(
    program: Program, estimate: Estimate, schedules: Sequence[Schedule]
) -> tuple[Why, ...]:
    """Return what decided about each operator, ends of regions left out."""
    trace = estimated_trace(program, estimate)
    spent = attribute(trace, len(program.operators))
    chosen = {schedule.operator: schedule for schedule in schedules}
    made: list[Why] = []
    for index, operator in enumerate(program.operators):
        if operator.kind == "halt":
            continue
        if operator.device == "host":
            made.append(Why(index, operator, "", "host", None, operator.reason, None, None))
            continue
        causes = dict(zip(spent.causes, spent.table[index].tolist(), strict=True))
        causes = {cause: cycles for cause, cycles in causes.items() if cycles}
        occupied = {queue: n for queue, n in occupied_cycles(trace, index).items() if n}
        queue = max(occupied, key=lambda name: occupied[name], default="")
        made.append(
            Why(
                index=index,
                operator=operator,
                unit=computing_unit(causes),
                bound=bound_of(operator, causes),
                estimated_cycles=sum(causes.values()),
                decided_by=queue,
                occupied_cycles=occupied.get(queue, 0),
                schedule=chosen.get(index),
            )
        )
    return tuple(made)


def why_text(layers: Sequence[Why], objective: Objective = Objective.LATENCY) -> str:
    """Return the layers as text: a line each, and below it what decided."""
    lines = [
        f"optimized for {objective}: plans are compared by {objective.unit}",
        f"cycles of layers are estimated, {objective.unit} of plans are by {COST_MODEL}",
    ]
    names = tidy_names([why.operator.name for why in layers])
    for why, name in zip(layers, names, strict=True):
        is_ruled = why.operator.device == "host" and why.decided_by
        shown = one_line(f"{name}: {why.decided_by}" if is_ruled else name)
        lines.append(f"{why.operator.device:4}  {one_line(why.operator.kind):16} {shown}")
        if why.estimated_cycles is not None:
            lines.append(f"      {_decision(why)}")
        if why.operator.reason and not is_ruled:
            lines.append(f"      {one_line(why.operator.reason)}")
        if why.schedule is not None:
            lines += [f"      {line}" for line in _schedule_lines(why.schedule)]
    return "\n".join(lines)


def _decision(why: Why) -> str:
    """Return what bounds a layer of the NPU."""
    if not why.decided_by:
        return "no instruction: its input's bytes are its output"
    return (
        f"unit {why.unit or 'none'}, bound {why.bound}: {why.estimated_cycles:,} cycles; it "
        f"occupies the {why.decided_by} queue longest, {why.occupied_cycles:,} cycles"
    )


def _schedule_lines(schedule: Schedule) -> list[str]:
    """Return the plan of a layer and the runner-up."""
    why = "better in the whole program" if schedule.searched else "cheapest"
    together = f" for {schedule.layers} layers" if schedule.layers > 1 else ""
    fills = f"; fills {100 * schedule.limit_share:.0f} % of the {schedule.limit}"
    lines = [
        f"plan {schedule.plan}: {schedule.cost:,} {schedule.unit}{together}, {why}"
        f"{fills if schedule.limit else ''}"
    ]
    if schedule.runner_up_cost is None:
        return [*lines, "no other plan fits"]
    change = 100 * (schedule.runner_up_cost / max(schedule.cost, 1) - 1)
    return [
        *lines,
        f"runner-up {schedule.runner_up}: {schedule.runner_up_cost:,} {schedule.unit} "
        f"({change:+.1f} %)",
    ]
