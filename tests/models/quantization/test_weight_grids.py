"""Weights of other grids in int8 files, equalized channels, corrected biases."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lepton.errors import InputError
from lepton.models.quantization import (
    Codebook,
    FileOptions,
    IntegerWeights,
    MeanSquare,
    quantize_model,
    weight_report,
)
from lepton.models.quantization.onnx_better import correct_graph
from lepton.models.quantization.weight_grids import GRIDS, WeightGrid
from tests.sequential_onnx import run_onnx

pytest.importorskip("onnxruntime", reason="ONNX Runtime is the golden")


def drawn(shape: tuple[int, ...], seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 0.3).astype(np.float32)


def small_model(spread: float = 1.0, beta: float = 1.0) -> onnx.ModelProto:
    """Return two convolutions, a product with a sum and a Gemm: `x` [1, 3, 8, 8] -> `y` [1, 5]."""
    arrays = {
        "a.w": drawn((6, 3, 3, 3), 1) * np.geomspace(1, spread, 6).reshape(-1, 1, 1, 1) / 5,
        "b.w": drawn((6, 6, 1, 1), 2) / np.geomspace(1, spread, 6).reshape(1, -1, 1, 1) / 3,
        "bias": drawn((6,), 3) / 5,
        "own": drawn((6,), 7) / 5,
        "m.w": drawn((6, 6), 4) / 3,
        "g.w": drawn((6, 5), 5) / 3,
        "g.b": drawn((5,), 6) / 5,
    }
    nodes = [
        helper.make_node("Conv", ["x", "a.w"], ["a"], name="a", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["ar"], name="ar"),
        helper.make_node("Conv", ["ar", "b.w", "bias" if spread == 1 else "own"], ["b"], name="b"),
        helper.make_node("Relu", ["b"], ["br"], name="br"),
        helper.make_node("GlobalAveragePool", ["br"], ["p"], name="p"),
        helper.make_node("Flatten", ["p"], ["f"], name="f"),
        helper.make_node("MatMul", ["f", "m.w"], ["m"], name="m"),
        helper.make_node("Add", ["m", "bias"], ["s"], name="s"),
        helper.make_node("Relu", ["s"], ["sr"], name="sr"),
        helper.make_node("Gemm", ["sr", "g.w", "g.b"], ["y"], name="g", beta=beta),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5))],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def samples(count: int = 8) -> Any:
    return np.random.default_rng(5).standard_normal((count, 3, 8, 8)).astype(np.float32)


def constants(model: onnx.ModelProto) -> dict[str, Any]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def level_of(grid: str, row: list[float], bits: int) -> Any:
    """Return the function of a number that gives its grid value, from the grid's formula."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    least, most = min(row), max(row)
    mean = sum(row) / len(row)
    deviation = (sum((x - mean) ** 2 for x in row) / len(row)) ** 0.5
    if grid == "range":
        width = most - least
        return lambda x: least + round((x - least) / width * (high - low)) / (high - low) * width
    if grid == "affine":
        step = (max(most, 0) - min(least, 0)) / (high - low)
        zero = low - round(min(least, 0) / step)
        return lambda x: (min(max(round(x / step) + zero, low), high) - zero) * step
    if grid == "dynamic":
        step = (most - least) / 2**bits
        first = round(least / step + 0.5)
        return lambda x: min(max(round(x / step), first), first + 2**bits - 1) * step
    if grid == "standardized":
        return lambda x: min(max(round((x - mean) / deviation), -high), high) * deviation + mean
    peak = max(abs(x) for x in row)
    exponent = int(np.floor(np.log2(4 * peak / 3)))
    levels = [0.0, *(2.0 ** (exponent - high + c) for c in range(1, high + 1))]
    return lambda x: float(np.sign(x)) * min(levels, key=lambda level: abs(level - abs(x)))


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("bits", [3, 4, 5, 8])
@pytest.mark.parametrize("grid", GRIDS)
def test_stored_weights_are_nearest_to_the_grid_of_the_formula(
    grid: str, bits: int, per_channel: bool
) -> None:
    values = drawn((4, 5, 3), bits)
    for axis in (0, 1):
        stored, row = WeightGrid(grid, per_channel).store(values, bits, axis, "w")
        rows = np.moveaxis(values, axis, 0) if per_channel else values[None]
        made = np.moveaxis(stored.values, axis, 0) if per_channel else stored.values[None]
        codes = np.moveaxis(stored.codes, axis, 0) if per_channel else stored.codes[None]
        lost, added, count = 0.0, 0.0, 0
        for channel, numbers in enumerate(rows):
            level = level_of(grid, [float(x) for x in numbers.reshape(-1)], bits)
            wanted = [level(float(x)) for x in numbers.reshape(-1)]
            half = max(abs(x) for x in wanted) / 127 / 2
            for x, goal, found in zip(numbers.flat, wanted, made[channel].flat, strict=True):
                # exact ones are equal but for float32, others within half an int8 step
                assert abs(found - goal) <= (1e-5 if row.is_exact else half + 1e-5)
                lost += (float(x) - goal) ** 2
                added += (goal - float(found)) ** 2
                count += 1
            assert np.abs(codes[channel].astype(int)).max() <= 127
        assert row.rounding_error == pytest.approx((lost / count) ** 0.5, rel=1e-3)
        assert row.added_error == pytest.approx((added / count) ** 0.5, rel=1e-2, abs=1e-6)
        assert (row.name, row.grid, row.bits) == ("w", grid, bits)
        assert stored.axis == (axis if per_channel else None)


