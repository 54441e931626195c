"""Why zeros do not make a network faster: parts that add up, brute-force counts, texts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton.chip import Chip, load_chip
from lepton.cli.main import main
from lepton.compiler.compile import compile_model
from lepton.cost.estimate import estimate_program
from lepton.cost.zeros import zeros_of
from lepton.models import digits_model_path
from lepton.program import Program
from lepton.report.faster import (
    Gain,
    Gains,
    chip_options,
    gains_of,
    in_blocks,
    spread,
    two_of_four,
)
from lepton.report.faster_bounds import Turn
from lepton.report.faster_text import gain_rows, gains_text, reason_of
from lepton.report.html import html_page
from lepton.simulator import simulate_timing
from lepton.trace import Trace

ZEROS = 0.8


def pruned_digits(folder: Path) -> tuple[Path, list[NDArray[np.int8]]]:
    """Return the bundled network with so many of its weights 0, and those weights."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(digits_model_path())
    found: list[NDArray[np.int8]] = []
    for item in model.graph.initializer:
        if item.data_type == onnx.TensorProto.INT8 and len(item.dims) > 1:
            weights = numpy_helper.to_array(item).copy()
            size = np.abs(weights.astype(np.int16))
            weights[size <= np.quantile(size, ZEROS)] = 0
            item.CopyFrom(numpy_helper.from_array(weights, item.name))
            found.append(weights)
    path = folder / "pruned.onnx"
    onnx.save(model, path)
    return path, found


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[NDArray[np.int8]]]:
    return pruned_digits(tmp_path_factory.mktemp("pruned"))


def compiled(path: Path, chip: str) -> Program:
    return compile_model(path, load_chip(chip))


@pytest.fixture(scope="module")
def sparse(pruned: tuple[Path, list[NDArray[np.int8]]]) -> tuple[Program, Gains]:
    program = compiled(pruned[0], "edge-sparse")
    return program, gains_of(program, simulate_timing(program))


@pytest.fixture(scope="module")
def dense(pruned: tuple[Path, list[NDArray[np.int8]]]) -> tuple[Program, Gains]:
    program = compiled(pruned[0], "edge")
    return program, gains_of(program, simulate_timing(program))


def test_the_parts_of_a_layer_add_up(
    sparse: tuple[Program, Gains], dense: tuple[Program, Gains]
) -> None:
    for _, gains in (sparse, dense):
        assert gains.layers
        for gain in gains.layers:
            parts = gain.needed, gain.unbalanced, gain.unfilled, gain.waiting
            assert min(parts) >= 0
            assert sum(parts) == gain.cycles


def test_zeros_are_those_of_the_file(
    sparse: tuple[Program, Gains], pruned: tuple[Path, list[NDArray[np.int8]]]
) -> None:
    program, gains = sparse
    expected = {(w.size, int((w == 0).sum())) for w in pruned[1]}
    assert {(gain.weights, gain.zeros) for gain in gains.layers} <= expected
    assert all(gain.share_of_zeros > 0.5 for gain in gains.layers)
    found = zeros_of(program)
    for gain in gains.layers:
        pixels = program.operators[gain.index].macs // gain.weights
        assert found.skippable[gain.index] == pixels * gain.zeros


def test_a_chip_that_does_not_skip_names_the_bound(dense: tuple[Program, Gains]) -> None:
    _, gains = dense
    assert not gains.skips and not gains.patterns
    assert gains.options["as it is"] == gains.options["no skipping"]
    for gain in gains.layers:
        text = reason_of(gain, skips=False)
        assert f"bound: {gain.bound} (" in text
        best = min(gain.options.values())
        assert f"would save {gain.options['as it is'] - best:,} cycles" in text
        if gain.losses.get("unbalanced", 0) == max(gain.losses.values()):
            assert "MACs whose weight is 0, which the chip issues" in text


def test_losses_are_what_a_layer_takes_beyond_its_share(
    sparse: tuple[Program, Gains], dense: tuple[Program, Gains]
) -> None:
    for _, gains in (sparse, dense):
        for gain in gains.layers:
            # the dense MACs at peak shrink with the zeros, but for rounding and padding
            excess = gain.compared - (1 - gain.share_of_zeros) * gain.dense
            assert sum(gain.losses.values()) == pytest.approx(excess, abs=5)


def test_options_are_estimates_of_the_same_program(sparse: tuple[Program, Gains]) -> None:
    program, gains = sparse
    for name, chip in chip_options(program.chip).items():
        assert gains.options[name] == estimate_program(replace(program, chip=chip)).cycles
    assert gains.options["as it is"] < gains.options["no skipping"]
    assert set(gains.patterns) == {"2:4", "spread evenly", "whole rows"}


def without_overlap(chip: Chip) -> Chip:
    return replace(chip, array=replace(chip.array, overlap=False))


def test_an_array_that_cannot_skip_has_no_other_options() -> None:
    assert set(chip_options(without_overlap(load_chip("edge")))) == {"as it is", "no skipping"}


