"""Measure successive inputs pipelined over two devices beside one after the other.

    python -m benchmarks.pipelining [--write] [--inputs N]

Needs the environment variable LEPTON_DATA, which names the folder of the models. Every input is
run and every result compared with that of a run by itself. Times are by the model's clock:
measured durations of the CPU, simulated ones of NPUs, transfers by their links. Prints a table;
with `--write` it also replaces the figures of docs/pipelining.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import ROOT
from benchmarks.page import (
    Limit,
    limits_table,
    markdown_table,
    models_folder,
    origin,
    page_parser,
    replace_part,
)
from lepton.models.int8 import quantize_int8
from lepton.models.onnx_writer import GraphWriter
from lepton.runtime.devices import Arrays, DeviceOptions, choose_devices
from lepton.runtime.devices.library import drawn_inputs
from lepton.runtime.placed import PlacedModel, prepare_plan
from lepton.runtime.placement import Goal
from lepton.runtime.plan import place_network
from lepton.runtime.split import Network, read_network

__all__ = ["Pipelined", "balanced_network", "limits", "pipelined_row"]

PAGE = ROOT / "docs" / "pipelining.md"
HEADING = "## Figures"
STORED = (
    "mlperf_tiny/pretrainedResnet_quant.tflite",
    "mlperf_tiny/kws_ref_model.tflite",
    "mlperf_tiny/vww_96_int8.tflite",
)
OPTIONS = DeviceOptions(chip="nano")
EVEN_LAYERS, FLOAT_LAYERS = 8, 4
_CHANNELS, _SIZE = 64, 32
_FIRST_GUESS, _ROUNDS = 10, 4


@dataclass(frozen=True)
class Pipelined:
    """A network on two devices.

    Attributes:
        busiest: share of the pipelined time in which the busiest device or link works.
        single_ns: per input, the best placement for latency, one input after the other.
        same_ns: per input, the pipelined placement, one input after the other.
        pipelined_ns: per input.
        equal: results equal to those of single runs.
    """

    network: str
    devices: str
    regions: int
    busiest: float
    single_ns: float
    same_ns: float
    pipelined_ns: float
    inputs: int
    equal: int

    @property
    def is_balanced(self) -> bool:
        """Whether it was made so that two devices have the same work."""
        return self.network.startswith("balanced")


def balanced_network(folder: Path, integer_layers: int, float_layers: int) -> Path:
    """Write an ONNX chain of 8-bit convolutions and float ones."""
    writer = GraphWriter("balanced", seed=5)
    shape = (_CHANNELS, _CHANNELS, 3, 3)
    tensor = writer.feed("x", (1, _CHANNELS, _SIZE, _SIZE))
    names = [f"conv{at}" for at in range(integer_layers + float_layers)]
    for name in names:
        kernel = writer.weights(f"{name}.weights", shape, fan_in=9 * _CHANNELS)
        tensor = writer.add("Conv", name, tensor, kernel, pads=[1] * 4)
    source, target = folder / "float.onnx", folder / f"balanced_{integer_layers}.onnx"
    source.write_bytes(writer.finish([tensor]).SerializeToString())
    samples = np.random.default_rng(1).standard_normal((2, _CHANNELS, _SIZE, _SIZE), np.float32)
    quantize_int8(source, target, {"x": samples}, names[integer_layers:])
    return target


def _balanced(folder: Path, names: Sequence[str]) -> Network:
    """Return a chain of which the NPU's part takes about as long as the CPU's, when streamed."""
    layers = _FIRST_GUESS
    for _ in range(_ROUNDS):
        devices, _ = choose_devices(names, OPTIONS)
        network = read_network(balanced_network(folder, layers, FLOAT_LAYERS))
        model = prepare_plan(place_network(network, devices, Goal.THROUGHPUT))
        with model.stream(drawn_inputs(network, network.inputs, n) for n in range(24)) as stream:
            for _ in stream:
                pass
        load = [0] * len(devices)
        for times in stream.taken_ns:
            for region, each in zip(model.plan.regions, times, strict=True):
                load[region.device] += each
        better = max(round(layers * load[1] / load[0]), 1)
        if better == layers:
            break
        layers = better
    return network


def pipelined_row(network: Network, names: Sequence[str], count: int) -> Pipelined:
    """Run a network on inputs one after the other and pipelined."""
    models: dict[Goal, PlacedModel] = {}
    for goal in (Goal.LATENCY, Goal.THROUGHPUT):
        devices, _ = choose_devices(names, OPTIONS)
        models[goal] = prepare_plan(place_network(network, devices, goal))
    samples = [drawn_inputs(network, network.inputs, seed) for seed in range(count)]
    alone, single_ns = _one_by_one(models[Goal.LATENCY], samples)
    _, same_ns = _one_by_one(models[Goal.THROUGHPUT], samples)
    with models[Goal.THROUGHPUT].stream(samples) as stream:
        made = list(stream)
    line = stream.timeline
    busy: dict[str, int] = {}
    for bar in line.bars:
        busy[bar.row] = busy.get(bar.row, 0) + bar.end_ns - bar.start_ns
    equal = sum(_same(left, right) for left, right in zip(alone, made, strict=True))
    return Pipelined(
        network.name, " ".join(names), len(models[Goal.THROUGHPUT].regions),
        max(busy.values()) / line.latency_ns, single_ns, same_ns, line.latency_ns / count,
        count, equal,
    )  # fmt: skip


def _one_by_one(model: PlacedModel, samples: Sequence[Arrays]) -> tuple[list[Arrays], float]:
    """Return results, and nanoseconds per input."""
    ran = [model.run(sample) for sample in samples]
    return [each.outputs for each in ran], sum(r.timeline.latency_ns for r in ran) / len(ran)


def _same(left: Arrays, right: Arrays) -> bool:
    return all(left[name].tobytes() == right[name].tobytes() for name in left)


def limits(rows: Sequence[Pipelined]) -> list[Limit]:
    """Return what was measured beside its limits."""
    differ = sum(row.inputs - row.equal for row in rows)
    least = min(row.single_ns / row.pipelined_ns for row in rows if row.is_balanced)
    return [
        Limit("pipelined / sequential throughput, balanced networks", 1.7, least, is_least=True),
        Limit("results that differ from those of single runs", 0, differ),
    ]


def _text(rows: Sequence[Pipelined]) -> str:
    """Return the tables."""
    heads = (
        "network", "devices", "regions", "inputs", "best latency ms", "same placement ms",
        "pipelined ms", "gain", "busiest",
    )  # fmt: skip
    cells = [
        (r.network, r.devices, str(r.regions), str(r.inputs), r.single_ns / 1e6, r.same_ns / 1e6,
         r.pipelined_ns / 1e6, f"{r.single_ns / r.pipelined_ns:.2f}x", f"{r.busiest:.0%}")
        for r in rows
    ]  # fmt: skip
    return "\n\n".join(
        [
            f"Measured by `python -m benchmarks.pipelining --write`\n{origin()}.",
            limits_table(limits(rows)),
            "Milliseconds per input by the model's clock: the placement with the best latency,\n"
            "one input after the other; the placement for throughput, one after the other; the\n"
            "same pipelined. The gain is the first over the last; the busiest device works that\n"
            "share of the time.",
            markdown_table(heads, cells, 4),
        ]
    )


def main() -> None:
    parser = page_parser(__doc__)
    parser.add_argument("--inputs", type=int, default=64, help="of each network; default 64")
    options = parser.parse_args()
    folder = models_folder(parser)
    chips, mixed = ["npu", "npu2=nano"], ["npu", "cpu"]
    rows: list[Pipelined] = []
    with tempfile.TemporaryDirectory(prefix="lepton-") as name:
        even = read_network(balanced_network(Path(name), EVEN_LAYERS, 0))
        rows.append(pipelined_row(even, [*chips, "cpu"], options.inputs))
        rows.append(pipelined_row(_balanced(Path(name), mixed), mixed, options.inputs))
    for stored in STORED:
        network = read_network(folder / stored)
        rows.append(pipelined_row(network, chips, options.inputs))
    text = _text(rows)
    print(text)
    if options.write:
        replace_part(PAGE, HEADING, text)


if __name__ == "__main__":
    main()
