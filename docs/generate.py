#!/usr/bin/env python3
"""Write the generated pages, the README's demo and pictures, and the notebooks' outputs again.

Usage: python docs/generate.py

The pictures of docs/sweeps.md need the models of the folder that LEPTON_DATA names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ("timeline", "roofline", "scratchpad")
SWEEP_IMAGES = ("front", "parallel", "knees", "sensitivity", "migration")
NOTEBOOKS = ("02_tour_of_the_chip.ipynb", "03_tvm_partition.ipynb")
"""Those that are stored with outputs, which are the same in every run."""


def printed_by(*command: str) -> str:
    """Return what a `lepton` command prints on a terminal of 110 columns."""
    environment = {**os.environ, "COLUMNS": "110", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-m", "lepton", *command],
        env=environment, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return result.stdout


def demo_block(printed: str) -> str:
    """Return the part of the demo's output that the README shows."""
    return printed.split("\nwritten:")[0].strip()


def execute(notebook: Path) -> None:
    """Run a notebook in an empty folder and store its outputs."""
    import nbformat
    from nbclient import NotebookClient

    content = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        place = {"metadata": {"path": folder}}
        client = NotebookClient(content, timeout=300, resources=place)
        client.record_timing, client.coalesce_streams = False, True
        client.execute()
    content.metadata.language_info = {"name": "python"}
    nbformat.write(content, notebook)


def sweep_pictures() -> None:
    """Sweep 4,000 chips for ResNet-8, of which 200 are simulated, and keep the pictures."""
    if "LEPTON_DATA" not in os.environ:
        sys.stderr.write("LEPTON_DATA is not set: docs/images/sweep_*.png stay as they are\n")
        return
    sys.path.insert(0, str(ROOT))
    from benchmarks.sweep import resnet8_space

    with tempfile.TemporaryDirectory() as folder:
        space = resnet8_space(Path(folder))
        printed_by("sweep", str(space), "--workers", "2", "-o", f"{folder}/out")
        for name in SWEEP_IMAGES:
            target = ROOT / "docs" / "images" / f"sweep_{name}.png"
            shutil.copyfile(Path(folder) / "out" / f"{name}.png", target)


def main() -> None:
    """Write all of them."""
    (ROOT / "docs" / "isa.md").write_text(printed_by("isa"))
    (ROOT / "docs" / "supported.md").write_text(printed_by("ops"))
    with tempfile.TemporaryDirectory() as folder:
        shown = demo_block(printed_by("demo", "--out", folder))
        for name in IMAGES:
            shutil.copyfile(Path(folder) / f"{name}.png", ROOT / "docs" / "images" / f"{name}.png")
    sweep_pictures()
    for name in NOTEBOOKS:
        execute(ROOT / "notebooks" / name)
    readme = ROOT / "README.md"
    before, _, after = readme.read_text().split("```", 2)
    readme.write_text(f"{before}```\n{shown}\n```{after}")


if __name__ == "__main__":
    main()
