"""Neighbouring layers of a module: batch norms to fold, ranges to equalize."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from lepton.models.quantization.equalization import equalizing_factors
from lepton.models.quantization.torch_flow import Flow, recorded_flow
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
_SCALING_FUNCTIONS = ("relu", "relu_", "flatten", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d")


class LayerPair(NamedTuple):
    """Two layers whose channels are scaled against each other.

    Attributes:
        first: the layer that makes the channels.
        second: the one that reads them; `[out, channels x positions]` if linear behind images.
    """

    first: Any
    second: Any


def _flows(network: nn.Module, example: Sequence[torch.Tensor]) -> list[Flow]:
    """Return a network's computations."""
    refuse_replaced(network)
    return recorded_flow(network, example)


def _own_layers(flows: list[Flow]) -> set[str]:
    """Return the layers that run once and whose weights nothing else reads."""
    runs = Counter(flow.name for flow in flows if flow.module is not None)
    reads = Counter(reader for flow in flows for reader in flow.parameters)
    return {
        flow.name
        for flow in flows
        if flow.module is not None
        and isinstance(flow.module, (*_LAYERS, *_NORMS))
        and runs[flow.name] == 1
        and all(reads[id(item)] == 1 for item in flow.module.parameters())
    }


def fold_all(network: nn.Module, example: Sequence[torch.Tensor]) -> int:
    """Fold each batch norm into the layer before it; return how many were."""
    flows = _flows(network, example)
    own = _own_layers(flows)
    network.eval()
    folded = 0
    for flow in flows:
        norm: Any = flow.module
        before = flow.sources[0] if flow.sources else None
        if not isinstance(norm, _NORMS) or norm.running_mean is None or before is None:
            continue
        layer: Any = before.module
        alone = len(before.users) == 1 and {before.name, flow.name} <= own
        if not isinstance(layer, _LAYERS) or not alone:
            continue
        fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
        _set(network, before.name, fuse(layer, norm))
        _set(network, flow.name, nn.Identity())
        folded += 1
    return folded


def _set(network: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in another's place."""
    parent, _, label = path.rpartition(".")
    owner: Any = network.get_submodule(parent)
    setattr(owner, label, module)


def layer_pairs(network: nn.Module, example: Sequence[torch.Tensor]) -> list[LayerPair]:
    """Return the pairs of layers whose ranges can be equalized, in order of execution."""
    flows = _flows(network, example)
    own = _own_layers(flows)
    pairs: list[LayerPair] = []
    for flow in flows:
        reader = _reader(flow)
        if reader is None or not {flow.name, reader.name} <= own:
            continue
        first: Any = flow.module
        second: Any = reader.module
        is_pair = isinstance(first, _LAYERS) and isinstance(second, _LAYERS)
        if is_pair and _fits(first, second):
            pairs.append(LayerPair(first, second))
    return pairs


def _reader(flow: Flow) -> Flow | None:
    """Return what alone takes a result, behind what lets factors through."""
    while len(flow.users) == 1:
        (flow,) = flow.users
        if flow.module is None:
            lets_through = flow.name in _SCALING_FUNCTIONS
        else:
            lets_through = isinstance(flow.module, _SCALING)
        if not lets_through:
            return flow
    return None


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