def test_which_grids_int8_holds_exactly() -> None:
    values = drawn((4, 50))
    found = {
        (grid, bits)
        for grid in GRIDS
        for bits in (2, 3, 4, 5, 7)
        if WeightGrid(grid).store(values, bits, 0, "w")[1].is_exact
    }
    # multiples of one step: powers of two span 2^(high - 1) of them, 64 at 4 bits, 16,384 at 5
    assert {grid for grid, _ in found} == {"affine", "dynamic", "powers of two"}
    assert [bits for grid, bits in sorted(found) if grid == "affine"] == [2, 3, 4, 5, 7]
    assert [bits for grid, bits in sorted(found) if grid == "powers of two"] == [2, 3, 4]


def test_a_codebook_stays_a_palette() -> None:
    values = drawn((6, 40))
    values[values < 0.2] = 0
    stored, row = WeightGrid("codebook").store(values, 3, 0, "w")
    assert stored.axis is None
    assert len(np.unique(stored.codes)) == 8
    assert (stored.codes[values == 0] == 0).all()
    assert not row.is_exact
    assert 0 < row.added_error <= float(stored.scale) / 2


def test_the_file_holds_the_grid_and_says_what_it_cost() -> None:
    model, data = small_model(), samples()
    for grid in ("range", "powers of two"):
        made = quantize_model(model, data, bits={"a.w": 4, "g.w": 3}, grid=grid)
        onnx.checker.check_model(made)
        rows = {row.name: row for row in weight_report(made)}
        assert {name: row.bits for name, row in rows.items()} == {
            "a.w": 4, "b.w": 8, "m.w": 8, "g.w": 3
        }  # fmt: skip
        assert rows["a.w"].is_exact == (grid == "powers of two")
        for name, axis in (("a.w", 0), ("g.w", 1)):
            stored, row = WeightGrid(grid).store(
                constants(model)[name], rows[name].bits, axis, name
            )
            np.testing.assert_array_equal(constants(made)[f"{name}_quantized"], stored.codes)
            np.testing.assert_array_equal(constants(made)[f"{name}_scale"], stored.scale)
            assert rows[name] == row
    assert weight_report(quantize_model(model, data)) == ()


def test_a_grid_of_ones_own_and_one_scale_for_a_tensor() -> None:
    def thirds(values: Any, bits: int) -> Codebook:
        return Codebook(np.array([-1 / 3, 0, 1 / 3], np.float32))

    made = quantize_model(small_model(), samples(), grid=thirds, per_channel=False)
    for name in ("a.w", "g.w"):
        codes, scale = constants(made)[f"{name}_quantized"], constants(made)[f"{name}_scale"]
        assert set(np.unique(codes).tolist()) == {-127, 0, 127}
        assert scale.shape == () and scale == pytest.approx(1 / 3 / 127)
    assert {row.grid for row in weight_report(made)} == {"thirds"}
    plain = quantize_model(small_model(), samples(), bits=5, per_channel=False)
    expected = IntegerWeights.of_values(constants(small_model())["a.w"], 5, None)
    np.testing.assert_array_equal(constants(plain)["a.w_quantized"], expected.codes)
    assert constants(plain)["a.w_scale"] == expected.scale


