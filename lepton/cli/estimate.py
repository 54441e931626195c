"""The commands that explain cycles without a picture: estimate, why-not-faster."""

from __future__ import annotations

import argparse
import json
from typing import Any

from lepton.cli.arguments import add_chip, add_compilation, model_file
from lepton.cli.loading import program_or_model

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
    from lepton.report.faster import gains_of
    from lepton.report.faster_text import gains_text
    from lepton.runtime.execute import compile_kernels
    from lepton.simulator import simulate_timing

    program = program_or_model(options)
    compile_kernels(program, "timing")
    gains = gains_of(program, simulate_timing(program))
    print(json.dumps(gains.to_json()) if options.json else gains_text(gains))
