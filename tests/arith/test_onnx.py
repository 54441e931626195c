"""Every kernel of lepton.arith.onnx* against ONNX Runtime's integer kernels, byte for byte."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from lepton.arith import (
    onnx,
    onnx_elementwise,
    onnx_float,
)
from lepton.arith.onnx_elementwise import FloatOp
from lepton.arith.onnx_float import quantization
from tests.onnx_builder import OnnxBuilder, Quantized, draw_scale, random_quantized

pytest.importorskip("onnxruntime", reason="ONNX Runtime is the golden")

Array = NDArray[Any]
DTYPES = ["int8", "uint8"]
ROUNDS = 6


def codes(array: Array) -> Array:
    """Return codes as a flat int32 array."""
    return np.ascontiguousarray(array, np.int32).ravel()


def assert_equal(ours: Array, golden: Array) -> None:
    """Compare every code."""
    np.testing.assert_array_equal(codes(ours), codes(golden))


def rescaled(rng: np.random.Generator, dtype: str, scale: float) -> Quantized:
    """Draw an output quantization of about the given scale."""
    zero_point = random_quantized(rng, dtype).params.zero_point
    middle = math.log10(scale)
    drawn = draw_scale(rng, middle - 0.5, middle + 0.5)
    return Quantized(dtype, quantization(drawn, zero_point, dtype))


def single(rng: np.random.Generator, exponents: tuple[float, float], size: int) -> Array:
    """Draw float32 scales."""
    return np.array([draw_scale(rng, *exponents) for _ in range(size)], np.float32)


def hwc(array: Array) -> Array:
    """Turn ``[1, c, h, w]`` into ``[h, w, c]`` int32."""
    return np.ascontiguousarray(array[0].transpose(1, 2, 0), np.int32)


def chw(array: Array) -> Array:
    """Turn ``[h, w, c]`` into ``[1, c, h, w]``."""
    return array.transpose(2, 0, 1)[None]


def fused_multiply_add(a: Array, b: Array, c: Array) -> Array:
    """Run the intrinsic over arrays."""

    @njit
    def loop(a: Array, b: Array, c: Array) -> Array:
        out = np.empty(a.size, np.float32)
        for i in range(a.size):
            out[i] = onnx_float.fmaf(a[i], b[i], c[i])
        return out

    return loop(a, b, c)


def nearest_single(value: Fraction) -> float:
    """Round an exact value to float32, half to even, by comparing neighbours."""
    guess = np.float32(float(value))
    near = [np.nextafter(guess, np.float32(s * np.inf)) for s in (-1, 1)]
    options = [guess, *near]
    distance = min(abs(Fraction(float(x)) - value) for x in options)
    best = [x for x in options if abs(Fraction(float(x)) - value) == distance]
    even = [x for x in best if int(x.view(np.int32)) % 2 == 0]
    return float(even[0] if len(best) > 1 else best[0])


def test_fma_rounds_once() -> None:
    """Both forms equal exact rational arithmetic, also where a float64 sum rounds twice."""
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(4000).astype(np.float32) for _ in range(2))
    product = (a.astype(np.float64) * b).astype(np.float32)
    c = (-product * 2.0 ** rng.integers(-2, 26, 4000)).astype(np.float32)
    a[0], b[0], c[0] = 1 + 2.0**-12, 1 + 2.0**-12, 2.0**30
    a[1], b[1], c[1] = 1 + 2.0**-23, 2.0**-24 * (1 - 2.0**-23), 1 + 2.0**-23
    exact = [
        nearest_single(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)))
        for x, y, z in zip(a, b, c, strict=True)
    ]
    np.testing.assert_array_equal(fused_multiply_add(a, b, c), np.array(exact, np.float32))
    np.testing.assert_array_equal(onnx_float.fma(a, b, c), np.array(exact, np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dequantize_and_quantize(dtype: str) -> None:
    """DequantizeLinear multiplies, QuantizeLinear divides, ties go to even, NaN to the lowest."""
    rng = np.random.default_rng(2)
    for _ in range(ROUNDS):
        tensor = random_quantized(rng, dtype)
        array = tensor.draw(rng, (999,))
        builder = OnnxBuilder()
        builder.output(builder.dequantize(builder.feed(array), tensor), "float32")
        ours = onnx_float.dequantize(codes(array), tensor.params)
        np.testing.assert_array_equal(ours, builder.run())
        ties = (np.arange(-300, 300, dtype=np.float32) + np.float32(0.5)) * tensor.params.scale
        real = np.append(ties, np.array([np.nan, np.inf, -np.inf, 1e30], np.float32))
        builder = OnnxBuilder()
        builder.quantize(builder.feed(real), tensor)
        assert_equal(onnx_float.quantize(real, tensor.params), builder.run())


def accumulate(ifm: Array, weights: Array, zero_points: tuple[int, int], pad: int) -> Array:
    """Convolve ``[1, c, h, w]`` at stride 1 exactly; depthwise if the weights have one channel."""
    wide = np.pad(ifm.astype(np.int64) - zero_points[0], ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    kernel = weights.astype(np.int64) - zero_points[1]
    size = kernel.shape[2]
    height, width = wide.shape[2] - size + 1, wide.shape[3] - size + 1
    total = np.zeros((height, width, kernel.shape[0]), np.int64)
    for y in range(size):
        for x in range(size):
            patch = wide[0, :, y : y + height, x : x + width]
            rule = "chw,oc->hwo" if kernel.shape[1] > 1 else "chw,c->hwc"
            taps = kernel[:, :, y, x] if kernel.shape[1] > 1 else kernel[:, 0, y, x]
            total += np.einsum(rule, patch, taps)
    return total


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("dtypes", [("int8", "int8"), ("uint8", "int8"), ("uint8", "uint8")])
def test_convolution(dtypes: tuple[str, str], depthwise: bool, per_channel: bool) -> None:
    """QLinearConv from both forms of model equals the requantized integer sum."""
    rng = np.random.default_rng([3, depthwise, per_channel])
    for _ in range(ROUNDS):
        channels, outputs = (int(n) for n in rng.integers(2, 24, 2))
        outputs = channels if depthwise else outputs
        ifm = random_quantized(rng, dtypes[0], (-2, -0.5))
        array = ifm.draw(rng, (1, channels, 7, 8))
        shape = (outputs, 1 if depthwise else channels, 3, 3)
        limits = np.iinfo(dtypes[1])
        weights = rng.integers(limits.min, limits.max + 1, shape).astype(dtypes[1])
        scales = single(rng, (-3, -1), outputs if per_channel else 1)
        point = 0 if dtypes[1] == "int8" else 128
        points = np.full(scales.size, point, dtypes[1])
        bias = rng.integers(-20000, 20000, outputs).astype(np.int32)
        ofm = rescaled(rng, dtypes[0], float(ifm.params.scale * scales.mean()) * 150)
        total = accumulate(array, weights, (ifm.params.zero_point, point), 1) + bias
        params = onnx.prepare_requantize(ifm.params, scales, ofm.params)
        ours = onnx.requantize(total.reshape(-1, outputs).astype(np.int32), params)
        ours = chw(ours.reshape(total.shape))
        attributes: dict[str, Any] = {
            "kernel_shape": [3, 3],
            "pads": [1, 1, 1, 1],
            "group": channels if depthwise else 1,
        }
        squeeze = (lambda a: a) if per_channel else (lambda a: a[0])
        qop = OnnxBuilder()
        operands = [qop.feed(array), *qop.params(ifm), qop.constant(weights)]
        operands += [qop.constant(squeeze(scales)), qop.constant(squeeze(points))]
        operands += [*qop.params(ofm), qop.constant(bias)]
        qop.output(qop.node("QLinearConv", operands, **attributes), ifm.dtype)
        assert_equal(ours, qop.run())
        qdq = OnnxBuilder()
        axis: dict[str, Any] = {"axis": 0} if per_channel else {}
        operands = [qdq.dequantize(qdq.feed(array), ifm)]
        for tensor, scale, zero_point in (
            (weights, scales, points),
            (bias, ifm.params.scale * scales, np.zeros(scales.size, np.int32)),
        ):
            constants = [tensor, squeeze(scale.astype(np.float32)), squeeze(zero_point)]
            names = [qdq.constant(constant) for constant in constants]
            operands.append(qdq.node("DequantizeLinear", names, **axis))
        qdq.quantize(qdq.node("Conv", operands, **attributes), ofm)
        assert_equal(ours, qdq.run())


@pytest.mark.parametrize("alpha", [1.0, 0.37])
@pytest.mark.parametrize("op", ["Gemm", "MatMul", "QLinearMatMul"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul(dtype: str, op: str, alpha: float) -> None:
    """QGemm (with a float bias and alpha) and QLinearMatMul, per column."""
    rng = np.random.default_rng(4)
    for _ in range(ROUNDS):
        rows, depth, columns = (int(n) for n in rng.integers(1, 60, 3))
        ifm = random_quantized(rng, dtype, (-2, -0.5))
        array = ifm.draw(rng, (rows, depth))
        weights = rng.integers(-128, 128, (depth, columns)).astype(np.int8)
        scales = single(rng, (-3, -1), columns)
        scale = float(ifm.params.scale * scales.mean()) * 100 * math.sqrt(depth)
        ofm = rescaled(rng, dtype, scale)
        total = (array.astype(np.int64) - ifm.params.zero_point) @ weights.astype(np.int64)
        bias = (rng.standard_normal(columns) * scale * 20).astype(np.float32)
        builder = OnnxBuilder()
        points = np.zeros(columns, np.int8)
        names = [builder.constant(a) for a in (weights, scales, points)]
        if op == "QLinearMatMul":
            operands = [builder.feed(array), *builder.params(ifm), *names, *builder.params(ofm)]
            builder.output(builder.node(op, operands), dtype)
        else:
            operands = [builder.dequantize(builder.feed(array), ifm)]
            operands.append(builder.node("DequantizeLinear", names, axis=1))
            attributes: dict[str, Any] = {}
            if op == "Gemm" and alpha == 1.0:
                operands.append(builder.constant(bias))
                total = total + onnx.quantize_bias(bias, ifm.params, scales)
            elif op == "Gemm":
                attributes = {"alpha": alpha}
            builder.quantize(builder.node(op, operands, **attributes), ofm)
        factor = alpha if op == "Gemm" else 1.0
        params = onnx.prepare_requantize(ifm.params, scales, ofm.params, factor)
        assert_equal(onnx.requantize(total.astype(np.int32), params), builder.run())


def qlinear_binary(op: str, arrays: list[Array], tensors: list[Quantized]) -> Array:
    """Run a binary com.microsoft operator; the last of ``tensors`` is the output's."""
    builder = OnnxBuilder()
    operands: list[str] = []
    for array, tensor in zip(arrays, tensors, strict=False):
        operands += [builder.feed(array), *builder.params(tensor)]
    builder.output(builder.qlinear(op, [*operands, *builder.params(tensors[2])]), tensors[2].dtype)
    return builder.run()


