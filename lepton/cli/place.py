"""The command `place`."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lepton.cli.arguments import add_chip, add_shapes, model_file, natural, parse_shapes
from lepton.cli.loading import chosen_chip, progress
from lepton.errors import InputError

if TYPE_CHECKING:
    from lepton.runtime.split import Unit

__all__ = ["add_commands"]

_GOALS = ("latency", "energy", "throughput")


def add_commands(commands: Any) -> None:
    """Add this module's parser."""
    parser = commands.add_parser(
        "place", help="which device runs each layer, by predicted cost",
        epilog="example: lepton place model.onnx --device npu,cpu --why",
    )  # fmt: skip
    parser.add_argument("model", metavar="MODEL", type=model_file, help=".onnx or .tflite")
    parser.add_argument(
        "--device", default="npu,cpu", metavar="npu,cpu,gpu",
        help="what there is, first the one that takes what it can in a greedy runtime; npu2=nano "
        "is one more chip; default npu,cpu",
    )  # fmt: skip
    add_chip(parser)
    add_shapes(parser)
    parser.add_argument(
        "--assume", action="append", default=[], metavar="gpu=FILE.toml",
        help="plan for a device that is not there, by its description",
    )  # fmt: skip
    parser.add_argument(
        "--place", action="append", default=[], metavar="LAYER=DEVICE", help="pin a layer"
    )
    parser.add_argument("--objective", choices=_GOALS, default="latency", help="default latency")
    parser.add_argument(
        "--watts", action="append", default=[], metavar="cpu=15",
        help="what a device draws, for --objective energy",
    )  # fmt: skip
    parser.add_argument("--threads", type=natural, default=1, help="of the CPU; default 1")
    parser.add_argument(
        "--no-measure", action="store_true",
        help="take the CPU's roofline for layers that have not been measured on this machine",
    )  # fmt: skip
    parser.add_argument("--why", action="store_true", help="also one line per layer")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_place)


def _pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Return the values of `NAME=VALUE` options; a name may hold an equals sign."""
    made: dict[str, str] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        if not name or not value:
            raise InputError(f"{option} must look like NAME=VALUE, not '{text}'")
        made[name] = value
    return made


def _watts(texts: Iterable[str]) -> dict[str, float]:
    """Return the values of `--watts`."""
    made: dict[str, float] = {}
    for name, text in _pairs("--watts", texts).items():
        try:
            watts = float(text)
        except ValueError:
            watts = math.nan
        if not 0 < watts < 1e6:
            raise InputError(f"--watts must be a positive number, not '{text}'")
        made[name] = watts
    return made


def _shown(units: Sequence[Unit], label: str) -> Iterable[Unit]:
    """Show a progress bar."""
    return progress(units, len(units), label)


def _place(options: argparse.Namespace) -> None:
    """Run `lepton place`."""
    from lepton.report.placement import placement_json, placement_text
    from lepton.runtime.devices import DeviceOptions
    from lepton.runtime.place import place_file
    from lepton.runtime.placement import Goal

    if not options.threads:
        raise InputError("--threads must be at least 1, not 0")
    made = DeviceOptions(
        chip=chosen_chip(options.chip),
        assume=_pairs("--assume", options.assume),
        threads=options.threads,
        is_measuring=not options.no_measure,
        watts=_watts(options.watts),
    )
    plan = place_file(
        options.model,
        [name for name in options.device.split(",") if name],
        made,
        goal=Goal(options.objective),
        pins=_pairs("--place", options.place),
        shapes=parse_shapes(options.shape),
        progress=_shown,
    )
    if options.json:
        print(json.dumps(placement_json(plan)))
        return
    for note in plan.notes:
        print(f"lepton: {note}", file=sys.stderr)
    print(placement_text(plan, options.why))
