"""A network that trains with the rounding that the int8 file has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lepton.models.quantization.aware import AwareOptions
from lepton.models.quantization.torch_fake import FakeActivation, FakeWeights, SteppedWeights
from lepton.models.quantization.torch_points import activation_points, first_tensor
from lepton.models.quantization.torch_weights import Weight, replace, weights_of

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false

__all__ = ["QuantizationAware"]


class QuantizationAware(nn.Module):
    """Runs a network with its weights and activations rounded; trains and saves as any module.

    Attributes:
        network: the network given, its weights replaced.
        activations: by number, the observers of the points.
        points: what each observes: `input 0` .. or the path of a module.
    """

    def __init__(
        self, network: nn.Module, example: Sequence[torch.Tensor], options: AwareOptions
    ) -> None:
        super().__init__()
        self.points: list[str] = []
        self.activations = nn.ModuleList()
        self._handles: list[Any] = []
        if options.activation_bits is not None:
            self._observe(network, example, options)
        for weight in weights_of(network):
            replace(weight, _rounder(weight, options))
        self.network = network

    def _observe(
        self, network: nn.Module, example: Sequence[torch.Tensor], options: AwareOptions
    ) -> None:
        """Round the inputs and the results of a network's modules."""
        paths = activation_points(network, example)
        inputs = [place for place, item in enumerate(example) if item.is_floating_point()]
        self.points = [f"input {place}" for place in inputs] + paths
        bits = options.activation_bits or 8
        made = [FakeActivation(bits, options.momentum) for _ in self.points]
        self.activations.extend(made)
        fakes = dict(zip(inputs, made, strict=False))

        def before(_module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(fakes[i](item) if i in fakes else item for i, item in enumerate(given))

        self._handles.append(network.register_forward_pre_hook(before))
        for path, fake in zip(paths, made[len(inputs) :], strict=True):
            hook = _rounding(fake)
            self._handles.append(network.get_submodule(path).register_forward_hook(hook))

    def forward(self, *inputs: Any) -> Any:
        """Return what the network makes."""
        return self.network(*inputs)

    def limits(self) -> dict[str, tuple[float, float]]:
        """Return the ranges observed, by point."""
        return {
            point: fake.limits
            for point, fake in zip(self.points, self.activations, strict=True)
            if isinstance(fake, FakeActivation) and bool(fake.seen)
        }

    def detach(self) -> None:
        """Let the network's activations be as they are."""
        for handle in self._handles:
            handle.remove()


def _rounder(weight: Weight, options: AwareOptions) -> nn.Module:
    """Return what rounds a weight."""
    if weight.name in options.steps:
        return SteppedWeights(options.steps[weight.name], weight.axis, weight.value.ndim)
    bits = options.bits_of(weight.name)
    return FakeWeights(weight.value, bits, weight.axis, options.learned_scales)


def _rounding(fake: FakeActivation) -> Any:
    """Return a hook that rounds the first float tensor that a module makes."""

    def hook(_module: nn.Module, _inputs: object, made: Any) -> Any:
        tensor = first_tensor(made)
        if tensor is None:
            return made
        return (fake(tensor), *made[1:]) if isinstance(made, tuple) else fake(tensor)

    return hook