def test_patterns_have_their_zeros_where_they_should() -> None:
    block = (np.random.default_rng(3).random((24, 5)) < 0.3).astype(np.uint8)
    fours = two_of_four(block).reshape(6, 4, 5)
    assert (fours.sum(axis=1) == 2).all()
    even = spread(block)
    assert (even.sum(axis=0) == block.sum(axis=0)).all()
    for column in even.T:
        runs = np.diff(np.flatnonzero(column))
        assert len(runs) < 2 or runs.max() - runs.min() <= 1
    rows = in_blocks(block)
    assert (rows.sum(axis=0) == np.ceil(block.sum() / 5)).all()
    assert (np.diff(rows.astype(int), axis=0) <= 0).all()


USES = {
    "compute": 94,
    "weight bandwidth": 30,
    "activation bandwidth": 5,
    "decode": 40,
    "vector": 20,
}


def layer(**changed: object) -> Gain:
    """Return a layer that is nine times faster than with its zeros issued."""
    made = Gain(
        0, "x", "convolution", 100, 1000, 900, 60, 30, 4, 6, USES, False, 900, 100,
        {"unbalanced": 30, "unfilled": -3, "wait_weights": 6}, 0.2,
        (Turn(0.734, "compute", "weight bandwidth"),), {"as it is": 100, "no skipping": 880}, {},
    )  # fmt: skip
    return replace(made, **changed)  # pyright: ignore[reportArgumentType]


def test_a_reason_names_the_largest_losses() -> None:
    text = reason_of(layer(), skips=True)
    assert text.startswith(
        "90 % zeros allow 10.00x of dense, it has 9.00x, 10 cycles too many: 30 "
    )
    assert (
        "30 cycles, zeros that lie where skipping them shortens no pass; 6 cycles, waiting" in text
    )
    assert "weights from the decoder; bound: compute (the array is at work for 94 cycles)" in text
    assert "filled" not in text and "would save" not in text
    assert reason_of(layer(dense=1000), skips=True) == ""
    assert reason_of(layer(zeros=99), skips=True) == ""


@pytest.mark.parametrize(
    ("bound", "text"),
    [
        ("weight bandwidth", "its weights take the memory 95 cycles, 0.20 of the dense ones' "),
        ("activation bandwidth", "what is not weights takes the memory 95 cycles"),
        ("decode", "the decoder takes 95 cycles, zeros included"),
        ("vector", "the vector unit takes 95 cycles, however many weights are 0"),
    ],
)  # fmt: skip
def test_a_reason_names_the_bound_where_zeros_are_issued(bound: str, text: str) -> None:
    gain = layer(uses=USES | {bound: 95}, losses={"unbalanced": 2})
    options = {"as it is": 100, "no skipping": 100, "any zeros": 98}
    found = reason_of(replace(gain, options=options), skips=False)
    assert f"bound: {bound} ({text}" in found
    assert "2 cycles, MACs whose weight is 0, which the chip issues" in found
    assert found.endswith("a chip that skips zeros would save 2 cycles (2.0 %, estimated)")
    assert reason_of(gain, skips=False).endswith("its array cannot skip zeros")


def test_a_reason_says_when_nothing_is_busy_or_much_is_hidden() -> None:
    text = reason_of(layer(cycles=189), skips=True)
    assert "bound: latency (no resource is busy for half of its cycles" in text
    assert "weights from" not in text
    text = reason_of(layer(uses=USES | {"vector": 101}), skips=True)
    assert "101 cycles, however many weights are 0, part of them while other layers run" in text
    text = reason_of(layer(losses={"unfilled": 5}, short=True), skips=True)
    assert "5 cycles, weights loading into the array longer than their pixels stream" in text


def test_latency_bounds_what_no_resource_explains() -> None:
    assert layer().bound == "compute"
    assert layer(cycles=189).bound == "latency"


def test_the_text_has_every_layer(sparse: tuple[Program, Gains]) -> None:
    _, gains = sparse
    text = gains_text(gains)
    for gain in gains.layers:
        assert f"L{gain.index} " in text
    assert "any zeros" in text and "spread evenly" in text
    assert f"dense: {gains.dense:,} cycles" in text and "estimated with streams of dense" in text


def test_turns_are_in_the_table(sparse: tuple[Program, Gains]) -> None:
    gains = replace(sparse[1], layers=(layer(), layer(turns=())))
    first, second = (row[-1] for row in gain_rows(gains))
    assert (first, second) == ("compute -> weight bandwidth at 73 %", "-")


def test_the_command_prints_text_and_json(
    pruned: tuple[Path, list[NDArray[np.int8]]], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["why-not-faster", str(pruned[0]), "--chip", "edge-sparse"]
    assert main(command) == 0
    assert "needed" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["skips"] is True
    assert made["layers"][0]["bound"]


def test_the_page_has_the_section_where_there_are_zeros(
    sparse: tuple[Program, Gains], digits: tuple[Program, Trace]
) -> None:
    program, gains = sparse
    title = "Why the zeros do not make it faster"
    page = html_page(program, simulate_timing(program))
    assert page.count(title) == 1
    assert f"L{gains.layers[0].index} " in page.split(title)[1]
    assert title not in html_page(*digits)
