"""Partitioning: what TVM's passes are given to group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tvm import relax

from benchmarks.compile_time import stack
from lepton.chip import load_chip
from lepton.compiler.compile import compile_model
from lepton.compiler.importers import import_model
from lepton.compiler.partition import partition
from lepton.compiler.patterns import NUMBER
from lepton.models import digits_model_path


def test_no_two_composite_functions_are_alike_but_for_their_constants() -> None:
    imported = import_model(digits_model_path())
    module: Any = partition(imported.module, imported.golden, load_chip("nano")).module
    regions = [f for f in module.functions.values() if "Codegen" in (f.attrs or {})]
    numbers = [
        str(binding.value.attrs[NUMBER])
        for region in regions
        for block in region.body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Function)
    ]
    assert len(numbers) > 2
    assert len(set(numbers)) == len(numbers)


def test_alike_layers_keep_their_own_names(tmp_path: Path) -> None:
    program = compile_model(stack(3, tmp_path / "stack.onnx"), load_chip("nano"))
    names = [operator.name for operator in program.operators if operator.kind == "binary"]
    assert names == ["e0", "e1", "e2"]
