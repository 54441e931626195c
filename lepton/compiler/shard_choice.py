"""How the nodes of a graph are split over the cores: along a dimension of the output, or not."""

from __future__ import annotations

from collections.abc import Sequence

from lepton.chip import Chip
from lepton.compiler import graph as ir
from lepton.compiler.parts import AXES, axes_of, needs, part_of, split_evenly
from lepton.compiler.shard import Layout

__all__ = ["choices_of", "layout_of", "layouts_of"]

_SWEEPS = 4
_CROSSING_CYCLES = 800
"""Of an exchange on its own: a store, a signal, a load. Ours, measured on `edge`: 500 to 1,000."""

Choice = int | None
"""The dimension that a node is split along, None for all of it on core 0."""


class _Costs:
    """Estimated cycles of nodes and of the exchanges between them."""

    def __init__(self, graph: ir.Graph, chip: Chip) -> None:
        self._chip = chip
        memory = chip.memories[chip.memory_index(chip.placement.activations[0])]
        self._bytes_per_cycle = float(chip.bytes_per_cycle(memory)) / chip.cores
        constants = chip.memories[chip.memory_index(chip.placement.constants)]
        self._weights_per_cycle = float(chip.bytes_per_cycle(constants)) / chip.cores
        self.nodes = graph.nodes
        self._makers = {node.output.name: number for number, node in enumerate(graph.nodes)}
        self.readers: dict[int, list[int]] = {}
        for number, node in enumerate(graph.nodes):
            for tensor in node.inputs:
                if tensor.name in self._makers:
                    self.readers.setdefault(self._makers[tensor.name], []).append(number)
        self._layouts: dict[tuple[int, Choice], Layout | None] = {}
        self._choices: dict[int, list[Choice]] = {}
        self._known: dict[tuple[int, ...], float] = {}

    def maker(self, tensor: str) -> int | None:
        """Return the node that makes a tensor."""
        return self._makers.get(tensor)

    def layout(self, number: int, choice: Choice) -> Layout | None:
        """Return the parts of a node for a choice, or None if it cannot be split so."""
        key = (number, choice)
        if key not in self._layouts:
            self._layouts[key] = layout_of(self.nodes[number], choice, self._chip)
        return self._layouts[key]

    def choices(self, number: int) -> list[Choice]:
        """Return the ways to split a node, not at all the last."""
        if number not in self._choices:
            self._choices[number] = choices_of(self.nodes[number], self._chip)
        return self._choices[number]

    def work(self, number: int, choice: Choice) -> float:
        """Return the cycles of a node's largest part."""
        node, layout = self.nodes[number], self.layout(number, choice)
        assert layout is not None
        chip = self._chip
        whole = node.output.size_bytes
        longest = 0.0
        for part in layout:
            if part is None:
                continue
            size = part.size
            array = node.macs * size / whole / (chip.peak_macs_per_cycle / chip.cores)
            share = 1.0
            weights = 0
            if isinstance(node, ir.Convolution):
                columns = part.c[1] - part.c[0]
                array *= -(-columns // chip.columns) * chip.columns / columns
                share = columns / node.output.shape[3]
                weights = node.weights.size
            vector = size / chip.vector.lanes
            longest = max(longest, array, vector, weights * share / self._weights_per_cycle)
        return longest

    def crossing(self, maker: int, reader: int, made: Choice, read: Choice) -> float:
        """Return the cycles of what a reader's cores need of what others computed."""
        key = (maker, reader, -1 if made is None else made, -1 if read is None else read)
        if key not in self._known:
            self._known[key] = self._crossing(maker, reader, made, read)
        return self._known[key]

    def _crossing(self, maker: int, reader: int, made: Choice, read: Choice) -> float:
        held, wanted = self.layout(maker, made), self.layout(reader, read)
        assert held is not None and wanted is not None
        tensor, node = self.nodes[maker].output, self.nodes[reader]
        position = [item.name for item in node.inputs].index(tensor.name)
        most, copied = 0.0, 0.0
        for k, part in enumerate(wanted):
            if part is None:
                continue
            wanted_parts = needs(node, part)
            assert wanted_parts is not None
            need = wanted_parts[position]
            foreign = 0
            for j, other in enumerate(held):
                common = None if other is None or j == k else other.met(need)
                foreign += 0 if common is None else common.size
            if foreign:
                most, copied = max(most, foreign), max(copied, need.size)
        if not most:
            return 0.0
        moved = 2 * most / self._bytes_per_cycle
        return _CROSSING_CYCLES + moved + copied / self._chip.vector.lanes


def choices_of(node: ir.Node, chip: Chip) -> list[Choice]:
    """Return the dimensions along which a chip's cores can split a node, and None."""
    return [*(axis for axis in axes_of(node) if layout_of(node, axis, chip) is not None), None]


def layout_of(node: ir.Node, choice: Choice, chip: Chip) -> Layout | None:
    """Return the parts of a node, or None if one of them would be empty or read nothing."""
    whole = part_of(node.output)
    if choice is None:
        return [whole, *[None] * (chip.cores - 1)]
    step = chip.columns if choice == 3 else 1
    spans = split_evenly(node.output.shape[choice], chip.cores, step)
    if spans is None:
        return None
    parts = [whole.with_span(choice, span) for span in spans]
    return None if any(needs(node, part) is None for part in parts) else parts


def _first_choices(costs: _Costs, preferred: Sequence[int]) -> list[Choice]:
    """Return the first of the preferred dimensions that each node can be split along."""
    made: list[Choice] = []
    for number in range(len(costs.nodes)):
        possible = costs.choices(number)
        made.append(next((axis for axis in preferred if axis in possible), None))
    return made


def _around(costs: _Costs, choices: Sequence[Choice], number: int, choice: Choice) -> float:
    """Return the cycles that depend on the choice of one node."""
    total = costs.work(number, choice)
    for tensor in costs.nodes[number].inputs:
        maker = costs.maker(tensor.name)
        if maker is not None:
            total += costs.crossing(maker, number, choices[maker], choice)
    for reader in costs.readers.get(number, []):
        total += costs.crossing(number, reader, choice, choices[reader])
    return total


def _total(costs: _Costs, choices: Sequence[Choice]) -> float:
    total = 0.0
    for number, choice in enumerate(choices):
        total += costs.work(number, choice)
        for reader in costs.readers.get(number, []):
            total += costs.crossing(number, reader, choice, choices[reader])
    return total


def _improved(costs: _Costs, choices: list[Choice]) -> list[Choice]:
    """Return choices of which none alone can be bettered, or what some sweeps make of them."""
    choices = list(choices)
    for _ in range(_SWEEPS):
        before = list(choices)
        for number in range(len(choices)):
            choices[number] = min(
                costs.choices(number),
                key=lambda choice: _around(costs, choices, number, choice),
            )
        if choices == before:
            break
    return choices


def layouts_of(graph: ir.Graph, chip: Chip) -> list[list[Layout]]:
    """Return ways to split a graph: of each the parts of every node on every core.

    The first has the least estimated cycles. The estimate knows each node and exchange alone, not
    what overlaps; so splits along one dimension as far as it goes, improved or not, come behind it.
    """
    costs = _Costs(graph, chip)
    starts = [_first_choices(costs, order) for order in (AXES, (1, 2, 3), (3, 1, 2), ())]
    improved = [_improved(costs, start) for start in starts]
    ranked = sorted([*improved, *starts], key=lambda found: _total(costs, found))
    made: list[list[Layout]] = []
    for found in dict.fromkeys(tuple(choices) for choices in ranked):
        layouts = [costs.layout(number, choice) for number, choice in enumerate(found)]
        made.append([layout for layout in layouts if layout is not None])
    return made
