"""Measure the simulator's speed: first JIT, cold start, warm runs, memory, and the peers beside it.

    python -m benchmarks.simulation_speed [--write] [--scalesim PYTHON]

Prints tables; `--write` also replaces the figures of docs/benchmarks.md. PYTHON is an interpreter
with SCALE-Sim (docs/benchmarks.md says how to install it); without one its part is left out. Times
are CPU seconds of one process unless a column says wall, the best of several runs. The kernels of
the first JIT are compiled by as many processes as a user's are.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ideal_array import compute_cycles, ideal_chip, table_program
from benchmarks.measure import ROOT, best, run_python
from benchmarks.page import limits_table, origin, page_parser, replace_part
from benchmarks.scalesim import Comparison, compare
from benchmarks.speed_tables import (
    Cold,
    Ideal,
    Network,
    Spent,
    Warm,
    bursts,
    ideal_table,
    limits,
    network_tables,
    peers_table,
)
from lepton.chip import Dataflow, load_chip
from lepton.compiler.compile import compile_model
from lepton.compiler.importers.layer_table import TableLayer, read_layer_table
from lepton.cost.estimate import estimate_program
from lepton.program import load_program
from lepton.runtime.execute import HostRegions
from lepton.runtime.golden import random_inputs
from lepton.simulator import check, run_values, simulate_timing

PAGE = ROOT / "docs" / "benchmarks.md"
HEADING = "## Figures of the simulation's speed"
"""What follows it in the page is written by this program."""
TABLE = "topologies/Resnet50.csv"
NETWORKS = (
    ("ResNet-50 table", TABLE, "edge"),
    ("ResNet-50 table", TABLE, "server"),
    ("MobileNetV2", "mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite", "edge"),
    ("keyword spotting", "mlperf_tiny/kws_ref_model.tflite", "edge"),
    ("ResNet-8", "mlperf_tiny/pretrainedResnet_quant.tflite", "edge"),
    ("visual wake words", "mlperf_tiny/vww_96_int8.tflite", "edge"),
    ("anomaly detection", "mlperf_tiny/ad01_int8.tflite", "edge"),
)
ARRAYS = (32, 128)
PEER_LAYERS = (1, 11, 24)
"""Rows of the table that SCALE-Sim runs: short ones, a minute for all."""
PROGRESS_LINE = "compiling the simulator's kernels"


def warm(path: Path) -> Warm:
    """Return what a program takes in this process, just loaded and simulated again."""
    fresh = iter([load_program(path) for _ in range(6)])
    timing = best(lambda: simulate_timing(next(fresh)), 5)
    program = next(fresh)
    again = best(lambda: simulate_timing(program), 20)
    estimated = best(lambda: estimate_program(program))
    check(program)
    inputs, host = random_inputs(program, 0), HostRegions(program)
    run_values(program, inputs, host)
    values = best(lambda: run_values(program, inputs, host), 5)
    return Warm(
        instructions=len(program.table),
        cycles=timing.result.cycles,
        bursts=bursts(program.chip, timing.result),
        timing_s=again.cpu_s,
        loaded_s=timing.cpu_s,
        values_s=values.cpu_s,
        values_wall_s=values.wall_s,
        estimated=estimated.result.cycles,
        estimate_s=estimated.cpu_s,
    )


def cold(path: Path, home: str) -> Cold:
    """Return what `lepton run` takes in a fresh process whose kernels are in the cache."""
    command = ["-m", "lepton", "run", str(path)]
    values = [run_python(command, home) for _ in range(3)]
    timing = [run_python([*command, "--no-values"], home) for _ in range(3)]
    return Cold(
        timing_wall_s=min(run.wall_s for run in timing),
        timing_s=min(run.cpu_s for run in timing),
        timing_mb=max(run.peak_mb for run in timing),
        values_wall_s=min(run.wall_s for run in values),
        values_s=min(run.cpu_s for run in values),
        values_mb=max(run.peak_mb for run in values),
    )


def first_jit(path: Path, home: str) -> dict[str, Spent]:
    """Return what compiling the kernels takes, with an empty cache in `home`.

    Raises:
        RuntimeError: no line on standard error told the user.
    """
    command = ["-m", "lepton", "run", str(path)]
    found: dict[str, Spent] = {}
    for name, option in (("checking and timing", ["--no-values"]), ("values", [])):
        first = run_python([*command, *option], home)
        if PROGRESS_LINE not in first.errors:
            raise RuntimeError(f"no progress line while the kernels of {name} were compiled")
        cached = run_python([*command, *option], home)
        found[name] = Spent(first.wall_s - cached.wall_s, first.cpu_s - cached.cpu_s)
    return found


def ideal(layers: Sequence[TableLayer], array: int, dataflow: Dataflow) -> Ideal:
    """Return what a whole table takes on an array that never waits."""
    program = table_program(layers, ideal_chip(array, array, dataflow))
    run = best(lambda: simulate_timing(program), 5)
    total = int(compute_cycles(run.result).sum())
    per_cycle = bursts(program.chip, run.result) / run.result.cycles
    return Ideal(f"{array} x {array}", dataflow.value, total, per_cycle, run.cpu_s)


def peers(python: str, layers: Sequence[TableLayer]) -> list[Comparison]:
    """Return a few layers on SCALE-Sim and here, together in one run of each.

    Raises:
        RuntimeError: compute cycles differ.
    """
    found: list[Comparison] = []
    for array in ARRAYS:
        _say(f"SCALE-Sim, {array} x {array}")
        found += compare(python, layers, array)
    for pair in found:
        if not pair.is_equal:
            raise RuntimeError(
                f"{pair.array} x {pair.array} {pair.dataflow}: compute cycles {pair.ours.cycles}, "
                f"SCALE-Sim's {pair.theirs.cycles}"
            )
    return found


def networks(data: Path, folder: Path) -> tuple[list[Network], dict[str, Spent]]:
    """Return what every network takes, and what the first JIT does."""
    paths: list[Path] = []
    for number, (name, model, chip) in enumerate(NETWORKS):
        _say(f"compile {name} for {chip}")
        paths.append(folder / f"{number}.lepton")
        compile_model(data / model, load_chip(chip)).save(paths[-1])
    _say("first JIT (about a minute)")
    jit = first_jit(paths[0], str(folder))
    found: list[Network] = []
    for (name, _, chip), path in zip(NETWORKS, paths, strict=True):
        _say(f"run {name} on {chip}")
        found.append(Network(name, chip, warm(path), cold(path, str(folder))))
    return found, jit


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def main() -> None:
    """Measure and print."""
    parser = page_parser(__doc__)
    parser.add_argument("--scalesim", metavar="PYTHON", help="interpreter with scalesim")
    parser.add_argument(
        "--layers", type=int, nargs="+", default=PEER_LAYERS, metavar="ROW",
        help="rows of the ResNet-50 table for SCALE-Sim, counted from 0; large ones take minutes",
    )  # fmt: skip
    options = parser.parse_args()
    data = Path(os.environ.get("LEPTON_DATA", "data"))
    layers = read_layer_table((data / TABLE).read_bytes(), TABLE)
    with tempfile.TemporaryDirectory() as folder:
        measured, jit = networks(data, Path(folder))
    arrays = [ideal(layers, array, dataflow) for array in ARRAYS for dataflow in Dataflow]
    chosen = [layers[row] for row in options.layers]
    found = peers(options.scalesim, chosen) if options.scalesim else []
    text = "\n\n".join(
        [
            f"Written by `python -m benchmarks.simulation_speed --write` {origin()}.",
            limits_table(limits(measured, jit, arrays, found)),
            network_tables(measured),
            ideal_table(arrays),
            peers_table(found),
        ]
    )
    print(text)
    if options.write:
        replace_part(PAGE, HEADING, text)


if __name__ == "__main__":
    main()
