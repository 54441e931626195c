"""Unroll recurrences of a known number of steps: every step becomes nodes of the graph itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from lepton.errors import ImportFailure

__all__ = ["unrolled"]

_MOST_NODES = 50_000


class _Scan(NamedTuple):
    """A Scan node.

    Attributes:
        axes: scanned axis of each scan input.
        backward: whether each scan input is read from its end.
    """

    node: Any
    body: Any
    states: int
    axes: tuple[int, ...]
    backward: tuple[bool, ...]
    output_axes: tuple[int, ...]
    output_backward: tuple[bool, ...]
    steps: int

    @property
    def name(self) -> str:
        return str(self.node.name or self.node.output[0])


def unrolled(model: Any) -> Any:
    """Return a model without Scan nodes; the given one if it has none.

    before: h, ys = Scan(h0, xs){h, x -> f(h, x), g(h, x)}
    after:  x0, x1 = Split(xs); h1 = f(h0, x0); h = f(h1, x1); ys = Concat(g(h0, x0), g(h1, x1))

    Args:
        model: `onnx.ModelProto` whose inputs have static shapes; it is not changed.

    Raises:
        ImportFailure: a Scan whose number of steps is not known, or too large.
    """
    import onnx

    if not any(node.op_type == "Scan" for node in model.graph.node):
        return model
    made = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = _shapes(made.graph)
    opset = next(item.version for item in made.opset_import if item.domain in ("", "ai.onnx"))
    nodes: list[Any] = []
    for node in made.graph.node:
        if node.op_type != "Scan":
            nodes.append(node)
            continue
        nodes += _unroll(_read(node, shapes), made.graph, opset)
    del made.graph.node[:]
    alive = _alive(nodes, {output.name for output in made.graph.output})
    made.graph.node.extend(alive)
    del made.graph.value_info[:]
    _drop_constants(made.graph, {name for node in alive for name in node.input})
    return unrolled(made)


def _shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a graph's tensors; 0 for an extent that is not known."""
    shapes = {item.name: tuple(item.dims) for item in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            extents = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(int(extent.dim_value) for extent in extents)
    return shapes


def _read(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> _Scan:
    """Return a Scan with its attributes' defaults filled in."""
    from onnx import helper

    values = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    count, body = int(values["num_scan_inputs"]), values["body"]
    states = len(node.input) - count
    outputs = len(node.output) - states
    name = node.name or node.output[0]
    inputs = [shapes.get(item, ()) for item in node.input[states:]]
    axes = tuple(values.get("scan_input_axes") or [0] * count)
    if not all(-len(shape) <= axis < len(shape) for shape, axis in zip(inputs, axes, strict=True)):
        raise ImportFailure(f"Scan {name!r}: the shapes of its inputs are not known")
    steps = {shape[axis] for shape, axis in zip(inputs, axes, strict=True)}
    if len(steps) != 1 or 0 in steps:
        raise ImportFailure(
            f"Scan {name!r}: its number of steps is not known; fix the model's dynamic dimensions"
        )
    if max(steps) * len(body.node) > _MOST_NODES:
        raise ImportFailure(
            f"Scan {name!r}: unrolled, its {max(steps)} steps of {len(body.node)} operators are "
            f"more than {_MOST_NODES} operators"
        )
    return _Scan(
        node, body, states, axes,
        tuple(map(bool, values.get("scan_input_directions") or [0] * count)),
        tuple(values.get("scan_output_axes") or [0] * outputs),
        tuple(map(bool, values.get("scan_output_directions") or [0] * outputs)),
        max(steps),
    )  # fmt: skip


def _unroll(scan: _Scan, graph: Any, opset: int) -> Iterator[Any]:
    """Yield the nodes of every step."""
    from onnx import helper

    constants = dict[str, str]()
    for item in scan.body.initializer:
        constants[item.name] = f"{scan.name}/{item.name}"
        copy = type(item).FromString(item.SerializeToString())
        copy.name = constants[item.name]
        graph.initializer.append(copy)
    parts = [list(_split(scan, place, graph, opset)) for place in range(len(scan.axes))]
    for _, nodes in [part[0] for part in parts]:
        yield from nodes
    states = list(scan.node.input[: scan.states])
    collected: list[list[str]] = [[] for _ in scan.node.output[scan.states :]]
    for step in range(scan.steps):
        scope = f"{scan.name}/{step}"
        elements = [part[0][0][step] for part in parts]
        inputs = [value.name for value in scan.body.input]
        names = constants | dict(zip(inputs, [*states, *elements], strict=True))
        yield from _step(scan.body, scope, names)
        results = [names.get(value.name, value.name) for value in scan.body.output]
        states = results[: scan.states]
        for place, result in enumerate(results[scan.states :]):
            collected[place].append(result)
    for state, output in zip(states, scan.node.output[: scan.states], strict=True):
        if output:
            yield helper.make_node("Identity", [state], [output], name=f"{scan.name}/{output}")
    for place, results in enumerate(collected):
        yield from _stack(scan, place, results, graph)


def _split(
    scan: _Scan, place: int, graph: Any, opset: int
) -> Iterator[tuple[list[str], list[Any]]]:
    """Yield the names of a scan input's elements, in the order of the steps, and their nodes."""
    from onnx import helper

    axis, source = scan.axes[place], scan.node.input[scan.states + place]
    base = f"{scan.name}/in{place}"
    slices = [f"{base}/{step}/slice" for step in range(scan.steps)]
    nodes = [helper.make_node("Split", [source], slices, name=base, axis=axis)]
    if opset >= 18:
        nodes[0].attribute.append(helper.make_attribute("num_outputs", scan.steps))
    names = [f"{base}/{step}" for step in range(scan.steps)]
    axes = _axes(graph, f"{base}/axes", axis)
    for whole, name in zip(slices, names, strict=True):
        nodes.append(helper.make_node("Squeeze", [whole, axes], [name], name=name))
    yield (names[::-1] if scan.backward[place] else names), nodes


def _axes(graph: Any, name: str, axis: int) -> str:
    """Add a constant of one axis."""
    import numpy as np
    from onnx import numpy_helper

    graph.initializer.append(numpy_helper.from_array(np.array([axis], np.int64), name))
    return name


def _step(body: Any, scope: str, names: dict[str, str]) -> Iterator[Any]:
    """Yield copies of a body's nodes; `names` maps the body's tensors and is added to."""
    for node in body.node:
        copy = type(node).FromString(node.SerializeToString())
        copy.name = f"{scope}/{node.name or node.output[0]}"
        for place, name in enumerate(node.input):
            copy.input[place] = names.get(name, name)
        for place, name in enumerate(node.output):
            if name:
                names[name] = f"{scope}/{name}"
                copy.output[place] = names[name]
        yield copy


def _stack(scan: _Scan, place: int, results: list[str], graph: Any) -> Iterator[Any]:
    """Yield nodes that put a scan output's elements in a row."""
    from onnx import helper

    output = scan.node.output[scan.states + place]
    if not output:
        return
    base, axis = f"{scan.name}/out{place}", scan.output_axes[place]
    axes = _axes(graph, f"{base}/axes", axis)
    rows: list[str] = []
    for step, result in enumerate(results):
        rows.append(f"{base}/{step}")
        yield helper.make_node("Unsqueeze", [result, axes], [rows[-1]], name=rows[-1])
    if scan.output_backward[place]:
        rows.reverse()
    yield helper.make_node("Concat", rows, [output], name=base, axis=axis)


def _drop_constants(graph: Any, used: set[str]) -> None:
    """Drop the initializers, listed among the inputs or not, that nothing reads."""
    unused = {item.name for item in graph.initializer} - used
    unused -= {output.name for output in graph.output}
    for items in (graph.initializer, graph.input):
        kept = [item for item in items if item.name not in unused]
        del items[:]
        items.extend(kept)


def _alive(nodes: list[Any], wanted: set[str]) -> list[Any]:
    """Return the nodes that something wanted depends on, in their order."""
    kept: list[Any] = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    return kept[::-1]
