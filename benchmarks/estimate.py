"""Compare the estimate with the simulation: 300 random layers, the real models, the layer tables.

Prints tables; with `--write` also replaces the figures of docs/estimate.md.

    python -m benchmarks.estimate [--write] [--first SEED] [--layers N] [--no-models]
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import ROOT
from benchmarks.page import page_parser, replace_part
from lepton.chip import PRESETS, load_chip
from lepton.cost.estimate import estimate_program
from lepton.errors import CompileError
from lepton.program import Program
from lepton.simulator import simulate_timing
from tests.random_layers import random_program

__all__ = ["Agreement", "Pair", "agreement", "compare", "model_programs"]

PAGE = ROOT / "docs" / "estimate.md"
HEADING = "## Figures"
"""What follows it in the page is written by this program."""
WORST = 12
TABLES = ("Resnet18", "Resnet50", "mobilenet", "vit_s")
MODELS = (
    "mlperf_tiny/kws_ref_model.tflite",
    "mlperf_tiny/pretrainedResnet_quant.tflite",
    "mlperf_tiny/vww_96_int8.tflite",
    "mlperf_tiny/ad01_int8.tflite",
    "mlperf_tiny/pretrainedResnet_large_int8.tflite",
    "mobilenet/mobilenet_v1_0.25_128_quant.tflite",
    "mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite",
    "mlperf_tiny_onnx/kws_ref_model.onnx",
    "mlperf_tiny_onnx/resnet.onnx",
    "mlperf_tiny_onnx/mobilenet_v1.onnx",
    "mlperf_tiny_onnx/deep_autoencoder.onnx",
    *(f"topologies/{name}.csv" for name in TABLES),
)


@dataclass(frozen=True)
class Pair:
    """A program's simulated and estimated cycles, and the CPU seconds that each took."""

    name: str
    kind: str
    chip: str
    instructions: int
    simulated: int
    estimated: int
    simulate_s: float
    estimate_s: float

    @property
    def error(self) -> float:
        return self.estimated / self.simulated - 1


@dataclass(frozen=True)
class Agreement:
    """How far estimates agree with simulations; errors are relative and absolute."""

    count: int
    median: float
    p95: float
    largest: float
    spearman: float
    kendall: float


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks, equal values sharing their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    behind = np.cumsum(counts)
    return (behind - (counts - 1) / 2)[inverse]


def agreement(pairs: Sequence[Pair]) -> Agreement:
    """Return the agreement of at least two pairs."""
    errors = np.abs([pair.error for pair in pairs])
    x = np.array([pair.simulated for pair in pairs], np.float64)
    y = np.array([pair.estimated for pair in pairs], np.float64)
    signs = [np.sign(v[:, None] - v[None, :]) for v in (x, y)]
    untied = [np.abs(sign).sum() for sign in signs]
    return Agreement(
        count=len(pairs),
        median=float(np.median(errors)),
        p95=float(np.percentile(errors, 95)),
        largest=float(errors.max()),
        spearman=float(np.corrcoef(_ranks(x), _ranks(y))[0, 1]),
        kendall=float((signs[0] * signs[1]).sum() / np.sqrt(untied[0] * untied[1])),
    )


def compare(name: str, kind: str, program: Program) -> Pair:
    """Return the cycles of a program both ways."""
    began = time.process_time()
    trace = simulate_timing(program)
    simulated = time.process_time()
    found = estimate_program(program)
    ended = time.process_time()
    return Pair(
        name, kind, program.chip.name, len(program.table), trace.cycles, found.cycles,
        simulated - began, ended - simulated,
    )  # fmt: skip


def model_programs(data: Path) -> Iterator[tuple[str, Program]]:
    """Yield the path and the program of every model on every preset that holds it."""
    from lepton.compiler.compile import compile_model

    for path in MODELS:
        for preset in PRESETS:
            try:
                yield path, compile_model(data / path, load_chip(preset))
            except CompileError:
                continue


def _models(data: Path) -> Iterator[Pair]:
    for path, program in model_programs(data):
        yield compare(Path(path).stem, "table" if path.endswith(".csv") else "network", program)


def _row(title: str, pairs: Sequence[Pair]) -> str:
    a = agreement(pairs)
    instructions = sum(pair.instructions for pair in pairs)
    each = 1e6 * sum(pair.estimate_s for pair in pairs) / instructions
    typical = 1e6 * float(np.median([pair.estimate_s for pair in pairs]))
    faster = sum(p.simulate_s for p in pairs) / sum(p.estimate_s for p in pairs)
    return (
        f"| {title} | {a.count} | {100 * a.median:.2f} | {100 * a.p95:.2f} | {100 * a.largest:.1f} "
        f"| {a.spearman:.5f} | {a.kendall:.4f} | {each:.2f} | {typical:,.0f} | {faster:.1f} |"
    )


def _table(groups: dict[str, list[Pair]]) -> str:
    head = (
        "| | programs | median error % | 95th percentile % | largest % | Spearman | Kendall | "
        "us per instruction | us per program (median) | times faster than simulating |"
    )
    rows = [_row(title, pairs) for title, pairs in groups.items() if len(pairs) > 1]
    return "\n".join([head, "| --- |" + " ---: |" * 9, *rows])


def _worst(pairs: Sequence[Pair]) -> str:
    lines = ["| program | kind | chip | instructions | simulated | estimated | error % |"]
    lines.append("| --- | --- | --- |" + " ---: |" * 4)
    for pair in sorted(pairs, key=lambda pair: -abs(pair.error))[:WORST]:
        lines.append(
            f"| {pair.name} | {pair.kind} | {pair.chip} | {pair.instructions:,} | "
            f"{pair.simulated:,} | {pair.estimated:,} | {100 * pair.error:+.1f} |"
        )
    return "\n".join(lines)


def _groups(layers: Sequence[Pair]) -> dict[str, list[Pair]]:
    made = {"all random layers": list(layers)}
    made |= {f"chip {chip}": [p for p in layers if p.chip == chip] for chip in PRESETS}
    for kind in dict.fromkeys(pair.kind for pair in layers):
        made[kind] = [p for p in layers if p.kind == kind]
    return made


def main() -> None:
    """Compare and print."""
    parser = page_parser(__doc__)
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--layers", type=int, default=300, metavar="N")
    parser.add_argument("--no-models", action="store_true")
    options = parser.parse_args()
    compare("warm", "", random_program(options.first)[1])
    seeds = range(options.first, options.first + options.layers)
    layers = [compare(f"seed {seed}", *random_program(seed)) for seed in seeds]
    text = [f"Random layers, seeds {seeds[0]} to {seeds[-1]}:", _table(_groups(layers))]
    text += ["The worst:", _worst(layers)]
    if not options.no_models:
        models = list(_models(Path(os.environ.get("LEPTON_DATA", "data"))))
        kinds = {kind: [p for p in models if p.kind == kind] for kind in ("network", "table")}
        text += ["Real networks and layer tables:", _table({"all": models} | kinds)]
        text += ["The worst:", _worst(models)]
    made = "\n\n".join(text)
    print(made)
    if options.write:
        replace_part(PAGE, HEADING, made)


if __name__ == "__main__":
    main()
