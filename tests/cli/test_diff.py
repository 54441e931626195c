"""The command `diff`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lepton.cli.main import main
from lepton.models import digits_model_path

DIGITS = digits_model_path()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network, compiled for nano."""
    path = tmp_path_factory.mktemp("diff") / "digits.lepton"
    assert main(["compile", str(DIGITS), "--chip", "nano", "-o", str(path)]) == 0
    return path


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run `diff` and return what it prints."""
    capsys.readouterr()
    assert main(["diff", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run `diff`, which must fail in one line; return it."""
    capsys.readouterr()
    assert main(["diff", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_one_model_on_two_chips(capsys: pytest.CaptureFixture[str]) -> None:
    made = json.loads(printed(capsys, DIGITS, "--chip", "nano", "--chip", "edge", "--json"))
    assert (made["a"]["chip"], made["b"]["chip"]) == ("nano", "edge")
    assert not made["identical"]
    assert made["cycles"] == made["b"]["cycles"] - made["a"]["cycles"] < 0
    assert sum(layer["cycles"] for layer in made["layers"]) == made["cycles"]
    assert {layer["matched"] for layer in made["layers"]} == {"name"}
    sizes = [abs(layer["cycles"]) for layer in made["layers"]]
    assert sizes == sorted(sizes, reverse=True)


def test_one_model_optimized_for_two_things(capsys: pytest.CaptureFixture[str]) -> None:
    two = ["--optimize", "latency", "--optimize", "size"]
    made = json.loads(printed(capsys, DIGITS, "--chip", "edge", *two, "--json"))
    assert made["cycles"] > 0 and not made["identical"]


def test_a_program_and_its_saved_result_are_identical(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["run", str(program), "--no-values", "--json"]) == 0
    saved = tmp_path / "old.json"
    saved.write_text(capsys.readouterr().out)
    assert "identical" in printed(capsys, saved, program)
    assert "identical" in printed(capsys, program, program)
    assert json.loads(printed(capsys, saved, saved, "--json"))["identical"] is True
    # the only --chip is for what is compiled
    assert " B - A" in printed(capsys, saved, DIGITS, "--chip", "edge")


def test_options_that_do_not_apply_are_refused(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "old.json"
    saved.write_text("{}")
    assert "needs a second file B" in fails(capsys, program)
    thrice = fails(capsys, DIGITS, *["--chip", "nano"] * 3)
    assert "--chip may be given twice, for A and for B, not 3 times" in thrice
    assert "B is a saved result" in fails(capsys, DIGITS, saved, "--effort", "0", "--effort", "1")
    assert "both files are saved" in fails(capsys, saved, saved, "--shape", "x=1")
    assert "are for models" in fails(capsys, program, DIGITS, "--effort", "1")
    assert "cannot be read" in fails(capsys, DIGITS, tmp_path / "none.json")
