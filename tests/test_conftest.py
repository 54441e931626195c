"""The way to the data: found, skipped, or failed under CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import data_path


def test_data_path_finds_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").touch()
    monkeypatch.setenv("LEPTON_DATA", str(tmp_path))
    assert data_path("a") == tmp_path / "a"


@pytest.mark.parametrize("root", [None, "/nowhere"])
def test_missing_data_skips_on_a_laptop_and_fails_in_ci(
    root: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if root is None:
        monkeypatch.delenv("LEPTON_DATA", raising=False)
    else:
        monkeypatch.setenv("LEPTON_DATA", root)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs a"):
        data_path("a")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needs a"):
        data_path("a")


SUITE = """
import pytest
{top}
def test_a(): pytest.importorskip("no_such_package")
"""


@pytest.mark.parametrize("is_ci", [False, True])
@pytest.mark.parametrize("top", ["", "pytest.importorskip('no_such_package')"])
def test_a_skip_fails_in_ci(is_ci: bool, top: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text())
    (tmp_path / "test_a.py").write_text(SUITE.format(top=top))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        env=os.environ | {"CI": "true" if is_ci else "false"},
        cwd=tmp_path,
    )
    assert ("nothing may skip in CI: " in done.stdout) == is_ci
    assert ("1 skipped" in done.stdout) != is_ci
