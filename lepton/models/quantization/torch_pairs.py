"""Neighbouring layers of a traced module: batch norms to fold, ranges to equalize."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from lepton.errors import InputError
from lepton.models.quantization.equalization import equalizing_factors
from lepton.models.quantization.torch_weights import refuse_replaced

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

__all__ = ["LayerPair", "equalize_pair", "fold_all", "layer_pairs"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_SCALING = (
    *(nn.ReLU, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Flatten),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
_SCALING_FUNCTIONS = (torch.relu, nn.functional.relu, torch.flatten)
_SCALING_METHODS = ("relu", "relu_", "flatten")


class LayerPair(NamedTuple):
    """Two layers whose channels are scaled against each other.

    Attributes:
        first: the layer that makes the channels.
        second: the one that reads them; `[out, channels x positions]` if linear behind images.
    """

    first: Any
    second: Any


def _traced(network: nn.Module) -> tuple[fx.Graph, dict[str, nn.Module]]:
    """Return a network's graph and its modules."""
    refuse_replaced(network)
    try:
        graph = fx.symbolic_trace(network).graph
    except Exception as error:
        kind = type(network).__name__
        raise InputError(
            f"{kind} cannot be traced, so its neighbouring layers are not known: {error}"
        ) from error
    return graph, dict(network.named_modules())


def _uses(graph: fx.Graph) -> dict[str, int]:
    """Return how often each module is called."""
    counts: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            counts[str(node.target)] = counts.get(str(node.target), 0) + 1
    return counts


def fold_all(network: nn.Module) -> int:
    """Fold each batch norm into the layer before it; return how many were."""
    network.eval()
    graph, modules = _traced(network)
    uses, folded = _uses(graph), 0
    for node in graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        before: Any = node.args[0] if node.args else None
        if not isinstance(norm, _NORMS) or not isinstance(before, fx.Node):
            continue
        target = str(before.target)
        layer = modules.get(target) if before.op == "call_module" else None
        alone = len(before.users) == 1 and uses.get(target) == 1 == uses[str(node.target)]
        if not isinstance(layer, _LAYERS) or not alone or norm.running_mean is None:
            continue
        fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        _set(network, target, fuse(layer, norm))
        _set(network, str(node.target), nn.Identity())
        folded += 1
    return folded


def _set(network: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in another's place."""
    parent, _, label = path.rpartition(".")
    owner: Any = network.get_submodule(parent)
    setattr(owner, label, module)


def layer_pairs(network: nn.Module) -> list[LayerPair]:
    """Return the pairs of layers whose ranges can be equalized, in order of execution."""
    graph, modules = _traced(network)
    uses = _uses(graph)
    pairs: list[LayerPair] = []
    for node in graph.nodes:
        first: Any = _layer(node, modules, uses)
        if first is None:
            continue
        reader = _reader(node, modules)
        second: Any = None if reader is None else _layer(reader, modules, uses)
        if second is not None and _fits(first, second):
            pairs.append(LayerPair(first, second))
    return pairs


def _layer(node: fx.Node, modules: dict[str, nn.Module], uses: dict[str, int]) -> nn.Module | None:
    """Return the layer that a node runs, if it is the only one to."""
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    return module if isinstance(module, _LAYERS) and uses[str(node.target)] == 1 else None


def _reader(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """Return the node that alone reads a result, behind what lets factors through."""
    while len(node.users) == 1:
        (node,) = node.users
        if not _lets_through(node, modules):
            return node
    return None


def _lets_through(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], _SCALING)
    if node.op == "call_function":
        return node.target in _SCALING_FUNCTIONS
    return node.op == "call_method" and node.target in _SCALING_METHODS


def _fits(first: Any, second: Any) -> bool:
    """Return whether the channels that one layer makes are those that the other reads."""
    made = len(first.weight)
    if isinstance(second, nn.Linear):
        is_linear = isinstance(first, nn.Linear)
        return second.in_features == made if is_linear else second.in_features % made == 0
    if isinstance(first, nn.Linear) or second.in_channels != made:
        return False
    return second.groups in (1, made)


def equalize_pair(pair: LayerPair) -> None:
    """Scale the channels between two layers to equal ranges."""
    first, second = pair
    reading = _reading(second, len(first.weight))
    factors = equalizing_factors(
        first.weight.detach().cpu().numpy(), reading.detach().cpu().numpy()
    )
    s = torch.from_numpy(factors).to(first.weight)
    with torch.no_grad():
        first.weight /= s.reshape(-1, *[1] * (first.weight.ndim - 1))
        if first.bias is not None:
            first.bias /= s
        reading *= s.reshape(1, -1, *[1] * (reading.ndim - 2))


def _reading(layer: Any, channels: int) -> torch.Tensor:
    """Return a view of a layer's weight as `[out, channels, ...]`."""
    weight = layer.weight.detach()
    if isinstance(layer, nn.Linear):
        return weight.view(len(weight), channels, -1)
    if layer.groups > 1:
        return weight.view(channels, -1, *weight.shape[2:]).transpose(0, 1)
    return weight
