"""Every kernel of lepton.arith.tflite* against LiteRT's reference interpreter, byte for byte."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton.arith import (
    fixed_point,
    tflite,
    tflite_binary,
    tflite_table,
    tflite_unary,
    tflite_window,
)
from lepton.arith.tflite import Quantization, activation_range, type_range
from tests.tflite_builder import Tensor, TfliteBuilder, run_reference

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference")

Array = NDArray[Any]
DTYPES = ["int8", "uint8"]
ACTIVATIONS = ["NONE", "RELU", "RELU6", "RELU_N1_TO_1"]
SHAPE = [1, 1, 1, 1024]


def quantization(
    rng: np.random.Generator, dtype: str, exponents: tuple[float, float]
) -> Quantization:
    """Draw a log-uniform scale, and a zero point that is often at the end of its range."""
    low, high = type_range(dtype)
    points = [low, high, 0, int(rng.integers(low, high + 1)), int(rng.integers(low, high + 1))]
    scale = np.float32(10.0 ** rng.uniform(*exponents))
    return Quantization(scale, points[rng.integers(len(points))])


def values(rng: np.random.Generator, dtype: str, shape: Any = SHAPE) -> Array:
    """Draw values over the whole range of the type, its ends often."""
    low, high = type_range(dtype)
    drawn = rng.integers(low, high + 1, shape)
    ends = rng.random(shape)
    drawn = np.where(ends < 0.05, low, np.where(ends > 0.95, high, drawn))
    return drawn.astype(dtype)


def flat(array: Array) -> Array:
    return array.astype(np.int32).ravel()


def reference(
    operator: str,
    inputs: list[tuple[Array, Quantization | None]],
    output: Quantization | None,
    shape: Any = None,
    dtype: str | None = None,
    constants: tuple[Array, ...] = (),
    **options: Any,
) -> Array:
    """Run one operator on LiteRT; `constants` are unquantized trailing inputs."""
    resolver = "BUILTIN_WITHOUT_DEFAULT_DELEGATES" if operator == "ELU" else "BUILTIN_REF"
    builder = TfliteBuilder()
    tensors: list[Tensor] = []
    for i, (array, q) in enumerate(inputs):
        scale, zero_point = (None, 0) if q is None else q
        tensors.append(builder.input(f"x{i}", array.shape, str(array.dtype), scale, zero_point))
    extra = [builder.constant(f"c{i}", array) for i, array in enumerate(constants)]
    scale, zero_point = (None, 0) if output is None else output
    dtype = dtype or str(inputs[0][0].dtype)
    y = builder.tensor("y", shape or inputs[0][0].shape, dtype, scale, zero_point)
    builder.operator(operator, [*tensors, *extra], [y], **options)
    model = builder.build(tensors, [y])
    return run_reference(model, *(array for array, _ in inputs), resolver=resolver)[0]


def assert_same(actual: Array, expected: Array) -> None:
    np.testing.assert_array_equal(actual.ravel(), flat(expected))


class TestFixedPoint:
    def test_quantize_multiplier_of_the_ends(self) -> None:
        assert fixed_point.quantize_multiplier(0.0) == (0, 0)
        assert fixed_point.quantize_multiplier(1.0) == (1 << 30, 1)
        assert fixed_point.quantize_multiplier(2.0**-33) == (0, 0)
        assert fixed_point.quantize_multiplier(1.0 - 2.0**-40) == (1 << 30, 1)

    @pytest.mark.parametrize("seed", range(3))
    def test_rounding_forms(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for a, b in rng.integers(-(1 << 31), 1 << 31, (500, 2)).tolist():
            product = a * b
            nudge = (1 << 30) if product >= 0 else 1 - (1 << 30)
            total = product + nudge
            wanted = abs(total) // (1 << 31) * (1 if total >= 0 else -1)
            assert fixed_point.saturating_rounding_doubling_high_mul(a, b) == wanted
            exponent = b & 31
            wanted = tflite.round_half_away(a / 2.0**exponent)
            assert fixed_point.rounding_divide_by_pot(a, exponent) == wanted
        assert fixed_point.saturating_rounding_doubling_high_mul(-(1 << 31), -(1 << 31)) == (
            (1 << 31) - 1
        )


KERNEL_SHAPES = {"CONV_2D": [-1, 1, 1, 24], "DEPTHWISE_CONV_2D": [1, 1, 1, 24]}


class Layer(NamedTuple):
    """A pointwise layer of 24 input channels: its parameters, accumulators and LiteRT's result."""

    input_scale: np.float32
    weight_scales: NDArray[np.float32]
    output: Quantization
    bounds: tflite.Bounds
    accumulators: NDArray[np.int32]
    expected: Array


