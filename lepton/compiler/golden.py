"""What the two goldens share: how an operation asks its golden library for exact parameters."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lepton.arith.records import RequantizeTable
from lepton.compiler.graph import Bounds
from lepton.compiler.operation import Activation, Operation, Quantization, Value
from lepton.errors import CompileError
from lepton.isa.instructions import BinaryMode, PoolMode, RequantizeMode, ResizeMode, SoftmaxMode

__all__ = ["BinaryForm", "Golden", "PoolForm", "RequantizeForm", "ResizeForm", "SoftmaxForm"]
__all__ += ["limits", "required", "tensor_scale", "tensor_zero_point"]

Bytes = NDArray[np.uint8]


class RequantizeForm(NamedTuple):
    """How sums become results."""

    table: RequantizeTable
    mode: RequantizeMode
    bounds: Bounds


class BinaryForm(NamedTuple):
    """How two operands become one; `exchanged` if they must be given in the other order."""

    mode: BinaryMode
    parameters: Bytes
    exchanged: bool = False


class PoolForm(NamedTuple):
    """How an average is formed."""

    mode: PoolMode
    parameters: Bytes
    bounds: Bounds


class SoftmaxForm(NamedTuple):
    """How a softmax is formed."""

    mode: SoftmaxMode
    parameters: Bytes


class ResizeForm(NamedTuple):
    """How pixels are resampled; rows and columns as in `graph.Resize`."""

    mode: ResizeMode
    rows: tuple[NDArray[Any], ...]
    columns: tuple[NDArray[Any], ...]
    header: Bytes


class Golden(Protocol):
    """The exact parameters of each kind of operation, as one golden library computes it."""

    def weighted(
        self, operation: Operation, weight_scale: NDArray[np.float32], bias: NDArray[np.int32]
    ) -> RequantizeForm:
        """Return the finish of a convolution or product; scales and bias per output channel."""
        ...

    def binary(self, operation: Operation) -> BinaryForm:
        """Return the function of two activations."""
        ...

    def average_pool(self, operation: Operation) -> PoolForm:
        """Return the average over windows."""
        ...

    def mean_is_whole_image(
        self,
        operation: Operation,
        kernel: tuple[int, int],
        image: tuple[int, int],
        padding: tuple[int, ...],
    ) -> bool:
        """Return whether an average pool over a whole image is computed as a mean."""
        ...

    def reduce(self, operation: Operation, count: int) -> RequantizeForm:
        """Return the finish of a sum or mean of `count` values, for one channel."""
        ...

    def softmax(self, operation: Operation) -> SoftmaxForm:
        """Return a softmax."""
        ...

    def resize(self, operation: Operation, sizes: tuple[tuple[int, int], ...]) -> ResizeForm:
        """Return a resampling of h and w, each (input size, output size)."""
        ...

    def requantize(self, source: Value, target: Value) -> Bytes:
        """Return the table, by raw byte, of a change of scale."""
        ...

    def concat(self, source: Value, target: Value) -> Bytes:
        """Return the table, by raw byte, that a concatenation sends one input through."""
        ...


def limits(dtype: str) -> tuple[int, int]:
    """Return the range of int8 or uint8."""
    return (0, 255) if dtype == "uint8" else (-128, 127)


def required(value: Value) -> Quantization:
    """Return the quantization of a value that must have one per tensor."""
    if value.quantization is None or not value.quantization.is_per_tensor:
        raise CompileError("an activation must be quantized per tensor")
    return value.quantization


def tensor_scale(value: Value) -> np.float32:
    """Return the scale of an activation."""
    return np.float32(required(value).scale[0])


def tensor_zero_point(value: Value) -> int:
    """Return the zero point of an activation."""
    return int(required(value).zero_point[0])


def clip_after(activation: Activation, low: int, high: int) -> tuple[int, int]:
    """Return a range narrowed by the clip behind quantize."""
    if activation.low is not None:
        low = max(low, activation.low)
    if activation.high is not None:
        high = min(high, activation.high)
    return low, high
