"""Which nodes of an ONNX graph are one unit.

A library computes a chain such as Conv, Relu, QuantizeLinear in one kernel, and with other
rounding than node by node; the NPU takes it as one operator. So units are cut only where neither
would fuse:

1. A node that changes one tensor (an activation, a change of layout or scale, an operator whose
   other operands are constant) belongs to what makes that tensor, if nobody else reads it.
   So does one whose operand has just been dequantized to the only reader of its result.
2. Of the rest, operators without weights that exchange float tensors are one unit, such as a norm
   that the file spells out, unless a way between them leads through another unit.

DequantizeLinear of a tensor that crosses is repeated in every unit that reads its result; one whose
result leaves the network is a unit of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

__all__ = ["GraphNode", "grouped"]

_HEAVY = {
    "Conv", "ConvInteger", "ConvTranspose", "DeformConv", "QLinearConv", "Gemm", "MatMul",
    "MatMulInteger", "QLinearMatMul", "Einsum", "Attention", "GRU", "LSTM", "RNN",
}  # fmt: skip
_ALONE = {"Concat", "Split", "If", "Loop", "Scan", "DequantizeLinear"}


@dataclass(frozen=True)
class GraphNode:
    """What grouping asks of a node: its operator, and its operands that are not constant."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def is_apart(self) -> bool:
        """Whether it starts a unit: it has weights, or what meets in it is better kept apart."""
        return self.kind in _HEAVY or self.kind in _ALONE


class _Sets:
    """Disjoint sets of nodes."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, item: int) -> int:
        while self._parent[item] != item:
            self._parent[item] = self._parent[self._parent[item]]
            item = self._parent[item]
        return item

    def join(self, left: int, right: int) -> None:
        first, second = sorted((self.find(left), self.find(right)))
        self._parent[second] = first


def grouped(
    nodes: Sequence[GraphNode], outputs: Set[str], repeated: Mapping[str, str]
) -> list[list[int]]:
    """Return the nodes of each unit, in an order in which units can run.

    Args:
        nodes: in an order in which they can run, without repeated and constant ones.
        outputs: tensors that the network's user reads.
        repeated: result of a repeated DequantizeLinear -> the tensor that it reads.
    """
    maker = {name: number for number, node in enumerate(nodes) for name in node.outputs}
    readers: dict[str, set[int]] = {}
    for number, node in enumerate(nodes):
        for name in node.inputs:
            readers.setdefault(repeated.get(name, name), set()).add(number)
    sets = _Sets(len(nodes))
    turned: set[int] = set()
    for number, node in enumerate(nodes):
        own = [n for n in node.inputs if n in maker and n not in outputs and readers[n] == {number}]
        if node.is_apart or len(set(node.inputs)) != 1:
            for name in own:
                home = sets.find(maker[name])
                if home in turned:
                    turned.remove(home)
                    sets.join(home, number)
        elif node.inputs[0] in repeated:
            turned.add(number)
        elif own:
            sets.join(maker[own[0]], number)
    _join_light(nodes, sets, maker, repeated)
    groups: dict[int, list[int]] = {}
    for number in range(len(nodes)):
        groups.setdefault(sets.find(number), []).append(number)
    return _sorted(list(groups.values()), nodes, repeated, maker)


def _join_light(
    nodes: Sequence[GraphNode],
    sets: _Sets,
    maker: Mapping[str, int],
    repeated: Mapping[str, str],
) -> None:
    """Join units without weights that exchange float tensors and have the same depth.

    The depth grows along every edge but those, so no way between two of a depth leaves it.
    """
    apart = {
        sets.find(number)
        for number, node in enumerate(nodes)
        if node.is_apart or node.kind.startswith("QLinear")
    }
    depth = [0] * len(nodes)
    for number, node in enumerate(nodes):
        mine = sets.find(number)
        for name in node.inputs:
            read = repeated.get(name, name)
            source = sets.find(maker[read]) if read in maker else mine
            if source != mine:
                grows = read != name or mine in apart or source in apart
                depth[mine] = max(depth[mine], depth[source] + grows)
    for number, node in enumerate(nodes):
        for name in node.inputs:
            if name not in maker:
                continue
            pair = sets.find(number), sets.find(maker[name])
            if not apart & set(pair) and depth[pair[0]] == depth[pair[1]]:
                sets.join(*pair)


def _sorted(
    groups: list[list[int]],
    nodes: Sequence[GraphNode],
    repeated: Mapping[str, str],
    maker: Mapping[str, int],
) -> list[list[int]]:
    """Return groups in an order in which they can run."""
    from graphlib import TopologicalSorter

    group_of = {number: at for at, group in enumerate(groups) for number in group}
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for at, group in enumerate(groups):
        sources = {repeated.get(name, name) for number in group for name in nodes[number].inputs}
        before = {group_of[maker[name]] for name in sources if name in maker} - {at}
        sorter.add(at, *sorted(before))
    return [groups[at] for at in sorter.static_order()]
