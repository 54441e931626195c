"""Assemble an `ImportedModel` from a canonical module."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from lepton.compiler.importers.model import Golden, ImportedModel
from lepton.compiler.importers.names import source_of

if TYPE_CHECKING:
    import tvm


def make_result(
    module: tvm.IRModule,
    *,
    golden: Golden,
    name: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> ImportedModel:
    """Collect the names of `main`'s variables into a result."""
    operators: dict[str, str] = {}
    tensors: dict[str, str] = {}
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            source = source_of(binding.value) or source_of(binding.var)
            if source is not None:
                operators[binding.var.name] = source.operator
                if source.tensor:
                    tensors[binding.var.name] = source.tensor
    return ImportedModel(
        module=module,
        golden=golden,
        name=name,
        source_names=MappingProxyType(operators),
        tensor_names=MappingProxyType(tensors),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
    )
