"""Fronts as files: the same programs, in new processes too; damaged files are not read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.compile_time import stack
from lepton.chip import load_chip
from lepton.compiler.cache import CompilerCache, Fronts
from lepton.compiler.compile import CompileOptions, compile_front, compile_model
from lepton.compiler.dump import no_dump
from lepton.compiler.front import front_model
from lepton.compiler.front_file import read_front, write_front
from lepton.compiler.front_folder import FrontFolder, front_key
from lepton.compiler.importers import import_model
from lepton.compiler.steps import FrontModel
from lepton.models import digits_model_path
from tests.conftest import data_path

DIGITS, NANO = digits_model_path(), load_chip("nano")
QUICK = CompileOptions(effort=0)
MODELS = ("mlperf_tiny/kws_ref_model.tflite", "mlperf_tiny/pretrainedResnet_quant.tflite")


def program_of(front: FrontModel | None) -> bytes:
    assert front is not None
    return compile_front(front, NANO, QUICK, no_dump).program.to_bytes()


@pytest.mark.parametrize("name", ["", *MODELS])
def test_a_file_gives_the_program_of_its_front(name: str) -> None:
    path = data_path(name) if name else DIGITS
    front = front_model(import_model(path), NANO)
    read = read_front(write_front(front))
    assert program_of(read) == program_of(front)
    assert read is not None
    assert read.verdicts == front.verdicts


def test_a_new_process_takes_the_front_from_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stack(2, tmp_path / "stack.onnx")
    made = [CompilerCache(Fronts(FrontFolder(tmp_path / "fronts"))) for _ in range(3)]
    expected = compile_model(path, NANO, QUICK, made[0]).to_bytes()

    def refused(*_: object) -> None:
        raise AssertionError("imported again")

    with monkeypatch.context() as patch:
        patch.setattr("lepton.compiler.importers.import_model", refused)
        assert compile_model(path, NANO, QUICK, made[1]).to_bytes() == expected
    (file,) = (tmp_path / "fronts").iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (bytes(content), bytes(content[:40]), b""):
        file.write_bytes(damaged)
        assert read_front(damaged) is None
    assert compile_model(path, NANO, QUICK, made[2]).to_bytes() == expected
    assert program_of(read_front(file.read_bytes())) == expected


def test_a_front_is_known_by_content_name_and_shapes(tmp_path: Path) -> None:
    one, other = tmp_path / "one.onnx", tmp_path / "other.onnx"
    one.write_bytes(b"1")
    other.write_bytes(b"1")
    keys = [front_key(one, {}), front_key(other, {}), front_key(one, {"x": [1]})]
    one.write_bytes(b"2")
    assert len({*keys, front_key(one, {})}) == 4
    assert front_key(tmp_path / "missing.onnx", {}) is None


def test_the_oldest_files_make_room(tmp_path: Path) -> None:
    front = front_model(import_model(DIGITS), NANO)
    folder = FrontFolder(tmp_path, 2 * len(write_front(front)) + 10)
    for key in "ab":
        folder.write(key, front)
    for path in tmp_path.iterdir():
        os.utime(path, ns=(0, 0))
    assert folder.read("a") is not None
    folder.write("c", front)
    assert [folder.read(key) is not None for key in "abc"] == [True, False, True]
    FrontFolder(tmp_path, 10).write("d", front)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    folder = FrontFolder(tmp_path / "file" / "fronts")
    folder.write("a", front_model(import_model(DIGITS), NANO))
    assert folder.read("a") is None
