"""Metrics of many points of a space at once, by the closed forms."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.codec import Decoder
from lepton.compiler import graph as ir
from lepton.compiler.cache import Streams
from lepton.compiler.packed_share import PackedShares
from lepton.compiler.steps import FrontModel
from lepton.compiler.stored import StoredWeights
from lepton.explore.analytic.kernel import evaluate_points
from lepton.explore.analytic.machine import COUNT, Machines
from lepton.explore.analytic.network import CROSSINGS, Network
from lepton.explore.metrics import METRICS, combined
from lepton.explore.space import Space

__all__ = ["AnalyticTier", "Evaluated"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Evaluated:
    """What the tier says of n points.

    Attributes:
        metrics: `[n]` each; NaN where the chip contradicts itself.
        cycles: `[n, workloads]`.
        millijoules: `[n, workloads]`.
    """

    metrics: dict[str, F64]
    cycles: F64
    millijoules: F64


class AnalyticTier:
    """Networks, made ready once for all chips."""

    def __init__(self, fronts: Sequence[FrontModel], weights: Sequence[float]) -> None:
        """Take models, and how often each runs."""
        self._networks = [Network(front) for front in fronts]
        self._weights = list(weights)
        self._streams = Streams()
        self._known: dict[Hashable, F64] = {}

    @property
    def networks(self) -> Sequence[Network]:
        """The networks, in order."""
        return self._networks

    def evaluate(self, space: Space, points: I64) -> Evaluated:
        """Return the metrics of points `[n, parameters]`."""
        legal = space.are_legal(points)
        if not legal.any():
            nothing = np.full((len(points), len(self._networks)), np.nan)
            return Evaluated(dict.fromkeys(METRICS, nothing[:, 0]), nothing, nothing)
        machines = Machines(space, points[legal])
        cycles = np.full((len(points), len(self._networks)), np.nan)
        millijoules = cycles.copy()
        clock = machines.column(("array.clock_mhz",), lambda chip: float(chip.array.clock_mhz))
        for number, network in enumerate(self._networks):
            counts = self.counts(network, machines)
            cycles[legal, number] = counts[:, COUNT.CYCLES]
            millijoules[legal, number] = (counts * machines.prices).sum(axis=1) * 1e-9
        milliseconds = cycles[legal] / (1000 * clock[:, None])
        made = combined(machines.chip_metrics, milliseconds, millijoules[legal], self._weights)
        metrics = {name: _spread(values, legal) for name, values in made.items()}
        return Evaluated(metrics, cycles, millijoules)

    def counts(self, network: Network, machines: Machines) -> F64:
        """Return `[n, COUNT.ALL]` of a network on legal chips."""
        held, size = machines.grouped(
            ("scratchpad.size_kib",),
            lambda chip: network.residency(chip.scratchpad.size_bytes),
        )
        shares, decoder = machines.grouped(
            ("weight_buffer", "sparsity", "array", "array.clock_mhz", "memory", "placement"),
            lambda chip: self._shares(network, chip),
        )
        out = np.zeros((len(machines.rows), COUNT.ALL))
        shape = (len(held), len(network.rows), CROSSINGS)
        evaluate_points(
            machines.rows,
            network.rows,
            np.array(shares).reshape(len(shares), len(network.rows), 2),
            np.array([item.tile_share for item in held]),
            np.array([item.counts for item in held]).reshape(shape),
            np.stack([size, decoder], axis=1),
            out,
        )
        return out

    def _shares(self, network: Network, chip: Chip) -> F64:
        """Return `[layers, 2]` what a chip stores of the weights, and issues of their passes."""
        decoder = Decoder.of(chip)
        stored = self._known.get((id(network), decoder))
        if stored is None:
            store = StoredWeights(decoder, self._streams)
            stored = _means(network, lambda node: store.share(node.weights))
            self._known[id(network), decoder] = stored
        key = (id(network), chip.sparsity, chip.array)
        packed = self._known.get(key)
        if packed is None:
            shares = PackedShares(chip)
            packed = _means(network, shares.share)
            self._known[key] = packed
        return np.stack([stored, packed], axis=1)


def _means(network: Network, share: Callable[[ir.Convolution], float]) -> F64:
    """Return the mean share of the convolutions behind each layer, 1 where there are none."""
    return np.array(
        [np.mean([share(node) for node in nodes]) if nodes else 1.0 for nodes in network.members]
    )


def _spread(values: F64, legal: NDArray[np.bool_]) -> F64:
    """Return values at the legal points and NaN at the others."""
    made = np.full(len(legal), np.nan)
    made[legal] = values
    return made
