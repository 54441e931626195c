"""The kernels' cache is keyed by everything that can change their machine code."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher
from numpy.typing import NDArray

import lepton
from lepton import jit
from lepton.jit_parts import part_options
from lepton.jit_start import import_array_functions

PACKAGE = Path(lepton.__file__).parent
KERNELS = sorted(
    path for path in PACKAGE.rglob("*.py") if "\n@njit" in path.read_text(encoding="utf-8")
)

_ENTRIES = [
    path
    for path in KERNELS
    if re.search(r"^@njit(?!\([^)]*inlined=True)", path.read_text(encoding="utf-8"), re.M)
]
"""Files with kernels that Python calls, not only parts of others."""


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
    assert len(_ENTRIES) > 20
    for kernel in _ENTRIES:
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


def _halved(x: int) -> int:
    return x // 2 if x % 2 == 0 else x


@pytest.mark.parametrize("version", [numba.__version__, "99.0"])
def test_a_part_computes_the_same_with_any_numba(version: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jit, "part_options", lambda: part_options(version))
    halved = jit.njit(allocates=False, inlined=True)(_halved)

    def total(values: NDArray[np.int64]) -> int:
        found = 0
        for value in values:
            found += halved(value)
        return found

    values = np.arange(-7, 9)
    assert numba.njit(total)(values) == total(values)


def test_only_a_tried_numba_stops_at_parts():
    assert part_options("99.0") == {}
    assert part_options("0.68.0")


def _printed(code: str) -> str:
    """Return what a fresh interpreter prints."""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return made.stdout


def test_a_kernel_starts_without_scipy():
    code = (
        "import sys, numba.np.linalg as linalg\n"
        "load = linalg.ensure_blas\n"
        "from lepton.isa import records\n"
        "from lepton.isa.instructions import Halt\n"
        "assert len(records([Halt()])) == 1 and linalg.ensure_blas is load\n"
        "print('numba' in sys.modules, 'scipy.linalg' in sys.modules)"
    )
    assert _printed(code) == "True False\n"


def test_numba_still_loads_scipy_for_what_needs_it():
    pytest.importorskip("scipy")
    code = (
        "import lepton.jit, numba, numpy as np\n"
        "product = numba.njit(lambda a: np.dot(a, a))\n"
        "print(product(np.full((2, 2), 0.5))[0, 0])"
    )
    assert _printed(code) == "0.5\n"


def test_a_numba_that_asks_in_another_way_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr("numba.np.linalg.ensure_blas")
    import_array_functions()
    assert not hasattr(sys.modules["numba.np.linalg"], "ensure_blas")


def _decorators(node: ast.stmt) -> str:
    listed = node.decorator_list if isinstance(node, ast.FunctionDef) else []
    return " ".join(ast.unparse(decorator) for decorator in listed)


def _parts(file: Path) -> set[str]:
    """Return the functions of a file that are only parts of kernels."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return {
        node.name
        for node in body
        if isinstance(node, ast.FunctionDef) and "inlined=True" in _decorators(node)
    }


def test_python_calls_no_part():
    """It would run slowly, with integers that do not wrap."""
    parts = {file: _parts(file) for file in KERNELS}
    assert sum(map(len, parts.values())) > 100
    for file in PACKAGE.rglob("*.py"):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        known = set(parts.get(file, ()))
        imports = [node for node in body if isinstance(node, ast.ImportFrom) and node.module]
        for node in imports:
            source = _file(node.module or "")
            known |= {alias.name for alias in node.names} & parts.get(source or file, set())
        for node in body:
            if "njit" not in _decorators(node) and not isinstance(node, ast.ImportFrom):
                used = {x.id for x in ast.walk(node) if isinstance(x, ast.Name)}
                assert not used & known, (file, used & known)
