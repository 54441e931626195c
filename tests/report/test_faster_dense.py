"""The dense run that zeros are measured against: redrawn weights, the estimate, the compilation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lepton.chip import load_chip
from lepton.cli.main import main
from lepton.codec import WeightStream, decode_weights
from lepton.codec.decoder import Decoder
from lepton.codec.weights import stored_bytes
from lepton.compiler.compile import compile_model
from lepton.compiler.graph import Convolution
from lepton.compiler.isolate import compile_file
from lepton.compiler.options import CompileOptions
from lepton.compiler.steps import FrontModel, NpuStep
from lepton.cost.estimate import estimate_program
from lepton.cost.zeros import zeros_of
from lepton.isa.instructions import WeightFormat, Weights
from lepton.models import digits_model_path
from lepton.program import Program
from lepton.report import faster_twin
from lepton.report.faster import gains_of
from lepton.report.faster_dense import (
    DenseRun,
    estimated_dense,
    redrawn,
    weight_counts,
    with_dense_streams,
)
from lepton.report.faster_twin import compile_dense
from lepton.simulator import simulate_timing
from tests.report.test_faster import pruned_digits

CHIP = "edge-sparse"


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pruned_digits(tmp_path_factory.mktemp("pruned"))[0]


@pytest.fixture(scope="module")
def program(pruned: Path) -> Program:
    return compile_file(pruned, load_chip(CHIP))


def entropy(values: NDArray[np.uint8]) -> float:
    share = np.bincount(values, minlength=256) / values.size
    return float(-(share[share > 0] * np.log2(share[share > 0])).sum())


@pytest.mark.parametrize("zero", [0, 128, -3])
def test_redrawn_weights_have_the_entropy_of_those_that_are_not_0(zero: int) -> None:
    rng = np.random.default_rng(5)
    weights = rng.normal(zero, 20, (3, 3, 40, 60)).round().astype(np.int64).astype(np.uint8)
    byte = np.uint8(zero & 255)
    weights[rng.random(weights.shape) < 0.7] = byte
    made = redrawn(weights, zero)
    kept = weights != byte
    assert (made[kept] == weights[kept]).all() and (made != byte).all()
    assert set(np.unique(made)) == set(np.unique(weights[kept]))
    assert entropy(made.reshape(-1)) == pytest.approx(entropy(weights[kept]), rel=0.01)
    assert (redrawn(weights, zero) == made).all()


def test_weights_that_are_all_0_are_redrawn_from_every_other_value() -> None:
    made = redrawn(np.zeros(4_000, np.uint8))
    assert len(np.unique(made)) == 255 and (made != 0).all()


def test_the_estimate_has_the_streams_of_dense_weights(program: Program) -> None:
    dense = with_dense_streams(program)
    assert dense.chip.sparsity is None
    decoder = Decoder.of(dense.chip)
    before, after = program.decoded, dense.decoded
    streams = 0
    for old, new in zip(before, after, strict=True):
        if not isinstance(old, Weights):
            assert old == new
            continue
        assert isinstance(new, Weights)
        streams += 1
        start = old.address - program.constants_address
        content = program.constants[start : start + old.stream_bytes]
        block = decode_weights(
            WeightStream(WeightFormat(old.format), content), old.reduction * old.columns
        )
        drawn = redrawn(block).reshape(old.reduction, old.columns)
        assert new.stream_bytes == stored_bytes(drawn, decoder) > old.stream_bytes
    assert streams
    found = estimated_dense(program)
    assert found.is_estimate and found.trace.cycles == estimate_program(dense).cycles
    assert found.trace.cycles > estimate_program(program).cycles


def test_counts_are_those_of_every_byte_of_the_layers(program: Program) -> None:
    counts, zeros = weight_counts(program), zeros_of(program)
    for k in np.flatnonzero(zeros.weights).tolist():
        assert counts[k, 0] * zeros.weights[k] == zeros.zeros[k] * counts[k].sum()


def test_the_dense_program_has_the_same_operators_and_no_zeros(
    pruned: Path, program: Program
) -> None:
    dense = compile_dense(pruned, program.chip, CompileOptions())
    assert dense is not None
    assert [(o.kind, o.macs) for o in dense.operators] == [
        (o.kind, o.macs) for o in program.operators
    ]
    found = zeros_of(dense)
    assert found.weights.any() and not found.zeros.any()
    # the network before it was pruned has other values, but about as many bits
    original = compile_model(digits_model_path(), program.chip)
    cycles = [simulate_timing(each).cycles for each in (dense, original, program)]
    assert cycles[0] == pytest.approx(cycles[1], rel=0.1)
    assert cycles[2] < min(cycles[:2])


def test_without_zeros_changes_nothing_but_zeros(
    pruned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fronts: list[FrontModel] = []

    def noted(front: FrontModel) -> FrontModel:
        fronts.extend((front, own(front)))
        return fronts[-1]

    own = faster_twin.without_zeros
    monkeypatch.setattr(faster_twin, "without_zeros", noted)
    compile_dense(pruned, load_chip(CHIP), CompileOptions(effort=0))
    before, after = (
        [n for s in front.steps if isinstance(s, NpuStep) for n in s.graph.nodes]
        for front in fronts
    )
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        if isinstance(old, Convolution) and isinstance(new, Convolution):
            is_zero = old.weights == np.uint8(old.weight_zero_point & 255)
            assert is_zero.any() and (new.weights != old.weights)[is_zero].all()
            assert (new.weights == old.weights)[~is_zero].all()
        else:
            assert old is new


def test_a_cache_that_cannot_be_written_leaves_the_estimate(
    pruned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faster_twin, "cache_folder", lambda: Path("/proc/none"))
    assert compile_dense(pruned, load_chip(CHIP), CompileOptions(effort=0)) is None


def test_layers_are_compared_with_the_dense_run(pruned: Path, program: Program) -> None:
    made = compile_dense(pruned, program.chip, CompileOptions())
    assert made is not None
    run, trace = DenseRun(made, simulate_timing(made), "compiled"), simulate_timing(program)
    gains = gains_of(program, trace, run)
    assert gains.dense == run.trace.cycles and gains.compared == gains.cycles == trace.cycles
    for gain in gains.layers:
        assert gain.compared == gain.cycles and 0 < gain.stream < 1
        excess = gain.cycles - (1 - gain.share_of_zeros) * gain.dense
        assert sum(gain.losses.values()) == pytest.approx(excess, abs=5)
    estimated = gains_of(program, trace)
    for one, other in zip(gains.layers, estimated.layers, strict=True):
        # later turns may differ by tiles
        assert [turn.before for turn in one.turns[:1]] == [turn.before for turn in other.turns[:1]]


def run_json(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["why-not-faster", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_compiles_the_model_without_zeros(
    pruned: Path, program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled = run_json([str(pruned), "--chip", CHIP], capsys)
    dense = compile_dense(pruned, program.chip, CompileOptions())
    assert dense is not None
    assert compiled["dense"] == simulate_timing(dense).cycles
    assert "compiled again" in str(compiled["origin"])

    given = run_json([str(pruned), "--chip", CHIP, "--dense", str(digits_model_path())], capsys)
    original = compile_file(digits_model_path(), program.chip)
    assert given["dense"] == simulate_timing(original).cycles
    assert digits_model_path().name in str(given["origin"])

    path = tmp_path / "pruned.lepton"
    path.write_bytes(program.to_bytes())
    estimated = run_json([str(path)], capsys)
    assert estimated["dense"] == estimated_dense(program).trace.cycles
    assert estimated["compared"] == estimate_program(program).cycles
    assert "estimated" in str(estimated["origin"])


def test_another_network_or_chip_is_no_dense_run(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pruned.lepton"
    path.write_bytes(program.to_bytes())
    command = ["why-not-faster", str(path), "--dense", "digits"]
    assert main(command) == 2
    message = capsys.readouterr().err
    assert "is for the chip edge, not for edge-sparse as" in message and message.count("\n") == 1
    assert main(["why-not-faster", "digits", "--dense", "mnist"]) == 2
    message = capsys.readouterr().err
    assert "does not have the operators of" in message and message.count("\n") == 1
