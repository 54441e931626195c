"""Measure how long compilation takes: warm and cold process, by effort, and as networks get deeper.

Prints tables; with `--write` it also replaces docs/compile_time.md. Machines are noisy, so seconds
are of the CPU, the best of several runs where a process is warm.

    python -m benchmarks.compile_time [--write] [--chip edge]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import ROOT, Ended, run_python
from benchmarks.page import Limit, limits_table, markdown_table, origin

MOBILENET = "mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite"
DEPTHS = (20, 200)
"""Layers of the stacks of which the second is ten times as deep."""

_INSIDE = """
import json, sys, time
from pathlib import Path
from lepton.chip import load_chip
from lepton.compiler.compile import compile_front
from lepton.compiler.dump import no_dump
from lepton.compiler.front import front_model
from lepton.compiler.importers import import_model
from lepton.compiler.options import CompileOptions

model, chip = Path(sys.argv[1]), load_chip(sys.argv[2])
options = CompileOptions(effort=int(sys.argv[3]))

def run():
    times = [time.process_time()]
    imported = import_model(model)
    times.append(time.process_time())
    front = front_model(imported, chip)
    times.append(time.process_time())
    made = compile_front(front, chip, options, no_dump)
    times.append(time.process_time())
    parts = [end - begin for begin, end in zip(times, times[1:])]
    return [sum(parts), *parts, len(made.program.operator_of)]

run()
print(json.dumps(min(run() for _ in range(3))))
"""
_AGAIN = """
import json, sys, time
from dataclasses import replace
from pathlib import Path
from lepton.chip import load_chip
from lepton.compiler.cache import CompilerCache
from lepton.compiler.compile import compile_model
from lepton.compiler.options import CompileOptions

model, chip, options = Path(sys.argv[1]), load_chip(sys.argv[2]), CompileOptions(effort=0)
memory = chip.memories[0]
wide = replace(memory, channels=2 * memory.channels)
slow = replace(memory, tFAW=2 * memory.tFAW)
chips = {
    "only the front half is known": chip,
    "the same chip": chip,
    "tFAW of the DRAM": replace(chip, memories=(slow, *chip.memories[1:])),
    "depth of the queues": replace(
        chip, control=replace(chip.control, queue_depth=2 * chip.control.queue_depth)
    ),
    "channels of the DRAM": replace(chip, memories=(wide, *chip.memories[1:])),
    "size of the scratchpad": replace(
        chip, scratchpad=replace(chip.scratchpad, size_kib=2 * chip.scratchpad.size_kib)
    ),
    "rows of the array": replace(chip, array=replace(chip.array, rows=2 * chip.array.rows)),
}

def run(fronts):
    cache, times = CompilerCache(fronts=fronts), {}
    for name, other in chips.items():
        begin = time.process_time()
        compile_model(model, other, options, cache)
        times[name] = time.process_time() - begin
    return times

fronts = CompilerCache().fronts
run(fronts)
runs = [run(fronts) for _ in range(3)]
print(json.dumps({name: min(run[name] for run in runs) for name in chips}))
"""
"""Compiles for one chip after the other in a process that keeps what it found."""

_ABOUT = """\
CPU seconds of a process in which everything is loaded, the best of three runs, without what earlier
compilations found. A cold process is `lepton compile`, whose kernels are cached. ResNet-50 is the
onnx package's graph with random weights."""
_FRONTS = """\
The front half of a file is kept in the user's cache: a new process that meets the file again loads
neither TVM nor the model. CPU seconds of `lepton compile`:"""
_CACHES = """\
A process keeps the front half of each model (import, partitioning, exact parameters), the ranked
plans of each layer with the fields of the chip that they were reckoned from, and encoded weights.
ResNet-50 at effort 0, CPU seconds for one chip after the other, of which one field is doubled: what
the search did not read costs nothing, what it read costs a search, and weights are encoded again
where blocks are cut differently."""

COLUMNS = ("total", "importer", "partitioning and graph", "schedule and emission")


def light_resnet(folder: Path) -> tuple[Path, Ended]:
    """Return an int8 ResNet-50, and what quantizing it took.

    The graph is that of the onnx package's light networks, whose weights are left out; here they
    are random.
    """
    import onnx
    from onnx import numpy_helper

    source = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"
    model: Any = onnx.load(str(source))
    rng = np.random.default_rng(0)
    shapes = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    kept: list[Any] = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = [int(extent) for extent in shapes[node.input[0]]]
        spread = 1 / np.sqrt(max(np.prod(shape[1:]), 1))
        values = rng.standard_normal(shape) * spread if len(shape) > 1 else np.ones(shape)
        model.graph.initializer.append(
            numpy_helper.from_array(values.astype(np.float32), node.output[0])
        )
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.ir_version = 8  # from which on constants need not be inputs
    onnx.save(model, str(folder / "float.onnx"))
    np.save(folder / "samples.npy", rng.standard_normal((1, 1, 3, 224, 224)).astype(np.float32))
    (folder / "int8").mkdir()
    made = folder / "int8" / "resnet50.onnx"
    code = (
        "import sys; import numpy as np; from pathlib import Path; "
        "from lepton.compiler.calibrate import quantize_model; "
        "quantize_model(Path(sys.argv[1]), {'': np.load(sys.argv[2])}, Path(sys.argv[3]))"
    )
    paths = (folder / "float.onnx", folder / "samples.npy", made)
    return made, run_python(["-c", code, *map(str, paths)])


