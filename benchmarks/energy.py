"""Energy of layers of ResNet-18 on `edge`, and beside it what ZigZag gives for the same layers.

    python -m benchmarks.energy [--peer PYTHON] [--chip NAME]

PYTHON is the interpreter of an environment with zigzag-dse 3.9.1 and six; its shipped `tpu_like`
architecture is used as it is: 32 x 32 weight-stationary elements, 2 MiB of SRAM, a flat DRAM. Its
mapper minimizes energy. Energies are in microjoules; docs/energy.md explains the differences.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from lepton.chip import load_chip
from lepton.compiler.compile import compile_model
from lepton.report.summary import Summary, summarize
from lepton.simulator import simulate_timing

LAYERS = {
    "conv2_1b": (56, 3, 64, 64),
    "conv3_1b": (28, 3, 128, 128),
    "conv5_1b": (7, 3, 512, 512),
}
"""Input height and width, kernel, channels, filters: rows of data/topologies/Resnet18.csv."""

PEER = """
import json, logging, pathlib, sys, tempfile
import zigzag
from zigzag.api import get_hardware_performance_zigzag

logging.disable(logging.CRITICAL)
root = pathlib.Path(zigzag.__file__).parent / "inputs"
size, taps, channels, filters = json.loads(sys.argv[1])
out = size - taps + 1
layer = {
    "id": 0, "name": "layer", "operator_type": "Conv",
    "equation": "O[b][k][oy][ox]+=W[k][c][fy][fx]*I[b][c][iy][ix]",
    "dimension_relations": ["ix=1*ox+1*fx", "iy=1*oy+1*fy"],
    "loop_dims": ["B", "K", "C", "OY", "OX", "FY", "FX"],
    "loop_sizes": [1, filters, channels, out, out, taps, taps],
    "operand_precision": {"W": 8, "I": 8, "O": 16, "O_final": 8},
    "operand_source": {"W": 0, "I": 0},
}
with tempfile.TemporaryDirectory() as folder:
    found = get_hardware_performance_zigzag(
        [layer], str(root / "hardware" / "tpu_like.yaml"), str(root / "mapping" / "tpu_like.yaml"),
        opt="energy", dump_folder=folder, lpf_limit=5, loma_show_progress_bar=False,
    )
cost = found[2][0][1][0][0]
levels = {str(operand): list(pj) for operand, pj in cost.mem_energy_breakdown.items()}
print(json.dumps({"cycles": cost.latency_total2, "mac": cost.mac_energy, "memory": levels}))
"""


def ours(layer: tuple[int, int, int, int], chip: str) -> Summary:
    """Return the run of one layer from a layer table."""
    size, taps, channels, filters = layer
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "layer.csv"
        row = f"layer,{size},{size},{taps},{taps},{channels},{filters},1,"
        head = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels,"
        table.write_text(f"{head} Num Filter, Strides,\n{row}\n", encoding="utf-8")
        program = compile_model(table, load_chip(chip))
    return summarize(program, simulate_timing(program))


def peers(layer: tuple[int, int, int, int], interpreter: str) -> dict[str, float]:
    """Return ZigZag's energies in joules by what corresponds to our components, and its cycles."""
    made = subprocess.run(
        [interpreter, "-c", PEER, json.dumps(layer)], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    levels = found["memory"]
    picojoules = {
        "multipliers": found["mac"],
        "weight registers": levels["W"][0],
        "sum registers": levels["O"][0],
        "SRAM": levels["I"][0] + levels["O"][1],
        "DRAM": levels["I"][1] + levels["O"][2] + levels["W"][1],
    }
    return {name: pj * 1e-12 for name, pj in picojoules.items()} | {"cycles": found["cycles"]}


def show(name: str, parts: dict[str, float], cycles: float, macs: int) -> None:
    """Print one column of energies in microjoules."""
    total = sum(parts.values())
    print(f"  {name}: {1e6 * total:.2f} uJ, {1e12 * total / macs:.3f} pJ/MAC, {cycles:,.0f} cycles")
    for part, joules in parts.items():
        print(f"    {part.replace('_', ' '):18} {1e6 * joules:9.3f}  {100 * joules / total:5.1f} %")


def main() -> None:
    """Print every layer's energies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter that has zigzag-dse")
    parser.add_argument("--chip", default="edge", metavar="NAME|FILE.toml")
    options = parser.parse_args()
    for name, layer in LAYERS.items():
        summary = ours(layer, options.chip)
        print(
            f"{name}: {layer[0]}x{layer[0]}x{layer[2]}, {layer[3]} filters of {layer[1]}x{layer[1]}"
        )
        show(f"lepton {summary.chip}", summary.energy, summary.cycles or 0, summary.macs)
        if options.peer:
            found = peers(layer, options.peer)
            cycles = found.pop("cycles")
            show("zigzag tpu_like", found, cycles, summary.macs)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
