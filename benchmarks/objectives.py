"""Compare what `--optimize latency`, `energy` and `size` make of the same networks.

    python -m benchmarks.objectives [--write] [--effort N]

Needs the environment variable LEPTON_DATA, which names the folder of the models. Cycles and energy
are simulated, sizes are those of the program files, and outputs are compared byte by byte. Prints
a table; with `--write` it also replaces the figures of docs/objectives.md.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import ROOT
from benchmarks.page import markdown_table, models_folder, origin, page_parser, replace_part
from lepton.chip import load_chip
from lepton.compiler.compile import compile_model
from lepton.compiler.options import CompileOptions
from lepton.cost.energy_estimate import estimate_energy
from lepton.program import Objective
from lepton.report.energy import energy_of
from lepton.runtime.execute import simulate
from lepton.runtime.golden import random_inputs

__all__ = ["Row", "faults", "table"]

PAGE = ROOT / "docs" / "objectives.md"
HEADING = "## Figures"
CHIPS = ("edge", "like-u55-256")
MODELS = (
    "mlperf_tiny/kws_ref_model.tflite",
    "mlperf_tiny/pretrainedResnet_quant.tflite",
    "mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite",
)


@dataclass(frozen=True)
class Row:
    """A network on a chip, optimized for something."""

    network: str
    chip: str
    objective: Objective
    cycles: int
    joules: float
    estimated_joules: float
    file_bytes: int
    cpu_s: float
    outputs: tuple[bytes, ...]


def measure(path: Path, chip: str, objective: Objective, effort: int) -> Row:
    """Compile and run a network."""
    began = time.process_time()
    options = CompileOptions(optimize=objective, effort=effort)
    program = compile_model(path, load_chip(chip), options)
    spent = time.process_time() - began
    result = simulate(program, random_inputs(program, 0))
    assert result.trace is not None
    return Row(
        path.stem,
        chip,
        objective,
        result.trace.cycles,
        energy_of(program, result.trace).joules,
        estimate_energy(program),
        len(program.to_bytes()),
        spent,
        tuple(np.asarray(result.outputs[name]).tobytes() for name in program.outputs),
    )


def faults(rows: Sequence[Row]) -> list[str]:
    """Return where another objective's program is better, or computes something else."""
    found: list[str] = []
    for row in rows:
        others = [o for o in rows if (o.network, o.chip) == (row.network, row.chip)]
        name = f"{row.network} on {row.chip} for {row.objective}"
        if any(other.outputs != row.outputs for other in others):
            found.append(f"{name}: its outputs differ")
        fastest = next(o for o in others if o.objective == Objective.LATENCY)
        if row.objective == Objective.ENERGY and row.joules > fastest.joules:
            found.append(f"{name}: the fastest program takes less energy")
        least = min(other.file_bytes for other in others)
        if row.objective == Objective.SIZE and row.file_bytes > least:
            found.append(f"{name}: another program is smaller")
    return found


def table(rows: Sequence[Row]) -> str:
    """Return the figures, and what is wrong with them."""
    head = ("network", "chip", "optimized for", "cycles", "energy uJ", "estimated", "file bytes")
    lines = [
        (
            row.network,
            row.chip,
            str(row.objective),
            f"{row.cycles:,}",
            f"{row.joules * 1e6:,.2f}",
            f"{100 * (row.estimated_joules / row.joules - 1):+.2f} %",
            f"{row.file_bytes:,}",
            f"{row.cpu_s:.1f}",
        )
        for row in rows
    ]
    wrong = faults(rows)
    verdict = "\n".join(wrong) or (
        "Each program is the best of its three by what it was made for; all give the same bytes."
    )
    return f"{markdown_table((*head, 'compile CPU s'), lines, 3)}\n\n{verdict}"


def main() -> None:
    """Measure and print; write the page's figures if asked to."""
    parser = page_parser(__doc__)
    parser.add_argument("--effort", type=int, default=1, choices=range(4))
    options = parser.parse_args()
    root = models_folder(parser)
    rows: list[Row] = []
    for model in MODELS:
        for chip in CHIPS:
            for objective in Objective:
                rows.append(measure(root / model, chip, objective, options.effort))
                print(f"{model} on {chip} for {objective}: {rows[-1].cycles:,} cycles", flush=True)
    text = f"Measured {origin()},\nwith `--effort {options.effort}`.\n\n{table(rows)}"
    print(text)
    if options.write:
        replace_part(PAGE, HEADING, text)


if __name__ == "__main__":
    main()
