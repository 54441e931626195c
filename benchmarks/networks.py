"""Compile every network that people bring, and compare it with its golden library.

    python -m benchmarks.networks [--write] [--only NAME ...]

Needs the environment variable LEPTON_DATA, which names the folder of the models. Calibration,
compilation and comparison of each network run in a process of their own. Prints a table; with
`--write` it also replaces the figures of docs/networks.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import ROOT, Ended, run_python
from benchmarks.network_list import NETWORKS, Network
from benchmarks.page import figure, markdown_table, models_folder, origin, page_parser, replace_part
from benchmarks.torch_networks import FLOAT, TorchModel, written

if TYPE_CHECKING:
    from lepton.program import Program
    from lepton.runtime.golden import GoldenModel

__all__ = ["NETWORKS", "Equality", "Row", "compared", "limits", "table"]

PAGE = ROOT / "docs" / "networks.md"
HEADING = "## Figures"
CHIP = "edge"
LEAST_ON_NPU = 0.97
LEAST_RECURRENT = 0.90
MOST_ABOVE = 0.05
"""Of the bytes alive at once, that the scratchpad may take more."""
COMPILE_MB = 1536
CALIBRATE_MB = 1024
CALIBRATE_FILES = 6
"""A calibration may take `CALIBRATE_MB` and so many times its file."""

Array = NDArray[Any]


# --- steps, each in a process of its own ----------------------------------------------------------


@dataclass(frozen=True)
class Equality:
    """What a network computes beside its golden library.

    Attributes:
        top_1: share of equal decisions.
        float_top_1: the same beside the float model; None without one.
        scratchpad: bytes touched, and those alive at once, which is the lower bound.
        memory_above: by how much activations take more of a memory than they must, at most.
    """

    macs: int
    on_npu: float
    cycles: int
    samples: int
    different: float
    top_1: float
    float_top_1: float | None
    scratchpad: tuple[int, int]
    memory_above: float

    @property
    def scratchpad_above(self) -> float:
        """By how much the bytes touched are more than the lower bound."""
        touched, bound = self.scratchpad
        return touched / bound - 1 if bound else 0.0


def _prepare(network: Network, folder: Path) -> Path:
    """Write model and inputs; return the model's path."""
    model, inputs = network.write(folder)
    half = len(inputs) // 2 if network.is_float else 0
    np.save(folder / "samples.npy", inputs[:half])
    np.save(folder / "inputs.npy", inputs[half:])
    return model


def _calibrate(network: Network, model: Path, folder: Path) -> None:
    from lepton.compiler.calibrate import plain_samples, quantize_model

    samples = plain_samples(np.load(folder / "samples.npy"))
    file = written(model, folder)
    quantize_model(file, samples, folder / "copy.onnx", network.shapes(file))


def _compile(quantized: Path, folder: Path) -> None:
    from lepton.chip import load_chip
    from lepton.compiler.compile import compile_model

    model = TorchModel(quantized).program if quantized.suffix == ".pt2" else quantized
    compile_model(model, load_chip(CHIP)).save(folder / "program.lepton")


def _float_model(network: Network, model: Path, folder: Path) -> GoldenModel | TorchModel | None:
    """Return the trained float model, None if there is none."""
    from lepton.runtime.golden import GoldenModel

    if not network.is_trained:
        return None
    if model.suffix == ".pt2":
        return TorchModel(folder / FLOAT)
    return GoldenModel(model) if network.is_float else None


def compared(ours: Array, theirs: Array) -> int:
    """Return how many elements of an output differ."""
    if ours.dtype.kind != "f":
        return int(np.count_nonzero(ours != theirs))
    return int(np.count_nonzero(~np.isclose(ours, theirs, rtol=1e-6, atol=0)))


def _decided(network: Network, output: Array) -> Array:
    """Return the decisions that an output says."""
    if network.decisions is None:
        return np.asarray(output.argmax())
    return np.asarray(output.argmax(axis=network.decisions))


def _compare(network: Network, model: Path, quantized: Path, folder: Path) -> Equality:
    from lepton.program import load_program
    from lepton.runtime.execute import HostRegions
    from lepton.runtime.golden import GoldenModel
    from lepton.simulator import check, run_values, simulate_timing

    program = load_program(folder / "program.lepton")
    check(program)
    host, golden = HostRegions(program), GoldenModel(written(quantized, folder))
    original = _float_model(network, model, folder)
    (name,) = program.inputs
    shape = program.tensor_by_name[name].shape
    different = elements = 0
    agreeing: list[float] = []
    kept: list[float] = []
    inputs = np.load(folder / "inputs.npy")
    for sample in inputs:
        feed = {name: sample.reshape(shape)}
        ours, theirs = run_values(program, feed, host), golden.run(feed)
        different += sum(compared(ours[output], theirs[output]) for output in program.outputs)
        elements += sum(theirs[output].size for output in program.outputs)
        last = program.outputs[-1]
        decided = _decided(network, ours[last])
        agreeing.append(float(np.mean(decided == _decided(network, theirs[last]))))
        if original is not None:
            real = _decided(network, list(original.run(feed).values())[-1])
            kept.append(float(np.mean(decided == real)))
    macs = sum(operator.macs for operator in program.operators)
    npu = sum(operator.macs for operator in program.operators if operator.device == "npu")
    return Equality(
        macs, npu / max(macs, 1), simulate_timing(program).cycles, len(inputs),
        different / elements, float(np.mean(agreeing)), float(np.mean(kept)) if kept else None,
        *_memory(program),
    )  # fmt: skip


