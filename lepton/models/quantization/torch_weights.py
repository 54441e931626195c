"""The weights of a PyTorch module: which parameters they are, and what replaces them in training.

A replacement is a parametrization with a method `stored` that says which codes the file is to
hold. `torch.nn.utils.parametrize` keeps it in place of the parameter, in any module.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from lepton.errors import InputError
from lepton.models.quantization.integer_weights import IntegerWeights

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false, reportPrivateUsage=false

__all__ = [
    "Replacement",
    "Weight",
    "bake",
    "check_weights",
    "chosen_weights",
    "refuse_replaced",
    "replace",
    "weights_of",
]

_MATRICES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Weight(NamedTuple):
    """One weight of a module.

    Attributes:
        name: path of the parameter in the network.
        owner: the layer that has it.
        label: what the layer calls it.
        axis: of its output channels; None where it has none.
    """

    name: str
    owner: nn.Module
    label: str
    axis: int | None

    @property
    def value(self) -> torch.Tensor:
        return getattr(self.owner, self.label)


class Replacement(Protocol):
    """A parametrization that chooses what is stored."""

    def stored(self, weight: torch.Tensor) -> IntegerWeights:
        """Return the codes of a weight that it has made."""
        ...


def weights_of(network: nn.Module) -> list[Weight]:
    """Return the weights of convolutions, linear layers, attention, recurrences and embeddings.

    Biases and norms are not among them.
    """
    return [
        Weight(f"{path}.{label}" if path else label, owner, label, axis)
        for path, owner in network.named_modules()
        for label, axis in _labels(owner)
    ]


def _labels(owner: nn.Module) -> Iterator[tuple[str, int | None]]:
    """Yield the names of a layer's weights and the axes of their channels."""
    if isinstance(owner, _MATRICES):
        yield "weight", 0
    elif isinstance(owner, _TRANSPOSED):
        yield "weight", 1 if owner.groups == 1 else None
    elif isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        yield "weight", None
    elif isinstance(owner, nn.RNNBase):
        for label in owner._flat_weights_names:
            if label.startswith("weight"):
                yield label, 0
    elif isinstance(owner, nn.MultiheadAttention):
        for label in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if getattr(owner, label) is not None:
                yield label, 0


def check_weights(network: nn.Module, when: str = "") -> None:
    """Raise InputError if a weight is NaN or infinite.

    Args:
        network: any module.
        when: what a message adds to the weight's name.
    """
    for weight in weights_of(network):
        if not bool(torch.isfinite(weight.value.detach()).all()):
            raise InputError(f"weight '{weight.name}' holds NaN or infinite numbers{when}")


def refuse_replaced(network: nn.Module) -> None:
    """Raise InputError if a weight is made by a parametrization, so that it cannot be written."""
    for weight in weights_of(network):
        if parametrize.is_parametrized(weight.owner, weight.label):
            raise InputError(
                f"weight '{weight.name}' is parametrized (masked, rounded or shared): "
                "make it a plain parameter first"
            )


def replace(weight: Weight, step: nn.Module) -> None:
    """Let a layer compute with what a parametrization makes of its weight."""
    owner: Any = weight.owner
    parametrize.register_parametrization(owner, weight.label, step)
    if isinstance(owner, nn.RNNBase) and not getattr(owner, "_lepton_refreshes", False):
        # a recurrence reads a list of its parameters that it made once
        owner.register_forward_pre_hook(_refresh)
        owner._lepton_refreshes = True


def _refresh(owner: Any, _inputs: object) -> None:
    owner._flat_weights = [getattr(owner, label) for label in owner._flat_weights_names]


def _replacement(weight: Weight) -> Replacement | None:
    """Return the last parametrization of a weight that says what is stored."""
    if not parametrize.is_parametrized(weight.owner, weight.label):
        return None
    owner: Any = weight.owner
    steps = [step for step in owner.parametrizations[weight.label] if hasattr(step, "stored")]
    return cast(Replacement, steps[-1]) if steps else None


def chosen_weights(network: nn.Module) -> dict[str, IntegerWeights]:
    """Return the codes of all weights that are quantized or shared, by the parameter's path."""
    with torch.no_grad():
        return {
            weight.name: step.stored(weight.value.detach())
            for weight in weights_of(network)
            if (step := _replacement(weight)) is not None
        }


def bake(network: nn.Module) -> dict[str, IntegerWeights]:
    """Make what the codes stand for the plain parameters; return the codes.

    Masks of pruning and other parametrizations of the same weights end with it.
    """
    chosen = chosen_weights(network)
    with torch.no_grad():
        for weight in weights_of(network):
            if weight.name not in chosen:
                continue
            owner: Any = weight.owner
            parametrize.remove_parametrizations(owner, weight.label, leave_parametrized=True)
            values = torch.from_numpy(chosen[weight.name].values)
            weight.value.copy_(values.to(weight.value))
    return chosen
