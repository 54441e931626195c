"""Files and folders that are whole or not there, whatever interrupts."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from lepton.program.files import atomic_write, temporary_folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_temporary_folder_is_the_users_own_and_goes(place: Path) -> None:
    with temporary_folder() as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("x")
        assert folder.parent == place and folder.stat().st_mode & 0o777 == 0o700
    assert list(place.iterdir()) == []
    with pytest.raises(ZeroDivisionError), temporary_folder() as folder:
        (folder / "file").write_text(str(1 / 0))
    assert list(place.iterdir()) == []


def test_a_signal_as_the_folder_is_made_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Path.mkdir

    def interrupted(path: Path, mode: int = 0o777) -> None:
        made(path, mode)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), temporary_folder():
        pytest.fail("the block must not begin")
    assert list(place.iterdir()) == []


def test_a_signal_as_the_folder_goes_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, calls = shutil.rmtree, []

    def interrupted(path: Path, ignore_errors: bool = False) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt
        remove(path, ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt), temporary_folder():
        pass
    assert list(place.iterdir()) == [] and len(calls) == 2


def test_a_signal_as_a_file_is_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / ("n" * 250)  # as long as names may be, or nearly
    atomic_write(path, b"old")
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, b"new")
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"old"


def test_files_have_the_mode_that_the_mask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
