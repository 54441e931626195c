"""The chip as one NamedTuple of scalars, as kernels take it."""

from __future__ import annotations

from typing import NamedTuple

from lepton.chip import Chip, Dataflow

__all__ = ["CostScalars", "cost_scalars"]


class CostScalars(NamedTuple):
    """What the closed forms need of a chip."""

    rows: int
    columns: int
    """Columns of one array."""
    all_columns: int
    """Columns of all arrays side by side."""
    dataflow: int
    """Its number in `Dataflow`."""
    overlap: bool
    dealt: int
    """Arrays among which the pixels of a matmul can be dealt, 1 where they are not."""
    feed_words: int
    issue_cycles: int
    lanes: int
    latency_cycles: int
    softmax_cycles_per_element: int
    port_bytes: int
    banks: int
    decoder_bytes_per_cycle: int
    entropy_lanes: int


def cost_scalars(chip: Chip) -> CostScalars:
    """Return the scalars of a chip."""
    return CostScalars(
        rows=chip.array.rows,
        columns=chip.array.columns,
        all_columns=chip.columns,
        dataflow=list(Dataflow).index(chip.array.dataflow),
        overlap=chip.array.overlap,
        dealt=chip.array.count if chip.array.deals_pixels and chip.array.is_pipelined else 1,
        feed_words=chip.array.feed_words,
        issue_cycles=chip.array.issue_cycles,
        lanes=chip.vector.lanes,
        latency_cycles=chip.vector.latency_cycles,
        softmax_cycles_per_element=chip.vector.softmax_cycles_per_element,
        port_bytes=chip.scratchpad.port_bytes,
        banks=chip.scratchpad.banks,
        decoder_bytes_per_cycle=chip.weight_buffer.decoder_bytes_per_cycle,
        entropy_lanes=chip.weight_buffer.entropy_lanes,
    )
