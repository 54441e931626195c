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
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.ideal_array import compute_cycles, ideal_chip, product_of, table_program
from benchmarks.measure import best
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
    """Compute cycles of layers, one by one, and the CPU seconds that all took to find."""

    cycles: tuple[int, ...]
    seconds: float


class Comparison(NamedTuple):
    """Layers in one run of each simulator."""

    layers: tuple[TableLayer, ...]
    array: int
    dataflow: Dataflow
    ours: Found
    theirs: Found

    @property
    def is_equal(self) -> bool:
        return self.ours.cycles == self.theirs.cycles


def _row(layer: TableLayer) -> str:
    """Return the table's row of a layer; a product has its reduction as the filter's width."""
    if layer.is_product:
        pixels, filters, reduction = product_of(layer)
        sizes = [pixels, reduction, 1, reduction, 1, filters, 1]
    else:
        sizes = [*layer.ifm, *layer.kernel, layer.channels, layer.filters, layer.stride]
    return ", ".join(["layer", *map(str, sizes)]) + ",\n"


def scalesim(python: str, layers: Sequence[TableLayer], array: int, dataflow: Dataflow) -> Found:
    """Run SCALE-Sim on layers.

    Raises:
        RuntimeError: it failed, or is another version.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "layers.csv").write_text(_HEAD + "".join(map(_row, layers)))
        layout = ("layer, " + "1, " * 20 + "\n") * len(layers)
        (root / "layout.csv").write_text("layout,\n" + layout)
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
    return Found(tuple(read["cycles"]), read["seconds"])


def ours(layers: Sequence[TableLayer], array: int, dataflow: Dataflow) -> Found:
    """Run the event kernel on the program of layers; the seconds are the best of three."""
    program = table_program(layers, ideal_chip(array, array, dataflow))
    run = best(lambda: simulate_timing(program))
    return Found(tuple(compute_cycles(run.result).tolist()), run.cpu_s)


def compare(python: str, layers: Sequence[TableLayer], array: int) -> Iterator[Comparison]:
    """Yield the figures of layers, run together, in each dataflow."""
    for dataflow in Dataflow:
        mine, theirs = ours(layers, array, dataflow), scalesim(python, layers, array, dataflow)
        yield Comparison(tuple(layers), array, dataflow, mine, theirs)


def _print(found: Comparison) -> None:
    """Print the comparison of one layer as a line."""
    mark = "" if found.is_equal else "  DIFFERENT"
    print(
        f"{found.layers[0].name:16} {found.dataflow:18} {found.ours.cycles[0]:10,} "
        f"{found.theirs.cycles[0]:10,} {found.ours.seconds:8.4f} {found.theirs.seconds:8.2f}{mark}"
    )


def _fact(found: Comparison) -> dict[str, Any]:
    """Return SCALE-Sim's cycles of one layer as the tests read them."""
    fact = {"array": found.array, "dataflow": found.dataflow.value}
    return fact | {"cycles": found.theirs.cycles[0], "layer": asdict(found.layers[0])}


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
    print(f"{'layer':16} {'dataflow':18} {'ours':>10} {'SCALE-Sim':>10} {'CPU s':>8} {'CPU s':>8}")
    facts: list[dict[str, Any]] = []
    for layer in chosen:
        for found in compare(options.python, [layer], options.array):
            _print(found)
            facts.append(_fact(found))
    if options.record:
        _record(options.record, facts)


if __name__ == "__main__":
    main()
