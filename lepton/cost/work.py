"""What the timing needs of each instruction beforehand, from the records alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.isa.declaration import BY_MNEMONIC
from lepton.isa.encoding import COLUMNS
from lepton.isa.footprints import Space, ends

__all__ = ["bank_masks", "transfer_columns"]

I64 = NDArray[np.int64]


def bank_masks(boxes: I64, count: int, space: Space, bank_size: int) -> tuple[I64, I64]:
    """Return the masks of a space's banks that each instruction reads and writes."""
    mine = boxes[boxes[:, 1] == space]
    low_bit = mine[:, 3] // bank_size
    high_bit = (ends(mine) - 1) // bank_size
    one = np.ones_like(low_bit)
    mask = np.left_shift(one, high_bit + 1) - np.left_shift(one, low_bit)
    masks = np.zeros((2, count), np.int64)
    for write in (0, 1):
        chosen = mine[:, 2] == write
        np.bitwise_or.at(masks[write], mine[chosen, 0], mask[chosen])
    return masks[0], masks[1]


def transfer_columns(table: I64) -> dict[str, I64]:
    """Return the walk of each transfer through its memory, contiguous dimensions merged."""
    column = {name: table[:, COLUMNS[name]] for name in COLUMNS}
    is_weights = table[:, 0] == BY_MNEMONIC["weights"].opcode
    run = np.where(is_weights, column["stream_bytes"], column["row_bytes"])
    rows = np.where(is_weights, 1, column["rows"])
    planes = np.where(is_weights, 1, column["planes"])
    row_pitch, plane_pitch = column["scratchpad_row_pitch"], column["scratchpad_plane_pitch"]
    plane_stride = column["plane_stride"]
    is_dense = (column["row_stride"] == run) & (row_pitch == run)
    merge = ((rows == 1) | is_dense) & ~is_weights
    whole = np.where(merge, run * rows, run)
    rows = np.where(merge, 1, rows)
    is_solid = (plane_stride == whole) & (plane_pitch == whole)
    merge &= (planes == 1) | is_solid
    return {
        "memory": column["memory"],
        "address": column["address"],
        "run": np.where(merge, whole * planes, whole),
        "rows": rows,
        "row_stride": column["row_stride"],
        "planes": np.where(merge, 1, planes),
        "plane_stride": plane_stride,
        "scratchpad": column["scratchpad"],
        "row_pitch": row_pitch,
        "plane_pitch": plane_pitch,
        "expanded": np.where(is_weights, column["reduction"] * column["columns"], 0),
    }


