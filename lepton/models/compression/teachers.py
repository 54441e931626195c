"""Teachers that are several networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lepton.errors import InputError
from lepton.models.onnx_module.reading import (
    default_opset,
    in_opset,
    read_float_model,
    runtime_inputs,
)

if TYPE_CHECKING:
    import onnx

# onnx is typed in part only:
# pyright: reportUnknownMemberType=false

__all__ = ["mean_teacher"]

_End = tuple[int, tuple[int | str, ...]]
"""Element type and shape."""


def mean_teacher(models: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """Return one float network whose answer is the mean of several networks' answers.

    The mean of several networks' logits is often right where one of them is wrong, and a student
    learns it as it would one network's.

    Source: Hinton et al., arXiv:1503.02531 (what an ensemble knows, in one network).

    Args:
        models: float ONNX with one input and one output each, of the same shapes and element types.

    Returns:
        Float ONNX with the input `input` and the output `mean`.

    Raises:
        InputError: there is none, they differ in their inputs or outputs, or one cannot be
            brought to the newest of their opsets.
    """
    from onnx import compose, helper

    if not models:
        raise InputError("a mean of networks needs at least one network")
    ends = [_ends(model, number) for number, model in enumerate(models, start=1)]
    for number, found in enumerate(ends[1:], start=2):
        if found != ends[0]:
            raise InputError(
                f"network {number} is {_text(found)}, and the first is {_text(ends[0])}: a mean "
                "needs the same input and output shapes"
            )
    opset = max(default_opset(model) for model in models)
    nodes: list[Any] = []
    constants: list[Any] = []
    answers: list[str] = []
    for number, model in enumerate(models):
        part = compose.add_prefix(
            in_opset(model, opset, f"network {number + 1}"), f"{number}/"
        ).graph
        (fed,) = runtime_inputs(part)
        # prefixed names have a stroke, so that this name is free
        nodes.append(helper.make_node("Identity", ["input"], [fed.name], name=f"{number}/input"))
        nodes.extend(part.node)
        constants.extend(part.initializer)
        answers.append(part.output[0].name)
    nodes.append(helper.make_node("Mean", answers, ["mean"], name="mean"))
    given, made = (
        helper.make_tensor_value_info(name, kind, shape)
        for name, (kind, shape) in zip(("input", "mean"), ends[0], strict=True)
    )
    graph = helper.make_graph(nodes, "mean", [given], [made], constants)
    imports = [helper.make_opsetid("", opset)]
    version = max(model.ir_version for model in models)
    return read_float_model(helper.make_model(graph, opset_imports=imports, ir_version=version))


def _ends(model: onnx.ModelProto, number: int) -> tuple[_End, _End]:
    """Return element type and shape of the only input and the only output."""
    given, made = runtime_inputs(model.graph), model.graph.output
    if len(given) != 1 or len(made) != 1:
        raise InputError(
            f"network {number} has {len(given)} inputs and {len(made)} outputs, not one of each"
        )
    first, last = (_end(item) for item in (given[0], made[0]))
    return first, last


def _end(item: onnx.ValueInfoProto) -> _End:
    kind = item.type.tensor_type
    return kind.elem_type, tuple(dim.dim_value or dim.dim_param for dim in kind.shape.dim)


def _text(ends: tuple[_End, _End]) -> str:
    first, last = ends
    return f"{list(first[1])} -> {list(last[1])}"
