"""Measure the values tier: products against the fastest exact GEMM at hand, cold start, memory.

Both sides use one thread and are measured in CPU seconds, best of several runs. Ours is the
program's matmul instructions as they run: tiles, gathers of the windows, packing of weights,
dispatch and accumulation included. The others get the layer as one product, its operands gathered
before: float32 BLAS (NumPy) in reductions short enough to be exact, and ONNX Runtime's
MatMulInteger.

    python -m benchmarks.values TABLE.csv [--chip edge]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Ended, best, run_python
from lepton.chip import load_chip
from lepton.compiler.compile import compile_model
from lepton.isa.footprints import footprints
from lepton.isa.instructions import Matmul
from lepton.program import Program, load_program
from lepton.runtime.golden import random_inputs
from lepton.simulator import run_values
from lepton.simulator.check import execution_order
from lepton.simulator.functional import execute
from lepton.simulator.machine import machines_for

EXACT_DEPTH = (1 << 24) // (128 * 128)
"""Products of two int8 whose float32 sums are exact."""


class Shape(NamedTuple):
    """A layer as a product of [m, k] by [k, n]."""

    kind: str
    m: int
    k: int
    n: int

    @property
    def macs(self) -> int:
        return self.m * self.k * self.n


def thread_seconds(function: Callable[[], object]) -> float:
    """Return the fewest CPU seconds of this thread, after a first run."""
    function()
    return best(function, 7, time.thread_time).cpu_s


def blas(x: NDArray[np.int8], w: NDArray[np.int8]) -> Callable[[], object]:
    """Return an exact product by float32 BLAS; the operands are float32 already."""
    wide, weights = x.astype(np.float32), w.astype(np.float32)
    parts = range(0, x.shape[1], EXACT_DEPTH)

    def multiply() -> NDArray[np.int32]:
        sums = np.zeros((x.shape[0], w.shape[1]), np.int32)
        for first in parts:
            part = slice(first, first + EXACT_DEPTH)
            sums += (wide[:, part] @ weights[part]).astype(np.int32)
        return sums

    return multiply


def matmul_integer(x: NDArray[np.int8], w: NDArray[np.int8]) -> Callable[[], object]:
    """Return ONNX Runtime's product of uint8 activations (its fastest) and constant weights."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.INT32, (x.shape[0], w.shape[1]))],
        [onnx.numpy_helper.from_array(w, "w")],
    )
    opset = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    feed = {"x": x.view(np.uint8)}
    wanted = feed["x"][:2].astype(np.int64) @ w.astype(np.int64)
    if not (np.asarray(session.run(None, feed)[0])[:2] == wanted).all():
        raise SystemExit("ONNX Runtime's product is not exact on this CPU")
    return lambda: session.run(None, feed)


def others(shape: Shape) -> dict[str, float]:
    """Return the GMAC/s of the exact products of others on a shape."""
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (shape.m, shape.k), np.int8)
    w = rng.integers(-128, 128, (shape.k, shape.n), np.int8)
    makers = {"BLAS": blas, "ONNX Runtime": matmul_integer}
    return {name: shape.macs / thread_seconds(make(x, w)) / 1e9 for name, make in makers.items()}


def shapes(program: Program) -> dict[int, Shape]:
    """Return the shape of each layer of a table, by operator."""
    found: dict[int, Shape] = {}
    for index, item in enumerate(program.decoded):
        number = int(program.operator_of[index])
        if isinstance(item, Matmul) and number not in found:
            operator = program.operators[number]
            _, height, width, n = program.tensor_by_name[f"{operator.name}/out"].shape
            m = height * width
            kind = f"{item.kernel_height}x{item.kernel_width}" if m > 1 else "dense"
            found[number] = Shape(kind, m, operator.macs // (m * n), n)
    return found


def matmul_seconds(program: Program) -> dict[int, float]:
    """Return the CPU seconds of each operator's matmuls in one run on random activations."""
    machine = machines_for(program, footprints(program.table))[0]
    rng = np.random.default_rng(0)
    for name in program.inputs:
        tensor = program.tensor_by_name[name]
        machine.write(tensor.memory, tensor.address, rng.integers(0, 256, tensor.size_bytes, "u1"))
    spent: dict[int, float] = defaultdict(float)
    for region in program.regions:
        for index in execution_order(program, region):
            item = program.decoded[index]
            began = time.thread_time()
            execute(machine, item)
            if isinstance(item, Matmul):
                spent[int(program.operator_of[index])] += time.thread_time() - began
    return spent


def ours(program: Program, runs: int = 5) -> dict[Shape, float]:
    """Return the GMAC/s of our matmuls on each shape, the best of several runs."""
    known = shapes(program)
    measured = [matmul_seconds(program) for _ in range(runs)]
    least: dict[Shape, list[float]] = defaultdict(list)
    for number, shape in known.items():
        least[shape].append(min(run[number] for run in measured))
    return {
        shape: shape.macs * len(seconds) / sum(seconds) / 1e9 for shape, seconds in least.items()
    }


def print_products(program: Program) -> None:
    """Print our GMAC/s beside the others' on every shape of a program."""
    print(f"{'layer':6} {'M':>6} {'K':>5} {'N':>5}  GMAC/s: {'ours':>6}", end="")
    print(f" {'BLAS':>6} {'ONNX Runtime':>12}  ours / BLAS  ours / fastest")
    weighted: dict[str, float] = defaultdict(float)
    for shape, rate in sorted(ours(program).items()):
        rates = others(shape)
        fastest = max(rates.values())
        print(f"{shape.kind:6} {shape.m:6} {shape.k:5} {shape.n:5}          {rate:6.1f}", end="")
        print(f" {rates['BLAS']:6.1f} {rates['ONNX Runtime']:12.1f}", end="")
        print(f"  {100 * rate / rates['BLAS']:9.0f} %  {100 * rate / fastest:12.0f} %")
        for name, value in {"ours": rate, "fastest": fastest, "BLAS": rates["BLAS"]}.items():
            weighted[name] += shape.macs / value / 1e9
    blas_share, share = (100 * weighted[name] / weighted["ours"] for name in ("BLAS", "fastest"))
    print(f"one layer of each shape: {blas_share:.0f} % of BLAS, {share:.0f} % of the fastest")


def print_whole(program: Program, path: Path) -> None:
    """Print the whole network's values, cold start and memory beside their limits."""
    inputs = random_inputs(program, 0)
    warm = best(lambda: run_values(program, inputs), 6)
    print(f"values: {warm.wall_s:.3f} s wall (at most 0.3), {warm.cpu_s:.3f} CPU s, one thread")
    for name, option in (("with values", []), ("without values", ["--no-values"])):
        ended = [command(path, option) for _ in range(4)][1:]
        wall, cpu = min(run.wall_s for run in ended), min(run.cpu_s for run in ended)
        print(
            f"lepton run, {name}: {wall:.2f} s wall (at most 1.5), {cpu:.2f} CPU s, "
            f"{ended[0].peak_mb:.0f} MB{' (at most 500)' if option else ''}"
        )


def command(path: Path, option: list[str]) -> Ended:
    """Return what `lepton run` takes in a fresh process."""
    return run_python(["-m", "lepton", "run", str(path), *option])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="a SCALE-Sim layer table")
    parser.add_argument("--chip", default="edge")
    options = parser.parse_args()
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":  # read once, when NumPy is loaded
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.values", *sys.argv[1:]])
    program = compile_model(options.table, load_chip(options.chip))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.lepton"
        program.save(path)
        print_products(load_program(path))
        print_whole(load_program(path), path)


if __name__ == "__main__":
    main()
