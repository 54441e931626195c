"""Follow every filter of a graph to where its channel is read: what has to go with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import ImportFailure
from lepton.models.onnx_module.reading import default_opset, node_name, runtime_inputs, stored_array
from lepton.models.onnx_module.step import LAYOUTS, Step, step_of
from lepton.models.pruning.channels import Axes, Axis, Channels, Tracked

if TYPE_CHECKING:
    import onnx

# onnx is typed in part only:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

__all__ = ["Filters", "Flow", "Rule", "folded", "inferred_shapes", "steps_of"]

Rule = Callable[["Flow", Step], None]
_FOLDED = LAYOUTS | {"Add", "Cast", "Concat", "Constant", "Div", "Gather", "Mul", "Slice", "Sub"}


@dataclass(frozen=True)
class Filters:
    """The filters of one layer.

    Attributes:
        layer: how the graph calls it.
        weights: the constant that holds them.
        axis: of the constant, along which they lie.
        labels: `[filters]`.
    """

    layer: str
    weights: str
    axis: int
    labels: NDArray[np.int64]


@dataclass
class Flow:
    """A graph whose tensors bear labels.

    Attributes:
        constants: name -> value.
        shapes: of all other tensors, the batch as 1.
        channels: what is tied.
        filters: of each layer, in the graph's order.
        bound: constant -> the labels of its axes.
        zeroed: constant -> the axis along which it is 0 where a channel is removed.
        groups: node's output -> the labels of its groups: a depthwise convolution's.
        targets: node's output -> the labels of a Reshape's result.
        parts: node's output -> the labels of each part of a Split.
    """

    constants: dict[str, NDArray[Any]]
    shapes: dict[str, tuple[int, ...]]
    channels: Channels = field(default_factory=Channels)
    filters: list[Filters] = field(default_factory=list[Filters])
    bound: dict[str, Axes] = field(default_factory=dict[str, Axes])
    zeroed: dict[str, int] = field(default_factory=dict[str, int])
    groups: dict[str, NDArray[np.int64]] = field(default_factory=dict[str, NDArray[np.int64]])
    targets: dict[str, Axes] = field(default_factory=dict[str, Axes])
    parts: dict[str, list[Axis]] = field(default_factory=dict[str, "list[Axis]"])
    tensors: dict[str, Tracked] = field(default_factory=dict[str, Tracked])

    def read(self, name: str) -> Tracked:
        """Return a tensor that a step has made."""
        return self.tensors[name]

    def write(self, name: str, axes: Sequence[Axis], is_zero: bool = True) -> None:
        """Label what a step makes."""
        self.tensors[name] = Tracked(self.shapes[name], tuple(axes), is_zero)

    def bind(self, name: str, axes: Sequence[Axis], reason: str, zeroed: int | None = None) -> None:
        """Label a constant; one that is read twice has to suit both.

        Args:
            name: of the constant.
            axes: its labels.
            reason: why channels stay where the two readings do not agree.
            zeroed: the axis along which its values vanish with the channel, if they do.
        """
        before = self.bound.get(name, tuple(axes))
        self.bound[name] = tuple(
            self.channels.tie(one, other, reason) if name in self.bound else one
            for one, other in zip(before, axes, strict=True)
        )
        if zeroed is not None:
            self.zeroed[name] = zeroed

    def fix_axes(self, tensor: Tracked, free: Sequence[int], reason: str) -> None:
        """Let the channels on all axes but some stay."""
        for axis, labels in enumerate(tensor.axes):
            if axis not in free:
                self.channels.fix(labels, reason)

    def freeze(self, step: Step, reason: str) -> None:
        """Let all channels that a step reads stay, and those that it makes be none."""
        for name in step.inputs:
            if name in self.tensors:
                self.fix_axes(self.tensors[name], (), reason)
            elif name in self.constants:
                self.bind(name, [None] * self.constants[name].ndim, reason)
        for name in step.outputs:
            if name:
                shape = self.shapes.get(name, ())
                self.tensors[name] = Tracked(shape, (None,) * len(shape))


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose constants are all initializers, those computed of others too.

    Raises:
        ImportFailure: A constant cannot be computed.
    """
    from onnx import numpy_helper

    made = type(model)()
    made.CopyFrom(model)
    constants = {item.name: stored_array(item, item.name) for item in made.graph.initializer}
    inputs = runtime_inputs(made.graph)
    del made.graph.input[:]
    made.graph.input.extend(inputs)
    # before this version every constant has to be an input too
    made.ir_version = max(made.ir_version, 4)
    before, left = set(constants), []
    for node in made.graph.node:
        is_constant = all(not name or name in constants for name in node.input)
        if is_constant and node.op_type in _FOLDED and not node.domain:
            constants[node.output[0]] = _evaluated(node, constants, model)
        else:
            left.append(node)
    del made.graph.node[:]
    made.graph.node.extend(left)
    read = {name for node in left for name in node.input}
    read |= {item.name for item in made.graph.output}
    made.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
        if name not in before and name in read
    )
    return made


def inferred_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor whose extents are known, a batch that is open as 1."""
    import onnx

    copy = type(model)()
    copy.CopyFrom(model)
    for item in runtime_inputs(copy.graph):
        dims = item.type.tensor_type.shape.dim
        if dims and not dims[0].dim_value:
            dims[0].dim_value = 1
    del copy.graph.value_info[:]
    for item in copy.graph.output:
        item.type.tensor_type.ClearField("shape")
    try:
        graph = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    except Exception as error:
        raise ImportFailure(f"shapes do not fit: {' '.join(str(error).split())}") from error
    return {
        item.name: tuple(int(dim.dim_value) for dim in item.type.tensor_type.shape.dim)
        for item in [*graph.value_info, *graph.input, *graph.output]
        if item.type.tensor_type.HasField("shape")
    }


def _evaluated(
    node: onnx.NodeProto, constants: dict[str, NDArray[Any]], model: onnx.ModelProto
) -> NDArray[Any]:
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    names = [name for name in dict.fromkeys(node.input) if name]
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(constants[name].dtype), None
        )
        for name in names
    ]
    made = helper.make_tensor_value_info(node.output[0], 1, None)
    graph = helper.make_graph([node], "constant", inputs, [made])
    opset = [helper.make_opsetid("", default_opset(model))]
    try:
        evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=opset))
        found: Any = evaluator.run(None, {name: constants[name] for name in names})
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ImportFailure(f"{node.op_type} {node_name(node)!r}: {reason}") from error
    return np.asarray(found[0])


def steps_of(model: onnx.ModelProto) -> list[Step]:
    """Return a graph's operators in order."""
    return [step_of(node, default_opset(model)) for node in model.graph.node]
