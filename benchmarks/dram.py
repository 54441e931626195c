"""Replay the recorded DRAM traces: our figures beside DRAMsim3's, and requests per CPU second.

    python -m benchmarks.dram [FOLDER]

FOLDER holds the traces, `configs.json` and `dramsim3_results.json`; without it, data/dram below
LEPTON_DATA. The rate is that of the best of 200 runs, warm, one thread, the trace in memory.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import best
from lepton.simulator.dram_configs import from_dramsim3
from lepton.simulator.dram_replay import replay

HEAD = (
    f"{'configuration':17} {'trace':14} {'GB/s':>7} {'ref':>7} {'diff':>6}  "
    f"{'hits':>6} {'ref':>6} {'diff':>5}  {'latency':>8} {'ref':>8} {'diff':>6}  {'Mreq/s':>6}"
)


def line(root: Path, reference: dict[str, Any], configuration: dict[str, Any]) -> str:
    """Return the table's line of one recorded result."""
    name = reference["cfg"]
    timing, arbitration = from_dramsim3(name, configuration)
    trace = np.load(root / f"{reference['trace']}_{reference['req_bytes']}.npz")
    address, is_write = trace["address"], trace["is_write"]
    earliest = trace["earliest_cycle"]
    run = best(lambda: replay(timing, arbitration, address, is_write, earliest), 200)
    found = run.result
    gbps = len(address) * reference["req_bytes"] / (found.cycles * reference["tck_ns"])
    latency = float((found.done - found.accepted)[~is_write].mean())
    return (
        f"{name:17} {reference['trace']:14} "
        f"{gbps:7.3f} {reference['GBps']:7.3f} {100 * (gbps / reference['GBps'] - 1):5.2f}%  "
        f"{found.row_hit_rate:6.4f} {reference['row_hit_rate']:6.4f} "
        f"{100 * (found.row_hit_rate - reference['row_hit_rate']):5.2f}  "
        f"{latency:8.2f} {reference['avg_rd_lat_cyc']:8.2f} "
        f"{100 * (latency / reference['avg_rd_lat_cyc'] - 1):5.2f}%  "
        f"{len(address) / run.cpu_s / 1e6:6.1f}"
    )


def main() -> None:
    data = os.environ.get("LEPTON_DATA", "data")
    root = Path(sys.argv[1] if len(sys.argv) > 1 else f"{data}/dram")
    configurations = json.loads((root / "configs.json").read_text())
    print(HEAD)
    for reference in json.loads((root / "dramsim3_results.json").read_text()):
        print(line(root, reference, configurations[reference["cfg"]]))


if __name__ == "__main__":
    main()
