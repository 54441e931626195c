"""`lepton verify` and `lepton eval`: equal models pass, a planted fault is named where it is."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton.chip import load_chip
from lepton.compiler.compile import CompileOptions, compile_model
from lepton.errors import InputError
from lepton.isa import instructions as isa
from lepton.models import digits_model_path
from lepton.program import Program
from lepton.runtime.evaluate import evaluate_program
from lepton.runtime.verify import VerifyReport, verify, verify_program
from tests.tflite_builder import Tensor, TfliteBuilder

SEED = 7


def _network() -> bytes:
    """Return conv a -> depthwise b -> add c (of a and b) -> fully connected d, int8."""
    rng = np.random.default_rng(SEED)

    def draw(shape: tuple[int, ...]) -> NDArray[Any]:
        return rng.integers(-127, 128, shape).astype(np.int8)

    builder = TfliteBuilder()

    def layer(name: str, kind: str, x: Tensor, shape: tuple[int, ...], out: list[int]) -> Tensor:
        channels = shape[3] if kind == "DEPTHWISE_CONV_2D" else shape[0]
        axis = 3 if kind == "DEPTHWISE_CONV_2D" else 0
        scales = rng.uniform(0.002, 0.004, channels).astype(np.float32)
        if kind == "FULLY_CONNECTED":
            scales = scales[:1]
        weights = builder.constant(f"{name}/w", draw(shape), scales, axis=axis)
        bias = rng.integers(-900, 900, channels).astype(np.int32)
        biases = builder.constant(f"{name}/b", bias, float(x.scale) * scales.astype(np.float64))
        # wide enough that no logit saturates, which would hide a fault
        y = builder.tensor(name, out, "int8", 0.2 if kind == "FULLY_CONNECTED" else 0.05, -4)
        options: dict[str, Any] = {}
        if kind != "FULLY_CONNECTED":
            options = {"padding": "SAME", "stride_h": 1, "stride_w": 1}
        if kind == "DEPTHWISE_CONV_2D":
            options["depth_multiplier"] = 1
        builder.operator(kind, [x, weights, biases], [y], **options)
        return y

    x = builder.input("x", [1, 6, 5, 3], "int8", 0.03, 5)
    a = layer("a", "CONV_2D", x, (8, 3, 3, 3), [1, 6, 5, 8])
    b = layer("b", "DEPTHWISE_CONV_2D", a, (1, 3, 3, 8), [1, 6, 5, 8])
    c = builder.tensor("c", [1, 6, 5, 8], "int8", 0.08, 2)
    builder.operator("ADD", [a, b], [c])
    d = layer("d", "FULLY_CONNECTED", c, (10, 240), [1, 10])
    return builder.build([x], [d])


@cache
def compiled(path: Path) -> Program:
    return compile_model(path, load_chip("nano"), CompileOptions(keep_all=True))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("verify") / "net.tflite"
    file.write_bytes(_network())
    return file


def first_of(program: Program, operator: str, kind: type[Any]) -> Any:
    """Return the first instruction of a kind that belongs to an operator."""
    for index, item in enumerate(program.decoded):
        name = program.operators[int(program.operator_of[index])].name
        if name == operator and isinstance(item, kind):
            return item
    raise AssertionError(f"{operator} has no {kind.__name__}")


def with_changed_constant(program: Program, address: int, flip: int) -> Program:
    """Return the program with some bits of one constant byte flipped."""
    constants = program.constants.copy()
    constants[address - program.constants_address] ^= flip
    return replace(program, constants=constants)


def test_an_equal_model(path: Path) -> None:
    report = verify(path, load_chip("nano"), seed=SEED)
    assert report.is_equal, report.text()
    assert [tensor for _, tensor, _ in report.compared] == ["a", "b", "c", "d"]
    assert report.compared[0] == ("a", "a", 240)
    assert report.skipped == ()
    assert "4 tensors (730 elements) of net.tflite on chip nano equal LiteRT" in report.text()
    assert json.loads(json.dumps(report.to_json()))["equal"] is True


def test_operators_of_several_cores_come_in_the_order_of_the_network() -> None:
    # core 0's stream comes first in the program: the first to differ is not the first there
    report = verify(digits_model_path(), replace(load_chip("edge"), cores=2))
    assert report.is_equal, report.text()
    names = [operator for operator, _, _ in report.compared]
    whole = verify(digits_model_path(), load_chip("edge"))
    assert names == [operator for operator, _, _ in whole.compared]


@pytest.mark.parametrize("operator", ["a", "b", "d"])
def test_a_wrong_weight_is_named(path: Path, operator: str) -> None:
    program = compiled(path)
    weights = first_of(program, operator, isa.Weights)
    report = verify_program(with_changed_constant(program, weights.address, 0x40), path, seed=SEED)
    found = report.difference
    assert found is not None and found.operator == operator and found.tensor == operator
    before = list("abcd"[: "abcd".index(operator)])
    assert [tensor for _, tensor, _ in report.compared] == before
    assert found.sum is not None
    assert_explains(report)


def assert_explains(report: VerifyReport) -> None:
    """Assert that accumulator, bias, scale and zero point give the value that we computed."""
    found = report.difference
    assert found is not None and found.sum is not None
    total = found.sum
    real = (total.accumulator + total.bias) * total.scale + total.zero_point
    assert abs(min(max(real, -128), 127) - found.ours) <= 0.5 + 1e-6
    assert found.ours != found.golden
    assert f"accumulator {total.accumulator} + bias {total.bias}" in report.text()
    json.dumps(report.to_json())


def test_a_wrong_bias_is_named_with_its_element(path: Path) -> None:
    program = compiled(path)
    ready = first_of(program, "a", isa.Requantize)
    loads = [i for i in program.decoded if isinstance(i, isa.Load)]
    (load,) = [i for i in loads if i.scratchpad == ready.parameters][:1]
    channel = 3
    report = verify_program(
        with_changed_constant(program, load.address + 4 * channel + 2, 0x01), path, seed=SEED
    )
    found = report.difference
    assert found is not None and found.operator == "a"
    assert found.index[-1] == channel
    assert found.different <= 30
    assert_explains(report)


def parameters_load(program: Program, reader: isa.Requantize | isa.Binary) -> isa.Load:
    """Return the load of an instruction's parameters: the last to their place before it."""
    before = program.decoded[: program.decoded.index(reader)]
    loads = [item for item in before if isinstance(item, isa.Load)]
    return [item for item in loads if item.scratchpad == reader.parameters][-1]


