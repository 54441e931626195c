"""The event kernel in SCALE-Sim's mode: its compute cycles, layer by layer and in total."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.ideal_array import (
    compute_cycles,
    ideal_chip,
    known_cycles,
    product_of,
    table_program,
)
from benchmarks.scalesim import scalesim
from lepton.chip import Dataflow
from lepton.compiler.importers.layer_table import TableLayer, read_layer_table
from lepton.program import load_program
from lepton.simulator import check, simulate_timing
from tests.conftest import data_path

WS, OS, IS = Dataflow
TABLES = ("Resnet18", "Resnet50", "mobilenet", "vit_s")
TOTALS = {
    ("Resnet50", 32, WS): 5_753_486,
    ("Resnet50", 32, OS): 4_434_168,
    ("Resnet50", 32, IS): 5_608_356,
    ("Resnet50", 128, WS): 876_832,
    ("Resnet50", 128, OS): 611_561,
    ("Resnet50", 128, IS): 997_762,
    ("mobilenet", 32, WS): 1_433_453,
    ("mobilenet", 128, WS): 395_105,
    ("vit_s", 32, WS): 397_875,
    ("vit_s", 128, WS): 56_639,
}
"""Sums of the compute cycles that SCALE-Sim 3.0.0 reported for whole tables."""

RECORDED = json.loads((Path(__file__).parent / "scalesim_cycles.json").read_text())
"""What SCALE-Sim said of single layers; `python -m benchmarks.scalesim --record` writes it."""


def table(name: str) -> list[TableLayer]:
    return read_layer_table(data_path(f"topologies/{name}.csv").read_bytes(), f"{name}.csv")


@pytest.mark.parametrize("dataflow", Dataflow)
@pytest.mark.parametrize("array", [32, 128])
@pytest.mark.parametrize("name", TABLES)
def test_every_layer_of_the_tables_is_the_known_formula(
    name: str, array: int, dataflow: Dataflow
) -> None:
    layers = table(name)
    trace = simulate_timing(table_program(layers, ideal_chip(array, array, dataflow)))
    found = compute_cycles(trace)
    assert found.tolist() == [known_cycles(layer, array, dataflow) for layer in layers]
    assert found.sum() == TOTALS.get((name, array, dataflow), found.sum())
    # nothing but the array takes time: what is left is filling the chip, once
    assert trace.cycles <= found.sum() + len(layers) + 100


def test_layers_as_scalesim_ran_them() -> None:
    assert len(RECORDED["layers"]) == 21
    for fact in RECORDED["layers"]:
        layer = fact["layer"]
        layer |= {"ifm": tuple(layer["ifm"]), "kernel": tuple(layer["kernel"])}
        chip = ideal_chip(fact["array"], fact["array"], Dataflow(fact["dataflow"]))
        trace = simulate_timing(table_program([TableLayer(**layer)], chip))
        assert compute_cycles(trace).tolist() == [fact["cycles"]], fact


def test_the_program_of_a_table_is_a_legal_program_file(tmp_path: Path) -> None:
    layers = [
        TableLayer("strided", (9, 8), (3, 3), 5, 7, 2, False),
        TableLayer("product", (1, 20), (1, 1), 30, 40, 1, True),
    ]
    program = table_program(layers, ideal_chip(8, 8, OS))
    check(program)
    path = tmp_path / "layers.lepton"
    program.save(path)
    again = simulate_timing(load_program(path))
    assert compute_cycles(again).tolist() == [known_cycles(layer, 8, OS) for layer in layers]
    # SCALE-Sim rounds the extents of an output up
    assert product_of(layers[0]) == (4 * 4, 7, 45)


def test_an_interpreter_without_scalesim_is_refused() -> None:
    layer = TableLayer("any", (1, 2), (1, 1), 3, 4, 1, True)
    with pytest.raises(
        RuntimeError, match="SCALE-Sim failed: ModuleNotFoundError: No module named"
    ):
        scalesim(sys.executable, [layer], 8, WS)
