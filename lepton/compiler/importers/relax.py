"""Import a Relax module that the user made."""

from __future__ import annotations

from typing import Any

from lepton.compiler.dump import Dump, no_dump
from lepton.compiler.importers.model import ImportedModel
from lepton.errors import ImportFailure

CODEGEN = "lepton"
"""Value of the attribute Codegen of functions that are regions of the NPU."""


def is_region(function: Any) -> bool:
    """Return whether a function of a module is a region of the NPU."""
    attributes = getattr(function, "attrs", None)
    return attributes is not None and str(attributes.get("Codegen", "")) == CODEGEN


def import_relax(module: Any, dump: Dump = no_dump) -> ImportedModel:
    """Canonicalize a Relax module; its variables' names serve as source names.

    A module that `partition_for_lepton` made is canonical already.

    Raises:
        ImportFailure: It has no function `main`, or is not well formed.
    """
    from tvm import relax

    from lepton.compiler.importers.canonical import canonicalize
    from lepton.compiler.importers.names import Source, source_of

    names = [variable.name_hint for variable in module.get_global_vars()]
    if "main" not in names or not isinstance(module["main"], relax.Function):
        raise ImportFailure("the Relax module has no function 'main'")
    relax.analysis.check_well_formed(module)
    if any(is_region(function) for _, function in module.functions_items()):
        return _result(module)
    module = relax.transform.Normalize()(module)
    module = relax.transform.ConvertToDataflow(min_size=1)(module)
    function = module["main"]
    sources: dict[object, Source] = {}
    index = 0
    for block in function.body.blocks:
        for binding in block.bindings:
            name = str(binding.var.name)
            sources[binding.var] = source_of(binding.value) or Source(name, name, index)
            index += 1
    return _result(canonicalize(module, sources, dump))


def _result(module: Any) -> ImportedModel:
    """Return the model of a canonical module."""
    from lepton.compiler.importers.result import make_result

    function = module["main"]
    return make_result(
        module,
        golden="onnx",
        name="module",
        inputs=[parameter.name for parameter in function.params],
        outputs=[f"output{position}" for position in range(_count(function))],
    )


def _count(function: object) -> int:
    """Return how many tensors a function returns."""
    fields = getattr(getattr(function, "ret_ty", None), "fields", None)
    return len(fields) if fields is not None else 1
