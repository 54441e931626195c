"""Regions through TVM's CUDA code generation.

TVM's importer reads a piece of a network, its default schedules for GPUs make a kernel of each
fused group of operators, and its code generator writes these in CUDA C++. The packaged TVM (0.27)
has the generator but not the CUDA runtime: there the module holds the source, which `nvcc` accepts
(tests), and nothing can be launched. With a TVM that was built with CUDA the module runs.
"""

from __future__ import annotations

from typing import Any

from lepton.errors import CompileError, InputError
from lepton.runtime.devices.library import Run
from lepton.runtime.devices.protocol import Arrays
from lepton.runtime.golden import reason_of

__all__ = ["CUDA", "cuda_source", "has_cuda", "tvm_executable", "tvm_runner"]

CUDA = "cuda"


def has_cuda() -> bool:
    """Return whether TVM can launch kernels on a GPU here."""
    import tvm

    library: Any = tvm
    return bool(library.cuda(0).exist)


def tvm_executable(piece: bytes, kind: str = CUDA, arch: str = "sm_90") -> Any:
    """Return a piece compiled by TVM.

    Args:
        piece: an ONNX file.
        kind: `cuda`, or `llvm` for this CPU.
        arch: of the GPU.

    Raises:
        CompileError: TVM cannot read or compile it.
    """
    import onnx
    import tvm
    from tvm.relax.frontend import onnx as frontend

    library: Any = tvm
    importer: Any = frontend
    is_cuda = kind == CUDA
    target = library.target.Target({"kind": CUDA, "arch": arch} if is_cuda else kind)
    try:
        module: Any = importer.from_onnx(_plainly_named(onnx.load_from_string(piece)))
        with target:
            for step in _passes(is_cuda):
                module = step(module)
        return library.compile(module, target=target)
    except Exception as error:
        raise CompileError(f"TVM cannot compile it for {kind}: {reason_of(error)}") from None


def _plainly_named(model: Any) -> Any:
    """Return a model whose inputs have names that CUDA C++ takes as they are.

    TVM makes parameters of kernels of them, and what is no identifier does not compile.
    """
    constants = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in constants]
    names = {item.name: f"lepton_input_{at}" for at, item in enumerate(inputs)}
    for item in inputs:
        item.name = names[item.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    return model


def _passes(is_cuda: bool) -> list[Any]:
    """Return what makes fused, scheduled kernels of an imported module."""
    from tvm import relax
    from tvm.s_tir import dlight

    library: Any = relax
    rules: Any = dlight
    steps = library.transform
    made = [
        steps.LegalizeOps(), steps.AnnotateTIROpPattern(), steps.FoldConstant(),
        steps.FuseOps(), steps.FuseTIR(),
    ]  # fmt: skip
    if is_cuda:
        gpu = rules.gpu
        made.append(
            rules.ApplyDefaultSchedule(
                gpu.Matmul(), gpu.GEMV(), gpu.Reduction(), gpu.GeneralReduction(), gpu.Fallback()
            )
        )
    return made


def cuda_source(executable: Any) -> str:
    """Return the CUDA C++ of a compiled piece, "" if it has no kernels."""
    left = [executable.mod]
    while left:
        module = left.pop()
        if module.kind == CUDA:
            return str(module.inspect_source(CUDA))
        left += list(module.imports)
    return ""


def tvm_runner(piece: bytes, kind: str = CUDA, arch: str = "sm_90") -> Run:
    """Return what runs a piece on named arrays.

    Raises:
        CompileError: TVM cannot read or compile it.
    """
    import onnx
    import tvm
    from tvm import relax

    library: Any = tvm
    engine: Any = relax
    graph = onnx.load_from_string(piece).graph
    constants = {item.name for item in graph.initializer}
    reads = [item.name for item in graph.input if item.name not in constants]
    makes = [item.name for item in graph.output]
    device = library.cuda(0) if kind == CUDA else library.cpu(0)
    machine = engine.VirtualMachine(tvm_executable(piece, kind, arch), device)

    def run(inputs: Arrays) -> Arrays:
        try:
            found = machine["main"](*(library.runtime.tensor(inputs[n], device) for n in reads))
        except Exception as error:
            raise InputError(f"TVM fails on {kind}: {reason_of(error)}") from None
        results = [found] if len(makes) == 1 and hasattr(found, "numpy") else list(found)
        return {name: result.numpy() for name, result in zip(makes, results, strict=True)}

    return run
