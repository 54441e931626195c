"""Which schedules the layers of a model had to choose from, and what limits the chosen one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from lepton.chip import Chip
from lepton.compiler.choices import Choices, Ranking
from lepton.compiler.describe import plan_text
from lepton.compiler.graph import Convolution
from lepton.compiler.lowering.addition import Addition, joined, operands_of
from lepton.compiler.lowering.convolution import DepthwisePlan
from lepton.compiler.lowering.dense_plan import Plan
from lepton.compiler.lowering.grouping import Group
from lepton.compiler.lowering.rows import rows_of
from lepton.compiler.schedule import Emission, RegionWork
from lepton.compiler.schedules import Schedule

__all__ = ["explained"]


def explained(
    works: Sequence[RegionWork], choices: Choices, emission: Emission, chip: Chip
) -> tuple[Schedule, ...]:
    """Return the schedules of the layers that had a choice, of each on the first core it is on."""
    made: list[Schedule] = []
    known: set[int] = set()
    for work, memory in zip(works, emission.memories, strict=True):
        inside = {item.name for item, _ in memory.residents}
        together = {n: group for group in memory.groups.values() for n in group.numbers}
        for number, (operator, node) in enumerate(
            zip(work.operators, work.graph.nodes, strict=False)
        ):
            if operator in known:
                continue
            if number in together:
                known.add(operator)
                room = memory.tile_bytes, inside
                made.append(_group_schedule(operator, together[number], choices, (chip, room)))
                continue
            ranking = choices.ranking(node)
            if ranking is None or not isinstance(node, Convolution):
                continue
            known.add(operator)
            plan = ranking.plans[ranking.taken][1]
            limit, share = _limit(node, plan, chip, (memory.tile_bytes, inside))
            one = _schedule(operator, ranking, choices.objective.unit)
            made.append(replace(one, limit=limit, limit_share=share))
    return tuple(made)


def _schedule(operator: int, ranking: Ranking, unit: str) -> Schedule:
    """Return the schedule of a ranking, without what limits it."""
    cost, plan = ranking.plans[ranking.taken]
    others = [pair for n, pair in enumerate(ranking.plans) if n != ranking.taken]
    return Schedule(
        operator=operator,
        plan=plan_text(plan),
        layers=1,
        cost=round(cost),
        unit=unit,
        searched=ranking.taken > 0,
        limit="",
        limit_share=0.0,
        runner_up=plan_text(others[0][1]) if others else "",
        runner_up_cost=round(others[0][0]) if others else None,
    )


def _group_schedule(
    operator: int, group: Group, choices: Choices, place: tuple[Chip, tuple[int, set[str]]]
) -> Schedule:
    """Return the schedule of a layer that is computed together with others.

    The place is the chip and the scratchpad as `_limit` takes it.
    """
    ranking = choices.ranking(group.chain.members[0])
    assert ranking is not None
    made = _schedule(operator, ranking, choices.objective.unit)
    if group.apart is not None and group.apart < (made.runner_up_cost or math.inf):
        made = replace(made, runner_up="layer by layer", runner_up_cost=round(group.apart))
    if isinstance(group.chain, Addition):
        whole = joined(*group.chain.members)
        limit, share = _limit(whole, ranking.plans[ranking.taken][1], *place)
        made = replace(made, limit=limit, limit_share=share)
    return replace(made, layers=len(group.chain.members))


def _limit(
    node: Convolution, plan: object, chip: Chip, scratchpad: tuple[int, set[str]]
) -> tuple[str, float]:
    """Return the buffer of which a plan fills the largest share, and that share.

    Each buffer holds two of what a tile needs where they fit. The scratchpad is given as the bytes
    for tiles and the names of the tensors that lie elsewhere in it.
    """
    tile = _tile(node, plan)
    if tile is None:
        return "", 0.0
    (height, width, channels, columns), weights, buffer = tile
    pixels = height * width
    ifm = node.inputs[0]
    rows = rows_of(node.window, (height, width), ifm.shape[1:3], channels)
    space, inside = scratchpad
    brought = 0 if ifm.name in inside else (buffer or 2 * rows.window * rows.pitch)
    outside = [tensor for tensor in (node.output, *operands_of(node)) if tensor.name not in inside]
    made = len(outside) * 2 * pixels * columns
    shares = {
        "accumulators": _share(pixels * columns, chip.accumulators.elements),
        "weight buffer": _share(weights, chip.weight_buffer.elements),
        "scratchpad": min((brought + made) / space, 1.0),
    }
    limit = max(shares, key=lambda name: shares[name])
    return limit, shares[limit]


def _share(each: int, size: int) -> float:
    """Return the share of a buffer that two tiles take, or one where two do not fit."""
    return (2 * each if 2 * each <= size else min(each, size)) / size


def _tile(node: Convolution, plan: object) -> tuple[tuple[int, int, int, int], int, int] | None:
    """Return rows, columns, input and output channels of a tile, its weights and row buffer."""
    if isinstance(plan, Plan):
        weights = plan.kernel_rows * node.window.kernel[1] * plan.channels * plan.columns
        size = (plan.height, plan.width, plan.loaded, plan.columns)
        return size, weights, plan.buffer_bytes
    if isinstance(plan, DepthwisePlan):
        outputs = plan.channels * node.output.shape[3] // node.inputs[0].shape[3]
        size = (plan.height, plan.width, plan.channels, outputs)
        return size, math.prod(node.window.kernel) * outputs, plan.buffer_bytes
    return None
