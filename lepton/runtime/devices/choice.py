"""Devices by the names that users give."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lepton.chip import Chip, load_chip
from lepton.errors import InputError
from lepton.runtime.devices.cpu import CpuDevice
from lepton.runtime.devices.described import DescribedDevice, load_description
from lepton.runtime.devices.npu import NpuDevice
from lepton.runtime.devices.profile import load_profile
from lepton.runtime.devices.protocol import RuntimeDevice

__all__ = ["DeviceOptions", "choose_devices"]


@dataclass(frozen=True)
class DeviceOptions:
    """What devices are made from.

    Attributes:
        chip: of every NPU that names none.
        assume: name -> description file of a device that is not there.
        threads: of the CPU.
        is_measuring: whether the CPU is measured where its profile has gaps.
        watts: name -> what a device draws, of the CPU.
        effort: 0 to 3, of the compiler.
    """

    chip: str | Path | Chip = "edge"
    assume: Mapping[str, str | Path] = field(default_factory=dict[str, "str | Path"])
    threads: int = 1
    is_measuring: bool = True
    watts: Mapping[str, float] = field(default_factory=dict[str, float])
    effort: int = 1


def choose_devices(
    names: Sequence[str], options: DeviceOptions
) -> tuple[tuple[RuntimeDevice, ...], tuple[str, ...]]:
    """Return devices, and a sentence about each that is not there.

    Args:
        names: `cpu`, `gpu`, `npu`, or `npu2=nano` for one of several chips.
        options: what they are made from.

    Raises:
        InputError: a name is none, is given twice, or no device is left.
    """
    made: list[RuntimeDevice] = []
    notes: list[str] = []
    known = [name.partition("=")[0] for name in names]
    for name in (*known, *options.assume, *options.watts):
        if known.count(name) != 1:
            count = "twice" if name in known else "by --assume or --watts only"
            raise InputError(f"device '{name}' is named {count}; name it once among the devices")
    for name in names:
        device = _device(name, options)
        if device is None:
            notes.append(
                f"{name}: there is no such device here, so it is left out; "
                f"--assume {name}=FILE.toml plans for one"
            )
        else:
            made.append(device)
    if not made:
        raise InputError("; ".join(notes) or "name at least one device")
    return tuple(made), tuple(notes)


def _device(text: str, options: DeviceOptions) -> RuntimeDevice | None:
    """Return a device, None if this machine has none."""
    name, _, chip = text.partition("=")
    if name in options.assume:
        return DescribedDevice(name, load_description(Path(options.assume[name])))
    if re.fullmatch("npu[0-9]*", name):
        chosen = chip or options.chip
        return NpuDevice(
            chosen if isinstance(chosen, Chip) else load_chip(chosen), name, options.effort
        )
    if name == "cpu" and not chip:
        from lepton.jit import cache_folder

        profile = load_profile(options.threads, cache_folder() / "profiles")
        return CpuDevice(profile, name, options.is_measuring, options.watts.get(name))
    if name == "gpu" and not chip:
        return _gpu(name, options)
    raise InputError(f"a device must be cpu, gpu, npu or npu2=CHIP, not '{text}'")


def _gpu(name: str, options: DeviceOptions) -> RuntimeDevice | None:
    """Return the GPU of this machine, None if it has none that a library here can use."""
    from lepton.jit import cache_folder
    from lepton.runtime.devices.gpu import GpuDevice, gpu_engine, gpu_model

    engine = gpu_engine()
    if engine is None:
        return None
    profile = load_profile(0, cache_folder() / "profiles", "gpu", gpu_model())
    profile.engine = engine
    return GpuDevice(profile, name, options.is_measuring, options.watts.get(name))
