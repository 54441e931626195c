"""Classifiers that answer with the mean for an image and its mirror image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.onnx_module.reading import (
    default_opset,
    drop_unread,
    in_opset,
    read_float_model,
    runtime_inputs,
    stored_array,
)

if TYPE_CHECKING:
    import onnx

# onnx and onnxruntime are typed in part only:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

__all__ = ["mirrored_model", "single_model", "width_axis"]

_OWN = "mirror/"
_FLIP, _PAIR, _BOTH, _MEAN = (f"{_OWN}{part}" for part in ("flip", "pair", "both", "mean"))
_OLDEST_OPSET, _AXES_ARE_INPUTS = 13, 18
"""Older models are brought to the first; from the second on ReduceMean takes its axes as an input.
"""
_CONSTANTS_ARE_NO_INPUTS = 4
"""Version of ONNX's files: before it each constant is among the inputs too."""
_AXES_STAY = frozenset(
    ("Add", "Cast", "Clip", "Div", "Identity", "Mul", "Pad", "Relu", "Slice", "Sub")
)
_TOLERANCE = 1e-3
"""Of the greatest logit, between the answer and the mean of two answers, in float32."""


def mirrored_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a classifier that looks at an image and its mirror image, and gives the mean answer.

    The layers take both as a batch of two; a Reshape to a batch of one becomes one to two. Weights
    are stored once, so that the answers get better for no bytes, and for twice the multiplications.

    Source: Krizhevsky et al., ImageNet classification with deep convolutional neural networks,
    NIPS 2012, section 4.1 (predictions averaged over an image's crops and their reflections).

    Args:
        model: float ONNX, one image `[1, c, h, w]` (or any batch of them) to `[1, classes]`; the
            image may be `[1, h, w, c]` if the first layer turns it.

    Returns:
        Float ONNX of the same input, with a batch of 1, and the same output.

    Raises:
        InputError: the model has other inputs or outputs, or layers that take one image only.
    """
    from onnx import helper, numpy_helper

    made = read_float_model(model)
    made = in_opset(made, max(default_opset(made), _OLDEST_OPSET), "the network")
    made.ir_version = max(made.ir_version, _CONSTANTS_ARE_NO_INPUTS)
    graph = made.graph
    given, answer = _ends(graph)
    nodes = list(graph.node)
    for node in nodes:
        node.input[:] = [_PAIR if name == given.name else name for name in node.input]
        node.output[:] = [_BOTH if name == answer.name else name for name in node.output]
    graph.initializer.extend(_doubled(graph, nodes))
    axis = width_axis(model)
    spans = {"start": -1, "end": np.iinfo(np.int32).min, "axis": axis, "step": -1}
    sliced = [given.name, *(f"{_OWN}{key}" for key in spans)]
    before = [
        helper.make_node("Slice", sliced, [f"{_OWN}image"], _FLIP),
        helper.make_node("Concat", [given.name, f"{_OWN}image"], [_PAIR], _PAIR, axis=0),
    ]
    axes: dict[str, Any] = {"axes": [0]} if default_opset(made) < _AXES_ARE_INPUTS else {}
    mean = helper.make_node("ReduceMean", [_BOTH], [answer.name], _MEAN, keepdims=1, **axes)
    if not axes:
        spans["images"] = 0
        mean.input.append(f"{_OWN}images")
    graph.initializer.extend(
        numpy_helper.from_array(np.array([value], np.int64), f"{_OWN}{key}")
        for key, value in spans.items()
    )
    del graph.node[:], graph.value_info[:]
    graph.node.extend([*before, *nodes, mean])
    for end in (given, answer):
        end.type.tensor_type.shape.dim[0].dim_value = 1
    _refuse_mixed(model, made, axis)
    return made


def single_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the float network inside of one that `mirrored_model` made; any other as it is."""
    from onnx import numpy_helper

    own = {node.name: node for node in model.graph.node if node.name in (_FLIP, _PAIR, _MEAN)}
    if len(own) < 3:
        return model
    made = type(model)()
    made.CopyFrom(model)
    graph = made.graph
    image, both = own[_FLIP].input[0], own[_MEAN].input[0]
    names = {own[_PAIR].output[0]: image, both: own[_MEAN].output[0]}
    nodes = [node for node in graph.node if node.name not in own]
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for item in graph.initializer:
        if item.name.startswith(f"{_OWN}shape"):
            shape = stored_array(item, item.name).copy()
            shape[0] = 1
            item.CopyFrom(numpy_helper.from_array(shape, item.name))
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    drop_unread(graph)
    return made


def width_axis(model: onnx.ModelProto) -> int:
    """Return which axis of a network's only input, an image, is the width.

    It is the last one, unless a Transpose that reads the image, behind nothing but operators that
    leave axes where they are, says otherwise: one to `[1, c, h, w]` of `[1, h, w, c]`, say.

    Raises:
        InputError: the image is read in several ways.
    """
    places: dict[str, Sequence[int]] = {runtime_inputs(model.graph)[0].name: (0, 1, 2, 3)}
    found: set[int] = set()
    for node in model.graph.node:
        read = [places[name] for name in node.input if name in places]
        if not read or node.op_type == "Shape":
            continue
        if node.op_type == "Transpose":
            order = [axis for item in node.attribute for axis in item.ints] or [3, 2, 1, 0]
            places[node.output[0]] = [read[0][axis] for axis in order]
        elif node.op_type in _AXES_STAY:
            places[node.output[0]] = read[0]
        else:
            found.add(read[0][3])
    if len(found) != 1 or 0 in found:
        raise InputError(
            "a mirrored answer needs an image whose width is one axis, and this network reads "
            f"axes {sorted(found)} as the width"
        )
    return found.pop()


def _ends(graph: onnx.GraphProto) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]:
    """Return the only input, an image, and the only output."""
    given, made = runtime_inputs(graph), list(graph.output)
    ranks = [len(item.type.tensor_type.shape.dim) for item in (*given, *made)]
    if len(given) != 1 or len(made) != 1 or ranks != [4, 2]:
        raise InputError(
            "a mirrored answer needs a network of one image [1, c, h, w] and one answer "
            f"[1, classes], not {len(given)} inputs and {len(made)} outputs with {ranks} dimensions"
        )
    if any(node.name == _MEAN for node in graph.node):
        raise InputError("the network answers for mirror images already")
    image, answer = given[0], made[0]
    batch = image.type.tensor_type.shape.dim[0].dim_value
    if batch > 1:
        raise InputError(
            f"a mirrored answer needs a network of one image at a time, not of {batch}"
        )
    return image, answer


