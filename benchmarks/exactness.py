"""Print the figures that must be exact: how much was compared, and how much of it differs.

    python -m benchmarks.exactness [--programs N] [PART ...]

`oracle`: every figure of the timing kernel's records against the plain simulator of docs/timing.md
on N random programs. `rtl`: accumulators and cycles of the matrix unit in Verilog, with Verilator.
`closed-forms`: compute cycles of layer tables against the known formulas. `attribution`: busy,
stalls and idle of every unit, and the layers' cycles, against the total. `energy`: actions against
bytes, commands, cycles and MACs of the run. The last two run every model on every preset.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks.estimate import TABLES, model_programs
from benchmarks.ideal_array import compute_cycles, ideal_chip, known_cycles, table_program
from lepton.chip import Dataflow
from lepton.compiler.importers.layer_table import read_layer_table
from lepton.cost.actions import Action
from lepton.errors import LeptonError
from lepton.program import Program
from lepton.report.attribution import attribute
from lepton.report.energy import energy_of
from lepton.simulator import simulate_timing
from lepton.trace import Trace

__all__ = ["PARTS", "Compared", "attributed", "reconciled"]

DATA = Path(os.environ.get("LEPTON_DATA", "data"))
PROGRAMS = 300


class Compared(NamedTuple):
    """How many of something were compared, and how many differ."""

    what: str
    compared: int
    different: int


def _failures(cases: Iterable[Callable[[], object]]) -> int:
    """Return how many cases raise what a comparison raises."""
    failed = 0
    for case in cases:
        try:
            case()
        except (AssertionError, LeptonError) as error:
            print(f"{type(error).__name__}: {error}"[:300])
            failed += 1
    return failed


def oracle(programs: int) -> Iterator[Compared]:
    """Compare random programs on the kernel and on the plain simulator."""
    from tests.simulator.timing_comparison import run_seed

    failed = _failures(lambda seed=seed: run_seed(seed) for seed in range(programs))
    yield Compared("random programs", programs, failed)


def rtl(_: int) -> Iterator[Compared]:
    """Compare random matmuls on the simulator and on the matrix unit in Verilog."""
    from tests.rtl.test_matmul import MATMULS, PROGRAMS, SHAPES, compare_edges, compare_sequence

    if shutil.which("verilator") is None:
        raise SystemExit("rtl needs Verilator, the Debian package 'verilator'")
    cases = [(shape, seed) for shape in SHAPES for seed in range(PROGRAMS)]
    failed = _failures(lambda case=case: compare_sequence(*case) for case in cases)
    yield Compared(f"programs of {MATMULS} random matmuls", len(cases), failed)
    failed = _failures(lambda shape=shape: compare_edges(shape) for shape in SHAPES)
    yield Compared("programs of edge shapes", len(SHAPES), failed)


def closed_forms(_: int) -> Iterator[Compared]:
    """Compare the compute cycles of every layer with SCALE-Sim's formulas."""
    for dataflow in Dataflow:
        count = different = 0
        for name in TABLES:
            layers = read_layer_table((DATA / f"topologies/{name}.csv").read_bytes(), name)
            for array in (32, 128):
                chip = ideal_chip(array, array, dataflow)
                found = compute_cycles(simulate_timing(table_program(layers, chip)))
                known = [known_cycles(layer, array, dataflow) for layer in layers]
                count += len(layers)
                different += int((found != known).sum())
        yield Compared(f"layers, {dataflow}", count, different)


@cache
def _runs() -> list[tuple[Program, Trace]]:
    return [(program, simulate_timing(program)) for _, program in model_programs(DATA)]


def attributed(trace: Trace, operators: int) -> list[bool]:
    """Return for each unit, then for the layers, whether every cycle is attributed once."""
    causes = [list(unit.values()) for unit in trace.attribution().values()]
    layers = attribute(trace, operators).table
    whole = [*causes, layers.reshape(-1).tolist()]
    return [sum(cycles) == trace.cycles and min(cycles) >= 0 for cycles in whole]


def attribution(_: int) -> Iterator[Compared]:
    """Add up where every cycle of every unit and layer went."""
    found = [attributed(trace, len(program.operators)) for program, trace in _runs()]
    units = [is_equal for run in found for is_equal in run[:-1]]
    yield Compared("units of networks", len(units), units.count(False))
    yield Compared("networks, by layer", len(found), sum(not run[-1] for run in found))


def reconciled(program: Program, trace: Trace) -> list[bool]:
    """Return for each operator with MACs whether those of the array are the model's.

    A reduction has none in the model, and sums on the array.

    Raises:
        LeptonError: bytes, commands or cycles are not the run's.
    """
    actions = energy_of(program, trace).actions
    pairs = zip(program.operators, actions[:, Action.MAC], strict=True)
    return [
        int(counted) == item.macs for item, counted in pairs if item.device == "npu" and item.macs
    ]


def energy(_: int) -> Iterator[Compared]:
    """Compare counted actions with what the run moved and computed."""
    operators: list[bool] = []
    runs = _runs()
    failed = _failures(lambda run=run: operators.extend(reconciled(*run)) for run in runs)
    yield Compared("networks, bytes, commands and cycles", len(runs), failed)
    yield Compared("operators, MACs", len(operators), operators.count(False))


PARTS: dict[str, Callable[[int], Iterator[Compared]]] = {
    "oracle": oracle,
    "rtl": rtl,
    "closed-forms": closed_forms,
    "attribution": attribution,
    "energy": energy,
}


def main() -> int:
    """Compare and print; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--programs", type=int, default=PROGRAMS, metavar="N")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    print(f"{'figure':14} {'compared':>9} {'different':>9}  what")
    failed = 0
    for part in options.parts or PARTS:
        for found in PARTS[part](options.programs):
            print(f"{part:14} {found.compared:9,} {found.different:9,}  {found.what}", flush=True)
            failed += found.different
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
