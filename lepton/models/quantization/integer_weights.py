"""Weights as the int8 file holds them: codes and scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton.errors import InputError
from lepton.models.quantization.calibration import Calibration, MinMax, Scheme
from lepton.models.quantization.quantizers import Floats, check_finite, spread

__all__ = ["IntegerWeights", "WEIGHT_BITS"]

WEIGHT_BITS = 8
"""Of the container."""


@dataclass(frozen=True, eq=False)
class IntegerWeights:
    """Weights that are code x scale, with zero at code 0.

    Attributes:
        codes: int8; of n bits they stay within -(2^(n-1) - 1) .. 2^(n-1) - 1, one bit within +-1.
        scale: one, or `[channels]`.
        axis: of the channels; None with one scale.
    """

    codes: NDArray[np.int8]
    scale: Floats
    axis: int | None = None

    def __post_init__(self) -> None:
        check_finite(self.scale, "scales of weights")

    @classmethod
    def of_values(
        cls,
        values: ArrayLike,
        bits: int,
        axis: int | None = 0,
        calibration: Calibration | None = None,
    ) -> IntegerWeights:
        """Quantize weights symmetrically to n bits.

        Raises:
            InputError: not 1 to 8 bits, or weights that are NaN or infinite.
        """
        if not 1 <= bits <= WEIGHT_BITS:
            raise InputError(f"weights have 1 to {WEIGHT_BITS} bits, not {bits}")
        quantizer = Scheme(bits, True, axis, calibration or MinMax()).fit(values)
        return cls(quantizer.quantize(values).astype(np.int8), quantizer.scale, axis)

    @classmethod
    def of_levels(cls, values: ArrayLike) -> IntegerWeights:
        """Round shared weights to the 255 codes of one scale, max|w| / 127.

        Equal weights keep equal codes and zeros stay zeros, so that a codebook becomes a palette of
        no more codes than it has entries.
        """
        return cls.of_values(values, WEIGHT_BITS, None)

    @property
    def values(self) -> Floats:
        """The weights that the codes stand for."""
        return self.codes.astype(np.float32) * spread(self.scale, self.axis, self.codes.ndim)

    def transposed(self) -> IntegerWeights:
        """Return the weights of a matrix `[n, k]` as `[k, n]`."""
        axis = None if self.axis is None else 1 - self.axis
        return IntegerWeights(np.ascontiguousarray(self.codes.T), self.scale, axis)
