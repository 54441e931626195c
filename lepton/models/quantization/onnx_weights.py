"""The weights of a float ONNX graph: which constants they are, and how to replace them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.quantization.integer_weights import IntegerWeights
from lepton.models.quantization.quantizers import check_finite

if TYPE_CHECKING:
    import onnx

__all__ = [
    "check_graph",
    "matching_weights",
    "replace_weights",
    "stored_codes",
    "weight_axes",
    "weight_values",
]

_LISTED = 12
"""Names in a message."""


def weight_axes(graph: onnx.GraphProto, in_float: Collection[str] = ()) -> dict[str, int | None]:
    """Return the constants that operators multiply by, and the axis of their output channels.

    These are the kernels of convolutions, the matrices of Gemm and MatMul, and the tables of
    Gather, which have no channels. None also stands for a constant whose readers disagree.

    Args:
        graph: float.
        in_float: names of nodes whose weights are left out.
    """
    constants = {item.name: len(item.dims) for item in graph.initializer}
    axes: dict[str, int | None] = {}
    for node in graph.node:
        if node.name in in_float:
            continue
        for name, axis in _operands(node, constants):
            axes[name] = axis if axes.get(name, axis) == axis else None
    return axes


def _operands(node: Any, constants: Mapping[str, int]) -> Iterator[tuple[str, int | None]]:
    """Yield a node's constant weights with the axes of their channels."""
    attributes = {item.name: item.i for item in node.attribute}
    place = 0 if node.op_type == "Gather" else 1
    name = node.input[place] if len(node.input) > place else ""
    if name not in constants:
        return
    if node.op_type == "Conv":
        yield name, 0
    elif node.op_type == "ConvTranspose":
        yield name, 1 if attributes.get("group", 1) == 1 else None
    elif node.op_type == "Gemm":
        yield name, 0 if attributes.get("transB") else 1
    elif node.op_type == "MatMul":
        yield name, 1 if constants[name] == 2 else None
    elif node.op_type == "Gather" and constants[name] == 2:
        yield name, None


def weight_values(graph: onnx.GraphProto, names: Collection[str]) -> dict[str, NDArray[np.float32]]:
    """Return constants by name."""
    from onnx import numpy_helper

    return {
        item.name: np.asarray(numpy_helper.to_array(item), np.float32)
        for item in graph.initializer
        if item.name in names
    }


def check_graph(
    graph: onnx.GraphProto, weights: Collection[str], ranges: Collection[str] = ()
) -> None:
    """Raise InputError if weights or biases are not finite, or a range is of no activation.

    Args:
        graph: float.
        weights: names of constants.
        ranges: names of activations, as somebody gave them.
    """
    biases = {
        node.input[2]
        for node in graph.node
        if node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) > 2
    }
    for label, names in (("weights", weights), ("biases", biases)):
        for name, values in weight_values(graph, names).items():
            check_finite(values, f"{label} '{name}'")
    constants = {item.name for item in graph.initializer}
    made = [item.name for item in graph.input] + [name for n in graph.node for name in n.output]
    known = [name for name in made if name and name not in constants]
    unknown = next((name for name in ranges if name not in known), None)
    if unknown is not None:
        listed = ", ".join(f"'{name}'" for name in known[:_LISTED])
        more = ", …" if len(known) > _LISTED else ""
        raise InputError(f"the model has no activation '{unknown}' (it has {listed}{more})")


def replace_weights(graph: onnx.GraphProto, weights: Mapping[str, IntegerWeights]) -> None:
    """Write what codes stand for over the float constants, in place.

    Raises:
        InputError: codes of another shape than the constant's.
    """
    from onnx import numpy_helper

    for item in graph.initializer:
        if item.name not in weights:
            continue
        values = weights[item.name].values
        if list(values.shape) != list(item.dims):
            raise InputError(
                f"weights '{item.name}' must have shape {list(item.dims)}, not {list(values.shape)}"
            )
        item.CopyFrom(numpy_helper.from_array(values, item.name))


def matching_weights(
    values: Mapping[str, NDArray[np.float32]], given: Mapping[str, IntegerWeights]
) -> dict[str, IntegerWeights]:
    """Return codes by the names that a model has for their weights.

    Exporters rename and transpose parameters; what has no constant of its name is the one that has
    its values, or, if it is a matrix, their transpose.

    Args:
        values: the model's weights.
        given: codes by the model's or any other names.

    Raises:
        InputError: no constant has such a name or such values.
    """
    made = {name: weights for name, weights in given.items() if name in values}
    for name, weights in given.items():
        if name in values:
            continue
        forms = [weights, weights.transposed()] if weights.codes.ndim == 2 else [weights]
        found = {
            own: form
            for own, array in values.items()
            for form in reversed(forms)
            if np.array_equal(array, form.values)
        }
        if not found:
            known = ", ".join(f"'{own}'" for own in values) or "none"
            raise InputError(
                f"the model has no weights '{name}', and none with their values (it has {known})"
            )
        made |= found
    return made


def stored_codes(graph: onnx.GraphProto, name: str) -> NDArray[np.int8]:
    """Return the codes that a QDQ graph holds in place of a float constant."""
    from onnx import numpy_helper

    stored = f"{name}_quantized"
    found = next(item for item in graph.initializer if item.name == stored)
    return cast(NDArray[np.int8], numpy_helper.to_array(found))