def qdq_binary(op: str, arrays: list[Array], tensors: list[Quantized], relu: bool = False) -> Array:
    """Run a binary operator between dequantize and quantize."""
    builder = OnnxBuilder()
    pairs = zip(arrays, tensors, strict=False)
    value = builder.node(op, [builder.dequantize(builder.feed(a), t) for a, t in pairs])
    builder.quantize(builder.node("Relu", [value]) if relu else value, tensors[2])
    return builder.run()


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_and_mul(dtype: str) -> None:
    """QLinearAdd and QLinearMul on full tensors and with either operand a single element."""
    rng = np.random.default_rng(5)
    for _ in range(4 * ROUNDS):
        a, b = (random_quantized(rng, dtype) for _ in range(2))
        total = rescaled(rng, dtype, float(a.params.scale + b.params.scale))
        product = rescaled(rng, dtype, float(a.params.scale * b.params.scale) * 100)
        x, y = a.draw(rng, (4001,)), b.draw(rng, (4001,))
        add = onnx.prepare_add(a.params, b.params, total.params)
        swapped = onnx.prepare_add(b.params, a.params, total.params)
        mul = onnx.prepare_mul(a.params, b.params, product.params)
        for left, right in ((x, y), (x, y[:1]), (x[:1], y)):
            full_left, full_right = (codes(np.broadcast_to(v, x.shape)) for v in (left, right))
            if left.size == 1:
                ours = onnx.add(full_right, full_left, swapped)
            else:
                ours = onnx.add(full_left, full_right, add)
            for run, prefix in ((qlinear_binary, "QLinear"), (qdq_binary, "")):
                assert_equal(ours, run(prefix + "Add", [left, right], [a, b, total]))
                golden = run(prefix + "Mul", [left, right], [a, b, product])
                assert_equal(onnx.mul(full_left, full_right, mul), golden)


