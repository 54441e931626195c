"""`lepton run` with photos, and on devices other than an NPU with its host."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lepton.cli.main import main
from lepton.models import digits_model_path, load_digits_holdout
from tests.cli.test_cli import CONTRACT, LAYER
from tests.conftest import data_path

DIGITS = str(digits_model_path())
PLACED = ("--chip", "nano", "--no-measure", "--device", "npu,npu2=edge,cpu")


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[str, str]:
    capsys.readouterr()
    assert main(["run", *map(str, arguments)]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main(["run", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_placed_run_keeps_the_contract(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    x, y, trace = tmp_path / "x.npy", tmp_path / "y.npy", tmp_path / "t.json"
    np.save(x, load_digits_holdout()[0][:1])
    out, _ = printed(
        capsys, DIGITS, *PLACED, "--input", x, "--output", y, "--trace", trace, "--json"
    )
    made = json.loads(out)
    assert set(made) >= CONTRACT
    assert all(set(layer) >= LAYER for layer in made["layers"])
    npu = [layer for layer in made["layers"] if layer["device"] in ("npu", "npu2")]
    assert sum(layer["cycles"] or 0 for layer in npu) == made["cycles"] > 0
    assert made["devices"] == {"npu": "simulated", "npu2": "simulated", "cpu": "measured"}
    assert 0 < made["mac_utilization"] < 1
    assert made["macs_on_npu"] == 1
    events = json.loads(trace.read_text())["traceEvents"]
    names = {event["args"]["name"] for event in events if event["ph"] == "M"}
    assert "cpu (measured)" in names
    assert sum(event["ph"] == "X" for event in events) == len(made["timeline"])


def test_values_are_the_same_on_any_devices(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    x = tmp_path / "x.npy"
    np.save(x, load_digits_holdout()[0][7:8])
    results = []
    for number, devices in enumerate(("npu,cpu", "cpu", "npu2=edge,npu,cpu", "cpu,gpu")):
        y = tmp_path / f"y{number}.npy"
        arguments = (DIGITS, "--device", devices, "--input", x, "--output", y)
        _, err = printed(capsys, *arguments, "--chip", "nano", "--no-measure")
        results.append(np.load(y).tobytes())
        assert ("gpu" in devices) == err.startswith("lepton: gpu: there is no such device here")
    assert len(set(results)) == 1


def test_a_missing_device_leaves_the_npu_and_its_host(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (DIGITS, "--chip", "nano", "--json", "--device")
    out, err = printed(capsys, *arguments, "npu,cpu,gpu")
    assert err.count("gpu: there is no such device here") == 1
    alone = json.loads(printed(capsys, *arguments, "npu,cpu")[0])
    assert json.loads(out)["cycles"] == alone["cycles"]


def test_the_timeline_and_outputs_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = printed(capsys, DIGITS, *PLACED)
    assert "no --input: a random one with seed 0" in out
    assert "simulated |" in out and "measured  |" in out
    assert "[1, 10] float32:" in out


@pytest.fixture(scope="module")
def mobilenet() -> Path:
    return data_path("mobilenet/mobilenet_v1_0.25_128_quant.tflite")


def test_the_best_classes_of_a_photo(mobilenet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, labels = data_path("photos/cat.bmp"), data_path("photos/imagenet_labels.txt")
    arguments = (mobilenet, "--image", photo, "--labels", labels)
    out, _ = printed(capsys, *arguments)
    lines = out.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("top 5 of"))
    assert lines[at + 1].split() == ["0.6797", "Egyptian", "cat", "(286)"]
    top = json.loads(printed(capsys, *arguments, "--device", "npu2=nano", "--json")[0])["top"]
    assert top[0] == {"class": 286, "score": pytest.approx(174 / 256), "label": "Egyptian cat"}
    assert len(top) == 5


def test_a_photo_that_the_test_draws(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pixels = load_digits_holdout()[0][0, 0]
    grey = np.clip(pixels / pixels.max() * 255, 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "digit.png")
    names = "zero one two three four five six seven eight nine"
    (tmp_path / "labels.txt").write_text(names.replace(" ", "\n"))
    arguments = (DIGITS, "--chip", "nano", "--image", tmp_path / "digit.png", "--pixels", "unit",
                 "--crop", "whole", "--labels", tmp_path / "labels.txt", "--json")  # fmt: skip
    top = json.loads(printed(capsys, *arguments)[0])["top"]
    truth = int(load_digits_holdout()[1][0])
    assert top[0]["class"] == truth


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "x"], "--labels is for a photo; give one with --image"),
        (["--crop", "1"], "--crop is for a photo"),
        (["--image", "x.png", "--no-values"], "--image needs values"),
        (["--image", "x.png", "--input", "x.npy"], "--image and --input are both given"),
        (["--image", "none.png"], "none.png: cannot be read"),
        (["--image", "none.png", "--crop", "x"], "--crop must be a share or whole, not 'x'"),
        (["--device", "tpu"], "a device must be cpu, gpu, npu or npu2=CHIP, not 'tpu'"),
        (["--device", "gpu"], "gpu: there is no such device here"),
        (["--device", "cpu", "--report", "r.html"], "--report is for --device npu,cpu, not for"),
        (["--device", "cpu", "--no-values"], "--no-values is for --device npu,cpu"),
        (["--device", "cpu", "--effort", "0"], "--effort is for --device npu,cpu"),
        (["--device", "npu2"], "runs on none of the devices"),
    ],
)  # fmt: skip
def test_misuse(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert message in fails(capsys, DIGITS, "--no-measure", *arguments)


def test_a_program_is_for_its_npu(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    program = tmp_path / "digits.lepton"
    assert main(["compile", DIGITS, "--chip", "nano", "-o", str(program)]) == 0
    assert "device 'gpu' cannot run a program" in fails(capsys, program, "--device", "npu,gpu")
    assert "device 'cpu' cannot" in fails(capsys, program, "--device", "cpu")
