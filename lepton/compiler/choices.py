"""What the emissions of one model for one chip share, and the choices that tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar, cast

from lepton.chip import Chip
from lepton.codec import Decoder
from lepton.compiler.cache import CompilerCache, Plans
from lepton.compiler.graph import Node
from lepton.compiler.packed_share import PackedShares
from lepton.compiler.stored import LEAST_ALIGN, StoredWeights, coding_preference
from lepton.program import Objective

__all__ = ["MOST_RANKS", "ChoiceState", "Choices", "Division", "DivisionKey", "Ranking"]

P = TypeVar("P")

MOST_RANKS = 8
"""Plans of a node among which a choice can be made."""


class Ranking(NamedTuple):
    """The plans of a node, the one that looks best first, and which of them is taken."""

    plans: tuple[tuple[float, object], ...]
    """Estimated cost of the node alone in the objective's unit, and the plan."""
    taken: int


class Division(NamedTuple):
    """How the scratchpad is divided between tiles and what stays inside."""

    share: float
    """Of the scratchpad, for tiles."""
    views: bool
    """Whether parts of concatenations' results and split tensors lie in the whole."""
    replaces: bool
    """Whether element-wise results take the place of operands that are read no more."""


class DivisionKey(NamedTuple):
    """What a division was chosen for."""

    work: int
    """The identity of a core's work in a region."""
    leaves_room: bool
    """To copies of weights."""


class ChoiceState(NamedTuple):
    """The choices at one time."""

    apart: bool
    adds_apart: bool
    ranks: dict[int, int]
    divisions: dict[DivisionKey, Division]


class Choices:
    """Encoded weights, ranked plans, which of them each node takes, divisions of the scratchpad."""

    def __init__(
        self,
        chip: Chip,
        objective: Objective = Objective.LATENCY,
        cache: CompilerCache | None = None,
    ) -> None:
        """Make choices for a chip by what is minimized, with what earlier compilations found."""
        known = cache or CompilerCache()
        self.objective = objective
        preference = coding_preference(chip, objective)
        self.streams = StoredWeights(Decoder.of(chip), known.streams, preference)
        if objective == Objective.SIZE:
            self.streams.align = LEAST_ALIGN
        self.packed = PackedShares(chip)
        self.divisions: dict[DivisionKey, Division] = {}
        """Of the scratchpad, by what they were chosen for."""
        self.other_divisions: dict[DivisionKey, tuple[Division, ...]] = {}
        """Of the same, one for each other share, the one that looks best first; one may be too
        small for its tiles."""
        self.apart = False
        """Whether no layers are computed depth first."""
        self.adds_apart = False
        """Whether no element-wise function is computed tile by tile with a convolution."""
        self.kinds: set[type] = set()
        """Of the groups of layers that were computed together in any emission."""
        self._ranks: dict[int, int] = {}
        self._chip = chip
        self._schedules = known.schedules
        self._plans: dict[Hashable, Plans] = {}
        self._last: dict[int, Hashable] = {}

    @property
    def state(self) -> ChoiceState:
        """The choices as they are now."""
        return ChoiceState(self.apart, self.adds_apart, dict(self._ranks), dict(self.divisions))

    def restore(self, state: ChoiceState) -> None:
        """Choose as at an earlier time."""
        self.apart, self.adds_apart = state.apart, state.adds_apart
        self._ranks, self.divisions = dict(state.ranks), dict(state.divisions)

    def divide_alike(self) -> bool:
        """Divide the scratchpad beside copies of weights as without them.

        Return whether that is another division than the one that looked best beside copies.
        """
        before = dict(self.divisions)
        for key, division in before.items():
            if not key.leaves_room:
                self.divisions[key._replace(leaves_room=True)] = division
        return self.divisions != before

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
        candidates: Callable[[Chip], Iterable[tuple[float, Hashable, P]]],
    ) -> P | None:
        """Return the plan that a node takes, None if it has none.

        Args:
            node: whose plan.
            key: all that the candidates depend on but for the chip; nodes of one key are alike.
            candidates: gives cost, shape and plan of each; of one shape only the cheapest counts.
        """
        if key not in self._plans:
            self._plans[key] = self._schedules.plans(
                (self.objective, *key), self._chip, lambda chip: _ranked(candidates(chip))
            )
        self._last[id(node)] = key
        plans = self._plans[key]
        return cast(P, plans[min(self.rank(node), len(plans) - 1)][1]) if plans else None

    def ranking(self, node: Node) -> Ranking | None:
        """Return the plans among which a node chose when it was emitted last, None if it did not.

        The groups of a convolution choose alike.
        """
        if id(node) not in self._last:
            return None
        plans = tuple(self._plans[self._last[id(node)]])
        return Ranking(plans, min(self.rank(node), len(plans) - 1)) if plans else None


def _ranked(candidates: Iterable[tuple[float, Hashable, P]]) -> Plans:
    """Return the cheapest plan of each shape, the cheapest of all first, as many as are ranked."""
    cheapest: dict[Hashable, tuple[float, P]] = {}
    for cost, shape, plan in sorted(candidates, key=lambda candidate: candidate[0]):
        cheapest.setdefault(shape, (cost, plan))
    return list(cheapest.values())[:MOST_RANKS]