def test_add_where_fusing_shows() -> None:
    """Pairs of codes whose sum would differ without the fused multiply-adds."""
    rng = np.random.default_rng(51)
    x, y = (grid.ravel() for grid in np.mgrid[-128:128, -128:128].astype(np.int8))
    found = 0
    for _ in range(12 * ROUNDS):
        a, b = (random_quantized(rng, "int8") for _ in range(2))
        ofm = rescaled(rng, "int8", float(a.params.scale + b.params.scale))
        params = onnx.prepare_add(a.params, b.params, ofm.params)
        ours = onnx.add(codes(x), codes(y), params)
        products = [
            codes(v).astype(np.float32) * r for v, r in ((x, params.ratio_a), (y, params.ratio_b))
        ]
        unfused = np.clip(np.rint(products[0] + (products[1] + params.offset)), -128, 127)
        differ = np.flatnonzero(unfused != ours)
        found += differ.size
        if differ.size > 1:
            golden = qlinear_binary("QLinearAdd", [x[differ], y[differ]], [a, b, ofm])
            assert_equal(ours[differ], golden)
    assert found > 100


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_where_the_order_of_zero_points_shows(dtype: str) -> None:
    """Scales of one digit and far zero points, where the offset's own rounding decides ties."""
    rng = np.random.default_rng(53)
    limits = np.iinfo(dtype)
    grid = np.mgrid[limits.min : limits.max + 1, limits.min : limits.max + 1]
    x, y = (np.ascontiguousarray(axis.ravel().astype(dtype)) for axis in grid)
    found = 0
    for _ in range(40 * ROUNDS):
        scales = rng.integers(1, 10, 3) / rng.choice([10, 100], 3)
        points = rng.choice([limits.min, limits.max, 3], 3)
        a, b, ofm = (
            Quantized(dtype, quantization(scale, int(point), dtype))
            for scale, point in zip(scales, points, strict=True)
        )
        params = onnx.prepare_add(a.params, b.params, ofm.params)
        shift = params.ratio_a * np.float32(points[0]) + params.ratio_b * np.float32(points[1])
        unfused = params._replace(offset=np.float32(points[2]) - shift)
        ours = onnx.add(codes(x), codes(y), params)
        differ = np.flatnonzero(ours != onnx.add(codes(x), codes(y), unfused))
        found += differ.size
        if differ.size > 1:
            golden = qlinear_binary("QLinearAdd", [x[differ], y[differ]], [a, b, ofm])
            assert_equal(ours[differ], golden)
    assert found > 100


