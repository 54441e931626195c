"""Prepare a float ONNX graph for quantization: forms that cost less, and what stays in float.

A quantizer rounds between any two operators that it knows. What is one function to the NPU, a
product with its bias or an element-wise expression of one tensor, must therefore be one operator
to the quantizer, or be left alone by it.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.compiler.importers.onnx_pairs import NodeIndex

__all__ = ["in_float", "simplify"]

Array = NDArray[Any]


class _Edit(NamedTuple):
    """What takes the place of a node, and the names of later nodes that it also replaces."""

    made: list[Any]
    consumed: tuple[str, ...] = ()


def simplify(graph: Any) -> None:
    """Rewrite sums, batch norms and products with a bias, in place.

    Args:
        graph: `onnx.GraphProto` whose shapes are inferred.
    """
    _name_nodes(graph)
    rewrites: tuple[Callable[[NodeIndex, Any], _Edit | None], ...] = (
        _chain_sum,
        _fold_norm,
        _join_bias,
        _own_bias,
    )
    for rewrite in rewrites:
        index = NodeIndex(graph)
        kept: list[Any] = []
        gone: set[str] = set()
        for node in graph.node:
            if node.name in gone:
                continue
            edit = rewrite(index, node)
            kept += [node] if edit is None else edit.made
            gone |= set() if edit is None else set(edit.consumed)
        del graph.node[:]
        graph.node.extend(kept)
    _drop_unused(graph)


def _drop_unused(graph: Any) -> None:
    """Drop the constants that no node reads any more."""
    used = {name for node in graph.node for name in node.input}
    used |= {output.name for output in graph.output}
    kept = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _name_nodes(graph: Any) -> None:
    """Give every node a name of its own."""
    taken: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)


def _constant(index: NodeIndex, name: str, value: Array) -> str:
    """Add a constant to the graph."""
    from onnx import numpy_helper

    index.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return name


def _chain_sum(_index: NodeIndex, node: Any) -> _Edit | None:
    """Write a sum of several tensors as additions, which a quantizer knows."""
    from onnx import helper

    if node.op_type != "Sum" or len(node.input) < 2:
        return None
    made: list[Any] = []
    total = node.input[0]
    for number, item in enumerate(node.input[1:], start=1):
        is_last = number == len(node.input) - 1
        name = node.output[0] if is_last else f"{node.output[0]}/{number}"
        made.append(helper.make_node("Add", [total, item], [name], name=f"{node.name}/{number}"))
        total = name
    return _Edit(made)


def _fold_norm(index: NodeIndex, node: Any) -> _Edit | None:
    """Write a batch norm, and the factors and summands behind it, as a depthwise convolution.

    before: b = BatchNormalization(x, ...); m = Mul(b, [c, 1, 1]); y = Add(m, [c, 1, 1])
    after:  y = Conv(x, [c, 1, 1, 1], [c], group=c)
    """
    from onnx import helper

    if node.op_type != "BatchNormalization" or index.rank(node.input[0]) != 4:
        return None
    parameters = [index.constant(name) for name in node.input[1:5]]
    known = [item.astype(np.float64) for item in parameters if item is not None]
    if len(known) != 4 or len([name for name in node.output if name]) != 1:
        return None
    epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
    factor = known[0] / np.sqrt(known[3] + epsilon)
    offset = known[1] - known[2] * factor
    last, consumed = node, list[str]()
    while (step := _channel_step(index, last, len(factor))) is not None:
        last, values = step
        factor, offset = (
            (factor * values, offset * values)
            if last.op_type == "Mul"
            else (factor, offset + values)
        )
        consumed.append(last.name)
    weights = _constant(index, f"{node.name}/w", factor.astype(np.float32).reshape(-1, 1, 1, 1))
    bias = _constant(index, f"{node.name}/b", offset.astype(np.float32))
    made = helper.make_node(
        "Conv", [node.input[0], weights, bias], [last.output[0]], name=node.name,
        group=len(factor), kernel_shape=[1, 1],
    )  # fmt: skip
    return _Edit([made], tuple(consumed))


def _channel_step(index: NodeIndex, node: Any, channels: int) -> tuple[Any, Array] | None:
    """Return the one node behind that scales or shifts channels, and its values per channel."""
    for kind in ("Mul", "Add"):
        reader = index.only_reader(node, kind)
        if reader is None:
            continue
        others = [index.constant(name) for name in reader.input if name != node.output[0]]
        values = others[0] if len(others) == 1 else None
        if values is None or values.ndim > 4 or values.size not in (1, channels):
            return None
        spread = (1,) * (4 - values.ndim) + values.shape
        if any(extent != 1 for axis, extent in enumerate(spread) if axis != 1):
            return None
        return reader, values.reshape(-1).astype(np.float64)
    return None


def _join_bias(index: NodeIndex, node: Any) -> _Edit | None:
    """Write a product with constant weights and a bias as one Gemm.

    before: p = MatMul(x, w); y = Add(p, b)
    after:  f = Reshape(x, [-1, k]); p = Gemm(f, w, b); y = Reshape(p, [..., n])
    """
    from onnx import helper

    if node.op_type != "MatMul":
        return None
    weights, shape = index.constant(node.input[1]), index.shape(node.input[0])
    adding = index.only_reader(node, "Add")
    if weights is None or weights.ndim != 2 or shape is None or len(shape) < 2 or adding is None:
        return None
    k, n = weights.shape
    others = [index.constant(name) for name in adding.input if name != node.output[0]]
    bias = others[0] if len(others) == 1 else None
    if bias is None or bias.size != n or bias.shape[-1:] != (n,) or bias.ndim > len(shape):
        return None
    flat = _constant(index, f"{node.name}/flat", np.array([-1, k], np.int64))
    whole = _constant(index, f"{node.name}/whole", np.array([*shape[:-1], n], np.int64))
    row = _constant(index, f"{node.name}/bias", bias.reshape(n))
    name, made = node.name, adding.output[0]
    if len(shape) == 2:
        gemm = helper.make_node("Gemm", [node.input[0], node.input[1], row], [made], name=name)
        return _Edit([gemm], (adding.name,))
    nodes = [
        helper.make_node("Reshape", [node.input[0], flat], [f"{made}/in"], name=f"{name}/in"),
        helper.make_node("Gemm", [f"{made}/in", node.input[1], row], [f"{made}/out"], name=name),
        helper.make_node("Reshape", [f"{made}/out", whole], [made], name=f"{name}/out"),
    ]
    return _Edit(nodes, (adding.name,))


def _own_bias(index: NodeIndex, node: Any) -> _Edit | None:
    """Give a layer a bias of its own: its scale follows from that of the layer's input."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(node.input) < 3:
        return None
    bias = index.constant(node.input[2])
    if bias is None or len(index.readers[node.input[2]]) < 2:
        return None
    node.input[2] = _constant(index, f"{node.name}/bias", bias)
    return None