def _memory(program: Program) -> tuple[tuple[int, int], float]:
    """Return what `Equality` says of the scratchpad and of the memories."""
    from lepton.program import SCRATCHPAD
    from lepton.report.occupancy import touched_bytes

    above = {arena.memory: arena.peak_bytes / arena.bound_bytes - 1 for arena in program.arenas}
    above.pop(SCRATCHPAD, None)
    bounds = [item.bound_bytes for item in program.arenas if item.memory == SCRATCHPAD]
    return (touched_bytes(program), sum(bounds)), max(above.values(), default=0.0)


_STEPS = ("calibrate", "compile", "compare")


def _step(step: str, name: str, model: Path, folder: Path) -> None:
    """Run one step; print what it found as JSON."""
    network = next(item for item in NETWORKS if item.name == name)
    if "torch" not in network.needs:
        # TVM imports torch where it finds it, a second of work and a share of the memory
        sys.modules["torch"] = cast(Any, None)
    quantized = folder / "copy.onnx" if network.is_float else model
    if step == "calibrate":
        _calibrate(network, model, folder)
    elif step == "compile":
        _compile(quantized, folder)
    else:
        print(json.dumps(asdict(_compare(network, model, quantized, folder))))


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        file_mb: of the model as it is brought.
        calibrated: None if it is quantized already.
    """

    network: Network
    file_mb: float
    equality: Equality
    compiled: Ended
    calibrated: Ended | None


def measured(network: Network) -> Row:
    """Run every step of a network."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = _prepare(network, folder)
        ended = {
            step: run_python(
                ["-m", "benchmarks.networks", "--step", step, network.name, str(model), name]
            )
            for step in _STEPS
            if network.is_float or step != "calibrate"
        }
        size = model.stat().st_size / 2**20
    found = Equality(**json.loads(ended["compare"].output.strip().splitlines()[-1]))
    return Row(network, size, found, ended["compile"], ended.get("calibrate"))


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown."""
    head = ("network", "source", "MB", "MMACs", "MACs on NPU", "different", "top-1", "top-1, float")
    head += (
        "cycles",
        "scratchpad KiB",
        "above bound",
        "memory above bound",
        "compile s",
        "MB",
        "calibrate s",
        "MB",
    )
    lines: list[tuple[str, ...]] = []
    for row in rows:
        found, none = row.equality, "-"
        kept = none if found.float_top_1 is None else _percent(found.float_top_1)
        calibrated = row.calibrated
        lines.append(
            (
                row.network.name,
                row.network.source,
                figure(row.file_mb),
                figure(found.macs / 1e6),
                _percent(found.on_npu),
                _percent(found.different),
                _percent(found.top_1),
                kept,
                f"{found.cycles:,}",
                figure(found.scratchpad[0] / 1024),
                _percent(found.scratchpad_above),
                _percent(found.memory_above),
                figure(row.compiled.cpu_s),
                figure(row.compiled.peak_mb),
                none if calibrated is None else figure(calibrated.cpu_s),
                none if calibrated is None else figure(calibrated.peak_mb),
            )
        )
    return markdown_table(head, lines, 2)


def limits(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for every limit that a network misses."""
    missed: list[str] = []
    for row in rows:
        name = row.network.name
        least = LEAST_RECURRENT if row.network.is_recurrent else LEAST_ON_NPU
        if row.equality.on_npu < least:
            missed.append(f"{name}: {_percent(row.equality.on_npu)} of the MACs are on the NPU")
        if row.equality.scratchpad_above > MOST_ABOVE:
            above = _percent(row.equality.scratchpad_above)
            missed.append(f"{name}: the scratchpad is {above} above what is alive at once")
        if row.compiled.peak_mb > COMPILE_MB:
            missed.append(f"{name}: compilation takes {figure(row.compiled.peak_mb)} MB")
        most = CALIBRATE_MB + CALIBRATE_FILES * row.file_mb
        if row.calibrated is not None and row.calibrated.peak_mb > most:
            taken = figure(row.calibrated.peak_mb)
            missed.append(f"{name}: calibration takes {taken} MB of {figure(most)}")
    return missed


def main() -> None:
    """Measure and print; write the page's figures if asked to."""
    parser = page_parser(__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks")
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    models_folder(parser)
    if options.step:
        step, name, model, folder = options.step
        _step(step, name, Path(model), Path(folder))
        return
    rows: list[Row] = []
    failed: list[str] = []
    skipped: list[str] = []
    for network in NETWORKS:
        if options.only and network.name not in options.only:
            continue
        if network.lacks:
            skipped.append(f"{network.name} is skipped: {network.lacks} is not installed")
            print(skipped[-1], flush=True)
            continue
        try:
            rows.append(measured(network))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
        except RuntimeError as error:
            failed.append(f"{network.name}: {str(error).splitlines()[-1]}")
            print(failed[-1], flush=True)
    missed = [*failed, *limits(rows)]
    verdict = "Every limit is met." if not missed else "Missed: " + "; ".join(missed) + "."
    text = "\n\n".join((table(rows), *(f"{reason}." for reason in skipped), verdict))
    print(text)
    if options.write:
        replace_part(PAGE, HEADING, f"Measured {origin()}.\n\n{text}")


if __name__ == "__main__":
    main()
