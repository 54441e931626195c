"""Calibration: which range of the numbers seen the codes should cover.

Each calibration is a value with one method, `limits`; what lies outside is clipped. A symmetric
grid takes the larger of the two limits' sizes for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton.errors import InputError
from lepton.models.quantization.quantizers import (
    Binary,
    Uniform,
    channel_rows,
    check_finite,
    code_limits,
)

__all__ = ["Calibration", "Entropy", "Grid", "MeanSquare", "MinMax", "Percentile", "Scheme"]

Limits = tuple[float, float]
Doubles = NDArray[np.float64]
_BINS_PER_CODE = 2


@dataclass(frozen=True)
class Grid:
    """The codes that a range is for: their bits, and whether they are symmetric."""

    bits: int
    symmetric: bool

    def over(self, limits: Limits) -> Uniform:
        """Return the grid over a range."""
        return Uniform.of_limits(limits, self.bits, self.symmetric)


class Calibration(Protocol):
    """A rule for the range."""

    def limits(self, values: Doubles, grid: Grid) -> Limits:
        """Return the least and the greatest number to cover of some `[n]`, n > 0."""
        ...


@dataclass(frozen=True)
class MinMax:
    """The extremes: (min x, max x); nothing is clipped.

    Source: Jacob et al., CVPR 2018, section 3.
    """

    def limits(self, values: Doubles, grid: Grid) -> Limits:
        """Return the extremes."""
        return float(values.min()), float(values.max())


@dataclass(frozen=True)
class Percentile:
    """The extremes without outliers: the (100 - p)-th and the p-th percentile.

    For a symmetric grid the p-th percentile of |x|, on both sides. Percentiles between two numbers
    are interpolated linearly.

    Source: Wu et al., Integer Quantization for Deep Learning Inference, arXiv:2004.09602.

    Attributes:
        percent: p, above 50.
    """

    percent: float = 99.99

    def __post_init__(self) -> None:
        if not 50 < self.percent <= 100:
            raise InputError(f"percent must be above 50 and at most 100, not {self.percent}")

    def limits(self, values: Doubles, grid: Grid) -> Limits:
        """Return the percentiles."""
        if grid.symmetric:
            bound = float(np.percentile(np.abs(values), self.percent))
            return -bound, bound
        low, high = np.percentile(values, [100 - self.percent, self.percent])
        return float(low), float(high)


@dataclass(frozen=True)
class MeanSquare:
    """The shrunken extremes of least squared error: argmin_k sum (x - dq(q(x)))^2.

    Candidate k of n covers (min x, max x) k / n; of equals the widest is taken.

    Source: Banner et al., Post training 4-bit quantization of convolutional networks, NeurIPS 2019,
    minimize the same error, in closed form for a Laplace distribution.

    Attributes:
        candidates: n.
    """

    candidates: int = 100

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise InputError(f"candidates must be at least 1, not {self.candidates}")

    def limits(self, values: Doubles, grid: Grid) -> Limits:
        """Return the best candidate."""
        low, high = float(values.min()), float(values.max())
        best: tuple[float, Limits] = (np.inf, (low, high))
        for candidate in range(self.candidates, 0, -1):
            part = candidate / self.candidates
            limits = (low * part, high * part)
            quantizer = grid.over(limits)
            rounded = quantizer.dequantize(quantizer.quantize(values))
            error = float(np.square(values - rounded).sum())
            if error < best[0]:
                best = (error, limits)
        return best[1]


@dataclass(frozen=True)
class Entropy:
    """The clipping that keeps most of the distribution: argmin_t KL(P_t || Q_t).

    Of a histogram of |x|, P_t has the first t bins, with all beyond added to the last of them. Q_t
    merges the bins as they were into as many groups as there are codes from zero up, and spreads
    each group's count evenly over its non-empty bins. KL(P || Q) = sum P log(P / Q), both scaled to
    sum 1; a candidate with an empty bin in Q that P fills is out. Of equals the widest is taken.
    Where there are more than half as many codes as bins, bins and stride are multiplied by the
    least number that leaves each code two bins: with fewer bins than codes nothing is merged, and
    every range would do.

    Source: Migacz, 8-bit Inference with TensorRT, GPU Technology Conference 2017.

    Attributes:
        bins: of the histogram.
        stride: bins from a candidate t to the next.
    """

    bins: int = 2048
    stride: int = 16

    def __post_init__(self) -> None:
        for name in ("bins", "stride"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")

    def limits(self, values: Doubles, grid: Grid) -> Limits:
        """Return the best clipping, within the extremes."""
        low, high = code_limits(grid.bits, grid.symmetric)
        least, greatest = float(values.min()), float(values.max())
        groups = high - low + 1 if least >= 0 and not grid.symmetric else high + 1
        finer = max(-(-_BINS_PER_CODE * groups // self.bins), 1)
        bins, stride = self.bins * finer, self.stride * finer
        counts, edges = np.histogram(np.abs(values), bins, (0.0, max(-least, greatest) or 1.0))
        best, bound = np.inf, float(edges[-1])
        for kept in range(bins, groups - 1, -stride):
            divergence = _divergence(counts.astype(np.float64), kept, groups)
            if divergence < best:
                best, bound = divergence, float(edges[kept])
        return max(least, -bound), min(greatest, bound)


def _divergence(counts: Doubles, kept: int, groups: int) -> float:
    """Return KL(P || Q) if the first bins are kept, in nats."""
    plain = counts[:kept]
    clipped = plain.copy()
    clipped[-1] += counts[kept:].sum()
    group = np.arange(kept) * groups // kept
    totals = np.bincount(group, plain, groups)
    filled = np.bincount(group, plain > 0, groups)
    merged = np.where(plain > 0, totals[group] / np.maximum(filled[group], 1), 0)
    used = clipped > 0
    if not merged.any() or (merged[used] == 0).any():
        return np.inf
    p, q = clipped[used] / clipped.sum(), merged[used] / merged.sum()
    return float((p * np.log(p / q)).sum())


@dataclass(frozen=True)
class Scheme:
    """How a tensor is quantized: all but the parameters that follow from its numbers.

    Attributes:
        bits: 1 to 16; one symmetric bit is `Binary`.
        symmetric: zero_point is 0, and the codes the narrow range.
        axis: of the channels that get parameters of their own; None for the tensor as a whole.
        calibration: of the range.
    """

    bits: int = 8
    symmetric: bool = True
    axis: int | None = None
    calibration: Calibration = MinMax()

    def fit(self, values: ArrayLike) -> Uniform | Binary:
        """Return the quantizer of an array.

        Raises:
            InputError: an empty array, one with NaN or infinite numbers, or bits that no grid has.
        """
        array = np.asarray(values, np.float64)
        if not array.size:
            raise InputError("an empty array has no range to quantize")
        check_finite(array, "numbers to quantize")
        if self.symmetric and self.bits == 1:
            return Binary.of_values(array, self.axis)
        grid = Grid(self.bits, self.symmetric)
        if self.axis is None:
            limits = self.calibration.limits(array.reshape(-1), grid)
            return Uniform.of_limits(limits, self.bits, self.symmetric)
        rows = [self.calibration.limits(row, grid) for row in channel_rows(array, self.axis)]
        low, high = np.array(rows).T
        return Uniform.of_limits((low, high), self.bits, self.symmetric, self.axis)
