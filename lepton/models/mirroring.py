"""Classifiers that answer with the mean for an image and its mirror image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lepton.errors import InputError
from lepton.models.onnx_module.reading import default_opset, read_float_model, runtime_inputs

if TYPE_CHECKING:
    import onnx

# onnx is typed in part only:
# pyright: reportUnknownMemberType=false

__all__ = ["mirrored_model"]

_PAIR, _BOTH = "mirror/pair", "mirror/both"
_AXES_ARE_INPUTS = 18
"""The opset from which ReduceMean takes its axes as an input."""


def mirrored_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a classifier that looks at an image and its mirror image, and gives the mean answer.

    The layers take both as a batch of two. Their weights are stored once, so that the answers get
    better for no bytes, and for twice the multiplications.

    Source: Krizhevsky et al., ImageNet classification with deep convolutional neural networks,
    NIPS 2012, section 4.1 (predictions averaged over an image's crops and their reflections).

    Args:
        model: float ONNX, one image `[1, c, h, w]` (or of any batch) to `[1, classes]`.

    Returns:
        Float ONNX of the same input, with a batch of 1, and the same output.

    Raises:
        InputError: the model has other inputs or outputs, or layers that take one image only.
    """
    from onnx import helper, numpy_helper

    made = read_float_model(model)
    graph = made.graph
    given, answer = _ends(graph)
    nodes = list(graph.node)
    for node in nodes:
        node.input[:] = [_PAIR if name == given.name else name for name in node.input]
        node.output[:] = [_BOTH if name == answer.name else name for name in node.output]
    spans = {"start": -1, "end": np.iinfo(np.int32).min, "axis": 3, "step": -1, "images": 0}
    stored = {key: f"mirror/{key}" for key in spans}
    flip = ["Slice", [given.name, *(stored[key] for key in ("start", "end", "axis", "step"))]]
    before = [
        helper.make_node(*flip, ["mirror/image"], "mirror/flip"),
        helper.make_node("Concat", [given.name, "mirror/image"], [_PAIR], _PAIR, axis=0),
    ]
    axes: dict[str, Any] = {"axes": [0]}
    averaged = [_BOTH]
    if default_opset(made) >= _AXES_ARE_INPUTS:
        axes, averaged = {}, [_BOTH, stored["images"]]
    mean = helper.make_node(
        "ReduceMean", averaged, [answer.name], "mirror/mean", keepdims=1, **axes
    )
    used = {name for node in (*before, mean) for name in node.input}
    graph.initializer.extend(
        numpy_helper.from_array(np.array([value], np.int64), stored[key])
        for key, value in spans.items()
        if stored[key] in used
    )
    del graph.node[:], graph.value_info[:]
    graph.node.extend([*before, *nodes, mean])
    for end in (given, answer):
        end.type.tensor_type.shape.dim[0].dim_value = 1
    _refuse_single(made)
    return read_float_model(made)


def _ends(graph: onnx.GraphProto) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]:
    """Return the only input, an image, and the only output."""
    given, made = runtime_inputs(graph), list(graph.output)
    ranks = [len(item.type.tensor_type.shape.dim) for item in (*given, *made)]
    if len(given) != 1 or len(made) != 1 or ranks != [4, 2]:
        raise InputError(
            "a mirrored answer needs a network of one image [1, c, h, w] and one answer "
            f"[1, classes], not {len(given)} inputs and {len(made)} outputs with {ranks} dimensions"
        )
    (image, answer) = given[0], made[0]
    batch = image.type.tensor_type.shape.dim[0].dim_value
    if batch > 1:
        raise InputError(
            f"a mirrored answer needs a network of one image at a time, not of {batch}"
        )
    return image, answer


def _refuse_single(model: onnx.ModelProto) -> None:
    """Refuse a network whose layers do not take a batch of two."""
    from onnx import shape_inference

    try:
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"a mirrored answer needs layers that take two images at once: {reason}"
        ) from None
    shapes = {
        item.name: [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        for item in inferred.graph.value_info
    }
    if (found := shapes.get(_BOTH, [2])) and found[0] not in (0, 2):
        raise InputError(
            "a mirrored answer needs layers that take two images at once, and the network's answer "
            f"for two has the shape {found}"
        )
