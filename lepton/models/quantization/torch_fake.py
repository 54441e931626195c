"""Fake quantization in PyTorch: values on the grid going forward, straight through going back."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from lepton.models.quantization.integer_weights import WEIGHT_BITS, IntegerWeights
from lepton.models.quantization.quantizers import Floats, code_limits, spread

# torch is an extra, and typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUntypedBaseClass=false

__all__ = ["FakeActivation", "FakeWeights", "SteppedWeights"]


def _straight_through(rounded: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return rounded values, exactly, with the gradient of those that they come from."""
    return rounded.detach() + (values - values.detach())


class FakeWeights(nn.Module):
    """Rounds a weight to symmetric codes of n bits: clip(round(w / s)) s.

    s is max|w| / (2^(bits-1) - 1) of each channel, always of the present weights; or it is trained,
    starting there. The gradient of w is 1 inside the range and 0 outside; that of a trained s is
    round(w / s) - w / s inside and the clipped code outside, times 1 / sqrt(elements x high). One
    bit is sign(w) s, with s = mean|w| and the gradient sign(w).

    Source: Bengio et al., arXiv:1308.3432 (straight-through estimator); Esser et al., Learned Step
    Size Quantization, ICLR 2020, sections 2.1 and 2.2; Rastegari et al., XNOR-Net, ECCV 2016.

    Args:
        weight: to start from.
        bits: 1 to 8.
        axis: of the channels; None for one scale.
        learned: train the scale.
    """

    scale: torch.Tensor

    def __init__(self, weight: torch.Tensor, bits: int, axis: int | None, learned: bool) -> None:
        super().__init__()
        self.bits, self.axis = bits, axis
        self.high = 1 if bits == 1 else code_limits(bits, symmetric=True)[1]
        scale = self._present_scale(weight.detach())
        elements = weight.numel() / scale.numel()
        self._pace = (elements * self.high) ** -0.5
        self.learned = learned
        if learned:
            self.scale = nn.Parameter(scale)
        else:
            self.register_buffer("scale", scale)

    def _present_scale(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the scale `[1, .., channels, .., 1]` that follows from weights."""
        others = [axis for axis in range(weight.ndim) if axis != self.axis]
        sizes = weight.abs()
        if self.bits == 1:
            scale = sizes.double().mean(others, keepdim=True).to(weight)
        else:
            scale = (sizes.amax(others, keepdim=True).double() / self.high).to(weight)
        return torch.where(scale > 0, scale, torch.ones_like(scale))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight on its grid."""
        scale = self._scale(weight)
        if self.bits == 1:
            signs = torch.where(weight < 0, -1.0, 1.0).to(weight)
            return signs * scale + (weight - weight.detach())
        steps = weight / scale
        codes = _straight_through(torch.round(steps), steps)
        return torch.clamp(codes, -self.high, self.high) * scale

    def _scale(self, weight: torch.Tensor) -> torch.Tensor:
        if not self.learned:
            self.scale = self._present_scale(weight.detach())
            return self.scale
        kept = self.scale.abs().clamp_min(torch.finfo(weight.dtype).tiny)
        return kept.detach() + (kept - kept.detach()) * self._pace

    def stored(self, weight: torch.Tensor) -> IntegerWeights:
        """Return the codes of a weight that this has made."""
        scale = self.scale.detach().abs().cpu()
        codes = torch.round(weight.cpu() / scale).to(torch.int8).numpy()
        flat = scale.numpy().astype(np.float32).reshape(-1)
        return IntegerWeights(codes, flat[0] if self.axis is None else flat, self.axis)


class SteppedWeights(nn.Module):
    """Rounds a weight to multiples of given steps, which are trained too: c s e^g.

    c = clip(round(10 v), -127, 127) are codes of 8 bits, s the given steps, and v (the parameter in
    the weight's place, w / (10 s) to begin with) and g (0 to begin with) are what is trained. In
    these units one learning rate suits layers whose weights differ in size by any factor: Adam
    moves a weight by ten times the rate in parts of its step, and a channel by the rate in parts of
    its size. The gradient of v is straight through inside the range and 0 outside, that of g exact.

    Source: Bengio et al., arXiv:1308.3432 (straight-through estimator).

    Args:
        steps: `[channels]`, or `[1]` without an axis.
        axis: of the channels; None for one step.
        ndim: of the weight.
    """

    steps: torch.Tensor
    _PACE = 10.0

    def __init__(self, steps: Floats, axis: int | None, ndim: int) -> None:
        super().__init__()
        self.axis = axis
        self.high = code_limits(WEIGHT_BITS, symmetric=True)[1]
        self.register_buffer("steps", torch.from_numpy(spread(steps, axis, ndim)).clone())
        self.gains = nn.Parameter(torch.zeros_like(self.steps))

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """Return what is trained in place of a weight."""
        return weight / (self._PACE * self._scale())

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the weight on its grid."""
        codes = self._PACE * values
        codes = _straight_through(torch.round(codes), codes)
        return torch.clamp(codes, -self.high, self.high) * self._scale()

    def _scale(self) -> torch.Tensor:
        return self.steps * self.gains.exp()

    def stored(self, weight: torch.Tensor) -> IntegerWeights:
        """Return the codes of a weight that this has made."""
        scale = self._scale().detach().cpu()
        codes = torch.round(weight.cpu() / scale).to(torch.int8).numpy()
        flat = scale.numpy().reshape(-1)
        return IntegerWeights(codes, flat[0] if self.axis is None else flat, self.axis)


class FakeActivation(nn.Module):
    """Observes the range of a tensor while training, and rounds it to affine codes of n bits.

    The range is a moving average of the extremes, r <- (1 - m) r + m (min x, max x), the first
    batch counting whole. Zero is in it, and exact.

    Source: Jacob et al., CVPR 2018, section 3.1; Krishnamoorthi, arXiv:1806.08342, section 2.

    Args:
        bits: 1 to 16.
        momentum: m.
    """

    least: torch.Tensor
    greatest: torch.Tensor
    seen: torch.Tensor

    def __init__(self, bits: int, momentum: float) -> None:
        super().__init__()
        self.low, self.high = code_limits(bits, symmetric=False)
        self._momentum = momentum
        for name in ("least", "greatest"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return values on the grid; before any range was observed, as they are."""
        if self.training:
            self._observe(values.detach())
        if not bool(self.seen):
            return values
        scale, zero_point = self._affine()
        steps = values / scale
        codes = _straight_through(torch.round(steps), steps) + zero_point
        return (torch.clamp(codes, self.low, self.high) - zero_point) * scale

    def _observe(self, values: torch.Tensor) -> None:
        part = self._momentum if bool(self.seen) else 1.0
        low, high = torch.aminmax(values)
        self.least.lerp_(low.to(self.least), part)
        self.greatest.lerp_(high.to(self.greatest), part)
        self.seen.fill_(True)

    def _affine(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scale and the zero point of the range, as `Uniform.of_limits` does."""
        least = self.least.double().clamp(max=0)
        width = self.greatest.double().clamp(min=0) - least
        scale = (width / (self.high - self.low)).to(self.least)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return scale, (self.low - torch.round(least / scale)).to(scale)

    @property
    def limits(self) -> tuple[float, float]:
        """The range observed."""
        return float(self.least), float(self.greatest)