def _doubled(graph: onnx.GraphProto, nodes: list[Any]) -> list[onnx.TensorProto]:
    """Let each Reshape to a batch of one make a batch of two; return the new shapes."""
    from onnx import numpy_helper

    stored = {item.name: item for item in graph.initializer}
    constants = {*stored, ""}
    for node in nodes:
        if node.op_type == "Constant":
            for item in node.attribute:
                whole = numpy_helper.from_array(np.array(item.ints, np.int64))
                stored[node.output[0]] = item.t if item.name == "value" else whole
        if constants.issuperset(node.input):
            constants.update(node.output)
    made: list[onnx.TensorProto] = []
    for node in nodes:
        # weights and biases are the same for both images
        if node.op_type != "Reshape" or node.input[0] in constants or node.input[1] not in stored:
            continue
        shape = stored_array(stored[node.input[1]], node.input[1])
        if shape.size and shape[0] == 1:
            name = f"{_OWN}shape{len(made)}"
            made.append(numpy_helper.from_array(np.concatenate([shape[:1] + 1, shape[1:]]), name))
            node.input[1] = name
    return made


def _refuse_mixed(model: onnx.ModelProto, mirrored: onnx.ModelProto, axis: int) -> None:
    """Refuse a network whose layers do not take a batch of two as they take two images."""
    (given,) = runtime_inputs(mirrored.graph)
    shape = [dim.dim_value for dim in given.type.tensor_type.shape.dim]
    if not all(shape):
        raise InputError(f"a mirrored answer needs images of one size, not of {shape} (0: open)")
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    wanted = (_answer(model, image) + _answer(model, np.flip(image, axis))) / 2
    found = _answer(mirrored, image)
    most = _TOLERANCE * max(1.0, float(np.abs(wanted).max()))
    if found.shape != wanted.shape or not np.allclose(found, wanted, rtol=0, atol=most):
        raise InputError("a mirrored answer needs layers that keep two images of a batch apart")


def _answer(model: onnx.ModelProto, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what ONNX Runtime computes of an image."""
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # a failure is reported once, by the error below
    providers = ["CPUExecutionProvider"]
    try:
        session: Any = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=providers
        )
        (made,) = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(image)})
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"a mirrored answer needs layers that take two images at once: {reason}"
        ) from None
    return np.asarray(made, np.float32)
