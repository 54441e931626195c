"""Quantizers: small values that turn numbers into integer codes and back.

Parameters are one number, or one for each channel of `axis`. Halves round to even, as in ONNX,
PyTorch and NumPy, and all arithmetic is in float32, so that the three agree in every code. Only
the zero point of `dynamic_grid`, which no file can hold, needs float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton.errors import InputError

__all__ = [
    "Binary",
    "Codebook",
    "Codes",
    "Floats",
    "PowersOfTwo",
    "Quantizer",
    "RangeGrid",
    "Standardized",
    "Uniform",
    "check_finite",
    "check_range",
    "code_limits",
    "dynamic_grid",
    "spread",
]

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]

ACTIVATION_BITS = 16
"""The widest codes."""


class Quantizer(Protocol):
    """A map from numbers to codes with its approximate inverse."""

    def quantize(self, values: ArrayLike) -> Codes:
        """Return the code of each number."""
        ...

    def dequantize(self, codes: ArrayLike) -> Floats:
        """Return the number that each code stands for."""
        ...


def check_finite(values: ArrayLike, label: str) -> None:
    """Raise InputError, with what a message calls them, if numbers are NaN or infinite."""
    if not np.isfinite(np.asarray(values)).all():
        raise InputError(f"{label} hold NaN or infinite numbers")


def code_limits(bits: int, symmetric: bool) -> tuple[int, int]:
    """Return the least and the greatest code of signed integers.

    Symmetric codes use the narrow range -(2^(bits-1) - 1) .. 2^(bits-1) - 1, whose extremes are
    opposite; the others use -2^(bits-1) .. 2^(bits-1) - 1.

    Raises:
        InputError: not 1 to 16 bits, or one symmetric bit, which would be zero only.
    """
    if not 1 <= bits <= ACTIVATION_BITS:
        raise InputError(f"bits must be 1 to {ACTIVATION_BITS}, not {bits}")
    if symmetric and bits == 1:
        raise InputError("a symmetric uniform grid needs at least 2 bits; Binary has 1")
    highest = 2 ** (bits - 1) - 1
    return (-highest if symmetric else -highest - 1), highest


def check_range(limits: tuple[ArrayLike, ArrayLike], label: str = "a range") -> None:
    """Raise InputError unless ranges, one or `[channels]`, are finite and not reversed."""
    low, high = (np.asarray(item, np.float64) for item in limits)
    wrong = ~(np.isfinite(low) & np.isfinite(high) & (low <= high))
    if wrong.any():
        low, high = (np.broadcast_to(item, wrong.shape)[wrong][0] for item in (low, high))
        raise InputError(f"{label} must be finite and go up, not from {low:g} to {high:g}")


def spread(
    parameters: ArrayLike,
    axis: int | None,
    rank: int,
    kind: type[np.float32] | type[np.float64] = np.float32,
) -> NDArray[Any]:
    """Return parameters, one or `[channels]`, in a shape that broadcasts along an axis."""
    array = np.asarray(parameters, kind)
    if axis is None or array.ndim == 0:
        return array
    shape = [1] * rank
    shape[axis] = array.size
    return array.reshape(shape)


def _nearest(levels: Floats, values: ArrayLike) -> NDArray[np.intp]:
    """Return the index of the nearest of ascending levels, of the lower one at a tie."""
    middles = (levels[1:].astype(np.float64) + levels[:-1]) / 2
    return np.searchsorted(middles, np.asarray(values, np.float64), side="left")


@dataclass(frozen=True, eq=False)
class Uniform:
    """Integer multiples of a step: code = round(x / scale) + zero_point, clipped.

    With zero_point 0 and dequantization this is round(x / q) q with the step q = scale.

    Source: Jacob et al., Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference, CVPR 2018, section 2.1 (r = S (q - Z)).

    Attributes:
        scale: the step, one or `[channels]`.
        zero_point: the code of zero, one or `[channels]`; int64 where it may lie outside the
            codes, and then arithmetic is in float64.
        low: the least code.
        high: the greatest code.
        axis: of the channels.
    """

    scale: Floats
    zero_point: Codes | NDArray[np.int64]
    low: int
    high: int
    axis: int | None = None

    @classmethod
    def of_step(cls, step: ArrayLike, bits: int, axis: int | None = None) -> Uniform:
        """Return the symmetric grid of a given step.

        Raises:
            InputError: a step that is not positive, or bits that no grid has.
        """
        if not (np.isfinite(step).all() and np.all(np.asarray(step) > 0)):
            raise InputError(f"a step must be positive, not {step}")
        low, high = code_limits(bits, symmetric=True)
        scale = np.asarray(step, np.float32)
        return cls(scale, np.zeros(scale.shape, np.int32), low, high, axis)

    @classmethod
    def of_limits(
        cls,
        limits: tuple[ArrayLike, ArrayLike],
        bits: int,
        symmetric: bool,
        axis: int | None = None,
    ) -> Uniform:
        """Return the grid that covers the range from `limits[0]` to `limits[1]`, and zero.

        symmetric: scale = max(|min|, |max|) / (2^(bits-1) - 1)
        affine: scale = (max - min) / (2^bits - 1), zero_point = low - round(min / scale)

        A range of zero width has scale 1.

        Raises:
            InputError: a range that is reversed or not finite, or bits that no grid has.
        """
        low, high = code_limits(bits, symmetric)
        check_range(limits)
        least = np.minimum(np.asarray(limits[0], np.float64), 0)
        greatest = np.maximum(np.asarray(limits[1], np.float64), 0)
        width = 2 * np.maximum(-least, greatest) if symmetric else greatest - least
        scale = (width / (high - low)).astype(np.float32)
        scale = np.where(scale > 0, scale, np.float32(1))
        zero_point = np.zeros(scale.shape) if symmetric else low - np.rint(least / scale)
        return cls(scale, np.clip(zero_point, low, high).astype(np.int32), low, high, axis)

    def quantize(self, values: ArrayLike) -> Codes:
        """Return the codes of numbers."""
        array = np.asarray(values, np.float32).astype(self._type)
        steps = np.rint(array / spread(self.scale, self.axis, array.ndim))
        codes = steps + self._zeros(array.ndim)
        return np.clip(codes, self.low, self.high).astype(np.int32)

    def dequantize(self, codes: ArrayLike) -> Floats:
        """Return (code - zero_point) x scale."""
        array = np.asarray(codes, self._type)
        steps = array - self._zeros(array.ndim)
        return (steps * spread(self.scale, self.axis, array.ndim)).astype(np.float32)

    @property
    def _type(self) -> type[np.float32] | type[np.float64]:
        """The type that arithmetic is in."""
        return np.float64 if self.zero_point.dtype == np.int64 else np.float32

    def _zeros(self, rank: int) -> NDArray[Any]:
        """Return the zero points in a shape that broadcasts along the axis."""
        return spread(self.zero_point, self.axis, rank, self._type)


@dataclass(frozen=True, eq=False)
class RangeGrid:
    """Codes spread over a range: code = round((x - min) / (max - min) (high - low)) + low.

    Unlike in `Uniform`, both ends of the range are exact, and zero need not be.

    Source: Krishnamoorthi, Quantizing deep convolutional networks for efficient inference,
    arXiv:1806.08342, section 2, without its rounding of the zero point.

    Attributes:
        least, greatest: the range, one each or `[channels]`.
        low, high: the codes of its ends.
        axis: of the channels.
    """

    least: Floats
    greatest: Floats
    low: int
    high: int
    axis: int | None = None

    def __post_init__(self) -> None:
        check_range((self.least, self.greatest))

    def quantize(self, values: ArrayLike) -> Codes:
        """Return the codes of numbers; those outside the range get the code of its end."""
        array = np.asarray(values, np.float32)
        part = (array - spread(self.least, self.axis, array.ndim)) / self._width(array.ndim)
        codes = np.rint(part * np.float32(self.high - self.low)) + self.low
        return np.clip(codes, self.low, self.high).astype(np.int32)

    def dequantize(self, codes: ArrayLike) -> Floats:
        """Return (code - low) / (high - low) x (max - min) + min."""
        array = np.asarray(codes, np.float32)
        part = (array - self.low) / np.float32(self.high - self.low)
        return part * self._width(array.ndim) + spread(self.least, self.axis, array.ndim)

    def _width(self, rank: int) -> Floats:
        width = self.greatest - self.least
        return spread(np.where(width > 0, width, np.float32(1)), self.axis, rank)


def dynamic_grid(values: ArrayLike, bits: int) -> Uniform:
    """Return the grid whose step follows from the numbers themselves: q = (max - min) / 2^bits.

    The first code stands for round(min / q + 1/2) q, so that no number is off by more than q. The
    range need not include zero, so the zero point may lie far outside the codes. Numbers that all
    equal c have max - min = 0, and so must not be off at all: q is |c| (1 where c is 0) and the
    first code stands for c.

    Source: the step of a uniform quantizer of 2^bits intervals, as in Widrow and Kollar,
    Quantization Noise, Cambridge University Press 2008.

    Raises:
        InputError: no numbers, some that are not finite, or bits that no grid has.
    """
    array = np.asarray(values, np.float32)
    if not array.size:
        raise InputError("an empty array has no range to quantize")
    check_finite(array, "numbers to quantize")
    low, high = code_limits(bits, symmetric=False)
    least, greatest = float(array.min()), float(array.max())
    if least == greatest:
        step, first = np.float32(abs(least) or 1.0), int(np.sign(least))
    else:
        smallest = np.finfo(np.float32).smallest_subnormal
        step = np.maximum(np.float32((greatest - least) / 2**bits), smallest)
        first = int(np.rint(least / float(step) + 0.5))
    return Uniform(np.asarray(step), np.asarray(low - first, np.int64), low, high)


@dataclass(frozen=True, eq=False)
class Standardized:
    """Codes of standardized numbers: code = round((x - mean) / deviation), clipped.

    Source: the standard score of statistics; Cai et al., Deep Learning with Low Precision by
    Half-wave Gaussian Quantization, CVPR 2017, use one grid for all that batch norms standardize.

    Attributes:
        mean, deviation: one each or `[channels]`; the deviation is the step.
        low, high: the least and the greatest code.
        axis: of the channels.
    """

    mean: Floats
    deviation: Floats
    low: int
    high: int
    axis: int | None = None

    @classmethod
    def of_values(cls, values: ArrayLike, bits: int, axis: int | None = None) -> Standardized:
        """Return the quantizer with the mean and the standard deviation of numbers."""
        array = np.asarray(values, np.float64)
        check_finite(array, "numbers to quantize")
        rows = array.reshape(1, -1) if axis is None else channel_rows(array, axis)
        mean, deviation = rows.mean(1), rows.std(1)
        deviation = np.where(deviation > 0, deviation, 1)
        if axis is None:
            mean, deviation = mean[0], deviation[0]
        limits = code_limits(bits, symmetric=True)
        return cls(np.asarray(mean, np.float32), np.asarray(deviation, np.float32), *limits, axis)

    def quantize(self, values: ArrayLike) -> Codes:
        """Return the codes of numbers."""
        array = np.asarray(values, np.float32)
        centred = array - spread(self.mean, self.axis, array.ndim)
        codes = np.rint(centred / spread(self.deviation, self.axis, array.ndim))
        return np.clip(codes, self.low, self.high).astype(np.int32)

    def dequantize(self, codes: ArrayLike) -> Floats:
        """Return code x deviation + mean."""
        array = np.asarray(codes, np.float32)
        scaled = array * spread(self.deviation, self.axis, array.ndim)
        return scaled + spread(self.mean, self.axis, array.ndim)


def channel_rows(array: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return an array as `[channels, rest]`."""
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


