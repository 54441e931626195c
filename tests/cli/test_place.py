"""The command `place`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lepton.cli.main import main
from lepton.models import digits_model_path

DIGITS = str(digits_model_path())


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["place", *arguments]) == 0
    return capsys.readouterr().out


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["place", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_every_layer_has_a_device_and_a_cost(capsys: pytest.CaptureFixture[str]) -> None:
    made = json.loads(printed(capsys, DIGITS, "--chip", "nano", "--json"))
    assert made["devices"] == {"npu": "simulated", "cpu": "measured"}
    assert made["gap"] == 0
    assert {layer["device"] for layer in made["layers"]} <= {"npu", "cpu"}
    for layer in made["layers"]:
        assert layer["cost_milliseconds"][layer["device"]] is not None
    assert sum(region["layers"] for region in made["regions"]) == len(made["layers"])
    assert min(made["relative_to_priority"].values()) >= 1
    assert max(bar["end_ns"] for bar in made["timeline"]) <= made["latency_milliseconds"] * 1e6


def test_the_text_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, DIGITS, "--chip", "nano", "--no-measure", "--why")
    assert "none is better" in text
    assert "its operands are not quantized to 8 bits" in text
    assert "simulated" in text or "measured" in text


def test_a_pinned_layer_and_a_missing_device(capsys: pytest.CaptureFixture[str]) -> None:
    layers = json.loads(printed(capsys, DIGITS, "--device", "cpu", "--json"))["layers"]
    name = layers[1]["name"]
    made = json.loads(printed(capsys, DIGITS, "--chip", "nano", "--json", "--place", f"{name}=cpu"))
    assert next(layer for layer in made["layers"] if layer["name"] == name)["device"] == "cpu"
    assert main(["place", DIGITS, "--device", "cpu,gpu"]) == 0
    assert capsys.readouterr().err.startswith("lepton: gpu: there is no such device here")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--place", "x"], "--place must look like NAME=VALUE, not 'x'"),
        (["--place", "x=cpu"], "has no layer 'x' to place"),
        (["--watts", "cpu=much"], "--watts must be a positive number, not 'much'"),
        (["--objective", "energy"], "the objective energy needs what cpu draws"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--assume", "gpu=none.toml", "--device", "cpu,gpu"], "none.toml: cannot be read"),
        (["--shape", "x=1,2,3"], "has no input 'x'"),
    ],
)
def test_one_sentence_for_bad_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fails(capsys, DIGITS, "--chip", "nano", *arguments)


def test_files_that_are_no_models(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    path.write_text("x")
    assert "x.onnx is not an ONNX model" in fails(capsys, str(path))
