"""`lepton run` on devices other than an NPU with its host: placed by predicted cost."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.cli.arguments import parse_shapes
from lepton.cli.devices import device_names, device_options, shown
from lepton.cli.loading import read_inputs
from lepton.cli.photo import best_classes, image_input, top_json, top_text
from lepton.cli.writing import write_arrays, write_file
from lepton.errors import InputError
from lepton.program import starts_like_program

if TYPE_CHECKING:
    from lepton.runtime.placed import PlacedModel

__all__ = ["outputs_text", "run_placed", "settled_on_others", "wants_placement"]

_OWN = {"npu", "cpu"}
_NOT_PLACED = (
    "calibrate", "activations", "optimize", "effort", "dump", "no_values", "no_check",
    "save_trace", "report",
)  # fmt: skip


def wants_placement(options: argparse.Namespace) -> bool:
    """Return whether `--device` asks for more than an NPU and what it leaves to its host.

    Raises:
        InputError: it is a program, which has been compiled for an NPU and its host.
    """
    if options.device is None:
        return False
    names = set(device_names(options))
    if names <= _OWN and "npu" in names:
        return False
    if options.model.suffix == ".lepton" or starts_like_program(options.model):
        other = next((name for name in device_names(options) if name not in _OWN), "cpu")
        raise InputError(f"device '{other}' cannot run a program, which is for npu and its host")
    return True


def settled_on_others(options: argparse.Namespace) -> bool:
    """Leave out devices that are not there, saying so; return whether others than npu and cpu are.

    Raises:
        InputError: a device is none, or none is there.
    """
    from lepton.runtime.devices import choose_devices

    devices, notes = choose_devices(device_names(options), device_options(options))
    for note in notes:
        print(f"lepton: {note}", file=sys.stderr)
    names = [device.name for device in devices]
    options.device = ",".join(names) if notes else options.device
    return not ({*names} <= _OWN and "npu" in names)


def run_placed(options: argparse.Namespace) -> None:
    """Run `lepton run` on placed regions."""
    from lepton.report.placed import execution_json, execution_text, timeline_json
    from lepton.runtime.place import place_file
    from lepton.runtime.placed import prepare_plan

    for name in _NOT_PLACED:
        value = getattr(options, name)
        if value is not None and value is not False:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} is for --device npu,cpu, not for {options.device}")
    began = time.perf_counter()
    plan = place_file(
        options.model, device_names(options), device_options(options),
        shapes=parse_shapes(options.shape), progress=shown,
    )  # fmt: skip
    model = prepare_plan(plan, progress=shown)
    prepared = time.perf_counter()
    inputs, note = _inputs(options, model)
    execution = model.run(inputs)
    seconds = prepared - began, time.perf_counter() - prepared
    if options.output is not None:
        write_arrays(options.output, execution.outputs)
    if options.trace is not None:
        write_file(options.trace, timeline_json(model, execution).encode())
    first = execution.outputs[plan.network.outputs[0]]
    photo: Path | None = options.image
    top = None if photo is None else best_classes(options, first)
    if options.json:
        made = execution_json(model, execution, *seconds)
        print(json.dumps(made if top is None else made | {"top": top_json(top)}))
        return
    if note:
        print(note)
    print(execution_text(model, execution))
    print(outputs_text(execution.outputs))
    if photo is not None and top is not None:
        print(top_text(photo, top))


def _inputs(
    options: argparse.Namespace, model: PlacedModel
) -> tuple[Mapping[str, NDArray[Any]], str]:
    """Return the inputs, and a sentence about drawn ones."""
    from lepton.runtime.devices.library import drawn_inputs

    network = model.plan.network
    if options.image is not None:
        return image_input(options, {n: network.tensors[n] for n in network.inputs}), ""
    if options.input is None:
        note = f"no --input: a random one with seed {options.seed}"
        return drawn_inputs(network, network.inputs, options.seed), note
    return read_inputs("model", network.inputs, options.input), ""


def outputs_text(outputs: Mapping[str, NDArray[Any]]) -> str:
    """Return a line per output: its shape and first elements."""
    from lepton.program import one_line

    lines: list[str] = []
    for name, array in outputs.items():
        flat = np.asarray(array).reshape(-1)
        some = ", ".join(str(value) for value in flat[:8])
        head = f"{one_line(name)} {list(array.shape)} {array.dtype}"
        lines.append(f"{head}: {some}{' ...' if flat.size > 8 else ''}")
    return "\n".join(lines)
