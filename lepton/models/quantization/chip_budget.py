"""Bits of each layer, chosen under a budget that programs for a chip are measured against."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, permutations
from pathlib import Path
from typing import TypeAlias

from lepton.errors import InputError
from lepton.models.quantization.mixed_precision import Layer, least_loss
from lepton.program.files import atomic_write

__all__ = ["Chosen", "CostNotes", "choose_bits"]

Bits: TypeAlias = dict[str, int]
Table: TypeAlias = dict[str, dict[int, int]]
"""Layer -> bits -> by how much the cost differs from that of an assignment if only it has these."""

_TIGHTENINGS = 8
"""Tries to reach the budget from one table, whose costs do not just add up."""
_ROUNDS = 4
"""Tables from the best assignment so far, where costs do not add up."""
_EXCHANGES = 40
"""Assignments that are evaluated to better the best one."""
_ADDITIVE = 0.02
"""Of the range of costs: a table that is as wrong as this is trusted."""


@dataclass(frozen=True)
class Chosen:
    """Bits within a budget.

    Attributes:
        bits: by layer.
        cost: that was evaluated.
        loss: sum of the layers' losses.
        evaluations: assignments whose cost was asked for.
    """

    bits: Bits
    cost: int
    loss: float
    evaluations: int


@dataclass
class CostNotes:
    """Costs that are known, in a file too if one is named, so that no run asks again.

    Attributes:
        evaluate: bits by layer -> cost.
        path: of the file.
        unit: of the costs, for messages: `cycles on nano`.
    """

    evaluate: Callable[[Mapping[str, int]], int]
    path: Path | None = None
    unit: str = "of cost"
    known: dict[tuple[int, ...], int] = field(default_factory=dict[tuple[int, ...], int])

    def __post_init__(self) -> None:
        if self.path is None or not self.path.exists():
            return
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))
            self.known |= {tuple(bits): int(cost) for bits, cost in rows}
        except (ValueError, TypeError, OSError):
            raise InputError(f"{self.path}: damaged; remove it, and it is made again") from None

    def cost(self, bits: Mapping[str, int]) -> int:
        """Return the cost of an assignment."""
        key = tuple(bits.values())
        if key not in self.known:
            self.known[key] = self.evaluate(bits)
            if self.path is not None:
                rows = [[list(each), cost] for each, cost in self.known.items()]
                atomic_write(self.path, json.dumps(rows).encode())
        return self.known[key]


def choose_bits(layers: Mapping[str, Layer], budget: int, costs: CostNotes) -> Chosen:
    """Choose bits of little total loss whose cost, as the chip has it, is within a budget.

    minimize sum_i loss_i(b_i) subject to cost(b) <= budget. The cost need not be a sum over layers,
    but is near one: what one layer alone changes of it is asked for, from the assignment of the
    least loss and, where that does not predict the cost, from the cheapest one and then from the
    best one found. By each of these tables the knapsack problem is solved exactly, and its answer
    evaluated; what is too dear is solved again with as much less to spend. At last one or two
    layers at a time are changed, for as long as an evaluated assignment within the budget has less
    loss.

    Source: Yao et al., HAWQ-V3, ICML 2021, arXiv:2011.10680 (an integer program over layers whose
    latencies are measured on the hardware, one table for each); Dudzinski and Walukiewicz,
    European Journal of Operational Research 28(1), 1987 (the exact solution).

    Args:
        layers: by name.
        budget: bytes or cycles, or another unit of the costs.
        costs: of assignments.

    Raises:
        InputError: no assignment that was evaluated fits; the message has the least cost found.
    """
    search = _Search(layers, budget, costs)
    top = {name: _best(layer, layer.losses) for name, layer in layers.items()}
    if search.cost(top) > budget:
        search.descend(top)
        search.exchange()
    found = search.best()
    if found is None:
        raise InputError(
            f"a budget of {budget:,} {costs.unit} cannot be met: the least that was reached is "
            f"{min(search.seen.values()):,}"
        )
    return Chosen(found, search.cost(found), search.loss(found), len(search.seen))


def _best(layer: Layer, costs: Mapping[int, float]) -> int:
    """Return the bits of the least cost, then of the least loss, then the fewest."""
    return min(layer.losses, key=lambda bits: (costs[bits], layer.losses[bits], bits))


def _nearest(layer: Layer, bits: int) -> int:
    """Return the layer's choice next to a number of bits, the fewer of two."""
    return min(layer.losses, key=lambda choice: (abs(choice - bits), choice))