def test_a_wrong_multiplier_is_named(path: Path) -> None:
    program = compiled(path)
    ready = first_of(program, "a", isa.Requantize)
    load = parameters_load(program, ready)
    at = load.address + 4 * ready.channels + 4 * 2 + 3
    report = verify_program(with_changed_constant(program, at, 0x20), path, seed=SEED)
    assert report.difference is not None and report.difference.operator == "a"
    assert report.difference.index[-1] == 2
    assert_explains(report)


def test_a_wrong_addition_shows_its_operands(path: Path) -> None:
    program = compiled(path)
    added = first_of(program, "c", isa.Binary)
    load = parameters_load(program, added)
    content = with_changed_constant(program, load.address, 0x10)
    report = verify_program(content, path, seed=SEED)
    found = report.difference
    assert found is not None and found.operator == "c"
    assert len(found.operands) == 2 and found.sum is None
    assert "binary" in found.instruction


def test_inputs_are_given_by_name_or_alone(path: Path) -> None:
    x = np.full((1, 6, 5, 3), 9, np.int8)
    chip = load_chip("nano")
    assert verify(path, chip, {"": x}).is_equal
    assert verify(path, chip, {"x": x}).is_equal
    with pytest.raises(InputError, match="input 'x' is missing"):
        verify(path, chip, {"y": x})
    with pytest.raises(InputError, match="input 'x' must have shape"):
        verify(path, chip, {"x": x[0]})


def test_evaluate_counts_beside_the_golden(path: Path) -> None:
    rng = np.random.default_rng(SEED)
    x = rng.integers(-128, 128, (12, 6, 5, 3)).astype(np.int8)
    y = rng.integers(0, 10, 12)
    seen: list[int] = []

    def progress(numbers: Any) -> Any:
        for number in numbers:
            seen.append(number)
            yield number

    program = compile_model(path, load_chip("nano"))
    report = evaluate_program(program, path, x, y, limit=10, progress=progress)
    assert seen == list(range(10))
    assert report.samples == report.same_class == report.same_bytes == 10
    assert report.right == report.golden_right
    assert "10 samples" in report.text()
    assert json.loads(json.dumps(report.to_json()))["accuracy"] == report.accuracy


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((2, 6, 5, 3), np.int16), [1, 2], "x must be int8, which int16"),
        (
            np.zeros((2, 6, 5), np.int8),
            [1, 2],
            r"x must have shape \[1, 6, 5, 3\], .* not \[2, 6, 5\]",
        ),
        (np.zeros((2, 6, 5, 3), np.int8), [1], "2 samples and y 1 labels"),
        (np.zeros((2, 6, 5, 3), np.int8), [0.5, 1.0], "class numbers, not float64"),
    ],
)
def test_evaluate_refuses_data_that_do_not_fit(
    path: Path, x: NDArray[Any], y: list[float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate_program(compiled(path), path, x, np.asarray(y))