def test_requantize_where_order_shows() -> None:
    """All products of two codes, with scales whose reciprocal would give other results."""
    rng = np.random.default_rng(52)
    x = np.arange(-128, 128, dtype=np.int8).reshape(256, 1)
    acc = np.ascontiguousarray(x.astype(np.int32) * x.astype(np.int32).T)
    found = 0
    for _ in range(60 * ROUNDS):
        scales = rng.integers(1, 100, 3) / np.array([1000, 1000, 100])
        a, b, ofm = (Quantized("int8", quantization(s, 0, "int8")) for s in scales)
        params = onnx.prepare_requantize(a.params, b.params.scale, ofm.params)
        ours = onnx.requantize(acc, params)
        reciprocal = a.params.scale * b.params.scale * (np.float32(1) / ofm.params.scale)
        other = onnx.requantize(acc, params._replace(scale=np.atleast_1d(reciprocal)))
        differ = int((other != ours).sum())
        found += differ
        if differ:
            builder = OnnxBuilder()
            operands = [builder.feed(x), *builder.params(a), builder.feed(x.T.copy())]
            operands += [*builder.params(b), *builder.params(ofm)]
            builder.output(builder.node("QLinearMatMul", operands), "int8")
            assert_equal(ours, builder.run())
    assert found > 100


