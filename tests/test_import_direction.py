"""Imports go one way, heavy libraries come late, and the bare names of the parts are not used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lepton"

LAYERS = [
    {"errors", "jit", "jit_ahead", "jit_cache", "jit_parts", "jit_start"}
    | {"isa", "chip", "program", "trace", "listing"},
    {"arith", "codec", "cost"},
    {"models"},
    {"compiler", "simulator"},
    {"runtime"},
    {"explore", "report"},
    {"api"},
    {"embedded"},
    {"torch_graph", "torch_quantizer", "torch_backend", "tvm_backend"},
    {"cli"},
    {"__init__", "__main__"},
]
"""From the bottom up: a part imports its own layer and those before it."""

EARLY = {
    "tvm": ("compiler/", "tvm_backend.py"),
    "torch": (
        *("torch_backend.py", "torch_graph.py", "torch_quantizer.py", "models/onnx_module/"),
        *("models/torch_", "models/quantization/torch_", "models/training/torch_", "models/zoo/"),
    ),
    "onnx": ("compiler/importers",),
}
"""Where a heavy library may be imported at the top: modules that are themselves imported late."""

SEPARATE = [{"compiler", "simulator"}]
HEAVY = {"tvm", "onnx", "onnxruntime", "torch", "matplotlib", "tflite", "ai_edge_litert"}
BARE = {"compiler", "simulator", "runtime", "models"}


class Import(NamedTuple):
    """One imported module, where, and whether it happens when its module is imported."""

    file: Path
    line: int
    module: str
    is_late: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"

    @property
    def part(self) -> str:
        """The part of the importing file."""
        return _part(self.file)


def _part(file: Path) -> str:
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _imports_of(file: Path, node: ast.AST, is_late: bool) -> Iterator[Import]:
    """Yield the imports below `node`; a `from package import name` yields `package.name` too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(file, child.lineno, alias.name, is_late)
        elif isinstance(child, ast.ImportFrom):
            module = child.module or ""
            assert child.level == 0, f"{file}:{child.lineno} imports relatively"
            for alias in child.names:
                yield Import(file, child.lineno, f"{module}.{alias.name}", is_late)
        else:
            late = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports_of(file, child, is_late or late or _is_type_checking(child))


def _all_imports(folder: Path) -> list[Import]:
    return [
        found
        for file in sorted(folder.rglob("*.py"))
        for found in _imports_of(file, ast.parse(file.read_text(encoding="utf-8")), False)
    ]


IMPORTS = _all_imports(PACKAGE)


def _layer(part: str) -> int:
    for number, parts in enumerate(LAYERS):
        if part in parts:
            return number
    raise AssertionError(f"lepton.{part} has no layer: add it to LAYERS")


def _imported_part(found: Import) -> str | None:
    """Return the part of lepton that is imported, or None for another package."""
    names = found.module.split(".")
    if names[0] != "lepton" or len(names) < 2:
        return None
    target = PACKAGE / names[1]
    is_part = target.is_dir() or target.with_suffix(".py").exists()
    return names[1] if is_part else "__init__"


def _is_upward(importer: str, imported: str) -> bool:
    if any({importer, imported} == pair for pair in SEPARATE):
        return True
    return _layer(imported) > _layer(importer)


def test_every_part_has_a_layer() -> None:
    assert IMPORTS
    for file in PACKAGE.rglob("*.py"):
        _layer(_part(file))


def test_imports_go_one_way() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if (imported := _imported_part(found)) is not None and _is_upward(found.part, imported)
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("importer", "imported", "is_upward"),
    [
        ("compiler", "simulator", True),
        ("simulator", "compiler", True),
        ("isa", "arith", True),
        ("arith", "isa", False),
        ("cli", "compiler", False),
        ("runtime", "report", True),
        ("cli", "__init__", True),
    ],
)
def test_the_rule_itself(importer: str, imported: str, is_upward: bool) -> None:
    assert _is_upward(importer, imported) is is_upward


def test_heavy_libraries_are_imported_late() -> None:
    wrong = [
        str(found)
        for found in IMPORTS
        if not found.is_late
        and (name := found.module.split(".")[0]) in HEAVY
        and not found.file.relative_to(PACKAGE).as_posix().startswith(EARLY.get(name, ()))
    ]
    assert not wrong


@pytest.mark.parametrize("folder", ["lepton", "tests", "benchmarks"])
def test_no_bare_names(folder: str) -> None:
    wrong = [str(i) for i in _all_imports(ROOT / folder) if i.module.split(".")[0] in BARE]
    assert not wrong


def _loaded_by(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after `statement`."""
    code = f"{statement}; import sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(made.stdout.split())


def test_importing_lepton_is_light() -> None:
    assert not _loaded_by("import lepton") & (HEAVY | {"numba", "scipy", "safetensors"})


@pytest.mark.parametrize("part", ["lepton.simulator", "lepton.cost", "lepton.isa", "lepton.chip"])
def test_parts_below_the_compiler_import_no_framework(part: str) -> None:
    assert not _loaded_by(f"import {part}") & HEAVY
