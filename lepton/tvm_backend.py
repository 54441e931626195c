"""External code generation for TVM: `RunCodegen` turns regions into calls that simulate.

Importing this module registers two functions with TVM: `relax.ext.lepton`, which compiles the
regions of `lepton.compiler.partition_for_lepton`, and `lepton.run`, which runs one. A compiled
region is machine code that holds its program, so that a library that TVM exports is complete;
who loads it imports this module, too. `last_result` says what the last region cost.
"""

from __future__ import annotations

import base64
import functools
import json
from typing import Any

import tvm
import tvm_ffi
from tvm import te, tirx

from lepton.compiler.partition_module import compile_region
from lepton.embedded import EmbeddedProgram, last_result, recorded
from lepton.errors import InputError
from lepton.program import Program, load_program

__all__ = ["last_result", "recorded"]

RUN = "lepton.run"
_OPTIONS = ("effort",)


def _compile_regions(functions: Any, options: Any, _constants: Any) -> list[Any]:
    """Return a module for each region, as `RunCodegen` asks of `relax.ext.lepton`."""
    given = json.loads(str(options)) if isinstance(options, str) else dict(options or {})
    unknown = [name for name in given if name not in _OPTIONS]
    if unknown:
        raise InputError(
            f"codegen 'lepton' has no option '{unknown[0]}' (it has {', '.join(_OPTIONS)})"
        )
    effort = int(given.get("effort", 1))
    return [
        _module(str(function.attrs["global_symbol"]), compile_region(function, effort))
        for function in functions
    ]


def _module(name: str, program: Program) -> Any:
    """Return a module whose one function passes its operands and the program to `lepton.run`."""
    text = base64.b64encode(program.to_bytes()).decode()
    tensors = program.tensor_by_name
    inputs: list[Any] = [
        te.placeholder(tensors[item].shape, tensors[item].dtype, name=f"input{position}")
        for position, item in enumerate(program.inputs)
    ]
    made = [tensors[item] for item in program.outputs]

    def call(given: Any, outputs: Any) -> Any:
        return tirx.call_packed(RUN, text, *given, *outputs)

    results: Any = te.extern(
        [item.shape for item in made], inputs, call, dtype=[item.dtype for item in made], name=name
    )
    results = results if len(made) > 1 else [results]
    function = te.create_prim_func([*inputs, *results]).with_attr("global_symbol", name)
    return tvm.compile(tvm.IRModule({name: function}), tvm.target.Target("llvm")).mod


@functools.lru_cache(maxsize=64)
def _embedded(text: str) -> EmbeddedProgram:
    return EmbeddedProgram(load_program(base64.b64decode(text)))


def _run(text: str, *operands: Any) -> None:
    """Run a program on tensors: its inputs, then its outputs, which are written."""
    embedded = _embedded(text)
    count = len(embedded.program.inputs)
    outputs = embedded([operand.numpy() for operand in operands[:count]])
    for operand, name in zip(operands[count:], embedded.program.outputs, strict=True):
        operand.copyfrom(outputs[name])


tvm_ffi.register_global_func("relax.ext.lepton", _compile_regions, override=True)
tvm_ffi.register_global_func(RUN, _run, override=True)
