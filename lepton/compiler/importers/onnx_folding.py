"""Fold the constant parts of an ONNX graph before TVM sees it (TVM's own folding takes seconds)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from lepton.compiler.importers.onnx_branches import taken_branch

# Shape arithmetic and cheap data movement; a DequantizeLinear of weights must stay.
_FOLDABLE = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "Cast",
        "Ceil",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Div",
        "Equal",
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "Greater",
        "GreaterOrEqual",
        "Identity",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "Pow",
        "Range",
        "ReduceProd",
        "Reshape",
        "Shape",
        "Size",
        "Slice",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    ]
)
_MAX_ELEMENTS = 1 << 27
_NARROW = {"INT4": np.int8, "UINT4": np.uint8, "INT2": np.int8, "UINT2": np.uint8}
Array = npt.NDArray[Any]


def fold_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model whose constant subgraphs are initializers.

    Shapes must have been inferred. Initializers of less than 8 bits are widened to 8.
    """
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    graph = folded.graph
    widen_narrow(graph)
    known = {item.name: item for item in graph.initializer}
    shapes = _static_shapes(graph)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
    outputs = {output.name for output in graph.output}
    kept: list[onnx.NodeProto] = []
    waiting = list(reversed(graph.node))
    while waiting:
        node = waiting.pop()
        branch = taken_branch(node, known)
        if branch is not None:
            waiting += reversed(branch.nodes)
            known.update((item.name, item) for item in branch.initializers)
            continue
        values = _evaluate(node, known, shapes, opset)
        if values is None or outputs & set(node.output):
            kept.append(node)
            continue
        for name, value in zip(node.output, values, strict=True):
            known[name] = numpy_helper.from_array(value, name)
    # Older files list initializers among the inputs; they are no inputs to us.
    runtime = [value for value in graph.input if value.name not in known]
    del graph.input[:]
    graph.input.extend(runtime)
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input} | outputs
    del graph.initializer[:]
    graph.initializer.extend(tensor for name, tensor in known.items() if name in used)
    return folded


def drop_copies(graph: onnx.GraphProto) -> None:
    """Let readers of an Identity or of a Dropout that does not train read its input, in place.

    before: d = Dropout(x); y = Relu(d)
    after:  y = Relu(x)
    """
    used = {name for node in graph.node for name in node.input}
    outputs = {output.name for output in graph.output}
    source: dict[str, str] = {}
    kept: list[onnx.NodeProto] = []
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = source.get(name, name)
        # the third input of a dropout makes it train, its second result is the mask
        copies = node.op_type == "Identity" or (
            node.op_type == "Dropout" and not any(node.input[2:]) and not used & {*node.output[1:]}
        )
        if copies and not outputs & set(node.output):
            source[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def is_settled(model: onnx.ModelProto) -> bool:
    """Return whether the shapes of all nodes' outputs are known."""
    shapes = _static_shapes(model.graph)
    return all(name in shapes for node in model.graph.node for name in node.output if name)


def widen_narrow(graph: onnx.GraphProto) -> None:
    """Turn 2- and 4-bit initializers into 8-bit ones of equal values, in place."""
    for tensor in graph.initializer:
        kind = _NARROW.get(onnx.TensorProto.DataType.Name(tensor.data_type))
        if kind is not None:
            array = numpy_helper.to_array(tensor).astype(kind)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _static_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Return the tensors whose shape is fully known."""
    shapes: dict[str, tuple[int, ...]] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            extents = value.type.tensor_type.shape.dim
            if all(extent.HasField("dim_value") for extent in extents):
                shapes[value.name] = tuple(extent.dim_value for extent in extents)
    for tensor in graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
    return shapes


def _evaluate(
    node: onnx.NodeProto,
    known: dict[str, onnx.TensorProto],
    shapes: dict[str, tuple[int, ...]],
    opset: int,
) -> list[Array] | None:
    """Return a node's outputs if they are constant and worth folding, else None."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in _FOLDABLE:
        return None
    if node.op_type in ("Shape", "Size"):
        return _evaluate_shape(node, shapes)
    names = [name for name in node.input if name]
    if not all(name in known for name in names):
        return None
    if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
        return [numpy_helper.to_array(node.attribute[0].t)]
    if sum(int(np.prod(known[name].dims)) for name in names) > _MAX_ELEMENTS:
        return None
    return _run_node(node, {name: numpy_helper.to_array(known[name]) for name in names}, opset)


def _evaluate_shape(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> list[Array] | None:
    """Evaluate Shape (with start and end) and Size of a tensor of static shape."""
    shape = shapes.get(node.input[0])
    if shape is None:
        return None
    if node.op_type == "Size":
        return [np.array(int(np.prod(shape)), np.int64)]
    bounds = {attribute.name: attribute.i for attribute in node.attribute}
    return [np.array(shape[bounds.get("start", 0) : bounds.get("end", len(shape))], np.int64)]


def _run_node(node: onnx.NodeProto, feeds: dict[str, Array], opset: int) -> list[Array] | None:
    """Run one node in ONNX's reference implementation; None if it cannot."""
    from onnx.reference import ReferenceEvaluator

    if node.op_type == "ConstantOfShape":
        shape = next(iter(feeds.values()))
        if int(np.prod(shape.astype(np.float64))) > _MAX_ELEMENTS:
            return None
    try:
        graph = onnx.helper.make_graph(
            [node],
            "node",
            [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in feeds],
            [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in node.output],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        results = ReferenceEvaluator(model).run(None, feeds)
    except Exception:
        return None
    return [np.asarray(result) for result in results]