def stack(depth: int, path: Path) -> Path:
    """Write an ONNX network of `depth` 3 x 3 convolutions, each with a residual addition."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    values: dict[str, Any] = {"s": np.float32(0.05), "z": np.int8(0), "ws": np.float32(0.01)}
    nodes: list[Any] = []

    def requantized(value: str, name: str) -> None:
        """Add a quantize and a dequantize of a value, which is `name` behind them."""
        nodes.append(helper.make_node("QuantizeLinear", [value, "s", "z"], [f"{name}q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}q", "s", "z"], [name]))

    requantized("x", "d0")
    for n in range(depth):
        values[f"w{n}"] = rng.integers(-127, 128, (16, 16, 3, 3)).astype(np.int8)
        nodes.append(helper.make_node("DequantizeLinear", [f"w{n}", "ws", "z"], [f"f{n}"]))
        nodes.append(helper.make_node("Conv", [f"d{n}", f"f{n}"], [f"c{n}"], pads=[1] * 4))
        requantized(f"c{n}", f"b{n}")
        nodes.append(helper.make_node("Add", [f"b{n}", f"d{n}"], [f"e{n}"]))
        requantized(f"e{n}", f"d{n + 1}")
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "stack",
        [helper.make_tensor_value_info("x", kind, (1, 16, 16, 16))],
        [helper.make_tensor_value_info(f"d{depth}", kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def warm(model: Path, chip: str, effort: int) -> list[float]:
    """Return CPU seconds in a warm process: `COLUMNS`, and the number of instructions."""
    return json.loads(run_python(["-c", _INSIDE, str(model), chip, str(effort)]).output)


def cold(model: Path, chip: str, folder: Path) -> tuple[Ended, Ended]:
    """Return what a new process takes, whose kernels are cached: for a new model, and again."""

    def compiled(path: Path) -> Ended:
        target = str(folder / "model.lepton")
        return run_python(["-m", "lepton", "compile", str(path), "--chip", chip, "-o", target])

    compiled(model)
    ended: list[tuple[Ended, Ended]] = []
    for number in range(2):
        # a front is known by its file's name, too, and folders of this name are new
        path = folder / f"{folder.name}-{number}{model.suffix}"
        shutil.copy(model, path)
        ended.append((compiled(path), compiled(path)))
    first, second = (min(runs, key=lambda run: run.cpu_s) for runs in zip(*ended, strict=True))
    return first, second


def again(model: Path, chip: str) -> dict[str, float]:
    """Return CPU seconds of compiling for one chip after the other, by what is new."""
    return json.loads(run_python(["-c", _AGAIN, str(model), chip]).output)


def page(chip: str, folder: Path) -> str:
    """Measure, and return docs/compile_time.md."""
    resnet, quantizing = light_resnet(folder)
    mobilenet = Path(os.environ.get("LEPTON_DATA", ".")) / MOBILENET
    networks = {"MobileNetV2": mobilenet, "ResNet-50": resnet}
    rows = {
        (name, effort): warm(path, chip, effort)
        for name, path in networks.items()
        for effort in (0, 1)
    }
    fresh = {name: cold(path, chip, folder) for name, path in networks.items()}
    paths = [stack(depth, folder / f"{depth}.onnx") for depth in DEPTHS]
    # in turns, as a machine's speed changes with what else it does
    rounds = [[warm(path, chip, 0) for path in paths] for _ in range(3)]
    stacks = [min(runs) for runs in zip(*rounds, strict=True)]
    for depth, row in zip(DEPTHS, stacks, strict=True):
        rows[f"{depth} convolutions and additions", 0] = row
    chips = again(resnet, chip)
    float_mb = (folder / "float.onnx").stat().st_size / 2**20
    limits = [
        Limit("MobileNetV2, warm, effort 1", 2, rows["MobileNetV2", 1][0]),
        Limit("ResNet-50, warm, effort 1", 4, rows["ResNet-50", 1][0]),
        *(Limit(f"{name}, cold process", 8, ended.cpu_s) for name, (ended, _) in fresh.items()),
        Limit("ResNet-50, warm, effort 0, front half cached", 1.5, next(iter(chips.values()))),
        Limit("ten times the depth, times the seconds", 12, stacks[1][0] / stacks[0][0]),
        *(Limit(f"{name}, peak MB", 1500, ended.peak_mb) for name, (ended, _) in fresh.items()),
        Limit("ResNet-50, calibrating, peak MB", round(1000 + 6 * float_mb), quantizing.peak_mb),
    ]
    lines = [(name, str(effort), *row) for (name, effort), row in rows.items()]
    parts = [
        "# Compile time",
        f"Written by `python -m benchmarks.compile_time --write` {origin()}, chip `{chip}`.",
        _ABOUT,
        markdown_table(("network", "effort", *COLUMNS, "instructions"), lines, 2),
        f"Quantizing ResNet-50 with one sample, apart from that: {quantizing.cpu_s:.1f} s and "
        f"{quantizing.peak_mb:,.0f} MB, of a file of {float_mb:,.0f} MB.",
        "## The same model again",
        _FRONTS,
        markdown_table(
            ("network", "first", "again", "peak MB first", "again"),
            [
                (name, first.cpu_s, second.cpu_s, first.peak_mb, second.peak_mb)
                for name, (first, second) in fresh.items()
            ],
            1,
        ),
        "## Other chips",
        _CACHES,
        markdown_table(("what is new", "CPU s"), list(chips.items()), 1),
        "## Limits",
        limits_table(limits),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chip", default="edge")
    parser.add_argument("--write", action="store_true", help="replace docs/compile_time.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = page(options.chip, Path(folder))
    print(text)
    if options.write:
        (ROOT / "docs" / "compile_time.md").write_text(text)


if __name__ == "__main__":
    main()