# --- what stays in float ------------------------------------------------------------------------

_UNARY = (
    *("Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish"),
    *("Neg", "Relu", "Sigmoid", "Softplus", "Sqrt", "Tanh"),
)
_ELEMENTWISE = frozenset([*_UNARY, "Add", "Div", "Mul", "Pow", "Sub"])
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add")
_NORMS = ("LayerNormalization", "InstanceNormalization")
_MOVES = ("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def in_float(graph: Any, quantized: Set[str]) -> list[str]:
    """Return the names of the nodes that a quantizer should leave in float.

    These are norms, whose kernels are float ones; the members of an element-wise expression of
    one tensor, which is one table of 256 codes; and a softmax that the model ends in, since 8 bits
    cannot tell small probabilities apart.

    Args:
        graph: `onnx.GraphProto`; every node has a name of its own.
        quantized: the operators that the quantizer knows.
    """
    index = NodeIndex(graph)
    names = [node.name for node in graph.node if node.op_type in _NORMS]
    names += [
        node.name
        for node in graph.node
        if node.op_type == "Softmax" and _only_ends(index, node.output[0])
    ]
    return names + _expressions(index, quantized - {*_NORMS})


def _only_ends(index: NodeIndex, name: str) -> bool:
    """Return whether a tensor is nothing but an output, moved or not."""
    readers = index.readers.get(name, [])
    if any(reader.op_type not in _MOVES for reader in readers):
        return False
    return index.is_output(name) or (
        bool(readers) and all(_only_ends(index, reader.output[0]) for reader in readers)
    )


def _expressions(index: NodeIndex, quantized: Set[str]) -> list[str]:
    """Return the names of the members of expressions of at least two operators."""
    members: dict[str, list[Any]] = {}
    roots: dict[str, str] = {}
    for node in index.graph.node:
        root = _root(index, node, roots)
        if root is None or not _is_quantized(index, root, quantized):
            continue
        roots[node.output[0]] = root
        inner = [item for name in node.input for item in members.get(name, [])]
        members[node.output[0]] = [*inner, node]
    names: dict[str, None] = {}
    for name, nodes in members.items():
        if len(nodes) > 1 and _is_read(index, name, members, quantized):
            names.update((node.name, None) for node in nodes)
    return list(names)


def _root(index: NodeIndex, node: Any, roots: dict[str, str]) -> str | None:
    """Return the tensor that an element-wise node is a function of, None if it is no such."""
    if node.op_type not in _ELEMENTWISE:
        return None
    found: set[str] = set()
    for name in [str(name) for name in node.input if name]:
        value = index.constant(name)
        if value is None:
            found.add(roots.get(name, name))
        elif value.size != 1:
            return None
    if len(found) != 1:
        return None
    (root,) = found
    maker = index.maker.get(root)
    # a layer clamps what it computes at no cost
    fuses = node.op_type in ("Relu", "Clip") and maker is not None and maker.op_type in _LAYERS
    return None if fuses and index.readers[root] == [node] else root


def _is_quantized(index: NodeIndex, name: str, quantized: Set[str]) -> bool:
    """Return whether the quantizer rounds a node's result."""
    maker = index.maker.get(name)
    return maker is not None and maker.op_type in quantized


def _is_read(
    index: NodeIndex, name: str, members: dict[str, list[Any]], quantized: Set[str]
) -> bool:
    """Return whether an expression ends here, and all that reads it rounds it."""
    readers = [reader for reader in index.readers.get(name, []) if reader.output[0] not in members]
    if index.is_output(name) or not readers:
        return False
    return all(
        _is_read(index, reader.output[0], members, quantized)
        if reader.op_type in _MOVES
        else reader.op_type in quantized
        for reader in readers
    )
