"""Masks on a torch module: which weights can be pruned, and how they stay 0 while it trains."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.pruning.masks import Mask

if TYPE_CHECKING:
    import torch
    from torch import nn

# torch is typed in part only, and an extra:
# pyright: reportMissingImports=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

__all__ = ["LayerWeight", "apply_masks", "hold", "layer_weights"]


@dataclass(frozen=True)
class LayerWeight:
    """A layer's weights in a torch module.

    Attributes:
        parameter: as torch holds it.
        owner: the module that reads it.
        is_turned: whether torch has it as `[in, out, …]`: a transposed convolution's.
    """

    parameter: torch.Tensor
    owner: nn.Module
    is_turned: bool

    def array(self) -> NDArray[Any]:
        """Return a copy as `[out, in, …]`."""
        return self.oriented(self.parameter.detach().cpu().numpy()).copy()

    def oriented(self, values: NDArray[Any]) -> NDArray[Any]:
        """Swap the first two axes if torch has them the other way."""
        return values.swapaxes(0, 1) if self.is_turned else values


def layer_weights(module: nn.Module) -> dict[str, LayerWeight]:
    """Return the weights that can be pruned: name in the module -> weights.

    Those of convolutions, linear layers, recurrences and attention; a tensor that several layers
    share counts once, under its first name.
    """
    from torch import nn

    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    kinds = (*convolutions, *transposed, nn.Linear, nn.RNNBase, nn.MultiheadAttention)
    found: dict[str, LayerWeight] = {}
    seen: set[int] = set()
    for prefix, owner in module.named_modules():
        if not isinstance(owner, kinds):
            continue
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.ndim >= 2 and "weight" in name and id(parameter) not in seen:
                seen.add(id(parameter))
                key = f"{prefix}.{name}" if prefix else name
                found[key] = LayerWeight(parameter, owner, isinstance(owner, transposed))
    return found


def apply_masks(module: nn.Module, masks: Mapping[str, Mask]) -> None:
    """Set pruned weights to 0.

    Args:
        module: is changed.
        masks: name of `layer_weights` -> `[out, in, …]`, True where a weight stays.

    Raises:
        InputError: A layer is unknown or a mask has another shape.
    """
    _zero(_pairs(module, masks))


@contextmanager
def hold(module: nn.Module, masks: Mapping[str, Mask]) -> Generator[None]:
    """Keep pruned weights 0 while the module trains.

    Gradients of pruned weights are 0, and before each pass of a layer its pruned weights are set
    to 0, whatever momentum an optimizer brought along; at the end they are exactly 0.

    Raises:
        InputError: A layer is unknown or a mask has another shape.
    """
    pairs = _pairs(module, masks)
    handles: list[Any] = [
        parameter.register_hook(_masking(stays))
        for parameter, stays in pairs
        if parameter.requires_grad
    ]
    owners = {name: item.owner for name, item in layer_weights(module).items()}
    for name, (parameter, stays) in zip(masks, pairs, strict=True):
        handles.append(owners[name].register_forward_pre_hook(_zeroing(parameter, stays)))
    _zero(pairs)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        # not by name: what was cut off may have left the weights parametrized
        _zero(pairs)


def _zero(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Set the weights that do not stay to 0."""
    for parameter, stays in pairs:
        parameter.data.masked_fill_(~stays.to(parameter.device), 0)


def _masking(stays: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda slope: slope.masked_fill(~stays.to(slope.device), 0)


def _zeroing(parameter: torch.Tensor, stays: torch.Tensor) -> Callable[..., None]:
    def zero(owner: nn.Module, inputs: Any) -> None:
        # not seen by autograd: a value that a pass has read is 0 already
        _zero([(parameter, stays)])

    return zero


def _pairs(module: nn.Module, masks: Mapping[str, Mask]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return each mask with its parameter, in the parameter's own order of axes."""
    import torch

    weights = layer_weights(module)
    made: list[tuple[torch.Tensor, torch.Tensor]] = []
    for name, mask in masks.items():
        weight = weights.get(name)
        if weight is None:
            raise InputError(f"there is no layer {name!r} to prune")
        own = np.ascontiguousarray(weight.oriented(mask))
        if own.shape != tuple(weight.parameter.shape):
            shape = list(weight.oriented(weight.parameter.detach().cpu().numpy()).shape)
            raise InputError(f"the mask of {name!r} has the shape {list(mask.shape)}, not {shape}")
        made.append((weight.parameter, torch.from_numpy(own).to(weight.parameter.device)))
    return made
