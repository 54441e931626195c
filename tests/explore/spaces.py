"""Small spaces and models for the tests of sweeps."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lepton.chip import load_chip
from lepton.compiler.steps import FrontModel
from lepton.explore import Space, parse_space
from lepton.explore.fronts import load_front
from lepton.explore.space import Workload
from tests.conftest import data_path

__all__ = ["GRID", "RESNET8", "front_of", "grid"]

RESNET8 = "mlperf_tiny/pretrainedResnet_quant.tflite"

GRID = """\
base = "nano"
objectives = ["latency_ms", "area_mm2"]
[parameters]
array.rows = [8, 16, 32]
array.columns = [8, 16, 32]
scratchpad.size_kib = { from = 32, to = 256, factor = 2 }
scratchpad.port_bytes = { follows = "array.rows" }
memory.flash.bytes_per_cycle = [1, 4]
array.clock_mhz = [250, 500]
[[workload]]
model = "digits"
"""


def grid(model: str | Path = "digits") -> Space:
    """Return 144 chips around nano for a model."""
    return parse_space(GRID.replace('"digits"', f'"{model}"'), "grid.toml")


@cache
def front_of(name: str) -> FrontModel:
    """Return the front of a trained network, or of a model below `LEPTON_DATA`."""
    path = data_path(name) if "/" in name else grid(name).workloads[0].model
    return load_front(Workload(name, path), load_chip("edge"))
