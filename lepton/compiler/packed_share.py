"""How much quicker the array is for the zeros of a layer's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lepton.cost.closed_forms import Walk
from lepton.cost.packed_work import block_cut
from lepton.cost.packing import P_STEP

if TYPE_CHECKING:
    from lepton.chip import Chip
    from lepton.compiler.graph import Convolution

__all__ = ["PackedShares"]

U8 = NDArray[np.uint8]


class PackedShares:
    """Cycles of packed passes over those of all passes, by layer, for one chip."""

    def __init__(self, chip: Chip) -> None:
        self._chip = chip
        self._known: dict[int, tuple[U8, float]] = {}

    def share(self, node: Convolution) -> float:
        """Return the share in hundredths, 1 where nothing is skipped.

        As if the layer were one tile whose words never conflict.
        """
        if self._chip.sparsity is None or node.weight_unsigned or node.weight_zero_point:
            return 1.0
        known = self._known.get(id(node.weights))
        if known is None:
            # the array is kept, so that no other can have its id
            known = self._known[id(node.weights)] = node.weights, self._share(node.weights)
        return known[1]

    def _share(self, weights: U8) -> float:
        rows, columns, array = weights.shape[0], weights.shape[3], self._chip.array
        block = np.ascontiguousarray(weights).reshape(-1, columns)
        run = len(block) // rows
        cut = block_cut(self._chip, block, Walk(run, 1, 0, run))
        every = -(-len(block) // array.rows) * -(-columns // self._chip.columns)
        return min(round(int(cut.passes[:, P_STEP].sum()) / every, 2), 1.0)
