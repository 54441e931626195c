"""Quantization-aware training: the network trains with the rounding that the file will have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lepton.errors import InputError
from lepton.models.extras import require
from lepton.models.quantization.integer_weights import WEIGHT_BITS, IntegerWeights
from lepton.models.quantization.quantizers import (
    ACTIVATION_BITS,
    Floats,
    check_finite,
    check_range,
)

if TYPE_CHECKING:
    import torch

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false

__all__ = ["AwareOptions", "Trained", "train_quantized"]


@dataclass(frozen=True)
class AwareOptions:
    """What is rounded while training.

    Attributes:
        bits: of all weights, 1 to 8, or of those named (by the parameter's path), 8 for the others.
        activation_bits: 1 to 16; None leaves activations as they are. The file has 8.
        learned_scales: train the weights' scales (LSQ) in place of taking them from the extremes.
        steps: by the parameter's path, `[channels]` steps that a weight is rounded to multiples of,
            by codes of 8 bits, and that are trained from there (`round_to_entropy`), in place of
            those of its bits.
        momentum: of the moving averages of activations' extremes.
    """

    bits: int | Mapping[str, int] = WEIGHT_BITS
    activation_bits: int | None = 8
    learned_scales: bool = False
    steps: Mapping[str, Floats] = field(default_factory=dict[str, Floats])
    momentum: float = 0.01

    def __post_init__(self) -> None:
        counts = [self.bits] if isinstance(self.bits, int) else list(self.bits.values())
        wrong = [bits for bits in counts if not 1 <= bits <= WEIGHT_BITS]
        if wrong:
            raise InputError(f"weights have 1 to {WEIGHT_BITS} bits, not {wrong[0]}")
        if self.activation_bits is not None and not 1 <= self.activation_bits <= ACTIVATION_BITS:
            raise InputError(
                f"activations have 1 to {ACTIVATION_BITS} bits, not {self.activation_bits}"
            )
        if not 0 <= self.momentum <= 1:
            raise InputError(f"momentum must be 0 to 1, not {self.momentum}")
        for name, steps in self.steps.items():
            check_finite(steps, f"steps of '{name}'")

    def bits_of(self, name: str) -> int:
        """Return the bits of a weight."""
        return self.bits if isinstance(self.bits, int) else self.bits.get(name, WEIGHT_BITS)


@dataclass(frozen=True)
class Trained:
    """What the training chose.

    Attributes:
        weights: codes for `quantize_model`, by the parameter's path.
        ranges: of the activations, by `input 0` .. or the path of the module that makes them.
    """

    weights: dict[str, IntegerWeights]
    ranges: dict[str, tuple[float, float]]


def train_quantized(
    network: torch.nn.Module,
    example: Sequence[torch.Tensor],
    fine_tune: Callable[[torch.nn.Module], None],
    options: AwareOptions | None = None,
) -> Trained:
    """Train a network with its weights and activations rounded, in place.

    Fold batch norms first (`fold_batch_norms`): the file has none. Biases are not rounded; the file
    rounds them to multiples of the input's scale times the weights'.

    Args:
        network: any module.
        example: its inputs, to find out which modules make activations.
        fine_tune: trains the module it gets, which takes the network's inputs.
        options: bits and scales.

    Returns:
        The codes and the ranges. The network's weights are plain parameters again, equal to what
        the codes stand for.

    Raises:
        LeptonError: PyTorch is not installed.
        InputError: bits or steps are named of a weight that the network has not, or a weight or a
            range is NaN or infinite, before the training or after it.
    """
    require("torch")
    from lepton.models.quantization.torch_aware import QuantizationAware
    from lepton.models.quantization.torch_weights import bake, check_weights, weights_of

    options = options or AwareOptions()
    known = [weight.name for weight in weights_of(network)]
    named = [*options.steps, *(() if isinstance(options.bits, int) else options.bits)]
    unknown = next((name for name in named if name not in known), None)
    if unknown is not None:
        raise InputError(f"the network has no weights '{unknown}' (it has {', '.join(known)})")
    check_weights(network)
    aware = QuantizationAware(network, example, options)
    fine_tune(aware)
    aware.detach()
    check_weights(network, " after the training: lower its learning rate")
    ranges = aware.limits()
    for point, limits in ranges.items():
        check_range(limits, f"the range of '{point}'")
    return Trained(bake(network), ranges)
