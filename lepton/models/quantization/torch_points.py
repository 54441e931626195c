"""Where a module's activations are quantized, found by running it once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

__all__ = ["activation_points", "first_tensor"]

_FUSED = (
    *(nn.ReLU, nn.ReLU6, nn.Hardtanh),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
)
_MOVING = (
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Flatten, nn.Unflatten),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool2d, nn.PixelShuffle, nn.ZeroPad2d),
    *(nn.Upsample, nn.ChannelShuffle),
)


class _Call(NamedTuple):
    """One run of a module: its path, itself, and the tensors it took and made."""

    path: str
    module: nn.Module
    inputs: tuple[Any, ...]
    made: torch.Tensor


def first_tensor(made: object) -> torch.Tensor | None:
    """Return the float tensor that a module makes, the first of a tuple."""
    first: Any = made[0] if isinstance(made, tuple | list) and made else made
    return first if isinstance(first, torch.Tensor) and first.is_floating_point() else None


def activation_points(network: nn.Module, example: Sequence[torch.Tensor]) -> list[str]:
    """Return the paths of the modules whose results have a range of their own.

    A module has none that only moves data or hands on what a part of it made; nor has one whose
    result goes into a ReLU or a batch norm, which are computed with it.
    """
    calls = _calls(network, example)
    return [
        call.path
        for place, call in enumerate(calls)
        if not isinstance(call.module, _MOVING)
        and not _hands_on(call, calls[:place])
        and not _is_fused(call, calls[place + 1 :])
    ]


def _hands_on(call: _Call, earlier: list[_Call]) -> bool:
    """Return whether a part of a module made what it returns."""
    inner = f"{call.path}." if call.path else ""
    return any(part.made is call.made and part.path.startswith(inner) for part in earlier)


def _is_fused(call: _Call, later: list[_Call]) -> bool:
    """Return whether what a module makes goes into one that is computed with it."""
    return any(
        isinstance(reader.module, _FUSED) and any(item is call.made for item in reader.inputs)
        for reader in later
    )


def _calls(network: nn.Module, example: Sequence[torch.Tensor]) -> list[_Call]:
    """Run a network; return the runs of its modules, the innermost first."""
    calls: list[_Call] = []

    def note(path: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], made: Any) -> None:
            tensor = first_tensor(made)
            if tensor is not None:
                calls.append(_Call(path, module, inputs, tensor))

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in network.named_modules()]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(*example)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return calls
