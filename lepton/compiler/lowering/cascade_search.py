"""The plan of a cascade: which of those that fit the memories costs least."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from lepton.chip import Chip
from lepton.compiler.allocate import TILE_ALIGN
from lepton.compiler.emit import Emitter
from lepton.compiler.lowering.cascade_buffers import buffer_bytes_of
from lepton.compiler.lowering.cascade_cost import cascade_costs
from lepton.compiler.lowering.cascade_plan import (
    Cascade,
    CascadePlan,
    Extents,
    step_extents,
    step_sums,
    weights_of,
)
from lepton.compiler.lowering.plan import likeness, rings_key, room_for_tiles
from lepton.compiler.lowering.rows import rows_of

__all__ = ["cascade_plans", "choose_cascade"]

_MOST_STRIPES = 7
"""Widths to try."""
_MOST_ADVANCES = 4
"""Steps between two moves of a plane's rows to its start, beyond which little is to be won."""


def choose_cascade(cascade: Cascade, emitter: Emitter) -> CascadePlan | None:
    """Return the plan with the least estimated cost, None if none fits."""

    def candidates(chip: Chip) -> Iterator[tuple[float, Hashable, CascadePlan]]:
        seen = emitter.on(chip)
        plans = list(cascade_plans(cascade, seen))
        costs = cascade_costs(cascade, seen, plans).tolist() if plans else []
        for cost, plan in zip(costs, plans, strict=True):
            shape = plan.height, plan.width, plan.channels, plan.chunks_first
            yield cost, shape, plan._replace(cost=cost)

    return emitter.choices.plan(cascade.members[0], _key(cascade, emitter), candidates)


def _key(cascade: Cascade, emitter: Emitter) -> tuple[Hashable, ...]:
    """Return what the plans of a cascade depend on but for the chip."""
    parts = (cascade.expand, cascade.depthwise, cascade.project)
    combine, outer = cascade.combine, (cascade.source, cascade.other, cascade.output)
    return (
        "cascade",
        *(node and likeness(node, emitter) for node in parts),
        combine and (combine.parameters.size, *(tensor.shape for tensor in combine.inputs)),
        *(tensor and tensor.name in emitter.residents for tensor in outer),
        *rings_key(emitter),
    )


def _even_parts(extent: int) -> list[int]:
    """Return sizes of even parts of an extent, the largest first, each at most 0.8 of the last."""
    sizes = [extent]
    for parts in range(2, extent + 1):
        size = -(-extent // parts)
        if size <= 0.8 * sizes[-1]:
            sizes.append(size)
    return sizes


def cascade_plans(cascade: Cascade, emitter: Emitter) -> Iterator[CascadePlan]:
    """Yield the plans that fit."""
    array = emitter.chip.columns
    count = cascade.channels
    _, oh, ow, _ = cascade.depthwise.output.shape
    orders = (False,) if cascade.expand is None or cascade.project is not None else (False, True)
    for channels in sorted({min(count, array * n) for n in (1, 2, 3, 4, 6, 8)} | {count}):
        if not _fits_weights(cascade, emitter, channels):
            continue
        for height in _even_parts(oh):
            for width in _even_parts(ow)[:_MOST_STRIPES]:
                for chunks_first in orders if width == ow else orders[:1]:
                    plan = CascadePlan(height, width, channels, chunks_first)
                    yield from _plan(cascade, emitter, plan)


def _fits_weights(cascade: Cascade, emitter: Emitter, channels: int) -> bool:
    """Return whether the weights of a chunk leave room for those of the next."""
    return 2 * sum(weights_of(cascade, channels)) <= emitter.weights.size


def _plan(cascade: Cascade, emitter: Emitter, shape: CascadePlan) -> Iterator[CascadePlan]:
    """Yield the plans of a shape if it fits."""
    extents = step_extents(cascade, (shape.height, shape.width))
    projected, *sums = step_sums(cascade, extents, shape)
    left = emitter.sums.size - sum(sums) - max(sums)
    if left < projected:
        return
    plan = shape._replace(input_bytes=_input_bytes(cascade, emitter, extents, shape))
    room = room_for_tiles(emitter) - plan.input_bytes - 2 * TILE_ALIGN
    rows = _plane_rows(cascade, extents, plan, room - _buffers(cascade, emitter, plan))
    if rows is None:
        return
    held = min(left // projected, 2) if projected else 0
    for projections in range(min(held, 1), held + 1):
        yield plan._replace(rows=rows, projections=projections)


def _buffers(cascade: Cascade, emitter: Emitter, plan: CascadePlan) -> int:
    return buffer_bytes_of(cascade, plan, emitter.residents)


def _input_bytes(cascade: Cascade, emitter: Emitter, extents: Extents, plan: CascadePlan) -> int:
    """Return the bytes of a buffer for input rows, or 0 if steps have their input to themselves."""
    ifm = cascade.source
    if ifm.name in emitter.residents or not (plan.chunks_first or extents.overlap):
        return 0
    if plan.chunks_first:
        return ifm.size_bytes // ifm.shape[0]
    tile = (plan.height, plan.width)
    if cascade.expand is not None:
        tile = extents.advance, extents.window[1]
    rows = rows_of(cascade.convolutions[0].window, tile, ifm.shape[1:3], ifm.shape[3])
    return rows.bytes_within(max(room_for_tiles(emitter) // 4, rows.least))


def _plane_rows(cascade: Cascade, extents: Extents, plan: CascadePlan, room: int) -> int | None:
    """Return the rows that planes can have in a room; None if there are too few."""
    if room < 0:
        return None
    if cascade.expand is None:
        return 0
    height = cascade.depthwise.inputs[0].shape[1]
    row = extents.window[1] * plan.channels
    if plan.chunks_first:
        return height if height * row + TILE_ALIGN <= room else None
    chunks = -(-cascade.channels // plan.channels)
    left = (room // chunks - TILE_ALIGN) // row - extents.window[0]
    if left < 0:
        return None
    more = min(left // extents.advance, _MOST_ADVANCES)
    return min(extents.window[0] + more * extents.advance, height)
