"""The command `estimate`."""

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
