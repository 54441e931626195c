"""The partitioning as users of TVM expect it: a Relax module in, a Relax module out.

`partition_for_lepton(mod, chip)` is to the Lepton NPU what TVM's `partition_for_tensorrt` is to
TensorRT; `PartitionForLepton(chip)` is the same as a pass for `tvm.transform.Sequential`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tvm
from tvm import relax

from lepton.chip import Chip, chip_from_table, chip_to_table, load_chip
from lepton.compiler.compile import CompileOptions, compile_front
from lepton.compiler.dump import no_dump
from lepton.compiler.front import front_model
from lepton.compiler.importers import ImportedModel
from lepton.compiler.importers.relax import CODEGEN, import_relax, is_region
from lepton.compiler.importers.result import make_result
from lepton.compiler.importers.rewriting import Rewriter, rewrite
from lepton.compiler.partition import CHIP, partition
from lepton.errors import InputError
from lepton.program import Program

__all__ = ["PartitionForLepton", "compile_region", "partition_for_lepton"]


def partition_for_lepton(mod: tvm.IRModule, chip: str | Path | Chip = "edge") -> tvm.IRModule:
    """Group the quantized operators of `main` that an NPU supports.

    before: main is a flat list of Relax calls
    after:  main calls functions `lepton_0`, `lepton_1`, ... (attribute Codegen = "lepton"), each of
            composite functions (attribute Composite = "lepton.<op>") with their constants; what
            the NPU does not support stays in main, in canonical form

    Args:
        mod: Relax module with quantize and dequantize operators, its weights bound as constants;
            functions other than `main` stay as they are.
        chip: preset, path of a chip file, or `Chip`.

    Raises:
        ImportFailure: it has no `main`, or is not well formed.
        InputError: it is partitioned already.
    """
    chosen = chip if isinstance(chip, Chip) else load_chip(chip)
    module: Any = mod
    if any(is_region(function) for _, function in module.functions_items()):
        raise InputError("the module is partitioned for Lepton already")
    made = partition(import_relax(_alone(mod)).module, "onnx", chosen).module
    named: Any = _named(made, chosen)
    functions = dict(named.functions_items())
    known = {variable.name_hint for variable in functions}
    functions |= {v: f for v, f in module.functions_items() if v.name_hint not in known}
    return tvm.IRModule(functions, attrs=module.attrs, global_infos=module.global_infos)


def PartitionForLepton(chip: str | Path | Chip = "edge") -> tvm.ir.transform.Pass:
    """Return the pass of `partition_for_lepton`, named as TVM names its passes."""

    def run(mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        return partition_for_lepton(mod, chip)

    make: Any = tvm.transform.module_pass
    return make(run, opt_level=0, name="PartitionForLepton")


def compile_region(function: relax.Function, effort: int = 1) -> Program:
    """Compile one function that `partition_for_lepton` made, for the chip of its module.

    Args:
        function: its parameters become the inputs `input0`, `input1`, ..., its results
            `output0`, `output1`, ...
        effort: 0 to 3, how long to search for better tiles.

    Raises:
        InputError: it was not made by `partition_for_lepton`.
        CompileError: the chip cannot hold it.
    """
    if not is_region(function) or CHIP not in function.attrs:
        raise InputError("the function was not made by partition_for_lepton")
    chip = chip_from_table(json.loads(str(function.attrs[CHIP])), "the region's chip")
    front = front_model(_calling(function), chip)
    return compile_front(front, chip, CompileOptions(effort=effort), no_dump).program


def _alone(module: tvm.IRModule) -> tvm.IRModule:
    """Return a module of `main` and of what it calls; TVM's passes would fuse the others, too."""
    whole: Any = module
    names = {variable.name_hint: variable for variable, _ in whole.functions_items()}
    found: dict[Any, Any] = {}
    waiting = [names["main"]] if "main" in names else []
    while waiting:
        variable = waiting.pop()
        if variable in found:
            continue
        found[variable] = whole[variable]
        if isinstance(found[variable], relax.Function):
            waiting += relax.analysis.all_global_vars(found[variable])
    return tvm.IRModule(found, attrs=whole.attrs, global_infos=whole.global_infos)


def _named(module: tvm.IRModule, chip: Chip) -> tvm.IRModule:
    """Give the regions short names and their chip; TVM's names list every operator."""
    old: Any = module
    builder: Any = relax.BlockBuilder()
    table = json.dumps(chip_to_table(chip))
    variables: dict[Any, Any] = {}
    functions: dict[Any, Any] = {}
    for variable, function in old.functions_items():
        if not is_region(function):
            functions[variable] = function
            continue
        name = f"{CODEGEN}_{len(variables)}"
        made = function.with_attr("global_symbol", name).with_attr(CHIP, table)
        variables[variable] = builder.add_func(made, name)
        functions[variables[variable]] = made

    def rule(_rewriter: Rewriter, _variable: Any, value: Any) -> Any:
        if not isinstance(value, tvm.ir.Call) or value.op not in variables:
            return None
        return tvm.ir.Call(variables[value.op], list(value.args), value.attrs, [], value.span)

    return rewrite(tvm.IRModule(functions), rule)


def _calling(function: relax.Function) -> ImportedModel:
    """Return a model that calls a region and nothing else."""
    region: Any = function
    builder: Any = relax.BlockBuilder()
    variable = builder.add_func(region, str(region.attrs["global_symbol"]))
    parameters: list[Any] = [relax.Var(item.name, item.ty) for item in region.params]
    count = len(region.ret_ty.fields) if hasattr(region.ret_ty, "fields") else 0
    with builder.function("main", parameters):
        with builder.dataflow():
            result = builder.emit(tvm.ir.Call(variable, parameters))
            items = [builder.emit(relax.TupleGetItem(result, at)) for at in range(count)]
            result = builder.emit_output(relax.Tuple(items) if count else result)
        builder.emit_func_output(result)
    return make_result(
        builder.get(),
        golden="onnx",
        name=str(region.attrs["global_symbol"]),
        inputs=[f"input{position}" for position in range(len(parameters))],
        outputs=[f"output{position}" for position in range(count or 1)],
    )
