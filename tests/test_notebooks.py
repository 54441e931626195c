"""The notebooks run from top to bottom, and stored outputs are those of a run."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
WITH_OUTPUTS = ("02_tour_of_the_chip.ipynb", "03_tvm_partition.ipynb")
"""Stored as they ran, for readers who do not run them; `make docs` writes the outputs again."""
NEEDS_TORCH = ("04_compression.ipynb",)


def outputs(notebook: NotebookNode) -> list[tuple[str, list[str]]]:
    """Return for each cell all that it printed, and of what else it shows the text in its place.

    What a cell prints may come in several pieces.
    """
    found: list[tuple[str, list[str]]] = []
    for cell in notebook.cells:
        every = cell.get("outputs", [])
        printed = "".join(output.text for output in every if output.get("name") == "stdout")
        shown = [output.data["text/plain"] for output in every if "data" in output]
        found.append((printed, shown))
    return found


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.ipynb")))
def test_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in NEEDS_TORCH and find_spec("torch") is None:
        pytest.skip("the training extra is not installed")
    shutil.copy(FOLDER / name, tmp_path / name)
    # a process among several that run tests has a terminal of 80 columns
    monkeypatch.setenv("COLUMNS", "110")
    notebook = nbformat.read(tmp_path / name, as_version=4)
    stored = outputs(notebook)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    if name in WITH_OUTPUTS:
        assert stored == outputs(notebook)


def test_other_notebooks_are_stored_without_outputs() -> None:
    for path in FOLDER.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        has_outputs = any(cell.get("outputs") for cell in notebook.cells)
        assert has_outputs == (path.name in WITH_OUTPUTS), path.name
