"""The way to the data: found, skipped, or failed under CI."""

from __future__ import annotations

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
