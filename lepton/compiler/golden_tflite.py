"""Exact parameters as LiteRT's reference kernels form them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.arith import tflite, tflite_binary, tflite_table, tflite_window
from lepton.arith.records import RequantizeTable, pack
from lepton.compiler.golden import (
    BinaryForm,
    Bytes,
    PoolForm,
    RequantizeForm,
    ResizeForm,
    SoftmaxForm,
    clip_after,
    limits,
    tensor_scale,
    tensor_zero_point,
)
from lepton.compiler.graph import Bounds
from lepton.compiler.operation import Operation, Value
from lepton.errors import CompileError
from lepton.isa.footprints import BINARY_PARAMETER_BYTES, SOFTMAX_PARAMETER_BYTES
from lepton.isa.instructions import BinaryMode, PoolMode, RequantizeMode, ResizeMode, SoftmaxMode

__all__ = ["TfliteGolden"]

_ADDERS = {"add": BinaryMode.ADD_Q31, "subtract": BinaryMode.SUB_Q31}


def _quantization(value: Value) -> tflite.Quantization:
    return tflite.Quantization(tensor_scale(value), tensor_zero_point(value))


def _bounds(operation: Operation) -> tflite.Bounds:
    """Return the clamp of the result, fused activation included."""
    low, high = limits(operation.output.dtype)
    activation = operation.activation
    scale, zero_point = _quantization(operation.output)
    if np.isfinite(activation.real_low):
        step = tflite.round_half_away(float(np.float32(activation.real_low) / scale))
        low = max(low, zero_point + step)
    if np.isfinite(activation.real_high):
        step = tflite.round_half_away(float(np.float32(activation.real_high) / scale))
        high = min(high, zero_point + step)
    return tflite.Bounds(*clip_after(activation, low, high))


class TfliteGolden:
    """The golden of `.tflite` models."""

    def weighted(
        self, operation: Operation, weight_scale: NDArray[np.float32], bias: NDArray[np.int32]
    ) -> RequantizeForm:
        """Convolutions requantize in Q31, fully connected layers in float64."""
        source, output = operation.inputs[0], _quantization(operation.output)
        bounds = _bounds(operation)
        finish = Bounds(output.zero_point, bounds.low, bounds.high)
        count = len(bias)
        is_product = operation.op == "matmul"
        if is_product and operation.inputs[1].constant is not None:
            ready = tflite.prepare_requantize_fully_connected(
                tensor_scale(source), weight_scale, output, bounds
            )
            factors = np.broadcast_to(ready.factors, count).astype(np.float64)
            table = RequantizeTable(bias, factors, np.zeros(0, np.int8))
            return RequantizeForm(table, RequantizeMode.FLOAT64, finish)
        if is_product or source.dtype == "uint8":
            fixed = tflite.prepare_requantize_per_tensor(
                tensor_scale(source), np.float32(weight_scale[0]), output, bounds
            )
        else:
            fixed = tflite.prepare_requantize_per_channel(
                tensor_scale(source), weight_scale, output, bounds
            )
        return RequantizeForm(_fixed_table(fixed, bias), RequantizeMode.Q31, finish)

    def binary(self, operation: Operation) -> BinaryForm:
        """Add and subtract on a common scale, multiply directly, maximum on raw values."""
        a, b = (_quantization(value) for value in operation.inputs)
        output, bounds = _quantization(operation.output), _bounds(operation)
        if operation.op in _ADDERS:
            adder = tflite_binary.prepare_add(a, b, output, bounds)
            if adder.output_shift > 0:
                raise CompileError(
                    "add: 2 x the larger input scale must be below 2**20 x the output's"
                )
            return BinaryForm(_ADDERS[operation.op], pack(adder, BINARY_PARAMETER_BYTES))
        if operation.op == "multiply":
            product = tflite_binary.prepare_mul(a, b, output, bounds)
            return BinaryForm(BinaryMode.MUL_Q31, pack(product, BINARY_PARAMETER_BYTES))
        if operation.op == "squared_difference":
            return _squared_difference(operation)
        if operation.op in ("maximum", "minimum"):
            mode = BinaryMode.MAXIMUM if operation.op == "maximum" else BinaryMode.MINIMUM
            return BinaryForm(mode, np.zeros(0, np.uint8))
        raise CompileError(f"the vector unit has no mode for {operation.op}")

    def average_pool(self, operation: Operation) -> PoolForm:
        """Average the raw values, rounding half away from zero."""
        bounds = _bounds(operation)
        return PoolForm(
            PoolMode.AVERAGE_INTEGER,
            np.zeros(0, np.uint8),
            Bounds(tensor_zero_point(operation.output), bounds.low, bounds.high),
        )

    def mean_is_whole_image(
        self,
        operation: Operation,
        kernel: tuple[int, int],
        image: tuple[int, int],
        padding: tuple[int, ...],
    ) -> bool:
        """An average pool stays one."""
        del operation, kernel, image, padding
        return False

    def reduce(self, operation: Operation, count: int) -> RequantizeForm:
        """Scale the sum; a mean folds 1 / count into the multiplier.

        Raises:
            CompileError: an int8 sum, whose kernel takes the bytes for uint8.
        """
        if operation.op == "sum" and operation.inputs[0].dtype == "int8":
            raise CompileError("LiteRT's integer sum of int8 is wrong, only uint8 is reproduced")
        prepare = (
            tflite_window.prepare_mean if operation.op == "mean" else tflite_window.prepare_sum
        )
        output, bounds = _quantization(operation.output), _bounds(operation)
        ready = prepare(_quantization(operation.inputs[0]), output, count, bounds)
        table = RequantizeTable(
            np.zeros(1, np.int32),
            np.array([ready.multiplier], np.int32),
            np.array([ready.shift], np.int8),
        )
        finish = Bounds(output.zero_point, bounds.low, bounds.high)
        return RequantizeForm(table, RequantizeMode.Q31, finish)

    def softmax(self, operation: Operation) -> SoftmaxForm:
        """Exponentials in fixed point."""
        bounds = tflite.type_range(operation.output.dtype)
        ready = tflite_window.prepare_softmax(
            tensor_scale(operation.inputs[0]), np.float32(1.0), bounds
        )
        return SoftmaxForm(SoftmaxMode.Q31, pack(ready, SOFTMAX_PARAMETER_BYTES))

    def resize(self, operation: Operation, sizes: tuple[tuple[int, int], ...]) -> ResizeForm:
        """Positions in 1/1024 of a pixel (int8) or in float32 (uint8)."""
        attrs = operation.call.attrs
        mode = str(attrs.coordinate_transformation_mode)
        flags = (mode == "align_corners", mode == "half_pixel")
        header = np.zeros(32, np.uint8)
        if str(attrs.method) == "nearest_neighbor":
            axes = [(tflite_window.prepare_resize_nearest(*size, *flags),) for size in sizes]
            return ResizeForm(ResizeMode.NEAREST, axes[0], axes[1], np.zeros(0, np.uint8))
        is_unsigned = operation.inputs[0].dtype == "uint8"
        prepare: Any = (
            tflite_window.prepare_resize_bilinear_uint8
            if is_unsigned
            else tflite_window.prepare_resize_bilinear
        )
        linear = [_taps(prepare(*size, *flags)) for size in sizes]
        kind = ResizeMode.LINEAR_ROUNDED if is_unsigned else ResizeMode.LINEAR_Q10
        return ResizeForm(kind, linear[0], linear[1], header)

    def requantize(self, source: Value, target: Value) -> Bytes:
        """The quantize operator between 8-bit types."""
        bounds = tflite.type_range(target.dtype)
        table = tflite_table.table_rescale(
            _quantization(source), _quantization(target), source.dtype, bounds
        )
        return table.astype(np.uint8)

    def concat(self, source: Value, target: Value) -> Bytes:
        """Only uint8 concatenation rescales."""
        if source.dtype != "uint8":
            raise CompileError("concat: int8 operands must have the result's scale and zero point")
        table = tflite_table.table_concatenation(_quantization(source), _quantization(target))
        return table.astype(np.uint8)


def _squared_difference(operation: Operation) -> BinaryForm:
    """Return the square of a difference, which LiteRT computes of int8 only."""
    if operation.output.dtype != "int8":
        raise CompileError("LiteRT's integer squared difference is of int8 only")
    a, b = (_quantization(value) for value in operation.inputs)
    ready = tflite_binary.prepare_squared_difference(
        a, b, _quantization(operation.output), _bounds(operation)
    )
    if ready.output_shift > 0:
        raise CompileError("(2 x the larger input scale)**2 must be below 2**14 x the output's")
    content = pack(ready, BINARY_PARAMETER_BYTES)
    return BinaryForm(BinaryMode.SQUARED_DIFFERENCE_Q31, content)


def _fixed_table(ready: tflite.Requantizer, bias: NDArray[np.int32]) -> RequantizeTable:
    """Return per-channel parameters of a Q31 requantizer."""
    count = len(bias)
    multipliers = np.broadcast_to(ready.multipliers, count).astype(np.int32)
    return RequantizeTable(bias, multipliers, np.broadcast_to(ready.shifts, count).astype(np.int8))


def _taps(axis: tflite_window.Interpolation) -> tuple[NDArray[Any], ...]:
    """Return lower and upper source and both weights of each output step."""
    return axis.lower, axis.upper, axis.fraction, axis.fraction