def run_layer(seed: int, operator: str, dtype: str, per_channel: bool) -> Layer:
    """Draw a layer with 32 rows and 24 units, and run it on LiteRT."""
    rng = np.random.default_rng(seed)
    x, y = quantization(rng, dtype, (-4, 0)), quantization(rng, dtype, (-1, 1))
    scales = (10.0 ** rng.uniform(-2, 0, 24 if per_channel else 1)).astype(np.float32)
    depthwise = operator == "DEPTHWISE_CONV_2D"
    weight_zero_point = int(rng.integers(0, 256)) if dtype == "uint8" else 0
    data, weights = values(rng, dtype, [32, 24]), values(rng, dtype, [1 if depthwise else 24, 24])
    # The typical accumulator spans the output's range, ten times over it or a tenth of it.
    spread = 80.0 * 80.0 * np.sqrt(1 if depthwise else 24) * float(x.scale) * float(scales[0])
    y = y._replace(scale=np.float32(float(y.scale) * spread / 80))
    bias = rng.integers(-20000, 20000, 24).astype(np.int32)
    activation = ACTIVATIONS[seed % 4]
    builder = TfliteBuilder()
    connected = operator == "FULLY_CONNECTED"
    shape = [32, 24] if connected else [1, 32, 1, 24]
    kernel = weights.reshape(KERNEL_SHAPES.get(operator, [24, 24]))
    inputs = builder.input("x", shape, dtype, x.scale, x.zero_point)
    kernels = builder.constant("w", kernel, scales, weight_zero_point, 3 if depthwise else 0)
    biases = builder.constant("b", bias, float(x.scale) * scales.astype(np.float64))
    outputs = builder.tensor("y", shape, dtype, y.scale, y.zero_point)
    options: dict[str, Any] = {} if connected else {"stride_h": 1, "stride_w": 1}
    options |= {"depth_multiplier": 1} if depthwise else {}
    options["fused_activation_function"] = activation
    builder.operator(operator, [inputs, kernels, biases], [outputs], **options)
    expected = run_reference(builder.build([inputs], [outputs]), data.reshape(shape))[0]
    offset = data.astype(np.int64) - x.zero_point
    centred = weights.astype(np.int64) - weight_zero_point
    accumulators = (offset * centred if depthwise else offset @ centred.T) + bias
    bounds = activation_range(activation, y, dtype)
    return Layer(x.scale, scales, y, bounds, accumulators.astype(np.int32), expected)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("operator", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_requantize_int8_convolution(operator: str, per_channel: bool, seed: int) -> None:
    layer = run_layer(seed, operator, "int8", per_channel)
    p = tflite.prepare_requantize_per_channel(*layer[:4])
    assert_same(tflite.requantize_accumulators(p, layer.accumulators), layer.expected)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("operator", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_requantize_uint8_convolution(operator: str, seed: int) -> None:
    layer = run_layer(seed, operator, "uint8", False)
    p = tflite.prepare_requantize_per_tensor(
        layer.input_scale, layer.weight_scales[0], layer.output, layer.bounds
    )
    assert_same(tflite.requantize_accumulators(p, layer.accumulators), layer.expected)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("dtype", "per_channel"), [("int8", True), ("int8", False), ("uint8", False)]
)
def test_requantize_fully_connected(dtype: str, per_channel: bool, seed: int) -> None:
    layer = run_layer(seed, "FULLY_CONNECTED", dtype, per_channel)
    p = tflite.prepare_requantize_fully_connected(*layer[:4])
    assert_same(tflite.requantize_accumulators_float(p, layer.accumulators), layer.expected)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("operator", "dtype"),
    [
        ("CONV_2D", "int8"),
        ("CONV_2D", "uint8"),
        ("FULLY_CONNECTED", "int8"),
        ("FULLY_CONNECTED", "uint8"),
    ],
)
def test_requantize_near_ties(operator: str, dtype: str, seed: int) -> None:
    """Accumulators within two of a tie near 2**30 show every bit of the factor.

    They come from the bias alone: the input is at its zero point.
    """
    rng = np.random.default_rng(seed)
    scales = (10.0 ** rng.uniform(-3, 0, 2)).astype(np.float32)
    zero_point = 0 if dtype == "int8" else 128
    product = float(scales[0]) * float(scales[1])
    y = Quantization(np.float32(product * 2.0**30 / 127), zero_point)
    ties = (rng.integers(-127, 127, 2048) + 0.5) * float(y.scale) / product
    bias = (np.round(ties) + rng.integers(-2, 3, 2048)).astype(np.int32)
    pixel = [1, 1] if operator == "FULLY_CONNECTED" else [1, 1, 1, 1]
    builder = TfliteBuilder()
    x = builder.input("x", pixel, dtype, scales[0], zero_point)
    weights = np.ones([2048, *pixel[1:]], dtype)
    inputs = [x, builder.constant("w", weights, scales[1]), builder.constant("b", bias, product)]
    outputs = builder.tensor("y", [*pixel[:-1], 2048], dtype, y.scale, y.zero_point)
    strides = {"stride_h": 1, "stride_w": 1} if operator == "CONV_2D" else {}
    builder.operator(operator, inputs, [outputs], **strides)
    model = builder.build([x], [outputs])
    expected = run_reference(model, np.full(pixel, zero_point, dtype))[0]
    bounds = type_range(dtype)
    if operator == "FULLY_CONNECTED":
        exact = tflite.prepare_requantize_fully_connected(scales[0], scales[1:], y, bounds)
        assert_same(tflite.requantize_accumulators_float(exact, bias.reshape(1, -1)), expected)
        return
    if dtype == "int8":
        p = tflite.prepare_requantize_per_channel(scales[0], scales[1:], y, bounds)
    else:
        p = tflite.prepare_requantize_per_tensor(scales[0], scales[1], y, bounds)
    assert_same(tflite.requantize_accumulators(p, bias.reshape(1, -1)), expected)


