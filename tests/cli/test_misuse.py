"""Files and options that a command must refuse, and what it must take."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from lepton.cli import main as entry
from lepton.cli.arguments import parse_shapes
from lepton.cli.main import command_names, main
from lepton.cli.writing import write_arrays
from lepton.errors import InputError
from lepton.models import digits_model_path, load_digits_holdout

ROOT = Path(__file__).resolve().parents[2]
CODE = "fill height=1 width=1 channels=16 ofm=0x40 value=7\nhalt\n"
DIGITS = digits_model_path()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network, compiled for nano."""
    path = tmp_path_factory.mktemp("cli") / "digits.lepton"
    assert main(["compile", str(DIGITS), "--chip", "nano", "-o", str(path)]) == 0
    return path


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must fail with exit code 2 and one line; return the line."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("lepton: ")
    return lines[0]


@pytest.fixture(params=["zero", "pipe", "folder"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A name whose reading would never end, or a folder."""
    path = tmp_path / "special"
    if request.param == "zero":
        path.symlink_to("/dev/zero")
    elif request.param == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    return path


def test_only_files_are_read(
    special: Path, program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def named(suffix: str) -> Path:
        path = tmp_path / f"link{suffix}"
        path.symlink_to(special)
        return path

    kind = "it is a folder" if special.is_dir() else "it is not a file"
    out, model = tmp_path / "o.lepton", DIGITS
    assert kind in fails(capsys, "asm", special, "-o", out)
    assert kind in fails(capsys, "check", special)
    assert kind in fails(capsys, "run", named(".lepton"))
    assert kind in fails(capsys, "run", program, "--input", special)
    assert kind in fails(capsys, "run", program, "--chip", named(".toml"))
    assert kind in fails(capsys, "chips", tmp_path / "link.toml")
    assert kind in fails(capsys, "report", special, "-o", tmp_path / "r.html")
    assert kind in fails(capsys, "eval", model, "--data", special)
    data = tmp_path / "x.npz"
    np.savez(data, x=np.zeros(1))
    assert kind in fails(capsys, "compile", named(".onnx"), "--calibrate", data, "-o", out)
    source = tmp_path / "a.s"
    source.write_text(f".chip {tmp_path / 'link.toml'}\n{CODE}")
    assert kind in fails(capsys, "asm", source, "-o", out)
    assert not out.exists()


def test_numbers_are_whole_and_not_negative(
    program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["run", program, "--seed"], ["verify", DIGITS, "--seed"]):
        for text in ("-1", "\u00b2", "9" * 5000):
            assert "--seed: must be a whole number" in fails(capsys, *command, text)
    eval_limit = ["eval", DIGITS, "--data", "x.npz", "--limit", "-1"]
    assert "--limit: must be a whole number of at least 0" in fails(capsys, *eval_limit)


@pytest.mark.parametrize("text", ["x=\u00b2", "x=\u0663", "x=" + "9" * 5000, "x=", "=1", "x=0"])
def test_shapes_are_decimal(text: str) -> None:
    with pytest.raises(InputError, match="--shape must look like"):
        parse_shapes([text])


def test_empty_file_names(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "must not be empty" in fails(capsys, "run", program, "--output", "")
    assert "must not be empty" in fails(capsys, "compile", DIGITS, "-o", "")
    assert "must not be empty" in fails(capsys, "check", "")


def test_an_output_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "y.npz"
    arrays = {"file": np.arange(3), "allow_pickle": np.ones((2, 2)), "a/../b": np.array(5.0)}
    write_arrays(path, arrays)
    with np.load(path) as loaded:
        assert list(loaded) == list(arrays)
        assert all(np.array_equal(loaded[name], array) for name, array in arrays.items())
    for name in ("a\0b", "n" * 70_000):
        with pytest.raises(InputError, match=r"has a name no \.npz file can hold"):
            write_arrays(path, {name: np.zeros(1)})


def test_eval_refuses_data_that_fits_no_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "d.npz"
    images, labels = load_digits_holdout()
    np.savez(data, x=np.float32(1), y=labels[:1])
    assert "x must be [samples, ...]" in fails(capsys, "eval", DIGITS, "--data", data)
    np.savez(data, x=images[:2], y=np.array([3, 10]))
    wanted = "y must hold classes from 0 to 9, not 10"
    assert wanted in fails(capsys, "eval", DIGITS, "--data", data)


def test_nothing_that_is_read_is_overwritten(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, link = tmp_path / "m.onnx", tmp_path / "link.onnx"
    shutil.copy(DIGITS, model)
    link.symlink_to(model)
    before = model.read_bytes()
    for output in (model, link, f"{tmp_path}/./m.onnx"):
        assert "would overwrite" in fails(capsys, "compile", model, "-o", output)
    assert "would overwrite" in fails(capsys, "run", program, "--report", program)
    assert "would overwrite" in fails(capsys, "disasm", program, "-o", program)
    twice = ["--output", tmp_path / "y", "--trace", tmp_path / "y"]
    assert "written twice" in fails(capsys, "run", program, *twice)
    assert model.read_bytes() == before


def test_devices_and_pipes_are_not_replaced(
    special: Path, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "cannot be written: it is" in fails(capsys, "disasm", program, "-o", special)
    assert special.is_symlink() or not special.is_file()


def test_a_link_stays_a_link(program: Path, tmp_path: Path) -> None:
    link, target = tmp_path / "link.s", tmp_path / "target.s"
    link.symlink_to(target)
    assert main(["disasm", str(program), "-o", str(link)]) == 0
    assert link.is_symlink()
    assert target.read_text().startswith("; digits for chip nano")


def test_options_that_would_be_ignored_are_refused(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "y.npz"
    assert "--no-values" in fails(capsys, "run", program, "--no-values", "--output", output)
    assert "are for models" in fails(capsys, "run", program, "--shape", "input=1,1,8,8")
    assert "are for models" in fails(capsys, "run", program, "--calibrate", output)
    assert "are for models" in fails(capsys, "run", program, "--effort", "0")
    assert not output.exists()


def test_report_writes_nothing_if_its_folder_is_a_file(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken, page = tmp_path / "taken", tmp_path / "r.html"
    taken.write_bytes(b"")
    assert "cannot be made" in fails(capsys, "report", program, "-o", page, "--png", taken)
    assert not page.exists()


def test_devices_may_stand_apart(program: Path) -> None:
    assert main(["run", str(program), "--no-values", "--json", "--device", "npu, cpu"]) == 0


def test_programs_are_known_by_their_content(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "a"
    shutil.copy(program, bare)
    for path in (program, bare):
        assert "is a Lepton program, not a model" in fails(capsys, "compile", path, "-o", "x")
        assert "is a Lepton program, not a model" in fails(capsys, "verify", path)
        assert main(["run", str(path), "--no-values", "--json"]) == 0
    assert main(["report", str(bare), "-o", str(tmp_path / "r.html")]) == 0


@pytest.mark.parametrize("command", ["verify", "eval"])
def test_verify_and_eval_take_shapes(command: str, tmp_path: Path) -> None:
    path, data = tmp_path / "dynamic.onnx", tmp_path / "d.npz"
    model = onnx.load(DIGITS)
    graph_input = model.graph.input[0]
    graph_input.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, path)
    images, labels = load_digits_holdout()
    np.savez(data, x=images[:2], y=labels[:2])
    arguments = [command, str(path), "--chip", "nano", "--shape", f"{graph_input.name}=1,1,8,8"]
    assert main(arguments + (["--data", str(data)] if command == "eval" else [])) == 0


def test_assembly_keeps_the_chip_of_its_text(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, out = tmp_path / "p.s", tmp_path / "o.lepton"
    assert main(["disasm", str(program), "-o", str(text)]) == 0
    again = ["asm", str(text), "-o", str(out), "--chip"]
    assert ".manifest names chip 'nano', not 'edge'" in fails(capsys, *again, "edge")
    assert main([*again, "nano"]) == 0
    text.write_text(f".chip nano\n{CODE}")
    assert ".chip names chip 'nano', not 'edge'" in fails(capsys, *again, "edge")


def test_assembly_needs_instructions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "empty.s"
    source.write_text("; nothing\n")
    line = fails(capsys, "asm", source, "-o", tmp_path / "o.lepton")
    assert "holds no instructions" in line


def test_a_chip_may_be_called_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chip, source = tmp_path / "chip.toml", tmp_path / "a.s"
    made, text = tmp_path / "a.lepton", tmp_path / "again.s"
    preset = (ROOT / "lepton/chip/presets/nano.toml").read_text(encoding="utf-8")
    chip.write_text(preset.replace('name = "nano"', r'name = "a\nhalt\u001b[31m"', 1))
    source.write_text(CODE)
    assert main(["chips", str(chip)]) == 0
    assert main(["asm", str(source), "--chip", str(chip), "-o", str(made)]) == 0
    assert main(["run", str(made), "--no-values"]) == 0
    assert main(["disasm", str(made), "-o", str(text)]) == 0
    shown = capsys.readouterr().out + text.read_text().split("\n.manifest")[0]
    assert "\x1b" not in shown
    assert shown.count("a halt?[31m") == 3
    assert main(["asm", str(text), "-o", str(tmp_path / "b.lepton")]) == 0
    assert (tmp_path / "b.lepton").read_bytes() == made.read_bytes()


@pytest.mark.parametrize("command", command_names())
def test_the_example_of_every_command_parses(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # an example is not wrapped
    with pytest.raises(SystemExit):
        main([command, "--help"])
    _, found, example = capsys.readouterr().out.partition("example: lepton ")
    assert found
    options = entry._parser().parse_args(shlex.split(example))
    assert options.command == command
