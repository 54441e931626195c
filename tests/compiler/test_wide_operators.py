"""Operators on 16-bit activations: they run on the host, and equal ONNX Runtime in every byte."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper

from lepton.arith.onnx_float import quantization
from lepton.chip import load_chip
from lepton.compiler.compile import compile_model
from lepton.compiler.host_wide import widen_codes
from lepton.compiler.importers.tflite import import_tflite
from lepton.compiler.options import CompileOptions
from lepton.errors import ImportFailure
from lepton.runtime.execute import HostRegions
from lepton.runtime.golden import onnx_session
from lepton.simulator import check, run_values
from tests.onnx_builder import OnnxBuilder, Quantized
from tests.tflite_builder import TfliteBuilder

EDGE = load_chip("edge")
FAST = CompileOptions(effort=0)
REASON = "Operands and result of 16 bits are the host's: no instruction writes that many of a sum."


class Wide(OnnxBuilder):
    """A graph around one operator on 16-bit activations."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = np.random.default_rng(seed)

    def x(self, *shape: int, dtype: str = "int16") -> str:
        """Add an input of codes, dequantized."""
        limits = np.iinfo(dtype)
        scale = 20 / (limits.max - limits.min)
        point = int(self.rng.choice([0, limits.min // 8]))
        codes = self.rng.integers(limits.min, limits.max + 1, shape).astype(dtype)
        return self.dequantize(
            self.feed(codes), Quantized(dtype, quantization(scale, point, dtype))
        )

    def w(self, *shape: int, axis: int = 0) -> str:
        """Add int8 weights with a scale per channel, dequantized."""
        count = shape[axis]
        codes = self.rng.integers(-127, 128, shape).astype(np.int8)
        scales = self.rng.uniform(0.001, 0.01, count).astype(np.float32)
        parts = [self.constant(part) for part in (codes, scales, np.zeros(count, np.int8))]
        return self.node("DequantizeLinear", parts, axis=axis)

    def b(self, count: int) -> str:
        """Add an int32 bias, dequantized."""
        codes = self.rng.integers(-100_000, 100_000, count).astype(np.int32)
        parts = (codes, np.full(count, 1e-5, np.float32), np.zeros(count, np.int32))
        return self.node("DequantizeLinear", [self.constant(part) for part in parts], axis=0)

    def numbers(self, *values: int) -> str:
        """Add a constant of whole numbers."""
        return self.constant(np.array(values, np.int64))

    def ends(self, value: str, dtype: str) -> None:
        """Quantize a value into the output."""
        limits = np.iinfo(dtype)
        scale = float(self.rng.uniform(20, 40) / (limits.max - limits.min))
        self.quantize(value, Quantized(dtype, quantization(scale, limits.max // 2, dtype)))


OPERATORS: dict[str, Callable[[Wide], str]] = {
    "conv": lambda g: g.node("Conv", [g.x(1, 16, 9, 9), g.w(24, 16, 3, 3), g.b(24)], pads=[1] * 4),
    "conv relu": lambda g: g.node(
        "Relu", [g.node("Conv", [g.x(1, 3, 9, 9), g.w(5, 3, 3, 3), g.b(5)], strides=[2, 2])]
    ),
    "depthwise": lambda g: g.node("Conv", [g.x(1, 16, 9, 9), g.w(16, 1, 3, 3), g.b(16)], group=16),
    "conv 1d": lambda g: g.node("Conv", [g.x(1, 8, 40), g.w(6, 8, 5), g.b(6)]),
    "transposed": lambda g: g.node(
        "ConvTranspose", [g.x(1, 32, 12, 12), g.w(32, 16, 4, 4, axis=1), g.b(16)], strides=[2, 2]
    ),
    "gemm": lambda g: g.node("Gemm", [g.x(1, 512), g.w(512, 300, axis=1), g.b(300)]),
    "gemm of turned weights": lambda g: g.node(
        "Gemm", [g.x(1, 1024), g.w(400, 1024), g.b(400)], transB=1
    ),
    "matmul": lambda g: g.node("MatMul", [g.x(1, 8, 256), g.w(256, 40, axis=1)]),
    "attention": lambda g: g.node("MatMul", [g.x(1, 2, 7, 64), g.x(1, 2, 64, 9)]),
    "add of 8 bits": lambda g: g.node("Add", [g.x(1, 4, 6, 6), g.x(1, 4, 6, 6, dtype="int8")]),
    "unsigned": lambda g: g.node("Mul", [g.x(1, 4, 6, 6, dtype="uint16"), g.x(1, 4, 1, 1)]),
    "average": lambda g: g.node(
        "AveragePool", [g.x(1, 4, 8, 8)], kernel_shape=[3, 3], pads=[1] * 4
    ),
    "global average": lambda g: g.node("GlobalAveragePool", [g.x(1, 16, 7, 7)]),
    "softmax": lambda g: g.node("Softmax", [g.x(1, 7, 20)], axis=-1),
    "tanh": lambda g: g.node("Tanh", [g.x(1, 7, 20)]),
    "layer norm": lambda g: g.node(
        "LayerNormalization", [g.x(1, 7, 32), *[g.constant(np.ones(32, np.float32))] * 2], axis=-1
    ),
    "concat": lambda g: g.node("Concat", [g.x(1, 4, 6, 6), g.x(1, 3, 6, 6)], axis=1),
    # moved codes of which ONNX Runtime has no kernel of 16 bits
    "max pool": lambda g: g.node("MaxPool", [g.x(1, 4, 8, 8)], kernel_shape=[2, 2]),
    "nearest": lambda g: g.node(
        "Resize", [g.x(1, 4, 6, 6), "", "", g.numbers(1, 4, 12, 12)], mode="nearest"
    ),
    "pad": lambda g: g.node("Pad", [g.x(1, 4, 6, 6), g.numbers(0, 0, 1, 1, 0, 0, 1, 2)]),
    "clip": lambda g: g.node(
        "Clip", [g.x(1, 4, 6, 6), g.constant(np.float32(0)), g.constant(np.float32(6))]
    ),
    "minimum": lambda g: g.node("ReduceMin", [g.x(1, 4, 6, 6), g.numbers(2, 3)]),
}


@pytest.mark.parametrize("kind", OPERATORS)
def test_operators_equal_onnx_runtime(kind: str) -> None:
    for dtype in ("int16", "int8"):
        graph = Wide(len(kind))
        graph.ends(OPERATORS[kind](graph), dtype)
        program = compile_model(graph.model(), EDGE, FAST)
        check(program)
        ours = run_values(program, graph.feeds, HostRegions(program))
        (made,) = ours.values()
        assert made.dtype == dtype
        assert np.array_equal(made, graph.run())
        assert len(np.unique(made)) > 2  # not all saturated


def test_the_library_s_own_domain_is_read_too() -> None:
    graph = Wide(5)
    graph.ends(OPERATORS["conv"](graph), "int16")
    model = graph.model()
    for node in model.graph.node:
        if node.op_type.endswith("Linear"):
            node.domain = "com.microsoft"
    program = compile_model(model, EDGE, FAST)
    (ours,) = run_values(program, graph.feeds, HostRegions(program)).values()
    assert np.array_equal(ours, onnx_session(model.SerializeToString()).run(None, graph.feeds)[0])


@pytest.mark.parametrize(("said", "casts"), [(None, 0), ("UINT8", 0), ("INT16", 2)])
def test_a_quantize_without_a_zero_point_says_its_type_or_is_uint8(
    said: str | None, casts: int
) -> None:
    kind = {} if said is None else {"output_dtype": getattr(TensorProto, said)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale"], ["q"], **kind),
        helper.make_node("MaxPool", ["q"], ["y"], kernel_shape=[2, 2]),
    ]
    made = widen_codes(nodes, [], [])
    assert sum(node.op_type == "Cast" for node in made) == casts


def test_the_reason_is_the_width() -> None:
    graph = Wide(0)
    graph.ends(OPERATORS["conv"](graph), "int16")
    operators = compile_model(graph.model(), EDGE, FAST).operators
    assert {operator.device for operator in operators} == {"host"}
    reasons = {operator.kind: operator.reason for operator in operators}
    assert reasons["nn.conv2d"] == f"nn.conv2d: {REASON}"
    assert reasons["quantize"].endswith(REASON)


def test_weights_of_a_node_as_it_is_stay_narrow() -> None:
    graph = Wide(1)
    graph.ends(OPERATORS["gemm of turned weights"](graph), "int16")
    program = compile_model(graph.model(), EDGE, FAST)
    assert sum(map(len, program.host_models)) < 2 * 400 * 1024
    assert sum(operator.macs for operator in program.operators) == 400 * 1024


def test_what_a_pass_inserted_revises_no_type() -> None:
    """An LRN of opset 11, which runs as it is, behind a bias that an importer's pass has moved."""
    from tests.compiler import importer_models as made

    rng = np.random.default_rng(0)
    names = {"Conv": "c", "MaxPool": "p", "LRN": "n"}
    constants = {
        "w": rng.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "ws": np.float32(0.01),
        "wz": np.int8(0),
        "b": rng.integers(-50, 50, 4).astype(np.int32),
        "bs": np.float32(0.000501),  # nearly that of the sums
        "bz": np.int32(0),
        "s": np.float32(0.05),
        "z": np.int8(3),
    }
    nodes = [
        made.node("QuantizeLinear", ["x", "s", "z"], "q"),
        made.node("DequantizeLinear", ["q", "s", "z"], "d"),
        made.node("DequantizeLinear", ["w", "ws", "wz"], "wd"),
        made.node("DequantizeLinear", ["b", "bs", "bz"], "bd"),
        made.node("Conv", ["d", "wd", "bd"], names["Conv"], kernel_shape=[3, 3]),
        made.node("QuantizeLinear", ["c", "s", "z"], "cq"),
        made.node("DequantizeLinear", ["cq", "s", "z"], "cd"),
        made.node("MaxPool", ["cd"], names["MaxPool"], kernel_shape=[2, 2]),
        made.node("LRN", ["p"], names["LRN"], size=3),
        made.node("QuantizeLinear", ["n", "s", "z"], "nq"),
        made.node("DequantizeLinear", ["nq", "s", "z"], "y"),
    ]
    model = made.onnx_model(nodes, constants, [("x", 1, (1, 3, 9, 9))], [("y", 1)], opset=11)
    program = compile_model(model, EDGE, FAST)
    x = rng.standard_normal((1, 3, 9, 9)).astype(np.float32)
    ours = run_values(program, {"x": x}, HostRegions(program))["y"]
    golden = onnx_session(model.SerializeToString()).run(None, {"x": x})[0]
    assert np.array_equal(ours, golden)


def test_16_bit_tflite_is_refused_in_one_sentence() -> None:
    b = TfliteBuilder()
    x = b.input("x", [1, 8], "int16", 1e-3, 0)
    w = b.constant("w", np.ones((4, 8), np.int8), np.float32(0.1))
    y = b.tensor("y", [1, 4], "int16", 1e-2, 0)
    b.operator("FULLY_CONNECTED", [x, w, None], [y], version=7)
    wanted = r"m: tensor 'x' has 16 bits; \.tflite models with 16-bit activations are not supported"
    with pytest.raises(ImportFailure, match=wanted):
        import_tflite(b.build([x], [y]), "m", {})
