"""A placement as a text and as plain types."""

from __future__ import annotations

from lepton.program import one_line
from lepton.report.names import shorten, tidy_names
from lepton.runtime.placement import Goal
from lepton.runtime.plan import Plan
from lepton.runtime.timeline import timeline_of

__all__ = ["placement_json", "placement_text"]

_UNITS = {
    Goal.LATENCY: ("ms", 1e-6),
    Goal.ENERGY: ("mJ", 1e-9),
    Goal.THROUGHPUT: ("ms per inference", 1e-6),
}
"""What the values of a goal are shown in, and that many of the problem's own units."""


def _shown(value: int, goal: Goal) -> str:
    unit, scale = _UNITS[goal]
    return f"{value * scale:,.3f} {unit}"


def placement_text(plan: Plan, why: bool = False) -> str:
    """Return a placement as text.

    Args:
        plan: the placement.
        why: also one line per layer: its cost on each device, and why some cannot run it.
    """
    goal, schedule = plan.goal, plan.schedule
    solution = plan.solution
    value = schedule.value(goal)
    proof = "none is better" if not solution.gap else f"at most {solution.gap:.1%} above the best"
    lines = [
        f"{one_line(plan.network.name)}: {goal} {_shown(value, goal)} predicted, "
        f"{len(plan.regions)} regions; {solution.method}, {proof}",
        *(
            f"  {name} first, the others where it cannot: {_shown(other, goal)}, "
            f"{other / max(value, 1):.2f}x"
            for name, other in plan.others.items()
        ),
        "",
        *(_region_lines(plan)),
        "",
        timeline_of(plan, schedule).text(),
    ]
    if why:
        lines += ["", *_why_lines(plan)]
    return "\n".join(lines)


def _region_lines(plan: Plan) -> list[str]:
    """Return a line per region."""
    units = plan.network.units
    names = tidy_names([unit.name for unit in units])
    lines = [f"{'device':8} {'clock':9} {'layers':>6} {'ms':>9}  from, to"]
    for region in plan.regions:
        device = plan.devices[region.device]
        taken = sum(plan.cost_ns[unit][region.device] or 0 for unit in region.units)
        ends = dict.fromkeys((names[region.units[0]], names[region.units[-1]]))
        shown = ", ".join(shorten(name, 36) for name in ends)
        lines.append(
            f"{device.name:8} {device.clock:9} {len(region.units):6} {taken / 1e6:9.3f}  {shown}"
        )
    return lines


def _why_lines(plan: Plan) -> list[str]:
    """Return a line per layer."""
    names = tidy_names([unit.name for unit in plan.network.units])
    heads = " ".join(f"{device.name + ' ms':>10}" for device in plan.devices)
    lines = [f"{'layer':32} {'operator':18} {'device':8} {heads}  why not elsewhere"]
    for number, unit in enumerate(plan.network.units):
        costs = " ".join(
            f"{'-':>10}" if cost is None else f"{cost / 1e6:10.4f}" for cost in plan.cost_ns[number]
        )
        chosen = plan.devices[plan.placement[number]].name
        lines.append(
            f"{shorten(names[number], 32):32} {unit.kind:18} {chosen:8} {costs}  "
            f"{_reason(plan, number)}".rstrip()
        )
    return lines


def _reason(plan: Plan, number: int) -> str:
    """Return why a unit is not on another device."""
    made: list[str] = []
    chosen = plan.placement[number]
    own = plan.cost_ns[number][chosen]
    for at, device in enumerate(plan.devices):
        other = plan.cost_ns[number][at]
        if at == chosen:
            continue
        if other is None:
            reason = plan.reasons[at][number] or "it refused the region"
            made.append(f"{device.name}: {reason}")
        elif own is not None and other < own:
            made.append(f"{device.name}: faster alone, but not with the way there")
    return "; ".join(made)


def placement_json(plan: Plan) -> dict[str, object]:
    """Return a placement as JSON types."""
    names = [device.name for device in plan.devices]
    schedule = plan.schedule
    return {
        "model": plan.network.name,
        "objective": str(plan.goal),
        "devices": {device.name: str(device.clock) for device in plan.devices},
        "latency_milliseconds": schedule.latency_ns / 1e6,
        "period_milliseconds": schedule.period_ns / 1e6,
        "energy_joules": schedule.energy_pj * 1e-12 if plan.goal is Goal.ENERGY else None,
        "method": plan.solution.method,
        "gap": plan.solution.gap,
        "relative_to_priority": {
            name: other / max(schedule.value(plan.goal), 1) for name, other in plan.others.items()
        },
        "regions": [
            {"device": names[region.device], "layers": len(region.units),
             "inputs": list(region.inputs), "outputs": list(region.outputs)}
            for region in plan.regions
        ],
        "layers": [
            {"name": unit.name, "op": unit.kind, "device": names[plan.placement[number]],
             "cost_milliseconds": {
                 name: None if cost is None else cost / 1e6
                 for name, cost in zip(names, plan.cost_ns[number], strict=True)
             },
             "reason": _reason(plan, number)}
            for number, unit in enumerate(plan.network.units)
        ],
        "timeline": timeline_of(plan, schedule).to_json(),
        "notes": list(plan.notes),
    }  # fmt: skip
