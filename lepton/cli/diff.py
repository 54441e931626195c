"""The command `diff`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton.cli.arguments import add_calibration, add_objective, add_shapes, file_path, model_file
from lepton.cli.loading import program_or_model
from lepton.errors import InputError

if TYPE_CHECKING:
    from lepton.program import Program
    from lepton.report.figures import Figures

__all__ = ["add_commands"]

_TWICE = "; given twice, for A and for B"


def add_commands(commands: Any) -> None:
    """Add this module's parser."""
    parser = commands.add_parser(
        "diff",
        help="compare two programs, chips, option sets or results layer by layer, or two sweeps",
        epilog="example: lepton diff model.tflite --chip edge --chip server",
    )  # fmt: skip
    parser.add_argument(
        "a", metavar="A", type=model_file,
        help="model, FILE.lepton, FILE.json of `run --json`, or folder of a sweep",
    )  # fmt: skip
    parser.add_argument(
        "b", metavar="B", type=model_file, nargs="?", help="default A, with other options"
    )
    parser.add_argument(
        "--chip", action="append", default=[], metavar="NAME|FILE.toml",
        help=f"preset (see `lepton chips`) or .toml file{_TWICE}",
    )  # fmt: skip
    parser.add_argument(
        "--effort", action="append", default=[], type=int, choices=range(4),
        help=f"how long to search for better tiles{_TWICE}",
    )  # fmt: skip
    add_objective(parser, action="append", default=[], note=_TWICE)
    add_shapes(parser)
    add_calibration(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=file_path,
        metavar="DIR",
        help="of two sweeps: for the picture, PNG and SVG",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_diff)


def _diff(options: argparse.Namespace) -> None:
    """Run `lepton diff`."""
    from lepton.explore.comparison import is_sweep
    from lepton.report.difference import compare

    if is_sweep(options.a) or (options.b is not None and is_sweep(options.b)):
        _diff_sweeps(options)
        return
    if options.output is not None:
        raise InputError("--output is for the picture of two sweeps: there is none of two programs")

    sides = _sides(options)
    made = [_load(side) for side in sides]
    a = _figures(made[0])
    difference = compare(a, a if _same_program(*made) else _figures(made[1]))
    print(json.dumps(difference.to_json()) if options.json else difference.text())


def _diff_sweeps(options: argparse.Namespace) -> None:
    """Compare the tables of two sweeps."""
    from lepton.explore.comparison import compare_sweeps, load_table
    from lepton.explore.plot_comparison import comparison_picture
    from lepton.report.plots import save_pictures

    given = (options.chip, options.effort, options.optimize, options.shape, options.calibrate)
    if any(given):
        raise InputError("two sweeps are compared as they are: leave the compiler's options out")
    if options.b is None:
        raise InputError(f"{options.a} is a sweep: diff needs a second one, B")
    a, b = load_table(options.a), load_table(options.b)
    found = compare_sweeps(a, b)
    folder: Path | None = options.output
    made = [] if folder is None else [comparison_picture(a, b)]
    print(json.dumps(found.to_json()) if options.json else found.text())
    if folder is not None:
        written = save_pictures(made, folder, svg=True)
        if not options.json:
            print(f"written: {folder}: {', '.join(path.name for path in written)}")


def _sides(options: argparse.Namespace) -> list[argparse.Namespace]:
    """Return the options of A and of B, None for those of a compilation on a saved result."""
    paths: list[Path] = [options.a, options.b or options.a]
    saved = [path.suffix == ".json" for path in paths]
    sides: list[argparse.Namespace] = []
    for index, path in enumerate(paths):
        compiles = not saved[index]
        sides.append(
            argparse.Namespace(
                model=path,
                chip=_of_side(options.chip, index, saved, "--chip"),
                effort=_of_side(options.effort, index, saved, "--effort"),
                optimize=_of_side(options.optimize, index, saved, "--optimize"),
                shape=options.shape if compiles else [],
                calibrate=options.calibrate if compiles else None,
            )
        )
    if options.b is None and sides[0] == sides[1]:
        raise InputError("diff needs a second file B, or --chip, --effort or --optimize twice")
    if all(saved) and (options.shape or options.calibrate):
        raise InputError("--shape and --calibrate are for models, and both files are saved results")
    return sides


def _of_side(values: list[Any], index: int, saved: list[bool], name: str) -> Any:
    """Return an option's value for a side: the only one is for what is compiled."""
    if len(values) > 2:
        raise InputError(f"{name} may be given twice, for A and for B, not {len(values)} times")
    if values and (all(saved) or (saved[index] and len(values) == 2)):
        raise InputError(f"{name} is for what is compiled, and {'AB'[index]} is a saved result")
    if not values or saved[index]:
        return None
    return values[min(index, len(values) - 1)]


def _load(side: argparse.Namespace) -> Program | Figures:
    """Return a side's program, or the figures that were saved of one."""
    from lepton.report.figures import load_figures

    path: Path = side.model
    return load_figures(path) if path.suffix == ".json" else program_or_model(side)


def _same_program(a: Program | Figures, b: Program | Figures) -> bool:
    """Return whether both are programs of the same bytes."""
    from lepton.program import Program

    return isinstance(a, Program) and isinstance(b, Program) and a.to_bytes() == b.to_bytes()


def _figures(side: Program | Figures) -> Figures:
    """Return a side's figures, after a simulation of its cycles if it is a program."""
    from lepton.program import Program
    from lepton.report.figures import figures_of
    from lepton.report.summary import summarize
    from lepton.runtime.execute import simulate

    if not isinstance(side, Program):
        return side
    return figures_of(summarize(side, simulate(side).trace))
