"""A network without zeros, compiled: what a pruned one is to be compared with.

The network is taken where the compiler has it partitioned, so it has the same operators, in the
same order; only the zeros of its weights are redrawn (`lepton.report.faster_dense.redrawn`). Then
it is scheduled anew, for the same chip and with the same options: zeros have a say in the tiles.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lepton.chip import Chip
from lepton.compiler.compile import compile_front
from lepton.compiler.dump import no_dump
from lepton.compiler.front_folder import FrontFolder, front_key
from lepton.compiler.graph import Convolution, Node
from lepton.compiler.isolate import compile_file
from lepton.compiler.options import CompileOptions, plain_shapes
from lepton.compiler.steps import FrontModel, NpuStep
from lepton.jit import cache_folder
from lepton.jit_ahead import helpers
from lepton.program import Program
from lepton.report.faster_dense import DenseRun, redrawn
from lepton.simulator import simulate_timing

__all__ = ["compile_dense", "dense_run", "is_alike", "without_zeros"]


def _node(node: Node) -> Node:
    """Return a node whose weights, if it has any, are none of them 0."""
    if not isinstance(node, Convolution):
        return node
    return replace(node, weights=redrawn(node.weights, node.weight_zero_point))


def without_zeros(front: FrontModel) -> FrontModel:
    """Return a partitioned model with the zeros of its weights redrawn."""
    steps = [
        replace(step, graph=replace(step.graph, nodes=tuple(_node(n) for n in step.graph.nodes)))
        if isinstance(step, NpuStep)
        else step
        for step in front.steps
    ]
    return replace(front, steps=tuple(steps))


def is_alike(program: Program, dense: Program) -> bool:
    """Return whether two programs have the same operators, each on the same device."""
    ours, theirs = (
        [(operator.kind, operator.macs, operator.device) for operator in each.operators]
        for each in (program, dense)
    )
    return ours == theirs


def dense_run(
    path: Path, program: Program, options: CompileOptions | None = None
) -> DenseRun | None:
    """Compile and simulate what a program of a model file is to be compared with.

    Args:
        path: the quantized model.
        program: its program.
        options: with which that was compiled; None for the defaults.

    Returns:
        The run, None where the model cannot be compiled without zeros.
    """
    dense = compile_dense(path, program.chip, options or CompileOptions())
    if dense is None or not is_alike(program, dense):
        return None
    origin = "the model compiled again, its zeros redrawn from each tensor's other weights"
    return DenseRun(dense, simulate_timing(dense), origin)


def compile_dense(path: Path, chip: Chip, options: CompileOptions) -> Program | None:
    """Compile a quantized model file with the zeros of its weights redrawn.

    The file is read in a child process, as always, which leaves what it read in the user's cache.

    Args:
        path: an `.onnx` or `.tflite` file that the chip can run.
        chip: the chip to compile for.
        options: those with which the model itself is compiled; what they write is not written.

    Returns:
        The program, None where the cache cannot be written.

    Raises:
        ImportFailure: the file cannot be read.
        CompileError: the chip cannot hold the dense weights.
    """
    plain = replace(options, dump=None, explain=False, calibration=None)
    front = _known_front(path, chip, plain)
    if front is None:
        compile_file(path, chip, CompileOptions(shapes=options.shapes, effort=0))
        front = _known_front(path, chip, plain)
    if front is None:
        return None
    with helpers("compile"):
        return compile_front(without_zeros(front), chip, plain, no_dump).program


def _known_front(path: Path, chip: Chip, options: CompileOptions) -> FrontModel | None:
    """Return the partitioned model from the user's cache, None if it is not there."""
    key = front_key(path, plain_shapes(options.shapes))
    if key is None:
        return None
    front = FrontFolder(cache_folder() / "fronts").read(key)
    return front if front is not None and front.suits(chip) else None
