"""Pooling, resize, reductions and fusion of the ONNX golden, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lepton.arith import onnx_pool, onnx_reduce, onnx_resize
from lepton.arith.onnx_pool import Window
from lepton.arith.onnx_reduce import ReduceOp, SumOrder
from tests.arith.test_onnx import DTYPES, ROUNDS, Array, assert_equal, chw, hwc, rescaled
from tests.onnx_builder import OnnxBuilder, Quantized, random_quantized

pytest.importorskip("onnxruntime", reason="ONNX Runtime is the golden")


def qdq(op: str, array: Array, ifm: Quantized, ofm: Quantized, **attributes: Any) -> Array:
    """Run a one-input operator between dequantize and quantize."""
    builder = OnnxBuilder()
    value = builder.node(op, [builder.dequantize(builder.feed(array), ifm)], **attributes)
    builder.quantize(value, ofm)
    return builder.run()


@pytest.mark.parametrize("dtype", DTYPES)
def test_pooling(dtype: str) -> None:
    """Average pool (padding counted or not, both layouts), global average pool, max pool."""
    rng = np.random.default_rng(11)
    for _ in range(2 * ROUNDS):
        channels, height, width = (int(n) for n in rng.integers(5, 20, 3))
        kernel_h, kernel_w = (int(n) for n in rng.integers(2, 4, 2))
        stride, pad = int(rng.integers(1, 3)), int(rng.integers(0, 2))
        ifm = random_quantized(rng, dtype, (-2, -0.5))
        ofm = rescaled(rng, dtype, float(ifm.params.scale) * 0.7)
        array = ifm.draw(rng, (1, channels, height, width))
        sizes = [
            (n + 2 * pad - k) // stride + 1 for n, k in ((height, kernel_h), (width, kernel_w))
        ]
        window = Window(kernel_h, kernel_w, stride, stride, pad, pad, sizes[0], sizes[1])
        shape: dict[str, Any] = {
            "kernel_shape": [kernel_h, kernel_w],
            "strides": [stride] * 2,
            "pads": [pad] * 4,
        }
        for count in (False, True):
            params = onnx_pool.prepare_average_pool(ifm.params, ofm.params, count)
            ours = onnx_pool.average_pool(hwc(array), window, params)
            flags: dict[str, Any] = {**shape, "count_include_pad": int(count)}
            assert_equal(chw(ours), qdq("AveragePool", array, ifm, ofm, **flags))
            last = OnnxBuilder()
            value = last.feed(np.ascontiguousarray(array.transpose(0, 2, 3, 1)))
            operands = [value, *last.params(ifm), *last.params(ofm)]
            last.output(
                last.qlinear("QLinearAveragePool", operands, channels_last=1, **flags), dtype
            )
            assert_equal(ours, last.run())
        positions = height * width
        rows = hwc(array).reshape(positions, channels)
        whole = onnx_pool.prepare_global_average_pool(ifm.params, ofm.params, positions)
        ours = onnx_pool.global_average_pool(rows, whole)
        assert_equal(ours, qdq("GlobalAveragePool", array, ifm, ofm))
        assert_equal(ours, qdq("AveragePool", array, ifm, ofm, kernel_shape=[height, width]))
        largest = onnx_pool.max_pool(hwc(array), window, ifm.params.lo)
        assert_equal(chw(largest), qdq("MaxPool", array, ifm, ifm, **shape))


def resize(builder: OnnxBuilder, value: str, target: Array, **attributes: Any) -> str:
    """Add Resize; a float ``target`` holds scales, an integer one sizes."""
    skipped = [""] if target.dtype == np.float32 else ["", ""]
    return builder.node("Resize", [value, *skipped, builder.constant(target)], **attributes)


@pytest.mark.parametrize("coordinates", sorted(onnx_resize.COORDINATES))
@pytest.mark.parametrize("dtype", DTYPES)
def test_resize(dtype: str, coordinates: str) -> None:
    """Nearest and linear, given by scales or by sizes, between quantizers and on plain codes."""
    rng = np.random.default_rng(12)
    for step in range(2 * ROUNDS):
        channels, height, width = (int(n) for n in rng.integers(2, 12, 3))
        lengths = [int(n) for n in rng.integers(1, 25, 2)]
        ifm = random_quantized(rng, dtype, (-2, -0.5))
        ofm = rescaled(rng, dtype, float(ifm.params.scale))
        array = ifm.draw(rng, (1, channels, height, width))
        given: list[float | None] = [None, None]
        target = np.array([1, channels, *lengths])
        if step % 2:
            given = [float(np.float32(lengths[0] / height)), float(np.float32(lengths[1] / width))]
            target = np.array([1, 1, *given], np.float32)
        mode: dict[str, Any] = {"coordinate_transformation_mode": coordinates, "mode": "linear"}
        plain = OnnxBuilder()
        plain.output(resize(plain, plain.feed(array), target, **mode), dtype)
        golden = plain.run()
        sizes = zip((height, width), golden.shape[2:], given, strict=True)
        axes = [onnx_resize.resize_axis(n, m, coordinates, scale=s) for n, m, s in sizes]
        taps = [onnx_resize.linear_taps(axis) for axis in axes]
        assert_equal(chw(onnx_resize.resize_linear_codes(hwc(array), *taps)), golden)
        real = OnnxBuilder()
        value = real.dequantize(real.feed(array), ifm)
        real.quantize(resize(real, value, target, **mode), ofm)
        both = (ifm.params, ofm.params)
        assert_equal(chw(onnx_resize.resize_linear(hwc(array), taps[0], taps[1], both)), real.run())
        for rounding in onnx_resize.ROUNDING:
            mode = {**mode, "mode": "nearest", "nearest_mode": rounding}
            near = OnnxBuilder()
            value = near.dequantize(near.feed(array), ifm)
            near.quantize(resize(near, value, target, **mode), ifm)
            picks = [onnx_resize.nearest_indices(axis._replace(rounding=rounding)) for axis in axes]
            assert_equal(chw(onnx_resize.resize_nearest(hwc(array), *picks)), near.run())


LAYOUTS = [
    ([3], SumOrder.LAST),
    ([2, 3], SumOrder.LAST),
    ([1], SumOrder.MIDDLE),
    ([2], SumOrder.MIDDLE),
    ([0], SumOrder.FIRST),
    ([1, 3], SumOrder.FIRST),
]


@pytest.mark.parametrize("op", list(ReduceOp), ids=lambda op: op.name)
@pytest.mark.parametrize(("axes", "order"), LAYOUTS)
def test_reduce(axes: list[int], order: SumOrder, op: ReduceOp) -> None:
    """Codes between quantizers, and the float sums bit by bit."""
    rng = np.random.default_rng(13)
    for step in range(ROUNDS):
        shape = (3, *(int(n) for n in rng.integers(2, 20, 3)))
        dtype = DTYPES[step % 2]
        ifm = random_quantized(rng, dtype, (-2, -0.5))
        kept = [axis for axis in range(4) if axis not in axes]
        length = int(np.prod([shape[axis] for axis in axes]))
        ofm = rescaled(rng, dtype, float(ifm.params.scale) * (length if op == ReduceOp.SUM else 1))
        array = ifm.draw(rng, shape)
        rows = np.ascontiguousarray(array.transpose(kept + axes)).reshape(-1, length)
        name = "Reduce" + op.name.title()
        builder = OnnxBuilder()
        value = builder.dequantize(builder.feed(array), ifm)
        axis_list = builder.constant(np.array(axes))
        builder.quantize(builder.node(name, [value, axis_list]), ofm)
        params = onnx_reduce.ReduceParams(ifm.params, ofm.params, op, order)
        assert_equal(onnx_reduce.reduce_rows(rows.astype(np.int32), params), builder.run())
        real = rng.standard_normal(shape).astype(np.float32)
        builder = OnnxBuilder()
        builder.output(
            builder.node(name, [builder.feed(real), builder.constant(np.array(axes))]), "float32"
        )
        lines = np.ascontiguousarray(real.transpose(kept + axes)).reshape(-1, length)
        sums = [onnx_reduce.reduce_row(r, op, order, i * length % 4) for i, r in enumerate(lines)]
        np.testing.assert_array_equal(np.array(sums, np.float32), builder.run().ravel())


@pytest.mark.parametrize("length", [2, 5, 7, 8, 11, 13, 64, 127])
def test_layer_norm(length: int) -> None:
    """Layer normalization of short and long rows: float values bit by bit, then codes."""
    rng = np.random.default_rng([14, length])
    gain, bias = (rng.standard_normal(length).astype(np.float32) for _ in range(2))
    for dtype in DTYPES:
        ifm = random_quantized(rng, dtype, (-2, -0.5))
        ofm = rescaled(rng, dtype, 4 / 128)
        params = onnx_reduce.LayerNormParams(ifm.params, ofm.params, gain, bias, np.float32(1e-5))
        array = ifm.draw(rng, (50, length))
        builder = OnnxBuilder()
        value = builder.dequantize(builder.feed(array), ifm)
        operands = [value, builder.constant(gain), builder.constant(bias)]
        builder.quantize(builder.node("LayerNormalization", operands), ofm)
        assert_equal(onnx_reduce.layer_norm(array.astype(np.int32), params), builder.run())
        real = rng.standard_normal((50, length)).astype(np.float32)
        builder = OnnxBuilder()
        operands = [builder.feed(real), builder.constant(gain), builder.constant(bias)]
        builder.output(builder.node("LayerNormalization", operands), "float32")
        ours = np.stack([onnx_reduce.normalize_row(row, params) for row in real])
        np.testing.assert_array_equal(ours, builder.run())


FUSED = {
    "Add": "QLinearAdd",
    "Mul": "QLinearMul",
    "MatMul": "QLinearMatMul",
}
FLOAT = ["Sub", "Div", "Max", "Min"]
UNARY_FUSED = {
    "Sigmoid": "QLinearSigmoid",
    "LeakyRelu": "QLinearLeakyRelu",
    "Softmax": "QLinearSoftmax",
    "GlobalAveragePool": "QLinearGlobalAveragePool",
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_fused(dtype: str, tmp_path: Path) -> None:
    """The table of docs/onnx_golden.md in its main lines: integer kernel, or left in float."""
    rng = np.random.default_rng(15)
    ifm, ofm = random_quantized(rng, dtype), random_quantized(rng, dtype)
    array = ifm.draw(rng, (1, 4, 6, 6))

    def kernels(op: str, operands: int) -> list[str]:
        builder = OnnxBuilder()
        values = [builder.dequantize(builder.feed(array), ifm) for _ in range(operands)]
        builder.quantize(builder.node(op, values), ofm)
        return builder.kernels(tmp_path)

    for op, kernel in FUSED.items():
        assert kernels(op, 2) == [kernel]
    for op, kernel in UNARY_FUSED.items():
        assert kernels(op, 1) == [kernel]
    for op in FLOAT:
        assert kernels(op, 2) == ["DequantizeLinear"] * 2 + [op, "QuantizeLinear"]
    assert kernels("Tanh", 1) == ["DequantizeLinear", "Tanh", "QuantizeLinear"]
