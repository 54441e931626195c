"""The int8 file form: whose codes it holds, what it computes, what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton.errors import InputError
from lepton.models.quantization import (
    Entropy,
    FileOptions,
    IntegerWeights,
    MeanSquare,
    Percentile,
    quantize_model,
)
from tests.sequential_onnx import run_onnx

pytest.importorskip("onnxruntime", reason="ONNX Runtime places the QDQ pairs")

RNG_SEED = 11
HEADER_BYTES = 96


def float_model(channels: int = 4, hidden: int = 6) -> onnx.ModelProto:
    """Return a convolution and a product: `x` [1, 3, 8, 8] -> `y` [1, hidden]."""
    rng = np.random.default_rng(RNG_SEED)
    arrays = {
        "c.w": rng.standard_normal((channels, 3, 3, 3)) / 5,
        "c.b": rng.standard_normal(channels) / 5,
        "g.w": rng.standard_normal((channels, hidden)) / 2,
        "g.b": rng.standard_normal(hidden) / 5,
    }
    nodes = [
        helper.make_node("Conv", ["x", "c.w", "c.b"], ["c"], name="c", pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"], name="r"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="p"),
        helper.make_node("Flatten", ["p"], ["f"], name="f"),
        helper.make_node("Gemm", ["f", "g.w", "g.b"], ["y"], name="g"),
    ]
    return model_of(nodes, {"x": (1, 3, 8, 8)}, arrays)


def model_of(
    nodes: Sequence[Any], inputs: dict[str, tuple[int, ...]], arrays: dict[str, np.ndarray]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(a.astype(np.float32) if a.dtype.kind == "f" else a, n)
            for n, a in arrays.items()
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def samples(count: int = 8) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, 3, 8, 8)).astype(np.float32)


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_the_file_holds_codes_of_n_bits_and_their_scales(bits: int) -> None:
    model = float_model()
    stored = constants(quantize_model(model, samples(), bits=bits))
    high = max(2 ** (bits - 1) - 1, 1)
    for name, axis in (("c.w", 0), ("g.w", 1)):
        weights = IntegerWeights.of_values(constants(model)[name], bits, axis)
        codes = stored[f"{name}_quantized"]
        assert codes.dtype == np.int8
        np.testing.assert_array_equal(codes, weights.codes)
        np.testing.assert_array_equal(stored[f"{name}_scale"], weights.scale)
        assert not stored[f"{name}_zero_point"].any()
        assert np.abs(codes).max() == high


def test_weights_given_are_stored_as_they_are(tmp_path: Path) -> None:
    model = float_model()
    levels = np.array([-0.5, 0.0, 0.25, 0.7], np.float32)
    values = levels[np.random.default_rng(0).integers(0, 4, (4, 3, 3, 3))]
    shared = IntegerWeights.of_levels(values)
    assert len(np.unique(shared.codes)) == 4
    assert (shared.codes[values == 0] == 0).all()
    onnx.save(model, str(tmp_path / "m.onnx"))
    made = quantize_model(tmp_path / "m.onnx", samples(), bits={"g.w": 3}, weights={"c.w": shared})
    stored = constants(made)
    np.testing.assert_array_equal(stored["c.w_quantized"], shared.codes)
    assert np.ndim(stored["c.w_scale"]) == 0
    assert np.abs(stored["g.w_quantized"]).max() == 3
    # the caller's model is as it was
    assert "c.w" in constants(model)


def test_the_file_computes_what_the_float_model_computes_with_rounded_weights() -> None:
    data = samples(16)
    made = quantize_model(float_model(), data, bits=4)
    stored = constants(made)
    rounded = float_model()
    for item in rounded.graph.initializer:
        codes = stored.get(f"{item.name}_quantized")
        if codes is not None and codes.dtype == np.int8:
            scale = stored[f"{item.name}_scale"]
            shape = (-1, 1, 1, 1) if item.name == "c.w" else (1, -1)
            array = codes.astype(np.float32) * scale.reshape(shape)
            item.CopyFrom(numpy_helper.from_array(array, item.name))
    expected = run_onnx(rounded, data)
    step = float(stored["y_scale"])
    assert np.abs(run_onnx(made, data) - expected).max() <= 2 * step
    assert step < np.ptp(expected) / 200


@pytest.mark.parametrize("calibration", [Percentile(98), MeanSquare(20), Entropy(512, 8)])
def test_activation_ranges_follow_their_calibration(calibration: Any) -> None:
    data = samples(12)
    data[0, 0, 0, 0] = 7
    plain = constants(quantize_model(float_model(), data))
    options = FileOptions(activation_calibration=calibration)
    clipped = constants(quantize_model(float_model(), data, options=options))
    low, high = calibration.limits(data.reshape(-1).astype(np.float64), grid())
    assert clipped["x_scale"] == pytest.approx((high - low) / 255, rel=1e-5)
    # 8 bits of normal data are best spent on all of it, but a percentile clips whatever it costs
    assert (clipped["x_scale"] < plain["x_scale"]) or not isinstance(calibration, Percentile)


def grid() -> Any:
    from lepton.models.quantization import Grid

    return Grid(8, symmetric=False)


def test_known_ranges_decide_scales() -> None:
    options = FileOptions(ranges={"x": (-1.0, 4.1), "r": (0.0, 5.1)})
    stored = constants(quantize_model(float_model(), samples(), options=options))
    assert stored["x_scale"] == pytest.approx(0.02)
    assert stored["r_scale"] == pytest.approx(0.02)
    assert (stored["x_zero_point"], stored["r_zero_point"]) == (-78, -128)


def test_a_bias_that_is_a_row_is_taken() -> None:
    model = float_model()
    expected = constants(quantize_model(model, samples()))
    for item in model.graph.initializer:
        if item.name == "g.b":
            item.dims.insert(0, 1)
    stored = constants(quantize_model(model, samples()))
    np.testing.assert_array_equal(stored["g.b_quantized"], expected["g.b_quantized"])


def test_names_of_the_package() -> None:
    import lepton
    from lepton.models.distillation import distil
    from lepton.models.sharing import share_weights

    assert lepton.quantize_model is quantize_model
    assert (lepton.share_weights, lepton.distil) == (share_weights, distil)


def test_prepared_nodes_stay_in_float() -> None:
    options = FileOptions(prepare=lambda graph: ["g"])
    stored = constants(quantize_model(float_model(), samples(), bits=3, options=options))
    assert "c.w_quantized" in stored
    assert "g.w_quantized" not in stored


def test_transposed_convolutions_products_and_tables_are_weights() -> None:
    rng = np.random.default_rng(3)
    arrays = {
        "table": rng.standard_normal((9, 8)),
        "rows": np.array([1, 5, 5, 8]),
        "m.w": rng.standard_normal((8, 16)),
        "s": np.array([1, 4, 4, 4]),
        "t.w": rng.standard_normal((4, 3, 2, 2)),
    }
    nodes = [
        helper.make_node("Gather", ["table", "rows"], ["e"], name="e"),
        helper.make_node("Add", ["x", "e"], ["a"], name="a"),
        helper.make_node("MatMul", ["a", "m.w"], ["m"], name="m"),
        helper.make_node("Reshape", ["m", "s"], ["i"], name="i"),
        helper.make_node("ConvTranspose", ["i", "t.w"], ["y"], name="t", strides=[2, 2]),
    ]
    model = model_of(nodes, {"x": (4, 8)}, arrays)
    data = rng.standard_normal((6, 4, 8)).astype(np.float32)
    stored = constants(quantize_model(model, data, bits=4))
    for name, shape in (("m.w", (16,)), ("t.w", (3,))):
        assert np.abs(stored[f"{name}_quantized"]).max() == 7
        assert stored[f"{name}_scale"].shape == shape


def test_refusals() -> None:
    model, data = float_model(), samples()
    with pytest.raises(InputError, match=r"no weights 'c' \(it has 'c.w', 'g.w'\)"):
        quantize_model(model, data, bits={"c": 5})
    with pytest.raises(InputError, match="weights have 1 to 8 bits, not 9"):
        quantize_model(model, data, bits=9)
    with pytest.raises(InputError, match=r"'c.w' must have shape \[4, 3, 3, 3\], not \[4\]"):
        quantize_model(model, data, weights={"c.w": IntegerWeights.of_levels([1, 2, 3, 4])})
    with pytest.raises(InputError, match="no samples of input 'x'"):
        quantize_model(model, {"z": data})
    with pytest.raises(InputError, match="NaN or infinite"):
        quantize_model(model, data * np.float32(np.inf))
    with pytest.raises(InputError, match=r"must have shape \[1, 3, 8, 8\]"):
        quantize_model(model, data[:, :2])
    with pytest.raises(InputError, match="small is quantized already"):
        quantize_model(quantize_model(model, data), data)
    with pytest.raises(InputError, match="cannot be read as ONNX"):
        quantize_model("missing.onnx", data)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(("name", "kind"), [("c.w", "weights"), ("g.b", "biases")])
def test_constants_that_are_not_finite_are_named(name: str, kind: str, value: float) -> None:
    model = float_model()
    for item in model.graph.initializer:
        if item.name == name:
            values = numpy_helper.to_array(item).copy()
            values.reshape(-1)[1] = value
            item.CopyFrom(numpy_helper.from_array(values, name))
    with pytest.raises(InputError, match=f"{kind} '{name}' hold NaN or infinite numbers"):
        quantize_model(model, samples())


def test_ranges_are_of_activations_and_go_up() -> None:
    with pytest.raises(InputError, match=r"no activation 'z' \(it has 'x', 'c', 'r', "):
        quantize_model(float_model(), samples(), options=FileOptions(ranges={"z": (0.0, 1.0)}))
    with pytest.raises(InputError, match=r"no activation 'c.w'"):
        quantize_model(float_model(), samples(), options=FileOptions(ranges={"c.w": (0.0, 1.0)}))
    for low, high in ((2.0, 0.0), (np.nan, 1.0), (0.0, np.inf)):
        with pytest.raises(
            InputError, match=f"the range of 'x' must be finite and go up, not from {low:g}"
        ):
            FileOptions(ranges={"x": (low, high)})


def test_what_is_no_onnx_model_is_named() -> None:
    wrong: Any = np.zeros(3)
    with pytest.raises(InputError, match="takes a float ONNX model, not ndarray: export it"):
        quantize_model(wrong, samples())


def test_codes_that_a_bias_leaves_no_room_for_are_refused() -> None:
    model, tiny = float_model(), float_model()
    kernel = constants(model)["c.w"] * np.array([1, 1, 1e-12, 1], np.float32)[:, None, None, None]
    for item in tiny.graph.initializer:
        if item.name == "c.w":
            item.CopyFrom(numpy_helper.from_array(kernel, "c.w"))
    weights = {"c.w": IntegerWeights.of_values(kernel, 5)}
    with pytest.raises(InputError, match="channels too small beside their bias"):
        quantize_model(tiny, samples(), weights=weights)
    codes = constants(quantize_model(tiny, samples(), bits=5))["c.w_quantized"]
    assert not codes[2].any()
    np.testing.assert_array_equal(codes[[0, 1, 3]], weights["c.w"].codes[[0, 1, 3]])


def test_codes_of_another_name_belong_to_their_values() -> None:
    model = float_model()
    plain = constants(model)
    kernel = IntegerWeights.of_values(plain["c.w"], 3)
    matrix = IntegerWeights.of_values(plain["g.w"].T, 4)
    for item in model.graph.initializer:
        for name, array in (("c.w", kernel.values), ("g.w", matrix.values.T)):
            if item.name == name:
                item.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
    weights = {"features.0.weight": kernel, "classifier.weight": matrix}
    stored = constants(quantize_model(model, samples(), weights=weights))
    np.testing.assert_array_equal(stored["c.w_quantized"], kernel.codes)
    np.testing.assert_array_equal(stored["g.w_quantized"], matrix.codes.T)
    np.testing.assert_array_equal(stored["g.w_scale"], matrix.scale)
    other = {"features.0.weight": IntegerWeights.of_values(plain["c.w"], 5)}
    with pytest.raises(InputError, match=r"no weights 'features.0.weight', and none with"):
        quantize_model(model, samples(), weights=other)


@pytest.mark.slow
def test_five_bit_weights_compile_run_and_are_stored_in_five_bits(tmp_path: Path) -> None:
    import lepton
    from lepton.report.summary import summarize

    data = samples(6)
    made = quantize_model(float_model(32, 64), data, bits=5)
    onnx.save(made, str(tmp_path / "m.onnx"))
    program = lepton.compile(tmp_path / "m.onnx", chip="edge")
    for sample, expected in zip(data, run_onnx(made, data), strict=True):
        outputs = lepton.simulate(program, {program.inputs[0]: sample[np.newaxis]}).outputs
        assert next(iter(outputs.values())).tobytes() == expected.tobytes()
    summary = summarize(program, None)
    assert summary.weight_bytes_raw >= 32 * 27 + 32 * 64
    assert summary.weight_bytes_stored <= summary.weight_bytes_raw * 5 / 8 + 2 * HEADER_BYTES
