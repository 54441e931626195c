"""Quantization parameters and activation ranges of TFLite tensors, exactly as the file has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lepton.errors import ImportFailure

_LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
QUANTIZED = frozenset(_LIMITS)


@dataclass(frozen=True, eq=False)
class Quantization:
    """Scale and zero point of a tensor.

    Attributes:
        scale: float32, rank 0 (per tensor) or `[channels]`.
        zero_point: int32, of the same shape.
        axis: Channel axis, 0 for per-tensor parameters.
    """

    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int32]
    axis: int

    def equals(self, other: Quantization | None) -> bool:
        """Return whether the parameters are bitwise the same."""
        return (
            other is not None
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )


def quantization_of(tensor: Any, name: str, kind: str) -> Quantization | None:
    """Read the quantization of a tensor of type `kind`, None if it has none.

    Raises:
        ImportFailure: The parameters contradict themselves.
    """
    parameters = tensor.Quantization()
    if parameters is None or parameters.ScaleLength() == 0:
        return None
    scale = np.array(parameters.ScaleAsNumpy(), np.float32)
    count = parameters.ZeroPointLength()
    points = np.array(parameters.ZeroPointAsNumpy() if count else [0], np.int64)
    if points.size not in (1, scale.size):
        raise ImportFailure(f"tensor {name!r} has {scale.size} scales but {count} zero points")
    lowest, highest = _LIMITS.get(kind, (-(1 << 31), (1 << 31) - 1))
    outside = points[(points < lowest) | (points > highest)]
    if len(outside):
        raise ImportFailure(
            f"tensor {name!r} has zero point {outside[0]}, which {kind} cannot hold"
        )
    if not np.all(np.isfinite(scale)) or np.any(scale < 0):
        raise ImportFailure(f"tensor {name!r} has a scale that is negative or not finite")
    if np.all(scale == 0):
        return None
    if scale.size == 1:
        return Quantization(scale.reshape(()), points.astype(np.int32).reshape(()), 0)
    axis = int(parameters.QuantizedDimension())
    if not 0 <= axis < tensor.ShapeLength() or tensor.Shape(axis) != scale.size:
        raise ImportFailure(
            f"tensor {name!r} has {scale.size} scales, which its axis {axis} does not"
        )
    zero_point = np.ascontiguousarray(np.broadcast_to(points.astype(np.int32), scale.shape))
    return Quantization(scale, zero_point, axis)


def activation_range(activation: str, kind: str, quantization: Quantization) -> tuple[int, int]:
    """Return the quantized range of a fused activation, within the type's own range.

    The bound is `zero_point + round(bound / scale)` in float32, halves away from zero.

    Source: TensorFlow Lite's CalculateActivationRangeQuantized (lite/kernels/kernel_util.cc).
    """
    bounds = {
        "NONE": (None, None),
        "RELU": (0.0, None),
        "RELU6": (0.0, 6.0),
        "RELU_N1_TO_1": (-1.0, 1.0),
    }
    if activation not in bounds:
        raise ImportFailure(f"the fused activation {activation} is not supported")
    low, high = _LIMITS[kind]
    lower, upper = bounds[activation]
    if lower is not None:
        low = max(low, _quantized(lower, quantization))
    if upper is not None:
        high = min(high, _quantized(upper, quantization))
    return low, high


def _quantized(value: float, quantization: Quantization) -> int:
    """Quantize one bound, halves away from zero."""
    quotient = np.float32(value) / np.float32(quantization.scale)
    rounded = int(np.copysign(np.floor(np.abs(quotient) + np.float32(0.5)), quotient))
    return int(quantization.zero_point) + rounded
