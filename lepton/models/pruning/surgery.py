"""Remove filters from a float ONNX graph, and all that reads them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import ImportFailure
from lepton.models.onnx_module.reading import (
    drop_unread,
    read_float_model,
    runtime_inputs,
    stored_array,
)
from lepton.models.onnx_module.step import Step
from lepton.models.pruning.channels import Axes, Tracked
from lepton.models.pruning.flow import Filters, Flow, folded, inferred_shapes, steps_of
from lepton.models.pruning.layer_rules import LAYER_RULES
from lepton.models.pruning.move_rules import MOVE_RULES

if TYPE_CHECKING:
    import onnx

# onnx is typed in part only:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

__all__ = ["ChannelSet", "FilterGraph", "filter_graph"]

_RULES = {**LAYER_RULES, **MOVE_RULES}


@dataclass(frozen=True)
class ChannelSet:
    """Channels that the same layers make; each goes with one filter (or more) of each.

    Attributes:
        layers: positions in `FilterGraph.filters`.
        classes: `[channels]`, their names.
    """

    layers: tuple[int, ...]
    classes: NDArray[np.int64]


class FilterGraph:
    """A float graph that knows what goes with each of its filters."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = folded(model)
        self._flow = _traced(self._model)

    @property
    def filters(self) -> Sequence[Filters]:
        """The layers with filters, in the graph's order."""
        return self._flow.filters

    def weights(self, layer: Filters) -> NDArray[Any]:
        """Return a layer's weights as `[filters, …]`."""
        return np.moveaxis(self._flow.constants[layer.weights], layer.axis, 0)

    def classes(self, layer: Filters) -> NDArray[np.int64]:
        """Return which class each filter of a layer belongs to, `[filters]`."""
        return self._flow.channels.roots(layer.labels)

    def sets(self) -> list[ChannelSet]:
        """Return the channels that can be removed, by the layers that make them."""
        makers: dict[int, list[int]] = {}
        for position, layer in enumerate(self.filters):
            for label in np.unique(self.classes(layer)):
                if self._flow.channels.reason(int(label)) is None:
                    makers.setdefault(int(label), []).append(position)
        found: dict[tuple[int, ...], list[int]] = {}
        for label, layers in makers.items():
            found.setdefault(tuple(layers), []).append(label)
        return [ChannelSet(layers, np.array(labels)) for layers, labels in found.items()]

    def reason(self, layer: Filters) -> str | None:
        """Return why not every filter of a layer may go; None if each may."""
        reasons = [self._flow.channels.reason(int(label)) for label in layer.labels]
        return next((reason for reason in reasons if reason is not None), None)

    def without(self, classes: Collection[int]) -> onnx.ModelProto:
        """Return the graph without some classes of channels.

        Raises:
            ImportFailure: What is left is no valid graph.
        """
        import onnx

        flow, gone = self._flow, frozenset(int(item) for item in classes)
        model = _copy(self._model)
        changed = {
            name: _taken(flow, flow.constants[name], axes, gone)
            for name, axes in flow.bound.items()
            if any(axis is not None for axis in axes)
        }
        for node in model.graph.node:
            key = node.output[0] if node.output else ""
            if key in flow.groups:
                _set_whole(node, "group", _left(flow, flow.groups[key], gone))
            if key in flow.targets:
                target = _target(flow, flow.constants[node.input[1]], flow.targets[key], gone)
                node.input[1] = f"{key}.pruned_shape"
                changed[node.input[1]] = target
            if key in flow.parts:
                sizes = [
                    flow.shapes[name][_split_axis(node, flow)]
                    if part is None
                    else _left(flow, part, gone)
                    for name, part in zip(node.output, flow.parts[key], strict=True)
                ]
                _set_parts(node, sizes, changed, len(node.input) > 1 or _opset(model) >= 13)
        _replace(model.graph, changed)
        del model.graph.value_info[:]
        try:
            onnx.checker.check_model(model)
            return onnx.shape_inference.infer_shapes(model, strict_mode=True)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ImportFailure(f"the graph without the filters is not valid: {reason}") from error

    def with_weights(self, values: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
        """Return the graph with other weights: name of the constant -> `[filters, …]`."""
        axes = {layer.weights: layer.axis for layer in self.filters}
        model = _copy(self._model)
        _replace(model.graph, {name: np.moveaxis(v, 0, axes[name]) for name, v in values.items()})
        return model

    @property
    def model(self) -> onnx.ModelProto:
        """The graph as it is, its constants folded."""
        return _copy(self._model)

    def zeroed(self, classes: Collection[int]) -> onnx.ModelProto:
        """Return the graph with all filters, those of some classes 0, as are their biases."""
        flow, gone = self._flow, frozenset(int(item) for item in classes)
        model = _copy(self._model)
        changed: dict[str, NDArray[Any]] = {}
        for name, axis in flow.zeroed.items():
            labels = flow.bound[name][axis]
            if labels is not None:
                value = np.moveaxis(flow.constants[name].copy(), axis, 0)
                value[~_stays(flow, labels, gone)] = 0
                changed[name] = np.moveaxis(value, 0, axis)
        _replace(model.graph, changed)
        return model


def filter_graph(source: str | Path | bytes | onnx.ModelProto) -> FilterGraph:
    """Return a float ONNX model as a graph that filters can be removed from.

    Raises:
        InputError: The file cannot be read.
        ImportFailure: It is no ONNX model or is damaged.
    """
    return FilterGraph(read_float_model(source))


def _traced(model: onnx.ModelProto) -> Flow:
    constants = {item.name: stored_array(item, item.name) for item in model.graph.initializer}
    flow = Flow(constants, inferred_shapes(model))
    for item in runtime_inputs(model.graph):
        shape = flow.shapes.get(item.name, ())
        flow.tensors[item.name] = Tracked(shape, (None,) * len(shape))
    for step in steps_of(model):
        _follow(flow, step)
    for item in model.graph.output:
        if item.name in flow.tensors:
            flow.fix_axes(flow.tensors[item.name], (), "it makes the network's output")
    return flow


def _follow(flow: Flow, step: Step) -> None:
    """Apply a step's rule; what has none lets all that it reads stay."""
    rule = _RULES.get(step.kind)
    if rule is None or not any(name in flow.tensors for name in step.inputs):
        flow.freeze(step, f"{step.place} reads it, which no filter can be removed from")
        return
    try:
        rule(flow, step)
    except (ValueError, IndexError, KeyError, TypeError, ZeroDivisionError) as error:
        raise ImportFailure(f"{step.place} does not fit what it reads: {error}") from error


def _stays(flow: Flow, labels: NDArray[np.int64], gone: frozenset[int]) -> NDArray[np.bool_]:
    return np.array([int(item) not in gone for item in flow.channels.roots(labels)], np.bool_)


def _left(flow: Flow, labels: NDArray[np.int64], gone: frozenset[int]) -> int:
    return int(_stays(flow, labels, gone).sum())


def _taken(flow: Flow, value: NDArray[Any], axes: Axes, gone: frozenset[int]) -> NDArray[Any]:
    for axis, labels in enumerate(axes):
        if labels is not None:
            value = np.compress(_stays(flow, labels, gone), value, axis)
    return value


def _target(
    flow: Flow, target: NDArray[Any], axes: Axes, gone: frozenset[int]
) -> NDArray[np.int64]:
    """Return a Reshape's target; what it infers or copies it goes on inferring and copying."""
    return np.array(
        [
            size if labels is None or size <= 0 else _left(flow, labels, gone)
            for size, labels in zip(target.tolist(), axes, strict=True)
        ],
        np.int64,
    )


def _split_axis(node: onnx.NodeProto, flow: Flow) -> int:
    axes = [item.i for item in node.attribute if item.name == "axis"]
    return (axes[0] if axes else 0) % len(flow.shapes[node.output[0]])


def _set_parts(
    node: onnx.NodeProto, sizes: list[int], changed: dict[str, NDArray[Any]], is_input: bool
) -> None:
    """Give a Split the sizes of its parts: an attribute in old opsets, an input in new ones."""
    from onnx import helper

    kept = [item for item in node.attribute if item.name not in ("split", "num_outputs")]
    del node.attribute[:]
    node.attribute.extend(kept)
    if not is_input:
        node.attribute.append(helper.make_attribute("split", sizes))
        return
    name = f"{node.output[0]}.pruned_parts"
    first = node.input[0]
    del node.input[:]
    node.input.extend([first, name])
    changed[name] = np.array(sizes, np.int64)


def _set_whole(node: onnx.NodeProto, name: str, value: int) -> None:
    for attribute in node.attribute:
        if attribute.name == name:
            attribute.i = value


def _replace(graph: onnx.GraphProto, changed: Mapping[str, NDArray[Any]]) -> None:
    """Give initializers other values, or make them; those that nothing reads any more go."""
    from onnx import numpy_helper

    drop_unread(graph)
    kept = [item for item in graph.initializer if item.name not in changed]
    made = [numpy_helper.from_array(np.ascontiguousarray(v), name) for name, v in changed.items()]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *made])


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    made = type(model)()
    made.CopyFrom(model)
    return made


def _opset(model: onnx.ModelProto) -> int:
    return max((item.version for item in model.opset_import if not item.domain), default=1)