@dataclass(frozen=True)
class _Search:
    """One search: what it chooses among, and what it has asked for."""

    layers: Mapping[str, Layer]
    budget: int
    costs: CostNotes
    seen: dict[tuple[int, ...], int] = field(default_factory=dict[tuple[int, ...], int])
    tables: list[Table] = field(default_factory=list[Table])

    def cost(self, bits: Bits) -> int:
        cost = self.seen[tuple(bits.values())] = self.costs.cost(bits)
        return cost

    def loss(self, bits: Mapping[str, int]) -> float:
        return sum(layer.losses[bits[name]] for name, layer in self.layers.items())

    def best(self) -> Bits | None:
        """Return the assignment of the least loss among those that fit, the cheapest of equals."""
        fitting = [
            (self.loss(dict(zip(self.layers, bits, strict=True))), cost, bits)
            for bits, cost in self.seen.items()
            if cost <= self.budget
        ]
        return dict(zip(self.layers, min(fitting)[2], strict=True)) if fitting else None

    def table(self, start: Bits) -> Table:
        """Return what each layer alone changes of an assignment's cost."""
        whole = self.cost(start)
        made = {
            name: {bits: self.cost({**start, name: bits}) - whole for bits in layer.losses}
            for name, layer in self.layers.items()
        }
        self.tables.append(made)
        return made

    def descend(self, top: Bits) -> None:
        """Evaluate what the knapsack problem's solutions by one or two tables are."""
        table = self.table(top)
        floor = {name: _best(layer, table[name]) for name, layer in self.layers.items()}
        fewest = {name: min(layer.losses) for name, layer in self.layers.items()}
        whole = self.cost(top)
        wrong = max(
            self.tighten(top, table),
            *(
                abs(self.cost(low) - whole - sum(table[name][bits] for name, bits in low.items()))
                for low in (floor, fewest)
            ),
        )
        floor = min(floor, fewest, key=self.cost)
        if wrong <= _ADDITIVE * (whole - self.cost(floor)):
            return
        self.tighten(floor, self.table(floor))
        for count in sorted({bits for layer in self.layers.values() for bits in layer.losses}):
            alike = {name: _nearest(layer, count) for name, layer in self.layers.items()}
            self.cost(alike)
        for _ in range(_ROUNDS):
            found = self.best()
            if found is None:
                return
            self.tighten(found, self.table(found))
            if self.best() == found:
                return

    def tighten(self, start: Bits, table: Table) -> int:
        """Evaluate solutions by a table until one fits; return how wrong the first cost was."""
        whole = self.cost(start)
        room, wrong = self.budget - whole, self.budget
        for number in range(_TIGHTENINGS):
            bits = least_loss(self.layers, table, room)
            if bits is None:
                break
            real = self.cost(bits)
            if not number:
                wrong = abs(real - whole - sum(table[name][bits[name]] for name in bits))
            if real <= self.budget:
                break
            room -= real - self.budget
        return wrong

    def exchange(self) -> None:
        """Better the best assignment by one or two layers at a time."""
        found, tries = self.best(), _EXCHANGES
        while found is not None:
            moves = islice(self.moves(found), tries)
            found = None
            for bits in moves:
                tries -= 1
                if self.cost(bits) <= self.budget:
                    found = bits
                    break

    def moves(self, bits: Bits) -> Iterator[Bits]:
        """Yield what one or two layers change to less loss: first what a table says to fit."""
        changes: list[tuple[bool, float, Bits]] = []
        now = self.cost(bits)
        for move in self.changes(bits):
            gained = sum(self.layers[n].losses[b] - self.layers[n].losses[bits[n]]
                         for n, b in move.items())  # fmt: skip
            if gained >= 0:
                continue
            fits = any(
                now + sum(table[n][b] - table[n][bits[n]] for n, b in move.items()) <= self.budget
                for table in self.tables
            )
            if fits or len(move) == 1:
                changes.append((not fits, gained, move))
        for _, _, move in sorted(changes, key=lambda change: change[:2]):
            yield {**bits, **move}

    def changes(self, bits: Bits) -> Iterator[Bits]:
        """Yield other bits of one layer, then more of one and fewer of another."""
        for name, layer in self.layers.items():
            yield from ({name: other} for other in layer.losses if other != bits[name])
        for one, other in permutations(bits, 2):
            for more in self.layers[one].losses:
                if more > bits[one]:
                    others = (b for b in self.layers[other].losses if b != bits[other])
                    yield from ({one: more, other: b} for b in others)
