"""The commands that explain cycles without a picture: estimate, why-not-faster."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lepton.cli.arguments import add_chip, add_compilation, model_file
from lepton.cli.loading import compile_options, program_or_model, search_bar
from lepton.errors import InputError
from lepton.program import Program, one_line, starts_like_program

if TYPE_CHECKING:
    from lepton.report.faster_dense import DenseRun

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add this module's parser."""
    parser = commands.add_parser(
        "estimate", help="cycles of a model or a program without simulating it",
        epilog="example: lepton estimate model.lepton --json",
    )  # fmt: skip
    parser.add_argument(
        "model", metavar="MODEL|FILE.lepton|TABLE.csv", type=model_file,
        help="as for run, which simulates",
    )  # fmt: skip
    add_chip(parser, None)
    add_compilation(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_estimate)
    faster = commands.add_parser(
        "why-not-faster", help="what the zeros of the weights bring, layer by layer, and could",
        epilog="example: lepton why-not-faster pruned.onnx --chip edge-sparse",
    )  # fmt: skip
    faster.add_argument(
        "model", metavar="MODEL|FILE.lepton", type=model_file, help="as for run"
    )  # fmt: skip
    add_chip(faster, None)
    add_compilation(faster)
    faster.add_argument(
        "--dense", metavar="MODEL|FILE.lepton", type=model_file,
        help="the network before it was pruned, to compare with; without it the model is compiled "
        "again with its zeros redrawn from its other weights, and of a program file's dense run "
        "there is an estimate",
    )  # fmt: skip
    faster.add_argument("--json", action="store_true", help="print one JSON object")
    faster.set_defaults(run=_why_not_faster)


def _estimate(options: argparse.Namespace) -> None:
    """Run `lepton estimate`."""
    from lepton.cost.estimate import estimate_program
    from lepton.report.estimated import estimate_json, estimate_table

    program = program_or_model(options)
    found = estimate_program(program)
    if options.json:
        print(json.dumps(estimate_json(program, found)))
        return
    print(estimate_table(program, found))


def _why_not_faster(options: argparse.Namespace) -> None:
    """Run `lepton why-not-faster`."""
    from lepton.program.files import temporary_folder
    from lepton.report.faster import gains_of
    from lepton.report.faster_text import gains_text
    from lepton.runtime.execute import compile_kernels
    from lepton.simulator import simulate_timing

    with temporary_folder() as folder:
        if options.calibrate is not None and options.dump is None:
            options.dump = folder
        program = program_or_model(options)
        compile_kernels(program, "timing")
        dense = _dense_run(options, program)
    gains = gains_of(program, simulate_timing(program), dense)
    print(json.dumps(gains.to_json()) if options.json else gains_text(gains))


def _dense_run(options: argparse.Namespace, program: Program) -> DenseRun | None:
    """Return the run to compare a program with, None for an estimate of its own.

    Raises:
        InputError: the network of `--dense` has other operators, or is for another chip.
    """
    from lepton.report.faster_dense import DenseRun
    from lepton.report.faster_twin import dense_run
    from lepton.simulator import simulate_timing

    if options.dense is not None:
        given = argparse.Namespace(**vars(options) | {"model": options.dense, "dump": None})
        dense = program_or_model(given)
        _refuse_other(options, program, dense)
        return DenseRun(dense, simulate_timing(dense), f"that of {one_line(options.dense.name)}")
    if starts_like_program(options.model):
        return None
    # a calibrated model is the quantized copy that its compilation left
    path = options.model if options.calibrate is None else options.dump / "quantized.onnx"
    with search_bar(f"{path.name} without zeros") as bar:
        return dense_run(path, program, replace(compile_options(options), progress=bar))


def _refuse_other(options: argparse.Namespace, program: Program, dense: Program) -> None:
    """Raise InputError if the dense program is for another chip or of another network."""
    from lepton.report.faster_twin import is_alike

    if dense.chip != program.chip:
        raise InputError(
            f"{options.dense} is for the chip {one_line(dense.chip.name)}, not for "
            f"{one_line(program.chip.name)} as {options.model}: --dense must be for that chip"
        )
    if not is_alike(program, dense):
        raise InputError(
            f"{options.dense} does not have the operators of {options.model}: --dense takes the "
            "same network before it was pruned"
        )
