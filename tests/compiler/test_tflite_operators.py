"""TFLite operators beyond what random graphs draw, beside LiteRT's reference kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference")

from lepton.chip import load_chip
from lepton.compiler.compile import compile_model
from lepton.compiler.importers.tflite import import_tflite
from lepton.errors import ImportFailure
from lepton.program import Program, load_program
from lepton.runtime.execute import HostRegions
from lepton.simulator import check, run_values
from tests.tflite_builder import Tensor, TfliteBuilder, run_reference

Array = NDArray[Any]
RNG = np.random.default_rng(20)


def equal_program(
    builder: TfliteBuilder, x: Tensor, outputs: Sequence[Tensor], folder: Path, chip: str = "nano"
) -> Program:
    """Return the program of a model, after its results were found equal to the reference's."""
    model = builder.build([x], outputs)
    path = folder / "graph.tflite"
    path.write_bytes(model)
    made = load_program(compile_model(path, load_chip(chip)).to_bytes())
    check(made)
    values = codes(x.shape, x.dtype)
    results = run_values(made, {x.name: values}, HostRegions(made))
    for name, expected in zip(made.outputs, run_reference(model, values), strict=True):
        np.testing.assert_array_equal(results[name], expected)
    return made


def codes(shape: Sequence[int], dtype: str = "int8") -> Array:
    """Return random values of a type."""
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max + 1, tuple(shape)).astype(dtype)


def host_reasons(made: Program) -> set[str]:
    """Return why operators run on the host."""
    return {operator.reason for operator in made.operators if operator.device == "host"}


def weighted(kind: str, per_channel: bool) -> tuple[TfliteBuilder, Tensor, Tensor]:
    """Return a model of one product whose int8 weights have zero points."""
    b = TfliteBuilder()
    dense = kind == "FULLY_CONNECTED"
    x = b.input("x", [2, 9] if dense else [1, 5, 5, 6], "int8", 0.05, 3)
    scale: Any = RNG.uniform(0.002, 0.02, 6).astype(np.float32) if per_channel else np.float32(0.01)
    points = np.array([7, 0, -5, 100, 3, 2]) if per_channel else 9
    shape = {"CONV_2D": (6, 3, 3, 6), "DEPTHWISE_CONV_2D": (1, 3, 3, 6)}.get(kind, (6, 9))
    axis = 3 if kind == "DEPTHWISE_CONV_2D" else 0
    weights = b.constant("w", codes(shape), scale, points, axis)
    bias = b.constant("b", np.arange(6, dtype=np.int32) * 90, np.asarray(scale) * 0.05)
    y = b.tensor("y", [2, 6] if dense else [1, 3, 3, 6], "int8", 0.1, -2)
    window: dict[str, Any] = {
        "stride_h": 1,
        "stride_w": 1,
        "dilation_h_factor": 1,
        "dilation_w_factor": 1,
    }
    options: dict[str, Any] = {} if dense else {"padding": "VALID", **window}
    if kind == "DEPTHWISE_CONV_2D":
        options["depth_multiplier"] = 1
    b.operator(kind, [x, weights, bias], [y], **options)
    return b, x, y


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("kind", ["DEPTHWISE_CONV_2D", "FULLY_CONNECTED"])
def test_zero_points_of_int8_weights(kind: str, per_channel: bool, tmp_path: Path) -> None:
    b, x, y = weighted(kind, per_channel)
    assert not host_reasons(equal_program(b, x, [y], tmp_path))


@pytest.mark.parametrize("per_channel", [False, True])
def test_convolutions_refuse_zero_points_of_int8_weights(per_channel: bool) -> None:
    b, x, y = weighted("CONV_2D", per_channel)
    model = b.build([x], [y])
    with pytest.raises(RuntimeError, match="zero_point"):
        run_reference(model, codes(x.shape))
    with pytest.raises(ImportFailure, match="weights have a zero point other than 0, which LiteRT"):
        import_tflite(model, "m", {})


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_is_exact_or_approximate(approximate: bool, dtype: str, tmp_path: Path) -> None:
    b = TfliteBuilder()
    x = b.input("x", [1, 999], dtype, 0.03, 100)
    y = b.tensor("y", [1, 999], dtype, 0.011, 20)
    b.operator("GELU", [x], [y], approximate=approximate)
    assert not host_reasons(equal_program(b, x, [y], tmp_path))


