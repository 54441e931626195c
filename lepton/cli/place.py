"""The command `place`."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lepton.cli.arguments import add_shapes, model_file, parse_shapes
from lepton.cli.devices import add_devices, device_names, device_options, pairs, shown
from lepton.errors import InputError

__all__ = ["add_commands"]

_GOALS = ("latency", "energy", "throughput")


def add_commands(commands: Any) -> None:
    """Add this module's parser."""
    parser = commands.add_parser(
        "place", help="which device runs each layer, by predicted cost",
        epilog="example: lepton place model.onnx --device npu,cpu --why",
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", type=model_file, help=".onnx or .tflite")
    add_devices(parser)
    add_shapes(parser)
    parser.add_argument(
        "--place", action="append", default=[], metavar="LAYER=DEVICE", help="pin a layer"
    )
    parser.add_argument("--objective", choices=_GOALS, default="latency", help="default latency")
    parser.add_argument(
        "--watts", action="append", default=[], metavar="cpu=15",
        help="what a device draws, for --objective energy",
    )  # fmt: skip
    parser.add_argument("--why", action="store_true", help="also one line per layer")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_place)


def _watts(texts: Iterable[str]) -> dict[str, float]:
    """Return the values of `--watts`."""
    made: dict[str, float] = {}
    for name, text in pairs("--watts", texts).items():
        try:
            watts = float(text)
        except ValueError:
            watts = math.nan
        if not 0 < watts < 1e6:
            raise InputError(f"--watts must be a positive number, not '{text}'")
        made[name] = watts
    return made


def _place(options: argparse.Namespace) -> None:
    """Run `lepton place`."""
    from lepton.report.placement import placement_json, placement_text
    from lepton.runtime.place import place_file
    from lepton.runtime.placement import Goal

    made = replace(device_options(options), watts=_watts(options.watts))
    plan = place_file(
        options.model,
        device_names(options),
        made,
        goal=Goal(options.objective),
        pins=pairs("--place", options.place),
        shapes=parse_shapes(options.shape),
        progress=shown,
    )
    if options.json:
        print(json.dumps(placement_json(plan)))
        return
    for note in plan.notes:
        print(f"lepton: {note}", file=sys.stderr)
    print(placement_text(plan, options.why))
