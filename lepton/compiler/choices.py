"""What the emissions of one model for one chip share, and the choices that tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar, cast

from lepton.chip import Chip
from lepton.compiler.graph import Node
from lepton.compiler.stored import StoredWeights

__all__ = ["MOST_RANKS", "Choices"]

P = TypeVar("P")

MOST_RANKS = 8
"""Plans of a node among which a choice can be made."""


class Choices:
    """Encoded weights and ranked plans, each worked out once; and which plan each node takes."""

    def __init__(self, chip: Chip) -> None:
        self.streams = StoredWeights(chip.weight_buffer.decoder_bytes_per_cycle)
        self.apart = False
        """Whether every layer is computed by itself."""
        self.rates: dict[int, tuple[float, float]] = {}
        """Of the chip's memories, for all that counts its traffic."""
        self._ranks: dict[int, int] = {}
        self._plans: dict[Hashable, tuple[Node, Sequence[object]]] = {}

    def take(self, node: Node, rank: int) -> None:
        """Let a node take its plan of this rank from now on; 0 is the one that looks best."""
        self._ranks[id(node)] = rank

    def rank(self, node: Node) -> int:
        """Return the rank of the plan that a node takes."""
        return self._ranks.get(id(node), 0)

    def plan(
        self,
        node: Node,
        key: tuple[Hashable, ...],
        candidates: Callable[[], Iterable[tuple[float, Hashable, P]]],
    ) -> P | None:
        """Return the plan that a node takes, None if it has none.

        Args:
            node: whose plan.
            key: what the candidates depend on besides the node.
            candidates: gives cost, shape and plan of each; of one shape only the cheapest counts.
        """
        whole = (id(node), *key)
        if whole not in self._plans:
            cheapest: dict[Hashable, P] = {}
            for _, shape, plan in sorted(candidates(), key=lambda candidate: candidate[0]):
                cheapest.setdefault(shape, plan)
            # the node is kept, so that no other can have its id
            self._plans[whole] = node, list(cheapest.values())[:MOST_RANKS]
        plans = self._plans[whole][1]
        return cast(P, plans[min(self.rank(node), len(plans) - 1)]) if plans else None
