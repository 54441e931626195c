"""Layers on SCALE-Sim and on the event kernel, side by side: compute cycles and CPU seconds.

    python -m benchmarks.scalesim --python PYTHON [--array N] [--record FILE] TABLE [LAYER ...]

PYTHON is an interpreter that can import scalesim 3.0 (a virtual environment with `scalesim==3.0.0`
and `numpy<2.2`), TABLE one of its layer tables, LAYER rows counted from 0, all of them by default.
Each layer runs in all three dataflows. Ours are the seconds of a warm kernel, a program per layer.
`--record` writes SCALE-Sim's cycles as the tests read them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.ideal_array import compute_cycles, ideal_chip, product_of, table_program
from lepton.chip import Dataflow
from lepton.compiler.importers.layer_table import TableLayer, read_layer_table
from lepton.simulator import simulate_timing

VERSION = "3.0.0"
_SHORT = {
    Dataflow.WEIGHT_STATIONARY: "ws",
    Dataflow.OUTPUT_STATIONARY: "os",
    Dataflow.INPUT_STATIONARY: "is",
}
_HEAD = (
    "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, "
    "Strides,\n"
)
_CONFIGURATION = """
[general]
run_name = run
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
[architecture_presets]
ArrayHeight = {array}
ArrayWidth = {array}
IfmapSramSzkB = 4096
FilterSramSzkB = 4096
OfmapSramSzkB = 4096
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = {dataflow}
ReadRequestBuffer = 32
WriteRequestBuffer = 32
[layout]
IfmapCustomLayout = False
FilterCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
"""
_INSIDE = """
import importlib.metadata, json, sys, time
from scalesim.scale_sim import scalesim

began = time.process_time()
run = scalesim(save_disk_space=True, verbose=False, config="chip.cfg", topology="layers.csv",
               layout="layout.csv")
run.run_scale(top_path=".")
seconds = time.process_time() - began
rows = [line.split(",") for line in open("run/COMPUTE_REPORT.csv").read().splitlines()[1:]]
cycles = [round(float(row[2]) - float(row[3])) for row in rows]
version = importlib.metadata.version("scalesim")
json.dump({"version": version, "cycles": cycles, "seconds": seconds}, open("found.json", "w"))
"""


class Found(NamedTuple):
    """Compute cycles of a layer and the CPU seconds they took to find."""

    cycles: int
    seconds: float


def _row(layer: TableLayer) -> str:
    """Return the table's row of a layer; a product has its reduction as the filter's width."""
    if layer.is_product:
        pixels, filters, reduction = product_of(layer)
        sizes = [pixels, reduction, 1, reduction, 1, filters, 1]
    else:
        sizes = [*layer.ifm, *layer.kernel, layer.channels, layer.filters, layer.stride]
    return ", ".join(["layer", *map(str, sizes)]) + ",\n"


def scalesim(python: str, layer: TableLayer, array: int, dataflow: Dataflow) -> Found:
    """Run SCALE-Sim on a layer.

    Raises:
        RuntimeError: it failed, or is another version.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "layers.csv").write_text(_HEAD + _row(layer))
        (root / "layout.csv").write_text("layout,\nlayer, " + "1, " * 20 + "\n")
        settings = _CONFIGURATION.format(array=array, dataflow=_SHORT[dataflow])
        (root / "chip.cfg").write_text(settings)
        done = subprocess.run(
            [python, "-c", _INSIDE], cwd=root, capture_output=True, text=True, check=False
        )
        found = root / "found.json"
        if done.returncode or not found.exists():
            reason = done.stderr.strip().rpartition("\n")[2]
            raise RuntimeError(f"{python}: SCALE-Sim failed: {reason}")
        read = json.loads(found.read_text())
    if read["version"] != VERSION:
        raise RuntimeError(f"{python} has SCALE-Sim {read['version']}, not {VERSION}")
    return Found(read["cycles"][0], read["seconds"])


def ours(layer: TableLayer, array: int, dataflow: Dataflow) -> Found:
    """Run the event kernel on the program of a layer; the seconds are the best of three."""
    program = table_program([layer], ideal_chip(array, array, dataflow))
    cycles, best = 0, float("inf")
    for _ in range(3):
        began = time.process_time()
        cycles = int(compute_cycles(simulate_timing(program))[0])
        best = min(best, time.process_time() - began)
    return Found(cycles, best)


def compare(python: str, layers: Sequence[TableLayer], array: int) -> list[dict[str, Any]]:
    """Print both figures of each layer and return SCALE-Sim's."""
    print(f"{'layer':16} {'dataflow':18} {'ours':>10} {'SCALE-Sim':>10} {'CPU s':>8} {'CPU s':>8}")
    facts: list[dict[str, Any]] = []
    for layer in layers:
        for dataflow in Dataflow:
            mine, theirs = ours(layer, array, dataflow), scalesim(python, layer, array, dataflow)
            mark = "" if mine.cycles == theirs.cycles else "  DIFFERENT"
            print(
                f"{layer.name:16} {dataflow:18} {mine.cycles:10,} {theirs.cycles:10,} "
                f"{mine.seconds:8.4f} {theirs.seconds:8.2f}{mark}"
            )
            facts.append(
                {"array": array, "dataflow": dataflow.value, "cycles": theirs.cycles}
                | {"layer": asdict(layer)}
            )
    return facts


def _record(path: Path, facts: list[dict[str, Any]]) -> None:
    """Add facts to a file, a line each."""
    before = json.loads(path.read_text())["layers"] if path.exists() else []
    lines = ",\n".join(json.dumps(fact) for fact in [*before, *facts])
    source = f"scalesim {VERSION}, run by benchmarks/scalesim.py"
    path.write_text(f'{{"source": "{source}", "layers": [\n{lines}\n]}}\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--python", required=True, help="interpreter with scalesim")
    parser.add_argument("--array", type=int, default=32, help="rows and columns")
    parser.add_argument("--record", type=Path, help="file to add SCALE-Sim's cycles to")
    parser.add_argument("table", type=Path)
    parser.add_argument("layer", type=int, nargs="*")
    options = parser.parse_args()
    layers = read_layer_table(options.table.read_bytes(), options.table.name)
    chosen = [layers[number] for number in options.layer] or layers
    facts = compare(options.python, chosen, options.array)
    if options.record:
        _record(options.record, facts)


if __name__ == "__main__":
    main()
