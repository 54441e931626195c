"""Place a model file on devices by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lepton.runtime.devices import DeviceOptions, Progress, choose_devices, silent
from lepton.runtime.placement import Goal
from lepton.runtime.plan import Plan, place_network
from lepton.runtime.split import read_network

__all__ = ["place_file"]


def place_file(
    path: Path,
    devices: Sequence[str],
    options: DeviceOptions,
    *,
    goal: Goal = Goal.LATENCY,
    pins: Mapping[str, str] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress = silent,
) -> Plan:
    """Place a model file.

    Args:
        path: `.onnx` or `.tflite`.
        devices: names as `choose_devices` takes them.
        options: what devices are made from.
        goal: what is minimized.
        pins: layer -> device.
        shapes: of inputs that have unknown dimensions.
        progress: shows measurements.

    Raises:
        InputError: the file, a device or a pin is at fault.
    """
    made, notes = choose_devices(devices, options)
    plan = place_network(read_network(path, shapes), made, goal, pins, progress=progress)
    return replace(plan, notes=notes)
