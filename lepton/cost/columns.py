"""Columns of what is known of an instruction before its program runs."""

from __future__ import annotations

__all__ = ["WALK", "WORK"]

WALK = (
    "memory", "address", "run", "rows", "row_stride", "planes", "plane_stride", "scratchpad",
    "row_pitch", "plane_pitch", "decoder",
)  # fmt: skip
"""Columns of a transfer: its memory, the walk through it and through the scratchpad with contiguous
dimensions merged, and the cycles of the decoder; all 0 for other instructions."""

WORK = (
    "queue", "preload", "stream", "last", "drain", "reads", "writes", "reads_sums", "writes_sums",
    *WALK,
)  # fmt: skip
"""The instruction's queue; its cycles as `InstructionCosts` has them; masks of the banks of
scratchpad and accumulators that it reads and writes (docs/timing.md, 8.3); its walk."""

(
    W_QUEUE,
    W_PRELOAD,
    W_STREAM,
    W_LAST,
    W_DRAIN,
    W_READS,
    W_WRITES,
    W_READS_SUMS,
    W_WRITES_SUMS,
    W_MEMORY,
    W_ADDRESS,
    W_RUN,
    W_ROWS,
    W_ROW_STRIDE,
    W_PLANES,
    W_PLANE_STRIDE,
    W_SCRATCHPAD,
    W_ROW_PITCH,
    W_PLANE_PITCH,
    W_DECODER,
) = range(len(WORK))
