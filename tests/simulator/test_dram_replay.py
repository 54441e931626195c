"""The DRAM controller against what DRAMsim3 gave for the same traces and configurations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lepton.errors import ChipError
from lepton.simulator.dram_configs import from_dramsim3
from lepton.simulator.dram_replay import Replay, replay
from tests.conftest import data_path

TRACES = ("stream_rd", "random_rd", "copy_rw", "tile_rd", "idle_random_rd")
CONFIGURATIONS = (
    "DDR4_3200",
    "DDR4_3200_bgil",
    "LPDDR4_2400",
    "LPDDR4_2400_bgil",
    "HBM2_8ch_chil",
)


@pytest.fixture(scope="module")
def folder() -> Path:
    return data_path("dram")


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_replay_gives_the_recorded_result(folder: Path, name: str, trace: str) -> None:
    """The recorded figures are met to the digit, well inside the 3 %, 2 points, 5 % and 15 %."""
    results = json.loads((folder / "dramsim3_results.json").read_text())
    reference = next(r for r in results if (r["cfg"], r["trace"]) == (name, trace))
    timing, arbitration = from_dramsim3(
        name, json.loads((folder / "configs.json").read_text())[name]
    )
    requests = np.load(folder / f"{trace}_{reference['req_bytes']}.npz")
    is_write = requests["is_write"]
    found = replay(timing, arbitration, requests["address"], is_write, requests["earliest_cycle"])
    latency = (found.done - found.accepted)[~is_write]
    assert found.cycles == reference["cycles"]
    assert round(float(latency.mean()), 2) == pytest.approx(reference["avg_rd_lat_cyc"], abs=0.011)
    assert (latency.min(), latency.max()) == (reference["min"], reference["max"])
    assert found.row_hit_rate == pytest.approx(reference["row_hit_rate"], abs=1e-4)
    assert found.activates == reference["acts"]
    assert found.refreshes == reference["refs"]


def test_a_missing_timing_is_refused(folder: Path) -> None:
    configuration = json.loads((folder / "configs.json").read_text())["DDR4_3200"]
    del configuration["timing"]["tFAW"]
    with pytest.raises(ChipError, match="tFAW is missing"):
        from_dramsim3("DDR4_3200", configuration)


def test_an_empty_trace_takes_no_time(folder: Path) -> None:
    configuration = json.loads((folder / "configs.json").read_text())["DDR4_3200"]
    timing, arbitration = from_dramsim3("DDR4_3200", configuration)
    found: Replay = replay(timing, arbitration, np.zeros(0, np.int64), np.zeros(0, bool))
    assert found.done.size == 0
    assert found.row_hit_rate == 0
