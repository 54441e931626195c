"""Draws tensors, quantizations and numbers into a TFLite model, from a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.tflite_builder import Tensor, TfliteBuilder

__all__ = ["Maker", "Writer"]

Array = NDArray[Any]
Shape = tuple[int, ...]


class Writer:
    """Draws operators, shapes and quantizations into one model."""

    def __init__(self, seed: int, dtype: str) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.builder = TfliteBuilder()
        self.inputs: dict[str, tuple[Tensor, Array]] = {}
        self.made: list[Tensor] = []
        self._count = 0

    # --- drawing ---------------------------------------------------------------------------------

    def pick(self, *choices: Any) -> Any:
        """Return one of the choices."""
        return choices[int(self.rng.integers(len(choices)))]

    def between(self, low: int, high: int) -> int:
        """Return a number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def name(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def limits(self, dtype: str) -> tuple[int, int]:
        return (0, 255) if dtype == "uint8" else (-128, 127)

    def zero_point(self, dtype: str) -> int:
        """Return a zero point, at an end of the range now and then."""
        low, high = self.limits(dtype)
        return self.pick(low, high, self.between(low, high), self.between(low, high))

    def values(self, shape: Sequence[int], dtype: str) -> Array:
        low, high = self.limits(dtype)
        return self.rng.integers(low, high + 1, tuple(shape)).astype(dtype)

    # --- tensors ---------------------------------------------------------------------------------

    def input(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Return a new graph input, with the quantization of another tensor if given."""
        dtype = like.dtype if like is not None else self.made[-1].dtype if self.made else self.dtype
        scale = float(10.0 ** self.rng.uniform(-2.5, -1)) if like is None else float(like.scale)
        point = self.zero_point(dtype) if like is None else like.zero_point
        name = f"x{len(self.inputs)}"
        tensor = self.builder.input(name, shape, dtype, scale, point)
        self.inputs[name] = tensor, self.values(shape, dtype)
        return tensor

    def other(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Return another operand of a shape: an earlier result if one fits, else an input."""
        fitting = [
            t
            for t in self.made[:-1]
            if t.shape == tuple(shape)
            and t.dtype == self.made[-1].dtype
            and (like is None or (t.scale, t.zero_point) == (like.scale, like.zero_point))
        ]
        return (
            self.pick(*fitting) if fitting and self.rng.random() < 0.7 else self.input(shape, like)
        )

    def same(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Return a result with the quantization of an operand."""
        return self.builder.tensor(self.name(), shape, x.dtype, float(x.scale), x.zero_point)

    def fresh(
        self, x: Tensor, shape: Sequence[int], gain: float = 1.0, point: int | None = None
    ) -> Tensor:
        """Return a result of its own quantization, about `gain` times as wide as an operand's."""
        scale = float(x.scale) * gain * float(self.rng.uniform(0.4, 2.0))
        point = self.zero_point(x.dtype) if point is None else point
        return self.builder.tensor(self.name(), shape, x.dtype, scale, point)

    def fixed(self, x: Tensor, scale: float, int8_point: int) -> Tensor:
        """Return a result whose quantization the operator prescribes."""
        point = int8_point if x.dtype == "int8" else int8_point + 128
        return self.builder.tensor(self.name(), x.shape, x.dtype, scale, point)

    def numbers(self, *values: int) -> Tensor:
        """Return an int32 constant."""
        return self.builder.constant(self.name(), np.array(values, np.int32))

    def weights(self, shape: Shape, axis: int, dtype: str) -> Tensor:
        """Return constant weights: per channel for int8, with a zero point for uint8."""
        per_channel = dtype == "int8" and self.rng.random() < 0.7
        count = shape[axis] if per_channel else 1
        scales = self.rng.uniform(0.002, 0.02, count).astype(np.float32)
        point = self.between(0, 255) if dtype == "uint8" else 0
        values = self.values(shape, dtype)
        if self.rng.random() < 0.3:
            values = np.where(self.rng.random(shape) < 0.7, point, values).astype(dtype)
        return self.builder.constant(self.name(), values, scales, point, axis)

    def scalar(self, value: int) -> Tensor:
        """Return an int32 constant of rank 0, as converters write axes."""
        tensor = self.builder.constant(self.name(), np.array([value], np.int32))
        self.builder.tensors[tensor.index] = replace(tensor, shape=())
        return self.builder.tensors[tensor.index]

    def bias(self, x: Tensor, weights: Tensor, count: int, spread: int) -> Tensor:
        """Return an int32 bias."""
        scales = np.array(weights.scales) * float(x.scale)
        values = self.rng.integers(-spread, spread + 1, count).astype(np.int32)
        return self.builder.constant(self.name(), values, scales)

    def activation(self) -> str:
        return self.pick("NONE", "NONE", "RELU", "RELU6", "RELU_N1_TO_1")

    def operator(
        self, kind: str, inputs: Sequence[Tensor | None], output: Tensor, **options: Any
    ) -> Tensor:
        """Add an operator with one result, and return it."""
        self.builder.operator(kind, inputs, [output], **options)
        return output


Maker = Callable[[Writer, Tensor], Tensor]
"""Adds an operator to the tensor that a chain ends in; returns the new end."""
