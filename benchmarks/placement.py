"""Measure the placement engine: against brute force, against this CPU, against priorities.

    python -m benchmarks.placement [--write] [--graphs N]

Needs the environment variable LEPTON_DATA, which names the folder of the models. Prints tables;
with `--write` it also replaces the figures of docs/placement.md.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import ROOT
from benchmarks.network_list import NETWORKS
from benchmarks.page import (
    Limit,
    limits_table,
    markdown_table,
    origin,
    page_parser,
    replace_part,
)
from lepton.models import model_path, trained_networks
from lepton.models.light import LIGHT_NETWORKS, light_network, light_samples
from lepton.runtime.devices import CpuDevice, DeviceOptions, choose_devices
from lepton.runtime.devices.library import drawn_inputs, piece_runner
from lepton.runtime.devices.profile import Profile, best_ns
from lepton.runtime.golden import onnx_session
from lepton.runtime.placed import prepare_plan
from lepton.runtime.placement import Goal, schedule, solve
from lepton.runtime.plan import Plan, place_network
from lepton.runtime.split import Network, read_network
from tests.runtime.placement_cases import random_problem

__all__ = ["Beside", "Graphs", "Placed", "Predicted", "brute_force_row", "limits", "mean_ratios"]

PAGE = ROOT / "docs" / "placement.md"
HEADING = "## Figures"
CHIPS = ("edge", "nano", "like-u55-256")
STORED = (
    "mlperf_tiny_onnx/resnet.onnx",
    "mlperf_tiny_onnx/mobilenet_v1.onnx",
    "mlperf_tiny_onnx/kws_ref_model.onnx",
    "mlperf_tiny_onnx/deep_autoencoder.onnx",
    "mlperf_tiny_onnx/pretrainedResnet_float.onnx",
    "mlperf_tiny/pretrainedResnet_quant.tflite",
    "mlperf_tiny/vww_96_int8.tflite",
    "mlperf_tiny/kws_ref_model.tflite",
    "mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite",
)
SPOTTERS = ("DS_CNN_S", "GRU_S", "LSTM_S")
"""Of `benchmarks.network_list`, which knows the shapes that the files leave open."""
PREDICTED = ("squeezenet", "shufflenet", "inception_v2")
LARGE = (60, 120, 240)


@dataclass(frozen=True)
class Graphs:
    """Random networks: how many equal brute force, and the gaps of large ones."""

    count: int
    equal: int
    gaps: tuple[float, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Predicted:
    """A network on the CPU alone."""

    network: str
    predicted_ns: int
    measured_ns: int

    @property
    def error(self) -> float:
        return abs(self.predicted_ns / self.measured_ns - 1)


@dataclass(frozen=True)
class Beside:
    """A float network on the CPU device beside ONNX Runtime itself, by the clock on the wall."""

    network: str
    threads: int
    device_ns: int
    library_ns: int

    @property
    def ratio(self) -> float:
        return self.device_ns / self.library_ns


@dataclass(frozen=True)
class Placed:
    """A network on a chip and the CPU."""

    network: str
    chip: str
    is_mixed: bool
    regions: int
    value: int
    npu_first: int
    cpu_first: int
    gap: float


def brute_force_row(count: int) -> Graphs:
    """Compare the solver with all placements of small networks, and measure gaps of large ones."""
    equal = 0
    for seed in range(count):
        size = 2 + seed % 13
        problem = random_problem(seed, size, 3 if size < 8 else 2, is_single=bool(seed % 2))
        goal = list(Goal)[seed % 3]
        least = min(
            schedule(problem, placement).value(goal)
            for placement in itertools.product(*problem.choices)
        )
        equal += solve(problem, goal).value == least
    gaps, seconds = [], []
    for size in LARGE:
        began = time.process_time()
        gaps.append(solve(random_problem(size, size, 3, depth=8)).gap)
        seconds.append(time.process_time() - began)
    return Graphs(count, equal, tuple(gaps), tuple(seconds))


def predicted(network: Network, profile: Profile) -> Predicted:
    """Predict and measure a network on the CPU."""
    plan = place_network(network, [CpuDevice(profile)])
    units = range(len(network.units))
    run = piece_runner(network.format, network.piece(units), profile.threads)
    arrays = drawn_inputs(network, network.inputs)
    measured = min(best_ns(lambda: run(arrays), profile.threads) for _ in range(3))
    return Predicted(network.name, plan.schedule.latency_ns, measured)


def beside_library(path: Path, threads: int, rounds: int = 15) -> Beside:
    """Run a float ONNX file on the CPU device and in ONNX Runtime, turn and turn about."""
    network = read_network(path)
    device = CpuDevice(Profile(threads), is_measuring=False)
    model = prepare_plan(place_network(network, [device]))
    session = onnx_session(str(path), threads)
    values = drawn_inputs(network, network.inputs)
    device_ns = library_ns = 1 << 62
    for _ in range(rounds):
        began = time.perf_counter_ns()
        model.run(values)
        middle = time.perf_counter_ns()
        session.run(None, values)
        device_ns = min(device_ns, middle - began)
        library_ns = min(library_ns, time.perf_counter_ns() - middle)
    return Beside(path.name, threads, device_ns, library_ns)


def placed(network: Network, chip: str) -> Placed:
    """Place a network on a chip and the CPU."""
    devices, _ = choose_devices(["npu", "cpu"], DeviceOptions(chip=chip))
    plan: Plan = place_network(network, devices)
    is_mixed = any(plan.reasons[0]) and not all(plan.reasons[0])
    return Placed(
        network.name, chip, is_mixed, len(plan.regions), plan.schedule.latency_ns,
        plan.others["npu"], plan.others["cpu"], plan.solution.gap,
    )  # fmt: skip


def _part_quantized(source: Path, target: Path, samples: Any) -> None:
    """Write a network of whose convolutions every third one stays in float."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    model = onnx.load(source)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node{number}"
    onnx.save(model, source)
    heavy = [node.name for node in model.graph.node if node.op_type == "Conv"]
    name = model.graph.input[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter([{name: sample} for sample in samples])

        def get_next(self) -> Any:
            return next(self._left, None)

    quantize_static(source, target, Reader(), QuantFormat.QDQ, nodes_to_exclude=heavy[::3])


def _own_networks() -> list[Path]:
    """Return the files of the package's trained networks, and of more that are stored."""
    folder = Path(os.environ["LEPTON_DATA"])
    spotters = [folder / f"kws_onnx/{name}.onnx" for name in SPOTTERS]
    more = folder / "mnist_onnx/mnist_quantized_conr.onnx"
    return [*map(model_path, trained_networks()), *spotters, more]


def _read(path: Path) -> Network:
    """Return a file's network."""
    listed = {item.name: item for item in NETWORKS if item.name in SPOTTERS}
    known = listed.get(path.stem)
    return read_network(path, known.shapes(path) if known else {})


def networks(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files to predict, and those to place."""
    stored = [Path(os.environ["LEPTON_DATA"]) / name for name in STORED]
    light, mixed = [], []
    for name in LIGHT_NETWORKS:
        path = folder / f"{name}.onnx"
        path.write_bytes(light_network(name).SerializeToString())
        if name in PREDICTED:
            light.append(path)
        target = folder / f"{name}_mixed.onnx"
        _part_quantized(path, target, light_samples(2, seed=2))
        mixed.append(target)
    quantized = [path for path in stored if "float" not in path.name]
    return stored + light, quantized + _own_networks() + mixed


def limits(
    graphs: Graphs, cpu: Sequence[Predicted], npu: Sequence[Placed], beside: Beside
) -> list[Limit]:
    """Return what was measured beside its limits."""
    worst = max(row.value / min(row.npu_first, row.cpu_first) for row in npu)
    return [
        Limit("random networks that differ from brute force", 0, graphs.count - graphs.equal),
        Limit("median error of the CPU's prediction", 0.15, _median([row.error for row in cpu])),
        Limit("slowest against the best priority", 1.0, worst),
        Limit(
            "geometric mean over mixed networks, priority / placed", 1.1,
            _mean_ratio([row for row in npu if row.is_mixed]), is_least=True,
        ),
        Limit("ResNet-50 float, the CPU device / ONNX Runtime", 1.3, beside.ratio),
    ]  # fmt: skip


def _mean_ratio(rows: Sequence[Placed]) -> float:
    """Return the geometric mean of the priority rule's latency over the placed one."""
    better = [math.log(row.npu_first / row.value) for row in rows]
    return math.exp(sum(better) / max(len(better), 1))


def mean_ratios(npu: Sequence[Placed]) -> str:
    """Return the table of what is gained on each chip, where anything could be."""
    made: list[tuple[str, int, int, float]] = []
    for chip in dict.fromkeys(row.chip for row in npu):
        rows = [row for row in npu if row.chip == chip and row.is_mixed]
        # the rule's own placement is proven the best where the bound says so
        best = sum(row.gap == 0 and row.npu_first <= row.value for row in rows)
        made.append((chip, len(rows), best, _mean_ratio(rows)))
    heads = ("chip", "mixed networks", "the rule is proven best", "geometric mean")
    return markdown_table(heads, made, 1)


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def _text(graphs: Graphs, cpu: Sequence[Predicted], npu: Sequence[Placed], beside: Beside) -> str:
    """Return the tables."""
    large = [
        (f"{size} operations, 3 devices", f"{gap:.1%}", seconds)
        for size, gap, seconds in zip(LARGE, graphs.gaps, graphs.seconds, strict=True)
    ]
    cpus = [(r.network, r.predicted_ns / 1e6, r.measured_ns / 1e6, f"{r.error:.1%}") for r in cpu]
    npus = [
        (r.network, r.chip, "yes" if r.is_mixed else "no", str(r.regions), r.value / 1e6,
         f"{r.npu_first / r.value:.3f}", f"{r.cpu_first / r.value:.2f}", f"{r.gap:.1%}")
        for r in npu
    ]  # fmt: skip
    heads = ("network", "chip", "mixed", "regions", "predicted ms", "NPU first", "CPU first", "gap")
    return "\n\n".join(
        [
            f"Measured by `python -m benchmarks.placement --write`\n{origin()}.",
            limits_table(limits(graphs, cpu, npu, beside)),
            f"{graphs.equal} of {graphs.count} random networks of 2 to 14 operations equal brute "
            "force. Larger ones:",
            markdown_table(("network", "gap to the bound", "CPU s"), large, 2),
            "One thread of the CPU alone, units measured apart and the whole measured at once:",
            markdown_table(("network", "predicted ms", "measured ms", "error"), cpus, 1),
            f"{beside.network} on {beside.threads} threads, least of runs by turns: "
            f"{beside.device_ns / 1e6:.1f} ms on the\nCPU device, threads of the runtime included, "
            f"and {beside.library_ns / 1e6:.1f} ms in ONNX Runtime itself.",
            "An NPU and the CPU; the last columns but one are the latency when that device claims\n"
            "all that it can run, over the placed latency:",
            markdown_table(heads, npus, 4),
            "The mixed ones of them, the NPU first over placed:",
            mean_ratios(npu),
        ]
    )


def main() -> None:
    parser = page_parser(__doc__)
    parser.add_argument("--graphs", type=int, default=200, help="random networks; default 200")
    options = parser.parse_args()
    np.seterr(all="raise", under="ignore")
    graphs = brute_force_row(options.graphs)
    with tempfile.TemporaryDirectory(prefix="lepton-") as name:
        alone, together = networks(Path(name))
        profile = Profile(1)
        cpu = [predicted(read_network(path), profile) for path in alone]
        npu = [placed(_read(path), chip) for path in together for chip in CHIPS]
        resnet = Path(name) / "resnet50.onnx"
        resnet.write_bytes(light_network("resnet50").SerializeToString())
        beside = beside_library(resnet, 2)
    text = _text(graphs, cpu, npu, beside)
    print(text)
    if options.write:
        replace_part(PAGE, HEADING, text)


if __name__ == "__main__":
    main()