@dataclass(frozen=True, eq=False)
class Codebook:
    """Any ascending levels: the code is the index of the nearest, of the lower one at a tie.

    Source: Lloyd, Least squares quantization in PCM, IEEE Trans. Information Theory 28(2), 1982.

    Attributes:
        levels: `[k]`, ascending.
    """

    levels: Floats

    def __post_init__(self) -> None:
        if self.levels.ndim != 1 or not self.levels.size or (np.diff(self.levels) < 0).any():
            raise InputError("a codebook needs a list of ascending levels")

    def quantize(self, values: ArrayLike) -> Codes:
        """Return the index of the nearest level of each number."""
        return _nearest(self.levels, values).astype(np.int32)

    def dequantize(self, codes: ArrayLike) -> Floats:
        """Return the levels of indices."""
        return self.levels[np.asarray(codes)]


@dataclass(frozen=True, eq=False)
class PowersOfTwo:
    """Signed powers of two and zero: code +-c is +-2^(exponent - high + c) for c = 1 .. high.

    The nearest level is taken, where logarithmic rounding would take the nearest exponent. A
    multiplication by a level is a shift.

    Source: Zhou et al., Incremental Network Quantization, ICLR 2017, section 2.1, whose largest
    exponent is floor(log2(4 max|x| / 3)); of its 2^(bits-1) codes of a sign none is set apart here.

    Attributes:
        exponent: of the greatest level.
        high: number of positive levels.
    """

    exponent: int
    high: int

    @classmethod
    def of_values(cls, values: ArrayLike, bits: int) -> PowersOfTwo:
        """Return the levels that reach the largest of numbers."""
        _, high = code_limits(bits, symmetric=True)
        check_finite(values, "numbers to quantize")
        peak = float(np.abs(np.asarray(values, np.float64)).max())
        exponent = int(np.floor(np.log2(4 * peak / 3))) if peak > 0 else 0
        return cls(exponent, high)

    def quantize(self, values: ArrayLike) -> Codes:
        """Return the codes of the nearest levels, of the smaller one at a tie."""
        array = np.asarray(values, np.float32)
        positive = self.dequantize(np.arange(self.high + 1))
        return (np.sign(array) * _nearest(positive, np.abs(array))).astype(np.int32)

    def dequantize(self, codes: ArrayLike) -> Floats:
        """Return the powers that codes stand for."""
        array = np.asarray(codes, np.int32)
        powers = np.exp2(np.float32(self.exponent - self.high) + np.abs(array))
        return (np.sign(array) * powers).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Binary:
    """One bit: code = sign(x) with sign(0) = 1, and the level +-mean|x|, which errs least.

    Source: Rastegari et al., XNOR-Net, ECCV 2016, section 3.1.

    Attributes:
        scale: the level, one or `[channels]`.
        axis: of the channels.
    """

    scale: Floats
    axis: int | None = None

    @classmethod
    def of_values(cls, values: ArrayLike, axis: int | None = None) -> Binary:
        """Return the quantizer of least squared error for numbers."""
        check_finite(values, "numbers to quantize")
        sizes = np.abs(np.asarray(values, np.float64))
        scale = sizes.mean() if axis is None else channel_rows(sizes, axis).mean(1)
        return cls(np.where(scale > 0, scale, 1).astype(np.float32), axis)

    def quantize(self, values: ArrayLike) -> Codes:
        """Return -1 and 1."""
        return np.where(np.asarray(values) < 0, -1, 1).astype(np.int32)

    def dequantize(self, codes: ArrayLike) -> Floats:
        """Return code x scale."""
        array = np.asarray(codes, np.float32)
        return array * spread(self.scale, self.axis, array.ndim)
