"""The kernels' cache is keyed by everything that can change their machine code."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest
from numba.core.dispatcher import Dispatcher

import lepton
from lepton import jit

PACKAGE = Path(lepton.__file__).parent
KERNELS = sorted(
    path for path in PACKAGE.rglob("*.py") if "\n@njit" in path.read_text(encoding="utf-8")
)


def _modules_named(file: Path) -> set[Path]:
    """Return the files of the package that a file imports, read with Python's own parser."""
    found: set[Path | None] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lepton"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {_file(name) for name in [node.module or "", *names]}
        elif isinstance(node, ast.Import):
            found |= {_file(alias.name) for alias in node.names}
    return {path for path in found if path}


def _file(module: str) -> Path | None:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_hash_covers_every_import(kernel: Path):
    covered = jit.imported_files(kernel)
    for file in covered:
        assert _modules_named(file) <= covered, file


def test_an_edit_below_moves_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "lepton"
    (package / "low").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "low" / "__init__.py").write_text("")
    (package / "low" / "constant.py").write_text("VALUE = 1\n")
    (package / "middle.py").write_text("from lepton.low import (\n    constant,\n)\n")
    (package / "top.py").write_text("def f():\n    from lepton.middle import x\n")
    (package / "beside.py").write_text("")
    monkeypatch.setattr(jit, "_PACKAGE", package)
    top = package / "top.py"
    before = jit.sources_hash(jit.imported_files(top))
    (package / "beside.py").write_text("# not imported\n")
    assert jit.sources_hash(jit.imported_files(top)) == before
    (package / "low" / "constant.py").write_text("VALUE = 2\n")
    assert jit.sources_hash(jit.imported_files(top)) != before


def test_every_kernel_has_its_folder():
    for kernel in KERNELS:
        name = ".".join(kernel.relative_to(PACKAGE.parent).with_suffix("").parts)
        importlib.import_module(name)
        module = sys.modules[name]
        mark = jit.sources_hash(jit.imported_files(kernel))
        folders = {
            Path(value.stats.cache_path or "").parent.name
            for value in vars(module).values()
            if isinstance(value, Dispatcher) and value.py_func.__module__ == name
        }
        assert folders == {f"{kernel.stem}-{mark}"}, name
