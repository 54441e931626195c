"""Exact parameters as ONNX Runtime's integer kernels form them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.arith import onnx, onnx_elementwise, onnx_float, onnx_pool, onnx_resize
from lepton.arith.records import RequantizeTable, pack, pack_softmax_table
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
from lepton.isa.footprints import (
    BINARY_PARAMETER_BYTES,
    POOL_PARAMETER_BYTES,
    SOFTMAX_PARAMETER_BYTES,
)
from lepton.isa.instructions import BinaryMode, PoolMode, RequantizeMode, ResizeMode, SoftmaxMode

__all__ = ["OnnxGolden"]

_FLOAT_BINARY = {
    "add": BinaryMode.ADD_FLOAT32,
    "subtract": BinaryMode.SUB_FLOAT32,
    "multiply": BinaryMode.MUL_FLOAT32,
    "divide": BinaryMode.DIV_FLOAT32,
    "maximum": BinaryMode.MAXIMUM_FLOAT32,
    "minimum": BinaryMode.MINIMUM_FLOAT32,
}

_BIAS_MOVES = 1e-3
"""Codes by which rounding a bias may move the results on average: so many of them may differ."""


def _quantization(value: Value) -> onnx_float.Quantization:
    return onnx_float.quantization(
        float(tensor_scale(value)), tensor_zero_point(value), value.dtype
    )


def _clamped(operation: Operation) -> tuple[int, int]:
    """Return the range of the result: its type, the real activation and the clip behind."""
    low, high = limits(operation.output.dtype)
    activation = operation.activation
    target = _quantization(operation.output)
    if np.isfinite(activation.real_low):
        low = max(low, int(onnx_float.quantize_value(np.float32(activation.real_low), target)))
    if np.isfinite(activation.real_high):
        high = min(high, int(onnx_float.quantize_value(np.float32(activation.real_high), target)))
    return clip_after(activation, low, high)


def _is_clamp_idle(operation: Operation) -> bool:
    """Return whether the real activation changes nothing that the result's type does not."""
    low, high = limits(operation.output.dtype)
    return _clamped(operation) == (low, high)


class OnnxGolden:
    """The golden of `.onnx` models."""

    def weighted(
        self, operation: Operation, weight_scale: NDArray[np.float32], bias: NDArray[np.int32]
    ) -> RequantizeForm:
        """Scale in float32, round half to even; the bias is put on the scale of the sums."""
        low, high = _clamped(operation)
        ready = onnx.prepare_requantize(
            _quantization(operation.inputs[0]), weight_scale, _quantization(operation.output)
        )
        scales = np.broadcast_to(ready.scale, len(bias)).astype(np.float32)
        codes = _bias_codes(operation, weight_scale, bias, scales)
        table = RequantizeTable(codes, scales, np.zeros(0, np.int8))
        finish = Bounds(tensor_zero_point(operation.output), low, high)
        return RequantizeForm(table, RequantizeMode.FLOAT32, finish)

    def binary(self, operation: Operation) -> BinaryForm:
        """Add and multiply by ratios of scales; all else, or with a real clamp, in float32."""
        a, b = (_quantization(value) for value in operation.inputs)
        output = _quantization(operation.output)
        same_types = len({value.dtype for value in (*operation.inputs, operation.output)}) == 1
        if same_types and _is_clamp_idle(operation):
            if operation.op == "add":
                exchanged = _first_is_repeated(operation)
                ready = (
                    onnx.prepare_add(b, a, output) if exchanged else onnx.prepare_add(a, b, output)
                )
                content = pack(ready, BINARY_PARAMETER_BYTES)
                return BinaryForm(BinaryMode.ADD_RATIO, content, exchanged)
            if operation.op == "multiply":
                product = onnx.prepare_mul(a, b, output)
                return BinaryForm(BinaryMode.MUL_RATIO, pack(product, BINARY_PARAMETER_BYTES))
        mode = _FLOAT_BINARY.get(operation.op)
        if mode is None:
            raise CompileError("no NPU instruction computes it")
        activation = operation.activation
        params = onnx_elementwise.prepare_float_binary(
            a, b, output, activation.real_low, activation.real_high
        )
        return BinaryForm(mode, pack(params, BINARY_PARAMETER_BYTES))

    def average_pool(self, operation: Operation) -> PoolForm:
        """Average the dequantized values in float32.

        The golden's integer and float kernels count windows beyond the padding differently.
        """
        is_integer = operation.inputs[0].dtype == operation.output.dtype
        is_integer = is_integer and _is_clamp_idle(operation)
        if not is_integer and _counts_beyond_padding(operation):
            raise CompileError("An average of padding may not count what lies beyond it.")
        pair = (_quantization(operation.inputs[0]), _quantization(operation.output))
        low, high = _clamped(operation)
        bounds = Bounds(tensor_zero_point(operation.output), low, high)
        return PoolForm(PoolMode.AVERAGE_FLOAT32, pack(pair, POOL_PARAMETER_BYTES), bounds)

    def mean_is_whole_image(
        self,
        operation: Operation,
        kernel: tuple[int, int],
        image: tuple[int, int],
        padding: tuple[int, ...],
    ) -> bool:
        """A window over the whole unpadded image takes the global average's kernel."""
        del operation
        return kernel == tuple(image) and not any(padding)

    def reduce(self, operation: Operation, count: int) -> RequantizeForm:
        """Scale the integer sum: exact for global average pools, see docs for the others."""
        source, target = (
            _quantization(operation.inputs[0]),
            _quantization(operation.output),
        )
        low, high = _clamped(operation)
        ready = onnx_pool.prepare_global_average_pool(source, target, count)
        scale = ready.scale
        if operation.op == "sum":
            scale = np.float32(source.scale / target.scale)
        table = RequantizeTable(
            np.zeros(1, np.int32), np.array([scale], np.float32), np.zeros(0, np.int8)
        )
        finish = Bounds(tensor_zero_point(operation.output), low, high)
        return RequantizeForm(table, RequantizeMode.FLOAT32, finish)

    def softmax(self, operation: Operation) -> SoftmaxForm:
        """A table of exponentials, where the golden has an integer kernel."""
        if operation.inputs[0].dtype != operation.output.dtype:
            raise CompileError("The result of a softmax must have the type of its input.")
        ready = onnx.prepare_softmax(
            _quantization(operation.inputs[0]),
            _quantization(operation.output),
            operation.output.shape[int(operation.call.attrs.axis)],
        )
        return SoftmaxForm(
            SoftmaxMode.FLOAT32_TABLE, pack_softmax_table(ready, SOFTMAX_PARAMETER_BYTES)
        )

    def resize(self, operation: Operation, sizes: tuple[tuple[int, int], ...]) -> ResizeForm:
        """Nearest by index, linear in float32 between dequantize and quantize."""
        attrs = operation.call.attrs
        coordinates = str(attrs.coordinate_transformation_mode)
        rounding = {
            "": "round_prefer_floor",
            "round": "round_prefer_floor",
            "simple": "floor",
        }.get(str(attrs.rounding_method), str(attrs.rounding_method))
        axes = [onnx_resize.resize_axis(*size, coordinates, rounding) for size in sizes]
        if str(attrs.method) == "nearest_neighbor":
            index = [(onnx_resize.nearest_indices(axis),) for axis in axes]
            return ResizeForm(ResizeMode.NEAREST, index[0], index[1], np.zeros(0, np.uint8))
        taps: list[tuple[NDArray[Any], ...]] = [
            tuple(onnx_resize.linear_taps(axis)) for axis in axes
        ]
        if operation.inputs[0].quantization is None:
            return ResizeForm(ResizeMode.LINEAR_CODES, taps[0], taps[1], np.zeros(32, np.uint8))
        pair = (_quantization(operation.inputs[0]), _quantization(operation.output))
        return ResizeForm(ResizeMode.LINEAR_FLOAT32, taps[0], taps[1], pack(pair, 32))

    def requantize(self, source: Value, target: Value) -> Bytes:
        """Dequantize, then quantize."""
        a, b = _quantization(source), _quantization(target)
        codes = [onnx.requantize_code(code, a, b) for code in range(a.lo, a.hi + 1)]
        return by_raw_byte(np.array(codes, np.int32), a.lo)

    def concat(self, source: Value, target: Value) -> Bytes:
        """A table per input."""
        a = _quantization(source)
        return by_raw_byte(onnx.prepare_table(a, _quantization(target)), a.lo)


