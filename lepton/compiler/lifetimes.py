"""Which tensors of a region hold whose bytes, and from when to when."""

from __future__ import annotations

from collections.abc import Container, Mapping

from lepton.compiler.allocate import Lifetime
from lepton.compiler.graph import Binary, Graph, Lut, Node, Reshape, Slice, Tensor
from lepton.compiler.lowering.grouping import Groups, inner_tensors
from lepton.compiler.views import View

__all__ = ["bytes_crossing", "is_free", "lifetimes_of", "root_of", "storage_of", "with_replaced"]


def storage_of(graph: Graph, views: Mapping[str, View]) -> dict[str, str]:
    """Return for each tensor the one whose bytes it is: a reshape shares its input's place.

    before: y = reshape(x)     after: storage[y] = x, and no instruction is emitted
    A reshape of a region input or constant into a region output must copy. What is part of another
    tensor shares its place.
    """
    outputs = {tensor.name for tensor in graph.outputs}
    fixed = {tensor.name for tensor in graph.inputs}
    storage: dict[str, str] = {}
    for node in graph.nodes:
        if not isinstance(node, Reshape):
            continue
        source = node.inputs[0]
        root = storage.get(source.name, source.name)
        if source.constant is not None or (node.output.name in outputs and root in fixed | outputs):
            continue
        if node.output.name in outputs:
            # the bytes live where the output must be
            for name, of in list(storage.items()):
                if of == root:
                    storage[name] = node.output.name
            storage[root] = node.output.name
        else:
            storage[node.output.name] = root
    return storage | {name: view.of for name, view in views.items()}


def with_replaced(
    graph: Graph, storage: Mapping[str, str], views: Mapping[str, View], grouped: Container[int]
) -> dict[str, str]:
    """Return where tensors are stored if element-wise results take the place of dying operands.

    before: z = x + y, and x is read no more     after: storage[z] = x, z is written over x
    Not in nodes that are computed depth first (`grouped`), which do not read their operands last;
    nor where operand or result crosses the region's edge, is a constant or part of a concatenation.
    """
    made = dict(storage)
    last: dict[str, int] = {}
    for number, node in enumerate(graph.nodes):
        last |= {root_of(made, tensor.name): number for tensor in node.inputs}
    kept = {root_of(made, tensor.name) for tensor in (*graph.inputs, *graph.outputs)}
    for number, node in enumerate(graph.nodes):
        result = node.output
        elementwise = isinstance(node, Binary | Lut) and number not in grouped
        if not elementwise or result.name in made or result.name in kept:
            continue
        for tensor in node.inputs:
            root = root_of(made, tensor.name)
            dies = last[root] == number and root not in kept and tensor.constant is None
            if dies and tensor.shape == result.shape and tensor.name not in views:
                made[result.name] = root
                last[root] = last.get(result.name, number)
                break
    return made


def root_of(storage: Mapping[str, str], name: str) -> str:
    """Return the tensor that holds the bytes of `name`."""
    while name in storage:
        name = storage[name]
    return name


def is_free(node: Node, storage: dict[str, str]) -> bool:
    """Return whether a node needs no instruction: its result is its input or part of it."""
    return isinstance(node, Reshape | Slice) and root_of(storage, node.output.name) == root_of(
        storage, node.inputs[0].name
    )


def lifetimes_of(graph: Graph, storage: dict[str, str], groups: Groups) -> list[Lifetime]:
    """Return the lifetimes of the tensors inside the region, most rewarding first.

    What a cascade reads and makes is alive as long as it lasts; what is between its members needs
    no place.
    """
    crossing = {tensor.name for tensor in (*graph.inputs, *graph.outputs)}
    crossing |= inner_tensors(groups)
    spans = {number: group.numbers for group in groups.values() for number in group.numbers}
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    sizes: dict[str, int] = {}
    uses: dict[str, int] = {}
    for number, node in enumerate(graph.nodes):
        span = spans.get(number, range(number, number + 1))
        name = root_of(storage, node.output.name)
        first.setdefault(name, span[0])
        last[name] = span[-1]
        sizes[name] = max(sizes.get(name, 0), node.output.size_bytes)
        for tensor in node.inputs:
            source = root_of(storage, tensor.name)
            last[source] = span[-1]
            uses[source] = uses.get(source, 0) + 1
    inside = [
        Lifetime(name, sizes[name], first[name], last[name])
        for name in sizes
        if name not in crossing
    ]
    return sorted(inside, key=lambda item: (item.last - item.first) / (1 + uses.get(item.name, 0)))


def bytes_crossing(
    graph: Graph, storage: dict[str, str], residents: dict[str, int], views: Mapping[str, View]
) -> int:
    """Return the bytes of the tensors that do not stay inside, each time they cross."""
    total = 0
    for node in graph.nodes:
        if is_free(node, storage):
            continue
        joined = [tensor for tensor in node.inputs if _is_part(tensor, node, views)]
        if root_of(storage, node.output.name) not in residents:
            total -= 2 * sum(tensor.size_bytes for tensor in joined)
        for tensor in (*node.inputs, node.output):
            if root_of(storage, tensor.name) not in residents and tensor.constant is None:
                total += tensor.size_bytes
    return total


def _is_part(tensor: Tensor, node: Node, views: Mapping[str, View]) -> bool:
    """Return whether an operand is made where the node wants it."""
    return tensor.name in views and views[tensor.name].of == node.output.name
