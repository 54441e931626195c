"""Which layers of a region are computed together: where the estimate says that it pays."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeGuard

from lepton.compiler.emit import Emitter
from lepton.compiler.graph import Binary, Convolution, Graph, Node
from lepton.compiler.lowering.addition import Addition, joined
from lepton.compiler.lowering.cascade import lower_cascade
from lepton.compiler.lowering.cascade_plan import Cascade, CascadePlan
from lepton.compiler.lowering.cascade_search import choose_cascade
from lepton.compiler.lowering.convolution import convolution_cost, lower_addition
from lepton.compiler.lowering.plan import room_for_tiles, smallest_plan
from lepton.compiler.lowering.plan_cost import Work, plan_cost
from lepton.compiler.lowering.plan_estimate import count_tile
from lepton.compiler.lowering.traffic import Traffic
from lepton.errors import CompileError

__all__ = ["Group", "Groups", "find_groups", "inner_tensors", "lower_group", "replanned"]

_OPERANDS = 3
"""Tiles that an element-wise function has at a time: two of operands and one of results."""

_WORTH = 0.95
"""Of the members' own cost that a cascade may take at most: estimates are not exact."""


@dataclass(frozen=True)
class Group:
    """Layers of a region that are computed together, and the number of the first node."""

    first: int
    chain: Cascade | Addition
    plan: CascadePlan | None = None
    """Of a cascade; that of an addition is its convolution's."""
    apart: float | None = None
    """Estimated cost of a cascade's nodes by themselves, in the objective's unit."""

    @property
    def numbers(self) -> range:
        """Of its nodes."""
        return range(self.first, self.first + len(self.chain.members))

    @property
    def reasons(self) -> dict[int, str]:
        """What the user is told of each node, by its number."""
        names = {
            number: node.name.split(";")[0]
            for number, node in zip(self.numbers, self.chain.members, strict=True)
        }
        how = "depth first" if isinstance(self.chain, Cascade) else "tile by tile"
        return {
            number: f"{how} with "
            + ", ".join(f"'{name}'" for other, name in names.items() if other != number)
            for number in names
        }


Groups = dict[int, Group]
"""Groups by the number of their first node."""


def find_groups(graph: Graph, emitter: Emitter) -> Groups:
    """Return the groups of layers that are computed together, by their first node.

    Cascades are those with the least estimated cost. Additions are computed with the convolutions
    before them wherever there is room: they were as fast or faster in all that was measured, and
    an estimate of both ways takes longer than all else that `--effort 0` does.
    """
    choices, nodes, inner = emitter.choices, graph.nodes, _consumed_once(graph)
    found = {} if choices.apart else _best_cascades(nodes, inner, emitter)
    if not choices.adds_apart:
        taken = {number for group in found.values() for number in group.numbers}
        for first, chain in _additions(nodes, inner):
            group = Group(first, chain)
            if taken.isdisjoint(group.numbers) and _fits(chain, emitter):
                found[first] = group
    choices.kinds |= {type(group.chain) for group in found.values()}
    return found


def _best_cascades(nodes: tuple[Node, ...], inner: set[str], emitter: Emitter) -> Groups:
    """Return the cascades with the least estimated cost together, by their first node."""
    ending: dict[int, list[tuple[float, Group]]] = {}
    for cost, group in _candidates(nodes, inner, emitter):
        ending.setdefault(group.numbers.stop, []).append((cost, group))
    alone = {
        number: _cost(nodes[number], emitter)
        for groups in ending.values()
        for _, group in groups
        for number in group.numbers
    }
    # best[i]: the least cost of nodes [0, i), and the group that ends there
    best: list[tuple[float, Group | None]] = [(0.0, None)]
    for number in range(len(nodes)):
        choice: tuple[float, Group | None] = best[number][0] + alone.get(number, 0.0), None
        for together, group in ending.get(number + 1, []):
            apart = sum(alone[member] for member in group.numbers)
            cost = best[group.first][0] + together
            if together <= _WORTH * apart and cost < choice[0]:
                choice = cost, replace(group, apart=apart)
        best.append(choice)
    found: Groups = {}
    number = len(nodes)
    while number:
        group = best[number][1]
        number = number - 1 if group is None else group.first
        if group is not None:
            found[group.first] = group
    return found


def inner_tensors(groups: Groups) -> set[str]:
    """Return the names of the tensors between the members of groups."""
    return {node.output.name for group in groups.values() for node in group.chain.members[:-1]}


def replanned(group: Group, emitter: Emitter) -> Group:
    """Return a group with the plan for the tensors that stay in the scratchpad now."""
    if not isinstance(group.chain, Cascade):
        return group
    return replace(group, plan=choose_cascade(group.chain, emitter) or group.plan)


def lower_group(group: Group, emitter: Emitter, operators: Sequence[int]) -> None:
    """Emit a group, whose members have these operators.

    Raises:
        NoRoom: a memory on the chip cannot hold a step.
    """
    if isinstance(group.chain, Addition):
        lower_addition(group.chain, emitter, operators[-1])
        return
    assert group.plan is not None
    lower_cascade(group.chain, group.plan, emitter, operators)