def by_raw_byte(codes: NDArray[np.int32], low: int) -> Bytes:
    """Return a table indexed by `code - low` as one indexed by the raw byte."""
    return np.roll(codes, low).astype(np.uint8)


def _bias_codes(
    operation: Operation,
    weight_scale: NDArray[np.float32],
    bias: NDArray[np.int32],
    scales: NDArray[np.float32],
) -> NDArray[np.int32]:
    """Return a bias as codes of the sums' scale; `scales` turn sums into codes of the result.

    Raises:
        CompileError: its own scale is another, and rounding it shows in the result.
    """
    own = None if operation.bias is None else operation.bias.quantization
    if own is None:
        return bias
    if own.scale.size not in (1, bias.size):
        raise CompileError("A bias must have one scale, or one per output channel.")
    sums = tensor_scale(operation.inputs[0]) * np.asarray(weight_scale, np.float32).reshape(-1)
    if not own.zero_point.any() and np.allclose(own.scale, sums, rtol=1e-6, atol=0.0):
        return bias
    exact = (bias.astype(np.float64) - own.zero_point) * own.scale / sums.astype(np.float64)
    codes = np.rint(exact)
    if not np.all(np.abs(codes) <= np.iinfo(np.int32).max):
        raise CompileError("A bias must fit int32 on the scale of input times weights.")
    if not np.mean(np.abs(codes - exact) * scales) <= _BIAS_MOVES:
        raise CompileError(
            "The scale of a bias must be that of input times weights, or its rounding to that "
            "move the results by at most 1/1000 of a code on average."
        )
    return codes.astype(np.int32)


def _counts_beyond_padding(operation: Operation) -> bool:
    """Return whether an average counts padding, and a window reaches beyond it."""
    attrs = operation.call.attrs
    if not attrs.count_include_pad:
        return False
    at = str(attrs.layout).index("H")
    pads, strides = operation.integers("padding"), operation.integers("strides")
    kernel = operation.integers("pool_size")
    for axis in (0, 1):
        extent = operation.inputs[0].shape[at + axis] + pads[axis] + pads[axis + 2]
        last = (operation.output.shape[at + axis] - 1) * strides[axis] + kernel[axis]
        if last > extent:
            return True
    return False


def _first_is_repeated(operation: Operation) -> bool:
    """Return whether the golden repeats one element of the left operand along the last axis."""
    out = operation.output.shape
    a, b = ((1,) * (len(out) - len(v.shape)) + v.shape for v in operation.inputs)
    inner = next((axis for axis in reversed(range(len(out))) if out[axis] > 1), None)
    return inner is not None and a[inner] == 1 and b[inner] > 1