# Add and Mul without a Relu are fused: test_add_and_mul.
FLOAT_CASES = [(op, relu) for op in FloatOp for relu in (False, True)]
FLOAT_CASES = [case for case in FLOAT_CASES if case[1] or case[0].name not in ("ADD", "MUL")]


@pytest.mark.parametrize(("op", "relu"), FLOAT_CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_float_binary(dtype: str, relu: bool, op: FloatOp) -> None:
    """Operators that stay in float, with and without a Relu that cannot be removed."""
    name = "PRelu" if op is FloatOp.PRELU else op.name.title()
    rng = np.random.default_rng([6, op])
    for _ in range(2 * ROUNDS):
        a, b = (random_quantized(rng, dtype, (-2, -0.5)) for _ in range(2))
        middle = quantization(10.0 ** rng.uniform(-2, 0), np.iinfo(dtype).min + 77, dtype)
        ofm = Quantized(dtype, middle)
        arrays = [a.draw(rng, (2001,)), b.draw(rng, (2001,))]
        lower = 0.0 if relu else -math.inf
        params = onnx_elementwise.prepare_float_binary(a.params, b.params, ofm.params, lower)
        ours = onnx_elementwise.float_binary(codes(arrays[0]), codes(arrays[1]), op, params)
        assert_equal(ours, qdq_binary(name, arrays, [a, b, ofm], relu))


@pytest.mark.parametrize("dtype", DTYPES)
def test_concat_where_softmax(dtype: str) -> None:
    """Lookup tables of QLinearConcat and QLinearWhere, and QLinearSoftmax with its edge cases."""
    rng = np.random.default_rng(7)
    for step in range(4 * ROUNDS):
        a, b, ofm = (random_quantized(rng, dtype) for _ in range(3))
        ofm = a if step % 4 == 0 else ofm
        x, y = a.draw(rng, (700,)), b.draw(rng, (700,))
        table_a, table_b = (onnx.prepare_table(t.params, ofm.params) for t in (a, b))
        ours_a = onnx.lookup(codes(x), table_a, a.params.lo)
        ours_b = onnx.lookup(codes(y), table_b, b.params.lo)
        concat, where = OnnxBuilder(), OnnxBuilder()
        both = [concat.dequantize(concat.feed(x), a), concat.dequantize(concat.feed(y), b)]
        concat.quantize(concat.node("Concat", both, axis=0), ofm)
        assert_equal(np.concatenate([ours_a, ours_b]), concat.run())
        mask = rng.integers(0, 2, 700).astype(np.bool_)
        chosen = [where.feed(mask), where.dequantize(where.feed(x), a)]
        chosen.append(where.dequantize(where.feed(y), b))
        where.quantize(where.node("Where", chosen), ofm)
        assert_equal(onnx.select(mask, ours_a, ours_b), where.run())
        length = int(rng.choice([1, 2, 10, 100]))
        rows = a.draw(rng, (30, length))
        usual = Quantized(dtype, quantization(1 / 256, np.iinfo(dtype).min, dtype))
        for target in (usual, random_quantized(rng, dtype, (-3, -1))):
            softmax = OnnxBuilder()
            value = softmax.dequantize(softmax.feed(rows), a)
            softmax.quantize(softmax.node("Softmax", [value], axis=-1), target)
            params = onnx.prepare_softmax(a.params, target.params, length)
            assert_equal(onnx.softmax(rows.astype(np.int32), params), softmax.run())
