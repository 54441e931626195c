"""The command `serve`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lepton.cli.main import main
from lepton.models import digits_model_path

DIGITS = str(digits_model_path())
QUICK = ("--chip", "nano", "--no-measure", "--requests", "60")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["serve", *arguments]) == 0
    return capsys.readouterr().out


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["serve", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_policies_are_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(Path(DIGITS).read_bytes())
    arguments = (DIGITS, str(other), *QUICK, "--deadline", "1", "--deadline", "other=0.5",
                 "--priority", "other=2", "--rate", "other=100", "--json")  # fmt: skip
    made = json.loads(printed(capsys, *arguments))
    first, second = made["models"]
    assert (second["name"], second["priority"], second["rate_hz"]) == ("other", 2, 100)
    assert (first["deadline_milliseconds"], second["deadline_milliseconds"]) == (1, 0.5)
    for policy in made["policies"].values():
        assert sum(row["requests"] for row in policy["models"]) == 60
        assert all(row["unserved"] == 0 for row in policy["models"])
        assert all(0 <= share <= 1 for share in policy["busy"].values())
    assert set(made["policies"]) == {"static", "dynamic"}
    assert printed(capsys, *arguments) == json.dumps(made) + "\n"


def test_the_load_is_the_busiest_device_s(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (DIGITS, *QUICK[:3], "--requests", "2000", "--policy", "static", "--json")
    made = json.loads(printed(capsys, *arguments, "--load", "0.5", "--variation", "0"))
    assert max(made["policies"]["static"]["busy"].values()) == pytest.approx(0.5, rel=0.02)


def test_results_equal_single_runs_though_a_device_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = (DIGITS, "--chip", "nano", "--requests", "12", "--values", "--policy", "dynamic")
    text = printed(capsys, *arguments, "--fault", "npu@0.1-0.5", "--fault", "npu@0.6-1=3")
    assert "12 of 12 results equal those of single runs to the last byte" in text


def test_a_device_that_fails_for_good_leaves_requests(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (DIGITS, *QUICK, "--fault", "npu@0-", "--fault", "cpu@0-", "--policy", "dynamic")
    made = json.loads(printed(capsys, *arguments, "--deadline", "9", "--json"))
    (row,) = made["policies"]["dynamic"]["models"]
    assert (row["requests"], row["unserved"], row["late"], row["p50_ms"]) == (60, 60, 60, None)
    assert "-" in printed(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "0"], "--rate must be above 0, not '0'"),
        (["--rate", "x=3"], "--rate must be VALUE or MODEL=VALUE, of digits"),
        (["--load", "x"], "--load must be a number of at least 0, not 'x'"),
        (["--deadline", "-1"], "--deadline must be a number of at least 0, not '-1'"),
        (["--variation", "nan"], "--variation must be a number of at least 0, not 'nan'"),
        (["--fault", "gpu@1-2"], "--fault must look like npu@20-60 or npu@20-60=4"),
        (["--fault", "npu@2-1"], "--fault must end after it starts"),
        ([DIGITS], "two models are called"),
    ],
)
def test_misuse(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert message in fails(capsys, DIGITS, *arguments, *QUICK)
