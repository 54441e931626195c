"""The command `serve`."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton.cli.arguments import add_shapes, model_file, natural, parse_shapes
from lepton.cli.devices import add_devices, device_names, device_options, shown
from lepton.cli.loading import progress
from lepton.errors import InputError

if TYPE_CHECKING:
    from lepton.runtime.devices import Arrays, RuntimeDevice
    from lepton.runtime.placed import PlacedModel
    from lepton.runtime.serving import Executor, Fault, Policy, Request, Served, Tenant
    from lepton.runtime.split import Network

__all__ = ["add_commands"]

_POLICIES = ("static", "dynamic")


def add_commands(commands: Any) -> None:
    """Add this module's parser."""
    parser = commands.add_parser(
        "serve", help="models under load on shared devices, with priorities, deadlines, failures",
        epilog="example: lepton serve a.onnx b.tflite --device npu,npu2=nano,cpu --deadline 5 "
        "--fault npu@20-60",
    )  # fmt: skip
    parser.add_argument("models", metavar="MODEL", nargs="+", type=model_file)
    add_devices(parser)
    add_shapes(parser)
    for option, unit, text in (
        ("--rate", "HZ", "requests per second; default: as many of each as --load says"),
        ("--priority", "N", "the highest goes first; default 0"),
        ("--deadline", "MS", "milliseconds after which a request is late; default never"),
    ):
        parser.add_argument(
            option, action="append", default=[], metavar=f"[MODEL=]{unit}", help=text
        )
    parser.add_argument(
        "--load", default="0.8", metavar="SHARE",
        help="how busy the busiest device is if every model keeps one way; default 0.8",
    )  # fmt: skip
    parser.add_argument(
        "--variation", default="1", metavar="V",
        help="of the times between requests, deviation over mean: 0 regular, more than 1 in "
        "bursts; default 1, Poisson",
    )  # fmt: skip
    parser.add_argument("--requests", type=natural, default=1000, help="of all; default 1000")
    parser.add_argument("--seed", type=natural, default=0, help="of the arrivals; default 0")
    parser.add_argument(
        "--fault", action="append", default=[], metavar="DEVICE@FROM-TO[=SLOWDOWN]",
        help="a device that fails, or takes SLOWDOWN times as long, in that time, milliseconds; "
        "without TO for good",
    )  # fmt: skip
    parser.add_argument(
        "--policy", choices=(*_POLICIES, "both"), default="both",
        help="static: one way per model; dynamic: each request where it ends first; default both",
    )  # fmt: skip
    parser.add_argument(
        "--values", action="store_true",
        help="run every request, its regions on their devices, and compare its results with a "
        "single run's",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_serve)


def _number(option: str, text: str) -> float:
    """Return a finite number of at least 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1e12:
        raise InputError(f"{option} must be a number of at least 0, not '{text}'")
    return number


def _positive(option: str, text: str) -> float:
    """Return a number above 0."""
    number = _number(option, text)
    if not number:
        raise InputError(f"{option} must be above 0, not '{text}'")
    return number


def _per_model(option: str, texts: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Return the values of `[MODEL=]VALUE` options; one without a model is for all others."""
    made: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.rpartition("=")
        if not value or (sign and name not in names):
            known = ", ".join(names)
            raise InputError(f"{option} must be VALUE or MODEL=VALUE, of {known}, not '{text}'")
        for each in [name] if sign else [n for n in names if n not in made]:
            made[each] = value
    return made


def _faults(texts: Sequence[str], devices: Sequence[str]) -> list[Fault]:
    """Return the values of `--fault`."""
    from lepton.runtime.serving import Fault

    made: list[Fault] = []
    number = r"[0-9]{1,9}(?:\.[0-9]{1,6})?"
    for text in texts:
        found = re.fullmatch(rf"(\w+)@({number})-({number})?(?:=({number}))?", text)
        if not found or found[1] not in devices:
            raise InputError(
                f"--fault must look like {devices[0]}@20-60 or {devices[0]}@20-60=4, with one of "
                f"{', '.join(devices)}, not '{text}'"
            )
        start = round(float(found[2]) * 1e6)
        end = None if found[3] is None else round(float(found[3]) * 1e6)
        slowdown = None if found[4] is None else float(found[4])
        if (end is not None and end <= start) or slowdown == 0:
            raise InputError(f"--fault must end after it starts and slow by more than 0: '{text}'")
        made.append(Fault(devices.index(found[1]), start, end, slowdown))
    return made


