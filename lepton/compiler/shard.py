"""One graph for each core of a chip: every node is cut, and what cores need of each other crosses.

A core's graph is an ordinary one. What it computes and another needs is an output of it, at an
address of its own in a memory, and an input of the other's; semaphores from footprints order both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lepton.chip import Chip
from lepton.chip.description import Flat, Memory
from lepton.compiler import graph as ir
from lepton.compiler.parts import AXES, Part, cut, is_stretch, needs, part_of

__all__ = ["EXCHANGED", "CoreGraph", "Layout", "Sharded", "Stretch", "core_of", "shard"]

EXCHANGED = "@>"
"""Ends the name of a tensor that goes from core to core."""

Layout = Sequence[Part | None]
"""The part of a node's output that each core computes."""


@dataclass(frozen=True)
class Stretch:
    """A tensor that is a stretch of another one that lies in a memory."""

    of: str
    offset: int


@dataclass(frozen=True)
class CoreGraph:
    """What a core computes; of each node the number of its source, and when it comes."""

    graph: ir.Graph
    sources: tuple[int, ...]
    turns: tuple[int, ...]
    """Ascending; nodes of all cores in this order are in topological order."""


@dataclass(frozen=True)
class Sharded:
    """A graph cut up for several cores.

    Attributes:
        cores: a graph for each.
        exchanged: bytes of the tensors that go from core to core, by name.
        views: tensors that are part of one that crosses the region's edge, by name.
    """

    cores: tuple[CoreGraph, ...]
    exchanged: dict[str, int]
    views: dict[str, Stretch]


@dataclass
class _Core:
    """The graph of a core while it grows."""

    nodes: list[ir.Node] = field(default_factory=list[ir.Node])
    sources: list[int] = field(default_factory=list[int])
    turns: list[int] = field(default_factory=list[int])
    inputs: dict[str, ir.Tensor] = field(default_factory=dict[str, ir.Tensor])
    outputs: dict[str, ir.Tensor] = field(default_factory=dict[str, ir.Tensor])
    held: dict[str, tuple[Part, ir.Tensor]] = field(
        default_factory=dict[str, tuple[Part, ir.Tensor]]
    )
    """The part of each tensor that the core has computed."""
    gathered: dict[tuple[str, Part], ir.Tensor] = field(
        default_factory=dict[tuple[str, Part], ir.Tensor]
    )