@pytest.mark.parametrize("seed", range(20))
def test_batch_matmul(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (quantization(rng, "int8", (-3, 0)) for _ in range(2))
    left, right = values(rng, "int8", [2, 9, 16]), values(rng, "int8", [2, 16, 11])
    spread = 80.0 * 80.0 * 4.0 * float(a.scale) * float(b.scale)
    y = Quantization(np.float32(spread / 10 ** rng.uniform(0, 2.5)), int(rng.integers(-128, 128)))
    expected = reference("BATCH_MATMUL", [(left, a), (right, b)], y, [2, 9, 11])
    product = (left.astype(np.int64) - a.zero_point) @ (right.astype(np.int64) - b.zero_point)
    p = tflite.prepare_requantize_per_tensor(a.scale, b.scale, y, type_range("int8"))
    actual = tflite.requantize_accumulators(p, product.reshape(18, 11).astype(np.int32))
    assert_same(actual, expected)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operator", ["ADD", "SUB", "MUL"])
def test_binary(operator: str, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b, y = (quantization(rng, dtype, (-3, 1)) for _ in range(3))
    if operator == "MUL" and seed % 3:
        y = y._replace(scale=np.float32(a.scale * b.scale * 100))
    left, right = values(rng, dtype), values(rng, dtype)
    activation = ACTIVATIONS[seed % 4]
    expected = reference(operator, [(left, a), (right, b)], y, fused_activation_function=activation)
    bounds = activation_range(activation, y, dtype)
    if operator == "MUL":
        actual = tflite_binary.mul(
            tflite_binary.prepare_mul(a, b, y, bounds), flat(left), flat(right)
        )
    else:
        kernel = tflite_binary.add if operator == "ADD" else tflite_binary.sub
        actual = kernel(tflite_binary.prepare_add(a, b, y, bounds), flat(left), flat(right))
    assert_same(actual, expected)


@pytest.mark.parametrize("seed", range(20))
def test_squared_difference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (quantization(rng, "int8", (-2, 0)) for _ in range(2))
    top = float(max(a.scale, b.scale))
    y = Quantization(np.float32(top * top * 10 ** rng.uniform(0, 3)), int(rng.integers(-128, 128)))
    left, right = values(rng, "int8"), values(rng, "int8")
    expected = reference("SQUARED_DIFFERENCE", [(left, a), (right, b)], y)
    p = tflite_binary.prepare_squared_difference(a, b, y, type_range("int8"))
    assert_same(tflite_binary.squared_difference(p, flat(left), flat(right)), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_maximum_and_minimum(dtype: str) -> None:
    rng = np.random.default_rng(0)
    a, b, y = (quantization(rng, dtype, (-2, 0)) for _ in range(3))
    left, right = values(rng, dtype), values(rng, dtype)
    for operator, kernel in (
        ("MAXIMUM", tflite_binary.maximum),
        ("MINIMUM", tflite_binary.minimum),
    ):
        expected = reference(operator, [(left, a), (right, b)], y)
        assert_same(kernel(flat(left), flat(right)), expected)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operator", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
def test_pool(operator: str, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = quantization(rng, dtype, (-3, 0))
    height, width = (int(v) for v in rng.integers(4, 12, 2))
    kernel = [int(v) for v in rng.integers(1, 5, 2)]
    stride = [int(v) for v in rng.integers(1, 4, 2)]
    padding = ["SAME", "VALID"][seed % 2]
    data = values(rng, dtype, [2, height, width, 5])
    sizes, pads = [], []
    for size, k, s in zip((height, width), kernel, stride, strict=True):
        out = -(-size // s) if padding == "SAME" else (size - k) // s + 1
        sizes.append(out)
        pads.append(max((out - 1) * s + k - size, 0) // 2)
    activation = ACTIVATIONS[seed % 4]
    expected = reference(
        operator,
        [(data, q)],
        q,
        [2, *sizes, 5],
        padding=padding,
        stride_h=stride[0],
        stride_w=stride[1],
        filter_height=kernel[0],
        filter_width=kernel[1],
        fused_activation_function=activation,
    )
    bounds = activation_range(activation, q, dtype)
    p = tflite_window.Pool._make((*kernel, *stride, *pads, *sizes, *bounds))
    pool = tflite_window.average_pool if operator[0] == "A" else tflite_window.max_pool
    assert_same(pool(p, data.astype(np.int32)), expected)


AXES = [(1, 2), (2,), (3,), (1,), (0, 1, 2, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize("seed", range(14))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operator", ["MEAN", "SUM"])
def test_mean_and_sum(operator: str, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    axes = AXES[seed % len(AXES)]
    keep = bool(seed % 2)
    shape = [2, *(int(v) for v in rng.integers(2, 17, 3))]
    data = values(rng, dtype, shape)
    x = quantization(rng, dtype, (-3, 0))
    count = int(np.prod([shape[a] for a in axes]))
    y = quantization(rng, dtype, (-1.5, 0.5))
    factor = count**0.5 if operator == "SUM" else count**-0.5
    y = y._replace(scale=np.float32(x.scale * factor * float(y.scale)))
    if seed % 5 == 0:
        y = x
    reduced = [1 if i in axes else n for i, n in enumerate(shape)]
    out = reduced if keep else [n for i, n in enumerate(shape) if i not in axes]
    constants = (np.array(axes, np.int32),)
    expected = reference(operator, [(data, x)], y, out, constants=constants, keep_dims=keep)
    kept = [i for i in range(4) if i not in axes]
    rows = data.transpose(*kept, *axes).reshape(-1, count).astype(np.int32)
    if operator == "SUM" and dtype == "int8":
        p = tflite_window.prepare_sum(x, y, count, type_range("uint8"))
        assert_same(tflite_window.sum_int8(p, rows), expected)
        return
    prepare = tflite_window.prepare_mean if operator == "MEAN" else tflite_window.prepare_sum
    p = prepare(x, y, count, type_range(dtype))
    assert_same(tflite_window.reduce_rescaled(p, rows), expected)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_reduce_max_and_min(dtype: str, axes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    q = quantization(rng, dtype, (-3, 0))
    data = values(rng, dtype, [2, 3, 4, 5])
    kept = [i for i in range(4) if i not in axes]
    out = [data.shape[i] for i in kept]
    rows = np.ascontiguousarray(data.transpose(*kept, *axes)).astype(np.int32)
    rows = rows.reshape(int(np.prod(out)), -1)
    for operator, kernel in (
        ("REDUCE_MAX", tflite_window.reduce_max),
        ("REDUCE_MIN", tflite_window.reduce_min),
    ):
        constants = (np.array(axes, np.int32),)
        expected = reference(operator, [(data, q)], q, out or [1], constants=constants)
        assert_same(kernel(rows), expected)


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax(dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = quantization(rng, dtype, (-4, 1.5))
    beta = np.float32([1.0, 0.3, 2.5][seed % 3])
    y = Quantization(np.float32(1 / 256), type_range(dtype).low)
    data = values(rng, dtype, [64, int(rng.integers(1, 40))])
    expected = reference("SOFTMAX", [(data, x)], y, beta=float(beta))
    p = tflite_window.prepare_softmax(x.scale, beta, type_range(dtype))
    assert_same(tflite_window.softmax(p, data.astype(np.int32)), expected)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dtype", DTYPES)
def test_l2_normalization(dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = quantization(rng, dtype, (-3, 0))
    y = Quantization(np.float32(1 / 128), 0 if dtype == "int8" else 128)
    data = values(rng, dtype, [40, int(rng.integers(1, 70))])
    data[0] = x.zero_point
    expected = reference("L2_NORMALIZATION", [(data, x)], y)
    bounds = type_range(dtype)
    actual = tflite_window.l2_normalization(data.astype(np.int32), x.zero_point, bounds)
    assert_same(actual, expected)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["plain", "align", "half"])
@pytest.mark.parametrize("operator", ["RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"])
def test_resize(operator: str, mode: str, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = quantization(rng, dtype, (-3, 0))
    data = values(rng, dtype, [2, *(int(v) for v in rng.integers(1, 12, 2)), 3])
    size = [int(v) for v in rng.integers(1, 25, 2)]
    align, half = mode == "align", mode == "half"
    expected = reference(
        operator,
        [(data, q)],
        q,
        [2, *size, 3],
        constants=(np.array(size, np.int32),),
        align_corners=align,
        half_pixel_centers=half,
    )
    kernels: dict[tuple[str, str], tuple[Callable[..., Any], Callable[..., Array]]] = {
        ("N", "int8"): (tflite_window.prepare_resize_nearest, tflite_window.resize_nearest),
        ("N", "uint8"): (tflite_window.prepare_resize_nearest, tflite_window.resize_nearest),
        ("B", "int8"): (tflite_window.prepare_resize_bilinear, tflite_window.resize_bilinear),
        ("B", "uint8"): (
            tflite_window.prepare_resize_bilinear_uint8,
            tflite_window.resize_bilinear_uint8,
        ),
    }
    prepare, kernel = kernels[operator[7], dtype]
    axes = [prepare(data.shape[1 + i], size[i], align, half) for i in range(2)]
    assert_same(kernel(data.astype(np.int32), *axes), expected)


def every_value(dtype: str) -> Array:
    low, high = type_range(dtype)
    return np.arange(low, high + 1).astype(dtype).reshape(1, 1, 1, 256)


Case = tuple[str, str, Callable[[Quantization, Quantization, str], Array], dict[str, Any]]


def _relu(name: str) -> Callable[[Quantization, Quantization, str], Array]:
    return lambda x, y, dtype: tflite_table.table_relu(name, x, y, dtype)


def _leaky(alpha: float) -> Callable[[Quantization, Quantization, str], Array]:
    return lambda x, y, dtype: tflite_table.table_leaky_relu(x, y, np.float32(alpha), dtype)


def _gelu(approximate: bool) -> Callable[[Quantization, Quantization, str], Array]:
    return lambda x, y, dtype: tflite_table.table_gelu(x, y, approximate, dtype)


TABLES: list[Case] = [
    ("LOGISTIC", "both", tflite_table.table_logistic, {}),
    ("TANH", "both", tflite_table.table_tanh, {}),
    ("HARD_SWISH", "both", tflite_table.table_hard_swish, {}),
    ("RELU", "both", _relu("RELU"), {}),
    ("RELU6", "both", _relu("RELU6"), {}),
    ("RELU_N1_TO_1", "both", _relu("RELU_N1_TO_1"), {}),
    ("RELU_0_TO_1", "both", _relu("RELU_0_TO_1"), {}),
    ("LEAKY_RELU", "both", _leaky(0.1), {"alpha": 0.1}),
    ("LEAKY_RELU", "both", _leaky(1.7), {"alpha": 1.7}),
    ("GELU", "both", _gelu(False), {"approximate": False}),
    ("GELU", "both", _gelu(True), {"approximate": True}),
    ("EXP", "int8", lambda x, y, _: tflite_table.table_exp(x, y), {}),
    ("LOG", "int8", lambda x, y, _: tflite_table.table_log(x, y), {}),
    ("ELU", "int8", lambda x, y, _: tflite_table.table_elu(x, y), {}),
    ("ABS", "int8", lambda x, y, _: tflite_table.table_abs(x, y), {}),
    ("NEG", "int8", lambda x, y, _: tflite_table.table_neg(), {}),
    ("RSQRT", "int8", lambda x, y, _: tflite_table.table_rsqrt(x, y), {}),
]
TABLE_CASES = [
    pytest.param(*case[:1], dtype, *case[2:], id=f"{case[0]}-{i}-{dtype}")
    for i, case in enumerate(TABLES)
    for dtype in (DTYPES if case[1] == "both" else ["int8"])
]


def table_quantization(
    rng: np.random.Generator, operator: str, dtype: str
) -> tuple[Quantization, Quantization]:
    """Draw an input and an output scale that LiteRT accepts for the operator."""
    wide = operator != "RSQRT" and rng.random() < 0.3
    exponents = (-6.0, 3.0) if wide else (-3.0, 0.5)
    x, y = quantization(rng, dtype, exponents), quantization(rng, dtype, exponents)
    if operator == "LOGISTIC":
        y = Quantization(np.float32(1 / 256), type_range(dtype).low)
    elif operator == "RSQRT":
        x = x._replace(zero_point=-128)
    elif operator == "HARD_SWISH":
        # LiteRT refuses input scale / 128 / output scale >= 1.
        y = y._replace(scale=max(y.scale, x.scale / np.float32(100)))
    elif operator == "EXP":
        x = x._replace(scale=min(x.scale, np.float32(0.05)))
    return x, y


@pytest.mark.parametrize(("operator", "dtype", "build", "options"), TABLE_CASES)
def test_table(
    operator: str,
    dtype: str,
    build: Callable[[Quantization, Quantization, str], Array],
    options: dict[str, Any],
) -> None:
    data = every_value(dtype)
    for seed in range(25):
        rng = np.random.default_rng(seed)
        x, y = table_quantization(rng, operator, dtype)
        expected = reference(operator, [(data, x)], y, **options)
        table = build(x, y, dtype)
        assert table.dtype == np.int32
        assert_same(tflite_table.lookup(table, flat(data)), expected)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("dtype", DTYPES)
def test_array_kernels_agree_with_their_tables(dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = table_quantization(rng, "HARD_SWISH", dtype)
    data, bounds = flat(every_value(dtype)), type_range(dtype)
    swish = tflite_unary.hard_swish(tflite_unary.prepare_hard_swish(x, y, bounds), data)
    assert_same(swish, tflite_table.lookup(tflite_table.table_hard_swish(x, y, dtype), data))
    leaky = tflite_unary.prepare_leaky_relu(x, y, np.float32(0.2), bounds)
    table = tflite_table.table_leaky_relu(x, y, np.float32(0.2), dtype)
    assert_same(tflite_unary.leaky_relu(leaky, data), tflite_table.lookup(table, data))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("dtype", DTYPES)
def test_prelu(dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, alpha, y = (quantization(rng, dtype, (-2, 0)) for _ in range(3))
    data, slopes = values(rng, dtype, [1, 6, 6, 16]), values(rng, dtype, [1, 1, 16])
    expected = reference("PRELU", [(data, x), (slopes, alpha)], y)
    p = tflite_unary.prepare_prelu(x, alpha, y, type_range(dtype))
    broadcast = flat(np.broadcast_to(slopes, data.shape))
    assert_same(tflite_unary.prelu(p, flat(data), broadcast), expected)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("target", DTYPES)
@pytest.mark.parametrize("source", DTYPES)
def test_quantize_between_types(source: str, target: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = quantization(rng, source, (-3, 1)), quantization(rng, target, (-3, 1))
    if seed % 3 == 0:
        y = y._replace(scale=x.scale)
    data = every_value(source)
    expected = reference("QUANTIZE", [(data, x)], y, dtype=target)
    p = tflite_unary.prepare_rescale(x, y, type_range(target))
    assert_same(tflite_unary.rescale(p, flat(data)), expected)
    table = tflite_table.table_rescale(x, y, source, type_range(target))
    assert_same(tflite_table.lookup(table, flat(data)), expected)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("dtype", DTYPES)
def test_float_quantize_and_dequantize(dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = quantization(rng, dtype, (-4, 1))
    # Multiples of half a step are the ties; the rest is spread past both ends.
    ties = np.arange(-600, 600, dtype=np.float32) * (q.scale / np.float32(2))
    spread = rng.normal(0, 150, 800).astype(np.float32) * q.scale
    data = np.concatenate([ties, spread, np.array([1e30, -1e30], np.float32)]).reshape(1, -1)
    expected = reference("QUANTIZE", [(data, None)], q, dtype=dtype)
    bounds = type_range(dtype)
    actual = tflite_unary.quantize_float(data.ravel(), q.scale, q.zero_point, *bounds)
    assert_same(actual, expected)
    stored = every_value(dtype)
    expected = reference("DEQUANTIZE", [(stored, q)], None, dtype="float32")
    actual = tflite_unary.dequantize(flat(stored), q.scale, q.zero_point)
    np.testing.assert_array_equal(actual, expected.ravel())


@pytest.mark.parametrize("seed", range(20))
def test_concatenation_of_uint8_with_other_scales(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, y = (quantization(rng, "uint8", (-2, 0)) for _ in range(2))
    b = y if seed % 2 else quantization(rng, "uint8", (-2, 0))
    left, right = every_value("uint8"), values(rng, "uint8", [1, 1, 1, 44])
    expected = reference("CONCATENATION", [(left, a), (right, b)], y, [1, 1, 1, 300], axis=3)
    parts = [
        tflite_table.lookup(tflite_table.table_concatenation(q, y), flat(part))
        for q, part in ((a, left), (b, right))
    ]
    assert_same(np.concatenate(parts), expected)