def _networks(options: argparse.Namespace) -> list[Network]:
    """Return the models, each under a name of its own."""
    from lepton.runtime.split import read_network

    paths: list[Path] = options.models
    names = [path.stem for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two models are called {name}; give each a name of its own")
    if options.shape and len(paths) > 1:
        raise InputError("--shape is for a single model")
    networks = [read_network(path, parse_shapes(options.shape)) for path in paths]
    return [replace(n, name=name) for n, name in zip(networks, names, strict=True)]


def _tenants(
    options: argparse.Namespace,
    networks: Sequence[Network],
    models: Sequence[Sequence[PlacedModel]] | None,
    devices: Sequence[RuntimeDevice],
) -> list[Tenant]:
    """Return what is asked for, and how often."""
    from lepton.runtime.serving import Static, Tenant, plans_of, ways_of

    names = [network.name for network in networks]
    rates, priorities, deadlines = (
        _per_model(f"--{name}", getattr(options, name), names)
        for name in ("rate", "priority", "deadline")
    )
    variation = _number("--variation", options.variation)
    made: list[Tenant] = []
    for at, network in enumerate(networks):
        plans = (
            [model.plan for model in models[at]] if models else plans_of(network, devices, shown)
        )
        deadline = deadlines.get(network.name)
        made.append(
            Tenant(
                network.name,
                ways_of(plans, devices),
                _positive("--rate", rates.get(network.name, "1")),
                round(_number("--priority", priorities.get(network.name, "0"))),
                None if deadline is None else round(_positive("--deadline", deadline) * 1e6),
                variation,
            )
        )
    load = _positive("--load", options.load)
    scale = load / max(Static(made, len(devices)).load, 1e-12)
    return [
        tenant if tenant.name in rates else replace(tenant, rate_hz=tenant.rate_hz * scale)
        for tenant in made
    ]


def _prepared(
    networks: Sequence[Network], devices: Sequence[RuntimeDevice]
) -> list[list[PlacedModel]]:
    """Return every placement of every model, ready to run."""
    from lepton.runtime.placed import prepare_plan
    from lepton.runtime.serving import plans_of

    return [[prepare_plan(plan) for plan in plans_of(each, devices, shown)] for each in networks]


def _serve(options: argparse.Namespace) -> None:
    """Run `lepton serve`."""
    from lepton.report.serving import serving_json, serving_text
    from lepton.runtime.devices import choose_devices
    from lepton.runtime.serving import Dynamic, Executor, Static, arrivals, serve

    devices, notes = choose_devices(device_names(options), device_options(options))
    names = [device.name for device in devices]
    faults = _faults(options.fault, names)
    networks = _networks(options)
    models = _prepared(networks, devices) if options.values else None
    tenants = _tenants(options, networks, models, devices)
    requests = arrivals(tenants, options.requests, options.seed)
    policies: dict[str, Policy] = {
        "static": Static(tenants, len(devices)), "dynamic": Dynamic(tenants)
    }  # fmt: skip
    runs: dict[str, Served] = {}
    equal = 0
    for name in _POLICIES if options.policy == "both" else (options.policy,):
        executor = None if models is None else Executor(models, partial(_inputs, models))
        runs[name] = serve(
            tenants, len(devices), policies[name], requests, faults=faults, execute=executor
        )
        if executor is not None and models is not None:
            equal += _equal(runs[name], executor, models)
    for note in notes:
        print(f"lepton: {note}", file=sys.stderr)
    if options.json:
        made = serving_json(tenants, names, requests, runs)
        equal = equal if options.values else None
        print(json.dumps(made | {"seed": options.seed, "equal": equal, "notes": list(notes)}))
        return
    print(serving_text(tenants, names, requests, runs))
    if options.values:
        count = sum(len(served.completed) for served in runs.values())
        print(f"{equal} of {count} results equal those of single runs to the last byte")


def _inputs(models: Sequence[Sequence[PlacedModel]], request: Request) -> Arrays:
    """Return the arrays of a request, drawn by its number."""
    from lepton.runtime.devices.library import drawn_inputs

    network = models[request.tenant][0].plan.network
    return drawn_inputs(network, network.inputs, request.number)


def _equal(served: Served, executor: Executor, models: Sequence[Sequence[PlacedModel]]) -> int:
    """Return how many results are those of single runs."""
    count = 0
    for item in progress(served.completed, len(served.completed), "comparing"):
        made = executor.outputs(item.request)
        alone = models[item.request.tenant][0].run(_inputs(models, item.request)).outputs
        count += all(made[name].tobytes() == alone[name].tobytes() for name in alone)
    return count