def layer_means(model: onnx.ModelProto, data: Any) -> list[Any]:
    """Return the mean of each channel of each layer, in plain loops over samples."""
    made = []
    for name, axis in (("a", (0, 2, 3)), ("b", (0, 2, 3)), ("s", (0,)), ("y", (0,))):
        shown = onnx.ModelProto()
        shown.CopyFrom(model)
        del shown.graph.output[:]
        shown.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        rows = [run_onnx(shown, sample[None]).mean(axis=axis) for sample in data]
        made.append(sum(rows) / len(rows))
    return made


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_corrected_layers_have_the_means_of_the_float_network(beta: float) -> None:
    plain, rounded, data = small_model(beta=beta), small_model(beta=beta), samples(6)
    for item in rounded.graph.initializer:
        if item.name.endswith("w"):
            values = IntegerWeights.of_values(numpy_helper.to_array(item), 3, 0).values
            item.CopyFrom(numpy_helper.from_array(values, item.name))
    goals, before = layer_means(plain, data), layer_means(rounded, data)
    assert max(np.abs(a - b).max() for a, b in zip(before, goals, strict=True)) > 0.02
    correct_graph(plain, rounded, {"x": data[:, None]})
    onnx.checker.check_model(rounded)
    for made, goal in zip(layer_means(rounded, data), goals, strict=True):
        np.testing.assert_allclose(made, goal, atol=2e-6)
    # `bias` was read twice, and each layer has its own now
    assert rounded.graph.node[2].input[2] != rounded.graph.node[7].input[1]


def test_corrected_files_are_nearer_to_the_float_network() -> None:
    data = samples(16)
    goal = run_onnx(small_model(), data)
    plain = run_onnx(quantize_model(small_model(), data, bits=3), data)
    made = run_onnx(quantize_model(small_model(), data, bits=3, correct_bias=True), data)
    assert np.abs((made - goal).mean(0)).max() < np.abs((plain - goal).mean(0)).max() / 3


def test_equalized_channels_have_equal_ranges() -> None:
    pytest.importorskip("torch", reason="the training extra is not installed")
    data = samples(16)
    goal = run_onnx(small_model(100.0), data)
    plain = quantize_model(small_model(100.0), data, per_channel=False)
    made = quantize_model(small_model(100.0), data, per_channel=False, equalize=True)
    first = constants(made)["a.w_quantized"] * constants(made)["a.w_scale"]
    second = constants(made)["b.w_quantized"] * constants(made)["b.w_scale"]
    r1, r2 = np.abs(first).max(axis=(1, 2, 3)), np.abs(second).max(axis=(0, 2, 3))
    step = float(constants(made)["a.w_scale"] + constants(made)["b.w_scale"])
    assert np.abs(r1 - r2).max() <= step
    errors = [np.abs(run_onnx(item, data) - goal).max() for item in (plain, made)]
    assert errors[1] < errors[0] / 2


def test_refusals() -> None:
    model, data = small_model(), samples(2)
    with pytest.raises(InputError, match=r"a grid is one of uniform, affine, .*, not 'log'"):
        quantize_model(model, data, grid="log")
    with pytest.raises(InputError, match="weights have 1 to 8 bits, not 9"):
        quantize_model(model, data, grid="range", bits=9)
    with pytest.raises(InputError, match="at least 2 bits"):
        quantize_model(model, data, grid="powers of two", bits=1)
    options = FileOptions(weight_calibration=MeanSquare())
    with pytest.raises(InputError, match="goes with the uniform grid, not 'range'"):
        quantize_model(model, data, grid="range", options=options)
    given = {"a.w": IntegerWeights.of_values(constants(model)["a.w"], 5)}
    with pytest.raises(InputError, match="cannot be equalized: leave out one of both"):
        quantize_model(model, data, weights=given, equalize=True)
