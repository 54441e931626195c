"""Bias correction on PyTorch modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

__all__ = ["correct_all"]

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
Batches = Callable[[], Sequence[Any]]


def correct_all(network: nn.Module, quantized: nn.Module, batches: Batches) -> None:
    """Correct the biases of a quantized copy of a network, layer after layer."""
    network.eval()
    quantized.eval()
    wanted, order = _means(network, batches, _paths(network))
    for path in order:
        found, _ = _means(quantized, batches, [path])
        layer: Any = quantized.get_submodule(path)
        error = found[path] - wanted[path]
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros(len(error)).to(layer.weight))
        with torch.no_grad():
            layer.bias -= error.to(layer.bias)


def _paths(network: nn.Module) -> list[str]:
    return [path for path, module in network.named_modules() if isinstance(module, _LAYERS)]


def _means(
    network: nn.Module, batches: Batches, paths: Sequence[str]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the mean of each output channel of layers, and the layers in order of execution."""
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}

    def note(path: str) -> Any:
        def hook(module: nn.Module, _inputs: object, made: torch.Tensor) -> None:
            rows = made.double()
            rows = rows if isinstance(module, nn.Linear) else rows.movedim(1, -1)
            rows = rows.reshape(-1, rows.shape[-1])
            sums[path] = sums.get(path, torch.zeros(1)) + rows.sum(0)
            counts[path] = counts.get(path, 0) + len(rows)

        return hook

    handles = [network.get_submodule(path).register_forward_hook(note(path)) for path in paths]
    try:
        with torch.no_grad():
            for inputs in batches():
                network(*(inputs if isinstance(inputs, tuple) else (inputs,)))
    finally:
        for handle in handles:
            handle.remove()
    return {path: sums[path] / counts[path] for path in sums}, list(sums)
