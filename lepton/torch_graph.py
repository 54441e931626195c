"""Graphs that TorchDynamo captured, and samples, in the form that the compiler takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lepton.errors import InputError

# torch is an extra, and typed in part only:
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false
# pyright: reportUntypedBaseClass=false

__all__ = ["bound_module", "grouped_samples"]


def bound_module(
    graph: torch.fx.GraphModule, arguments: Sequence[Any], fixed: Sequence[bool]
) -> torch.fx.GraphModule:
    """Return a captured graph some of whose inputs are constants.

    TorchDynamo passes parameters, buffers and extents as inputs.

    before: forward(l_x_, l_weight_, s0): conv2d(l_x_, l_weight_)
    after:  forward(l_x_): conv2d(l_x_, self.l_weight_)

    Args:
        graph: is not changed.
        arguments: a value of each placeholder.
        fixed: which of them become constants.
    """
    copy = torch.fx.Graph()
    copy.output(copy.graph_copy(graph.graph, {}))
    made = torch.fx.GraphModule(graph, copy)
    placeholders = [node for node in made.graph.nodes if node.op == "placeholder"]
    for node, value, is_fixed in zip(placeholders, arguments, fixed, strict=True):
        if is_fixed:
            _bind(made, node, value)
    made.recompile()
    return made


def _bind(module: torch.fx.GraphModule, node: torch.fx.Node, value: Any) -> None:
    """Replace a placeholder by a constant."""
    if isinstance(value, torch.Tensor):
        module.register_buffer(node.name, value.detach())
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(module.graph.get_attr(node.name))
    else:
        for user in list(node.users):
            user.args = torch.fx.map_arg(user.args, lambda item: _number(item, node, value))
            user.kwargs = torch.fx.map_arg(user.kwargs, lambda item: _number(item, node, value))
    module.graph.erase_node(node)


def _number(item: torch.fx.Node, node: torch.fx.Node, value: Any) -> Any:
    return value if item is node else item


def grouped_samples(
    given: Any, inputs: Sequence[torch.Tensor], names: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Return calibration samples by input name, `[samples, *shape]`.

    Samples of single elements are gathered to the batches that the graph takes, from the start
    again where the last batch lacks some.

    Args:
        given: samples of the only input, or a sequence of them, one for each input.
        inputs: of the graph.
        names: theirs.

    Raises:
        InputError: other inputs than the graph's, or of other shapes.
    """
    items = list(given) if isinstance(given, list | tuple) else [given]
    if len(items) != len(inputs):
        raise InputError(
            f"calibration has samples of {len(items)} inputs, and a graph takes {len(inputs)}; "
            "where a model breaks into several graphs, use calibration='first'"
        )
    return {
        name: _grouped(item, tuple(tensor.shape), name)
        for name, item, tensor in zip(names, items, inputs, strict=True)
    }


def _grouped(samples: Any, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    """Return samples of one input as `[n, *shape]`."""
    is_tensor = isinstance(samples, torch.Tensor)
    array = samples.detach().cpu().numpy() if is_tensor else np.asarray(samples)
    if array.shape[1:] == shape:
        return array
    if array.shape == shape:
        return array[None]
    if not shape or array.shape[1:] != shape[1:] or not len(array):
        raise InputError(
            f"calibration of input '{name}' has shape {list(array.shape)}, and the graph takes "
            f"{list(shape)}; where a model breaks into several graphs, use calibration='first'"
        )
    count = -(-len(array) // shape[0]) * shape[0]
    return np.resize(array, (count, *shape[1:])).reshape(-1, *shape)