class _Cutter:
    """Cuts a graph by the layout of every node."""

    def __init__(self, graph: ir.Graph, layouts: Sequence[Layout]) -> None:
        self._graph, self._layouts = graph, layouts
        self._cores = [_Core() for _ in layouts[0]]
        self._inputs = {tensor.name: tensor for tensor in graph.inputs}
        self._exchanged: dict[str, int] = {}
        self._views: dict[str, Stretch] = {}
        self._turn = self._source = 0

    def run(self) -> Sharded:
        """Return the cut graph."""
        outputs = {tensor.name for tensor in self._graph.outputs}
        for number, node in enumerate(self._graph.nodes):
            self._source = number
            self._cut(node, self._layouts[number], node.output.name in outputs)
        graphs = tuple(
            CoreGraph(
                ir.Graph(
                    tuple(core.nodes), tuple(core.inputs.values()), tuple(core.outputs.values()),
                    self._graph.names,
                ),
                tuple(core.sources),
                tuple(core.turns),
            )
            for core in self._cores
        )  # fmt: skip
        return Sharded(graphs, self._exchanged, self._views)

    def _cut(self, node: ir.Node, layout: Layout, is_output: bool) -> None:
        """Add a node's parts to the cores, behind what they need of each other."""
        ready = [
            None if part is None else self._gather_all(node, k, part)
            for k, part in enumerate(layout)
        ]
        lies_together = all(p is None or is_stretch(node.output.shape, p) for p in layout)
        for k, (part, inputs) in enumerate(zip(layout, ready, strict=True)):
            if part is None or inputs is None:
                continue
            output = _renamed(node.output, f"{node.output.name}@{k}", part)
            if is_output and lies_together:
                output = self._as_output(k, node.output, part)
            self._add(k, cut(node, part, inputs, output))
            self._cores[k].held[node.output.name] = part, output
        if is_output and not lies_together:
            whole = part_of(node.output)
            joined = self._gather(node.output, 0, whole)
            made = _renamed(node.output, node.output.name, whole)
            self._add(0, ir.Reshape(name=node.name, inputs=(joined,), output=made))
            self._cores[0].outputs[made.name] = made

    def _add(self, k: int, node: ir.Node) -> None:
        core = self._cores[k]
        core.nodes.append(node)
        core.sources.append(self._source)
        core.turns.append(self._turn)
        self._turn += 1

    def _as_output(self, k: int, tensor: ir.Tensor, part: Part) -> ir.Tensor:
        """Return a core's part of a tensor that leaves the region, in its place there."""
        made = self._view(tensor, part)
        self._cores[k].outputs[made.name] = made
        return made

    def _view(self, tensor: ir.Tensor, part: Part) -> ir.Tensor:
        """Return a stretch of a tensor that lies in a memory as a tensor."""
        if part == part_of(tensor):
            return tensor
        _, h, w, c = tensor.shape
        name = f"{tensor.name}@{part.text}"
        first = ((part.n[0] * h + part.y[0]) * w + part.x[0]) * c + part.c[0]
        self._views[name] = Stretch(tensor.name, first)
        return _renamed(tensor, name, part)

    def _gather_all(self, node: ir.Node, k: int, part: Part) -> tuple[ir.Tensor, ...]:
        """Return what a core needs for its part of a node."""
        wanted = needs(node, part)
        assert wanted is not None
        return tuple(
            self._gather(tensor, k, need) for tensor, need in zip(node.inputs, wanted, strict=True)
        )

    def _gather(self, tensor: ir.Tensor, k: int, part: Part) -> ir.Tensor:
        """Return a part of a tensor on a core."""
        core = self._cores[k]
        key = (tensor.name, part)
        if key not in core.gathered:
            core.gathered[key] = self._gathered(tensor, k, part)
        found = core.gathered[key]
        return _like(found, tensor)

    def _gathered(self, tensor: ir.Tensor, k: int, part: Part) -> ir.Tensor:
        if tensor.constant is not None:
            content = np.ascontiguousarray(tensor.constant[tuple(slice(*span) for span in part)])
            made = _renamed(tensor, f"{tensor.name}@{part.text}", part)
            return replace(made, constant=content)
        if tensor.name in self._inputs:
            return self._of_input(tensor, k, part)
        pieces: list[tuple[Part, ir.Tensor]] = []
        for j, core in enumerate(self._cores):
            held = core.held.get(tensor.name)
            common = None if held is None else held[0].met(part)
            if common is not None:
                own = self._slice(tensor, j, common)
                pieces.append((common, own if j == k else self._received(own, j, k)))
        return self._joined(tensor, k, part, pieces)

    def _of_input(self, tensor: ir.Tensor, k: int, part: Part) -> ir.Tensor:
        """Return a part of a tensor that enters the region."""
        stretch = part if is_stretch(tensor.shape, part) else part_of(tensor)
        view = self._view(tensor, stretch)
        self._cores[k].inputs[view.name] = view
        return view if stretch == part else self._sliced(view, stretch, k, part)

    def _slice(self, tensor: ir.Tensor, j: int, part: Part) -> ir.Tensor:
        """Return a part of what a core has computed of a tensor."""
        whole, held = self._cores[j].held[tensor.name]
        return held if part == whole else self._sliced(held, whole, j, part)

    def _sliced(self, held: ir.Tensor, whole: Part, j: int, part: Part) -> ir.Tensor:
        name = f"{held.name}/{part.text}"
        if (name, part) in self._cores[j].gathered:
            return self._cores[j].gathered[name, part]
        made = _renamed(held, name, part)
        n, y, x, c = (mine[0] - every[0] for mine, every in zip(part, whole, strict=True))
        self._add(
            j,
            ir.Slice(
                name=self._graph.nodes[self._source].name, inputs=(held,), output=made,
                begin=(n, y, x, c), step=(1, 1, 1, 1),
            ),
        )  # fmt: skip
        self._cores[j].gathered[name, part] = made
        return made

    def _received(self, own: ir.Tensor, j: int, k: int) -> ir.Tensor:
        """Return a tensor of core j on core k."""
        name = own.name + EXCHANGED
        core = self._cores[j]
        if name not in core.outputs:
            made = ir.Tensor(name, own.shape, own.unsigned, own.scale, own.zero_point)
            # not a reshape: what the core needs itself stays with it
            self._add(
                j,
                ir.Slice(
                    name=self._graph.nodes[self._source].name, inputs=(own,), output=made,
                    begin=(0, 0, 0, 0), step=(1, 1, 1, 1),
                ),
            )  # fmt: skip
            core.outputs[name] = made
            self._exchanged[name] = math.prod(own.shape)
        made = core.outputs[name]
        self._cores[k].inputs[name] = made
        return made

    def _joined(
        self, tensor: ir.Tensor, k: int, part: Part, pieces: list[tuple[Part, ir.Tensor]]
    ) -> ir.Tensor:
        """Return pieces that lie one behind the other as one tensor."""
        if len(pieces) == 1:
            return pieces[0][1]
        pieces.sort(key=lambda piece: piece[0])
        axis = next(axis for axis in AXES if len({piece[axis] for piece, _ in pieces}) > 1)
        name = f"{tensor.name}@{k}/{part.text}"
        made = _renamed(tensor, name, part)
        self._add(
            k,
            ir.Concat(
                name=self._graph.nodes[self._source].name,
                inputs=tuple(piece for _, piece in pieces), output=made, axis=axis,
                tables=(None,) * len(pieces),
            ),
        )  # fmt: skip
        return made


def _renamed(tensor: ir.Tensor, name: str, part: Part) -> ir.Tensor:
    """Return a part of a tensor under its own name."""
    return ir.Tensor(name, part.shape, tensor.unsigned, tensor.scale, tensor.zero_point)


def _like(found: ir.Tensor, tensor: ir.Tensor) -> ir.Tensor:
    """Return a tensor with the quantization that a reader gives it."""
    return ir.Tensor(
        found.name, found.shape, tensor.unsigned, tensor.scale, tensor.zero_point, found.constant
    )


def core_of(chip: Chip) -> Chip:
    """Return a core of a chip by itself, with its share of the memories' bandwidth."""
    if chip.cores == 1:
        return chip
    return replace(
        chip, cores=1, memories=tuple(_shared(memory, chip.cores) for memory in chip.memories)
    )


def _shared(memory: Memory, cores: int) -> Memory:
    """Return a memory of so much less bandwidth, as near as its parts allow."""
    if isinstance(memory, Flat):
        if memory.ports >= cores:
            return replace(memory, ports=memory.ports // cores)
        return replace(memory, bytes_per_cycle=memory.bytes_per_cycle / cores)
    return replace(memory, channels=max(memory.channels // cores, 1))


def shard(graph: ir.Graph, layouts: Sequence[Layout]) -> Sharded:
    """Return a graph cut by the layout of each of its nodes."""
    return _Cutter(graph, layouts).run()