def test_float_gelu_runs_on_the_host(tmp_path: Path) -> None:
    b = TfliteBuilder()
    x = b.input("x", [1, 99], "float32")
    y = b.tensor("y", [1, 99], "float32")
    b.operator("GELU", [x], [y], approximate=True)
    path = tmp_path / "graph.tflite"
    path.write_bytes(b.build([x], [y]))
    made = compile_model(path, load_chip("nano"))
    values = np.linspace(-5, 5, 99, dtype=np.float32)[None]
    ours = run_values(made, {"x": values}, HostRegions(made))["y"]
    expected = run_reference(path.read_bytes(), values)[0]
    np.testing.assert_allclose(ours.astype(np.float64), expected, rtol=1e-5, atol=1e-6)
    assert host_reasons(made) == {"its operands are not quantized to 8 bits"}


@pytest.mark.parametrize(
    ("slopes", "is_host"), [((1,), False), ((1, 1, 3), False), ((4, 5, 3), True)]
)
def test_prelu_slopes(slopes: tuple[int, ...], is_host: bool, tmp_path: Path) -> None:
    b = TfliteBuilder()
    x = b.input("x", [1, 4, 5, 3], "int8", 0.03, 5)
    y = b.tensor("y", [1, 4, 5, 3], "int8", 0.03, 5)
    b.operator("PRELU", [x, b.constant("a", codes(slopes), 0.01, 3)], [y])
    between = "no NPU instruction computes what lies between its dequantize and its quantize"
    assert host_reasons(equal_program(b, x, [y], tmp_path)) == ({between} if is_host else set())


def test_split_by_an_axis_of_rank_1(tmp_path: Path) -> None:
    b = TfliteBuilder()
    x = b.input("x", [1, 6, 4], "int8", 0.03, 5)
    parts = [b.tensor(f"y{n}", [1, 2, 4], "int8", 0.03, 5) for n in range(3)]
    axis = b.constant("axis", np.array([-2], np.int32))
    b.operator("SPLIT", [axis, x], parts, num_splits=3)
    assert not host_reasons(equal_program(b, x, parts, tmp_path))


def test_split_v_with_the_rest(tmp_path: Path) -> None:
    b = TfliteBuilder()
    x = b.input("x", [2, 7, 3], "uint8", 0.03, 5)
    parts = [b.tensor(f"y{n}", [2, size, 3], "uint8", 0.03, 5) for n, size in enumerate((2, 4, 1))]
    sizes = b.constant("sizes", np.array([2, -1, 1], np.int32))
    axis = b.constant("axis", np.array([1], np.int32))
    b.operator("SPLIT_V", [x, sizes, axis], parts, num_splits=3)
    assert not host_reasons(equal_program(b, x, parts, tmp_path))


@pytest.mark.parametrize(
    ("kind", "numbers", "shape"), [("TILE", [1, 17], [2, 51]), ("REVERSE_V2", [1, -2], [2, 3])]
)
def test_movement_on_the_host(
    kind: str, numbers: list[int], shape: list[int], tmp_path: Path
) -> None:
    b = TfliteBuilder()
    x = b.input("x", [2, 3], "int8", 0.03, 5)
    y = b.tensor("y", shape, "int8", 0.03, 5)
    b.operator(kind, [x, b.constant("n", np.array(numbers, np.int32))], [y])
    assert host_reasons(equal_program(b, x, [y], tmp_path)) == {"no NPU instruction computes it"}


