"""The command that sweeps a design space."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton.cli.arguments import add_calibration, file_path, natural
from lepton.cli.writing import write_file
from lepton.errors import InputError
from lepton.program.files import made_folder

if TYPE_CHECKING:
    from lepton.explore.engine import Sweep
    from lepton.explore.results import Told

__all__ = ["add_commands"]

_SAMPLERS = ("two-fidelity", "grid", "random", "qmc", "tpe", "nsga2", "nsga3")
_SHOWN = 20
"""Points of the front that are printed."""
_EVERY_S = 1.0
"""Seconds between two looks at the front."""


def add_commands(commands: Any) -> None:
    """Add the parser of `lepton sweep`."""
    parser = commands.add_parser(
        "sweep", help="which chip of a design space, for these networks, under these limits",
        epilog="example: lepton sweep space.toml --model mobilenet.tflite --workers 2 -o sweep",
    )  # fmt: skip
    parser.add_argument(
        "space", metavar="SPACE.toml", type=file_path,
        help="see docs/sweeps.md; or edge-1tops, scratchpad-knee or structured-sparsity, its cases",
    )  # fmt: skip
    parser.add_argument(
        "--model", action="append", default=[], metavar="MODEL",
        help=".onnx or .tflite, beside the [[workload]] tables of the space",
    )  # fmt: skip
    parser.add_argument(
        "--model-folder", type=file_path, metavar="DIR",
        help="that the models of [[workload]] are relative to; default that of the space",
    )  # fmt: skip
    add_calibration(parser)
    parser.add_argument(
        "--sampler", choices=_SAMPLERS, default="two-fidelity",
        help="default two-fidelity: closed forms screen the space, simulations confirm the front",
    )  # fmt: skip
    parser.add_argument(
        "--tier", choices=("event", "analytic"), default="event",
        help="what evaluates the points of the other samplers; default event, the simulator",
    )  # fmt: skip
    parser.add_argument(
        "--points", type=natural, metavar="N",
        help="to evaluate; default 5 %% of the space, all of a grid, 200 of the other samplers",
    )  # fmt: skip
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--workers", type=natural, default=1, help="processes; default 1")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS",
        help="of a Dask cluster, in place of workers here, as tcp://10.0.0.1:8786",
    )  # fmt: skip
    parser.add_argument(
        "--storage", metavar="URL", help="database of runs that are done; default DIR/runs.db"
    )
    parser.add_argument(
        "-o", "--output", type=file_path, metavar="DIR",
        help="for the table, the pictures and the page; a sweep that was cut off goes on there; "
        "default SPACE.sweep",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_sweep)


def _sweep(options: argparse.Namespace) -> None:
    """Run `lepton sweep`."""
    from lepton.explore.engine import SweepOptions, planned_points, run_sweep, with_models
    from lepton.explore.report import write_report
    from lepton.explore.space_file import load_space
    from lepton.explore.table import About, parquet_bytes

    chosen = SweepOptions(
        options.sampler, options.tier, options.points, options.seed, options.workers,
        options.storage, options.scheduler,
    )  # fmt: skip
    declared = load_space(options.space, options.model_folder)
    folder: Path = options.output or options.space.with_suffix(".sweep")
    if folder == options.space:
        raise InputError(f"{folder}: the results need a folder of their own: choose one with -o")
    space = with_models(declared, options.model)
    made_folder(folder)
    if options.calibrate is not None:
        space = with_models(declared, [_quantized(options, folder)])
    began = time.perf_counter()
    with _bar(options.space.name, planned_points(space, chosen)) as tell:
        found = run_sweep(space, chosen, folder, tell)
    seconds = time.perf_counter() - began
    tier = "event" if found.simulated is not None else "analytic"
    write_file(folder / "points.parquet", parquet_bytes(found.columns, About.of(space, tier)))
    paths = [folder / "points.parquet", *write_report(found, folder)]
    if options.json:
        print(json.dumps(_summary(found, seconds) | {"files": [str(path) for path in paths]}))
    else:
        print(_text(found, seconds))
        print(f"written: {folder}: {', '.join(path.name for path in paths)}")


def _quantized(options: argparse.Namespace, folder: Path) -> Path:
    """Quantize the only model with the samples of `--calibrate`; return the int8 file."""
    from lepton.compiler.calibrate import plain_samples, quantize_model
    from lepton.models import model_path
    from lepton.program import read_arrays

    if len(options.model) != 1:
        raise InputError(f"--calibrate is for one --model, not {len(options.model)}")
    source = model_path(options.model[0])
    target = folder / "int8" / f"{source.stem}.onnx"
    made_folder(target.parent)
    quantize_model(source, plain_samples(read_arrays(options.calibrate)), target)
    return target


@contextmanager
def _bar(label: str, total: int) -> Generator[Callable[[Told], None]]:
    """Give what shows points per second, the front and the time left, on a terminal."""
    from tqdm import tqdm

    bar: Any = tqdm(
        total=total, desc=label, unit="point", disable=not sys.stderr.isatty(), leave=False
    )
    looked = [0.0]

    def tell(told: Told) -> None:
        bar.update(told.done)
        if not bar.disable and time.monotonic() - looked[0] > _EVERY_S:
            bar.set_postfix_str(f"front {told.front_size()}", refresh=False)
            looked[0] = time.monotonic()

    with bar:
        yield tell


def _summary(found: Sweep, seconds: float) -> dict[str, Any]:
    """Return what the JSON object has."""
    import numpy as np

    space = found.space
    order = np.argsort(found.metrics[space.objectives[0]], kind="stable")
    front = set(found.front.tolist())
    rows = [
        {
            "point": int(found.numbers[row]),
            "parameters": space.values(space.points(found.numbers[row : row + 1])[0].tolist()),
            "metrics": {name: float(values[row]) for name, values in found.metrics.items()},
        }
        for row in order.tolist()
        if int(found.numbers[row]) in front
    ]
    return {
        "space": space.size,
        "screened": found.screened,
        "points": len(found.numbers),
        "simulated_now": found.fresh,
        "without_result": int(np.isnan(found.metrics["latency_ms"]).sum()),
        "rank_agreement": found.agreement(),
        "objectives": list(space.objectives),
        "seconds": round(seconds, 3),
        "front": rows,
    }


def _text(found: Sweep, seconds: float) -> str:
    """Return the summary for people."""
    made = _summary(found, seconds)
    screen = f"{made['screened']:,} screened, " if made["screened"] else ""
    done = "simulated" if found.simulated is not None else "evaluated in closed form"
    lines = [
        f"{made['space']:,} points, {screen}{made['points']:,} {done} "
        f"({made['simulated_now']:,} runs now) in {seconds:.1f} s; "
        f"{made['without_result']:,} without a result"
    ]
    if made["rank_agreement"]:
        parts = [f"{name} {value:.3f}" for name, value in made["rank_agreement"].items()]
        lines.append(f"rank agreement of closed forms and simulation: {', '.join(parts)}")
    front = made["front"]
    if not front:
        return "\n".join([*lines, "no point is within all constraints"])
    lines.append(f"front of {len(front)} points by {', '.join(made['objectives'])}:")
    return "\n".join([*lines, *_table(found, front[:_SHOWN])])


def _table(found: Sweep, front: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the front's table."""
    paths = [p.path for p in found.space.parameters if len(p.values) > 1]
    heads = [*paths, *found.space.objectives]
    rows = [
        [
            *(str(item["parameters"][path]) for path in paths),
            *(f"{item['metrics'][name]:.4g}" for name in found.space.objectives),
        ]
        for item in front
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    cells = [heads, *rows]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
