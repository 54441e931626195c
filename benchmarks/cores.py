"""Compare networks on two and four cores with one, where memory bandwidth scales and where not.

    python -m benchmarks.cores [--write]

Needs the environment variable LEPTON_DATA, which names the folder of the models. Chips are `edge`
with more cores, and with as many times the channels of its DRAM or with the same. Prints a table;
with `--write` it also replaces the figures of docs/cores.md.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measure import ROOT
from benchmarks.page import (
    Limit,
    limits_table,
    markdown_table,
    models_folder,
    origin,
    page_parser,
    replace_part,
)
from lepton.chip import Chip, load_chip
from lepton.chip.description import Dram

__all__ = ["Scaling", "measure", "scaled", "table"]

PAGE = ROOT / "docs" / "cores.md"
HEADING = "## Figures"
COUNTS = (1, 2, 4)
LIMITS = {2: 1.8, 4: 3.2}
"""Speed-up of ResNet-50 where bandwidth scales."""
NETWORKS = {
    "ResNet-large": "mlperf_tiny/pretrainedResnet_large_int8.tflite",
    "ResNet-8": "mlperf_tiny/pretrainedResnet_quant.tflite",
    "MobileNetV2": "mobilenet/tf2_mobilenet_v2_1.0_224_ptq.tflite",
    "VWW": "mlperf_tiny/vww_96_int8.tflite",
}


@dataclass(frozen=True)
class Scaling:
    """Cycles of a network by cores, where the bandwidth of the memories scales and where not."""

    network: str
    scaled: dict[int, int]
    shared: dict[int, int]

    def speedup(self, cores: int) -> float:
        return self.scaled[1] / self.scaled[cores]


def scaled(chip: Chip, cores: int, times: int) -> Chip:
    """Return a chip of so many cores, whose DRAMs have `times` as many channels."""
    memories = tuple(
        replace(memory, channels=memory.channels * times)
        if isinstance(memory, Dram)
        else replace(memory, bytes_per_cycle=memory.bytes_per_cycle * times)
        for memory in chip.memories
    )
    return replace(chip, cores=cores, memories=memories)


def measure(network: str, path: Path, samples: object = None) -> Scaling:
    """Return the cycles of a network on every number of cores."""
    import lepton
    from lepton.simulator.timing import simulate_timing

    found: list[dict[int, int]] = []
    for is_scaled in (True, False):
        cycles: dict[int, int] = {}
        for cores in COUNTS:
            chip = scaled(load_chip("edge"), cores, cores if is_scaled else 1)
            program = lepton.compile(path, chip=chip, calibration=samples)
            cycles[cores] = simulate_timing(program).cycles
        found.append(cycles)
    return Scaling(network, *found)


def table(results: list[Scaling]) -> str:
    """Return the limits and the figures."""
    limits = [
        Limit(f"{found.network} on {cores} cores / one core", limit, found.speedup(cores), True)
        for found in results
        if found.network == "ResNet-50"
        for cores, limit in LIMITS.items()
    ]
    rows: list[tuple[str | float, ...]] = []
    for found in results:
        for cores in COUNTS:
            rows.append(
                (
                    found.network,
                    f"{cores}",
                    f"{found.scaled[cores]:,}",
                    f"{found.speedup(cores):.2f}",
                    f"{100 * found.speedup(cores) / cores:.0f} %",
                    f"{found.shared[1] / found.shared[cores]:.2f}",
                )
            )
    head = ("cycles", "speed-up", "efficiency", "speed-up at one core's bandwidth")
    return f"{limits_table(limits)}\n\n{markdown_table(('network', 'cores', *head), rows, 1)}"


def main() -> None:
    parser = page_parser(__doc__)
    args = parser.parse_args()
    data = models_folder(parser)
    from lepton.models.light import light_network, light_samples

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.onnx"
        path.write_bytes(light_network("resnet50").SerializeToString())
        results = [measure("ResNet-50", path, light_samples(2))]
    results += [measure(name, data / file) for name, file in NETWORKS.items()]
    text = table(results)
    print(text)
    if args.write:
        replace_part(PAGE, HEADING, f"Measured {origin()}.\n\n{text}")


if __name__ == "__main__":
    main()