def _fits(addition: Addition, emitter: Emitter) -> bool:
    """Return whether a chip has room for one pixel of an addition with its convolution."""
    whole = joined(addition.convolution, addition.combine)
    try:
        smallest_plan(whole, emitter, whole.inputs[0].shape[3], whole.output.shape[3])
    except CompileError:
        return False
    return True


def _cost(node: Node, emitter: Emitter) -> float:
    """Return the estimated cost of a node by itself, infinity if it does not fit."""
    if isinstance(node, Convolution):
        try:
            return convolution_cost(node, emitter)
        except CompileError:
            return math.inf
    traffic = Traffic(emitter.chip, emitter.choices.objective)
    for tensor in (*node.inputs, node.output):
        if tensor.name not in emitter.residents:
            written = tensor is node.output
            count_tile(tensor, tensor.shape[1:], tensor.shape[0], traffic, is_write=written)
    cycles = max(traffic.cycles, node.output.size_bytes / emitter.chip.vector.lanes)
    tiles = -(-_OPERANDS * node.output.size_bytes // room_for_tiles(emitter))
    traffic.fetch((_OPERANDS + 1) * tiles)
    return plan_cost(emitter.choices.objective, cycles, traffic, Work)


def _consumed_once(graph: Graph) -> set[str]:
    """Return the tensors inside of a region that one operand reads."""
    uses = Counter(tensor.name for node in graph.nodes for tensor in node.inputs)
    outputs = {tensor.name for tensor in graph.outputs}
    return {name for name, count in uses.items() if count == 1} - outputs


def _candidates(
    nodes: tuple[Node, ...], inner: set[str], emitter: Emitter
) -> Iterator[tuple[float, Group]]:
    """Yield all cascades that fit, each with its estimated cost and its plan."""
    for first, chain in _cascades(nodes, inner):
        if {member.output.name for member in chain.members[:-1]} <= emitter.residents.keys():
            # nothing crosses to a memory that could be saved
            continue
        plan = choose_cascade(chain, emitter)
        if plan is not None:
            yield plan.cost, Group(first, chain, plan)


def _additions(nodes: tuple[Node, ...], inner: set[str]) -> Iterator[tuple[int, Addition]]:
    """Yield the dense convolutions with an element-wise function behind them."""
    for number, (node, behind) in enumerate(pairwise(nodes)):
        if _is_dense(node) and _combines(behind, node, inner):
            yield number, Addition(node, behind)


def _cascades(nodes: tuple[Node, ...], inner: set[str]) -> Iterator[tuple[int, Cascade]]:
    """Yield the chains around depthwise convolutions, with the number of the first node."""
    for number, node in enumerate(nodes):
        if not _is_depthwise(node):
            continue
        before = nodes[number - 1] if number else None
        after = nodes[number + 1] if number + 1 < len(nodes) else None
        expand = before if _is_dense(before) and _follow(before, node, inner) else None
        project = after if _is_pointwise(after) and _follow(node, after, inner) else None
        for cascade in _around(expand, node, project, nodes[number + 2 : number + 3], inner):
            yield number - int(cascade.expand is not None), cascade


def _around(
    expand: Convolution | None,
    node: Convolution,
    project: Convolution | None,
    behind: Sequence[Node],
    inner: set[str],
) -> Iterator[Cascade]:
    """Yield the cascades with a depthwise convolution at their heart, of what is beside it."""
    if project is not None:
        combine = next((item for item in behind if _combines(item, project, inner)), None)
        for first in dict.fromkeys([expand, None]):
            yield Cascade(first, node, project)
            if combine is not None:
                yield Cascade(first, node, project, combine)
    if expand is not None:
        yield Cascade(expand, node, None)


def _combines(node: Node, project: Convolution, inner: set[str]) -> TypeGuard[Binary]:
    """Return whether a node is an element-wise function of a projection and as large a tensor."""
    if not isinstance(node, Binary) or project.output.name not in inner:
        return False
    return any(tensor.name == project.output.name for tensor in node.inputs) and all(
        tensor.shape == node.output.shape and tensor.constant is None for tensor in node.inputs
    )


def _follow(first: Node, second: Node, inner: set[str]) -> bool:
    """Return whether the second node reads what the first makes, and nobody else does."""
    return first.output.name in inner and second.inputs[0].name == first.output.name


def _is_depthwise(node: Node | None) -> TypeGuard[Convolution]:
    if not isinstance(node, Convolution):
        return False
    return 1 < node.groups == node.inputs[0].shape[3] == node.output.shape[3]


def _is_dense(node: Node | None) -> TypeGuard[Convolution]:
    return isinstance(node, Convolution) and node.groups == 1


def _is_pointwise(node: Node | None) -> TypeGuard[Convolution]:
    if not _is_dense(node):
        return False
    window = node.window
    return (window.kernel, window.stride, window.padding) == ((1, 1), (1, 1), (0, 0, 0, 0))
