"""Measure what 8-bit, 16-bit and automatically chosen activations make of float networks.

    python -m benchmarks.activations [--write] [NAME ...]

Needs the environment variable LEPTON_DATA, which names the folder of the models. Each network is
calibrated on samples, and compared with its float self on others, where there are enough; the
results of the first ones are compared with ONNX Runtime's on the same quantized model, byte by
byte. Prints a table; with `--write` it also replaces the figures of docs/activations.md.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import ROOT
from benchmarks.network_list import NETWORKS
from benchmarks.page import markdown_table, models_folder, origin, page_parser, replace_part
from lepton.chip import load_chip
from lepton.compiler.activations import INT8, Activations, Fidelity
from lepton.compiler.calibrate import plain_samples, quantize_model
from lepton.compiler.compile import compile_model
from lepton.compiler.fidelity import Reference, Runner
from lepton.compiler.switches import activation_scales
from lepton.program import Program
from lepton.report.summary import summarize
from lepton.runtime.execute import HostRegions
from lepton.runtime.golden import GoldenModel
from lepton.simulator import check, run_values, simulate_timing

__all__ = ["Row", "table"]

PAGE = ROOT / "docs" / "activations.md"
HEADING = "## Figures"
COMPARED = 4
"""Samples whose bytes are compared."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A float network.

    Attributes:
        samples: `[n, ...]` to calibrate by.
        others: to compare on, and their labels if there are any.
        decibels: target of the automatic choice.
    """

    name: str
    model: Path
    samples: Array
    others: Array
    labels: Array | None
    decibels: float


@dataclass(frozen=True)
class Row:
    """A network, and the bits of its activations.

    Attributes:
        fidelity: on the case's other samples.
        accuracy: share of labels met, 0 to 1; None without labels.
        different: output elements that are not ONNX Runtime's.
        host_s: of one inference's host regions.
        quantize_s: CPU seconds of the choice and the quantizer.
    """

    network: str
    asked: Activations
    wide: int
    tensors: int
    fidelity: Fidelity
    accuracy: float | None
    macs_on_npu: float
    cycles: int
    host_s: float
    different: int
    quantize_s: float


def _spotter(name: str, decibels: float) -> Callable[[Path], Case]:
    """Return a keyword spotter, of which there are 24 inputs."""

    def case(folder: Path) -> Case:
        network = next(item for item in NETWORKS if item.name == name)
        model, inputs = network.write(folder)
        return Case(f"{name} (same samples)", model, inputs, inputs, None, decibels)

    return case


def _resnet(_folder: Path) -> Case:
    """Return ResNet-8 with pictures of CIFAR-10."""
    data = Path(os.environ["LEPTON_DATA"])
    sets = [
        np.load(data / f"cifar10/{name}.npz") for name in ("train_first20000", "test_first1000")
    ]
    seen, others = (
        np.ascontiguousarray(item["x"].transpose(0, 3, 1, 2)[:, None], np.float32) for item in sets
    )
    model = data / "mlperf_tiny_onnx" / "pretrainedResnet_float.onnx"
    return Case("ResNet-8", model, seen[:256], others, sets[1]["y"].reshape(-1), 27.0)


def _encoder(folder: Path) -> Case:
    """Return a transformer encoder of one layer, with seeded weights."""
    from lepton.models.encoder import EncoderShape, encoder_samples, transformer_encoder

    shape, model = EncoderShape(layers=1), folder / "encoder.onnx"
    model.write_bytes(transformer_encoder(shape).SerializeToString())
    inputs = encoder_samples(shape, count=8)
    return Case("encoder layer (seeded)", model, inputs[:4], inputs[4:], None, 35.0)


CASES: dict[str, Callable[[Path], Case]] = {
    "ResNet-8": _resnet,
    "DS_CNN_S": _spotter("DS_CNN_S", 25.0),
    "GRU_S": _spotter("GRU_S", 25.0),
    "encoder": _encoder,
}


def measure(case: Case, asked: Activations, folder: Path) -> Row:
    """Quantize, compile and run a network."""
    import onnx

    floats = onnx.load(str(case.model))
    constants = {item.name for item in floats.graph.initializer}
    name = next(item.name for item in floats.graph.input if item.name not in constants)
    shapes = {name: case.samples.shape[1:]}
    copy = folder / "copy.onnx"
    began = time.process_time()
    found = quantize_model(case.model, plain_samples(case.samples), copy, shapes, asked)
    spent = time.process_time() - began
    quantized = onnx.load(str(copy))
    reference = Reference(floats, {name: case.others})
    program = compile_model(copy, load_chip("edge"))
    different, host_s = _compared(program, copy, case.others[:COMPARED])
    on_npu = bool(len(program.table))
    return Row(
        case.name,
        asked,
        len(found.wide) if found else 0,
        len(activation_scales(quantized.graph)),
        reference.fidelity(Runner(quantized)),
        _accuracy(quantized, name, case),
        summarize(program).macs_on_npu,
        simulate_timing(program).cycles if on_npu else 0,
        host_s,
        different,
        spent,
    )


def _accuracy(quantized: Any, name: str, case: Case) -> float | None:
    """Return the share of labels met."""
    if case.labels is None:
        return None
    runner = Runner(quantized)
    made = [int(runner.run({name: x})[0].argmax()) for x in case.others]
    return float(np.mean(np.array(made) == case.labels))


def _compared(program: Program, copy: Path, inputs: Array) -> tuple[int, float]:
    """Return the output elements that are not the golden's, and the host's least seconds."""
    check(program)
    host, golden = HostRegions(program), GoldenModel(copy)
    different, seconds = 0, list[float]()

    def timed(index: int, arrays: dict[str, Array]) -> dict[str, Array]:
        began = time.perf_counter()
        made = host(index, arrays)
        seconds[-1] += time.perf_counter() - began
        return made

    for x in inputs:
        seconds.append(0.0)
        feeds = {program.inputs[0]: x}
        ours, theirs = run_values(program, feeds, timed), golden.run(feeds)
        different += sum(int(np.count_nonzero(ours[name] != theirs[name])) for name in theirs)
    return different, min(seconds)


def table(rows: Sequence[Row]) -> str:
    """Return the figures."""
    head = ("network", "activations", "of 16 bits", "SQNR dB", "agreement", "accuracy")
    head += ("MACs on NPU", "NPU cycles", "host ms", "different", "quantize CPU s")
    lines = [
        (
            row.network,
            row.asked.kind + (f", {row.asked.target()}" if row.asked.kind == "auto" else ""),
            f"{row.wide} of {row.tensors}",
            f"{row.fidelity.decibels:.1f}",
            f"{100 * row.fidelity.agreement:.1f} %",
            "-" if row.accuracy is None else f"{100 * row.accuracy:.1f} %",
            f"{100 * row.macs_on_npu:.1f} %",
            f"{row.cycles:,}" if row.cycles else "-",
            f"{1e3 * row.host_s:.2f}",
            str(row.different),
            f"{row.quantize_s:.1f}",
        )
        for row in rows
    ]
    return markdown_table(head, lines, 2)


def main() -> None:
    """Measure and print; write the page's figures if asked to."""
    parser = page_parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CASES))
    options = parser.parse_args()
    models_folder(parser)
    rows: list[Row] = []
    for name in options.names or CASES:
        with tempfile.TemporaryDirectory() as folder:
            case = CASES[name](Path(folder))
            for asked in (INT8, Activations("int16"), Activations("auto", case.decibels)):
                place = Path(folder) / asked.kind
                place.mkdir()
                rows.append(measure(case, asked, place))
                print(table(rows[-1:]).splitlines()[-1], flush=True)
    text = f"Measured {origin()}.\n\n{table(rows)}"
    print(text)
    if options.write:
        replace_part(PAGE, HEADING, text)


if __name__ == "__main__":
    main()
