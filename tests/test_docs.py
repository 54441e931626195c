"""README and generated pages say what the tree does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lepton.cli.main import main

ROOT = Path(__file__).resolve().parents[1]


def test_readme_shows_the_real_output_of_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    capsys.readouterr()
    assert main(["demo", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    shown = (ROOT / "README.md").read_text().split("```")[1].strip()
    assert printed.split("\nwritten:")[0].strip() == shown
    assert {path.suffix for path in tmp_path.iterdir()} == {".lepton", ".png", ".json", ".html"}


def test_every_link_in_the_documents_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_in_the_readme_exists() -> None:
    from lepton.cli.main import command_names

    text = (ROOT / "README.md").read_text()
    block = text.split("## Command line")[1].split("```")[1]
    used = set(re.findall(r"\blepton (\w[\w-]+)", block))
    used |= set(re.findall(r"\| (\w+)", block.splitlines()[-1])) if "|" in block else set()
    assert used <= set(command_names())