@pytest.mark.parametrize("kind", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
def test_a_window_beyond_the_scratchpad_is_the_hosts(kind: str, tmp_path: Path) -> None:
    b = TfliteBuilder()
    x = b.input("x", [1, 93, 92, 3], "int8", 0.03, 5)
    y = b.tensor("y", [1, 4, 3, 3], "int8", 0.03, 5)
    window: dict[str, Any] = {"padding": "VALID", "stride_h": 1, "stride_w": 1}
    b.operator(kind, [x], [y], filter_height=90, filter_width=90, **window)
    assert not host_reasons(equal_program(b, x, [y], tmp_path, "nano"))
    (reason,) = host_reasons(equal_program(b, x, [y], tmp_path, "like-u55-256"))
    assert "One channel of a pool's window must fit a quarter of the scratchpad." in reason


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_averages_on_the_host_round_halves_away_from_zero(dtype: str, tmp_path: Path) -> None:
    b = TfliteBuilder()
    x = b.input("x", [1, 261, 70, 3], dtype, 0.03, 5)
    y = b.tensor("y", [1, 6, 70, 3], dtype, 0.03, 5)
    options: dict[str, Any] = {
        "padding": "VALID",
        "stride_h": 1,
        "stride_w": 1,
        "filter_height": 256,
    }
    activation: dict[str, Any] = {"filter_width": 1, "fused_activation_function": "RELU_N1_TO_1"}
    b.operator("AVERAGE_POOL_2D", [x], [y], **options, **activation)
    (reason,) = host_reasons(equal_program(b, x, [y], tmp_path))
    assert "Kernel, stride and dilation must be between 1 and 255." in reason


def test_a_clip_behind_a_table(tmp_path: Path) -> None:
    b = TfliteBuilder()
    x = b.input("x", [1, 99], "int8", 0.03, 5)
    y = b.tensor("y", [1, 99], "int8", 0.05, -100)
    b.operator(
        "SUB",
        [x, b.constant("c", np.array([50], np.int8), 0.02, 3)],
        [y],
        fused_activation_function="RELU6",
    )
    assert not host_reasons(equal_program(b, x, [y], tmp_path))


@pytest.mark.parametrize("kind", ["REDUCE_MAX", "REDUCE_MIN"])
@pytest.mark.parametrize(
    ("shape", "axes"), [((1, 257, 3, 5), (1,)), ((3, 521), (1,)), ((1, 300, 7, 3), (1, 2))]
)
def test_extremes_over_long_axes(
    kind: str, shape: tuple[int, ...], axes: tuple[int, ...], tmp_path: Path
) -> None:
    b = TfliteBuilder()
    x = b.input("x", shape, "int8", 0.03, 5)
    kept = [n for axis, n in enumerate(shape) if axis not in axes]
    y = b.tensor("y", kept, "int8", 0.03, 5)
    b.operator(kind, [x, b.constant("a", np.array(axes, np.int32))], [y], keep_dims=False)
    assert not host_reasons(equal_program(b, x, [y], tmp_path, "like-u55-256"))


def test_clips_behind_a_reshaped_product(tmp_path: Path) -> None:
    b = TfliteBuilder()
    x = b.input("x", [1, 3, 5, 8], "int8", 0.05, 3)
    y = b.tensor("y", [1, 3, 5, 4], "int8", 0.1, -2)
    weights = b.constant("w", codes((4, 8)), np.float32(0.01), 0)
    options: dict[str, Any] = {"keep_num_dims": True, "fused_activation_function": "RELU6"}
    b.operator("FULLY_CONNECTED", [x, weights, None], [y], **options)
    assert not host_reasons(equal_program(b, x, [y], tmp_path))


def test_uint8_squared_difference_has_no_golden(tmp_path: Path) -> None:
    b = TfliteBuilder()
    x = b.input("x", [1, 9], "uint8", 0.05, 3)
    y = b.tensor("y", [1, 9], "uint8", 0.3, 0)
    b.operator("SQUARED_DIFFERENCE", [x, b.constant("c", codes([1, 9], "uint8"), 0.04, 7)], [y])
    path = tmp_path / "graph.tflite"
    path.write_bytes(b.build([x], [y]))
    (reason,) = host_reasons(compile_model(path, load_chip("nano")))
    assert "LiteRT's integer squared difference is of int8 only" in reason


@pytest.mark.parametrize(("kind", "zero_point"), [("int8", -129), ("int8", 128), ("uint8", 256)])
def test_a_zero_point_outside_of_its_type_is_refused(
    kind: str, zero_point: int, tmp_path: Path
) -> None:
    b = TfliteBuilder()
    x = b.input("x", [1, 8], kind, 0.1, zero_point)
    y = b.tensor("y", [1, 8], kind, 0.1, 0)
    b.operator("RELU", [x], [y])
    path = tmp_path / "graph.tflite"
    path.write_bytes(b.build([x], [y]))
    with pytest.raises(ImportFailure, match=f"zero point {zero_point}, which {kind} cannot hold"):
        compile_model(path, load_chip("nano"))
