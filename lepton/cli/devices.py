"""Options of the commands that place networks on devices."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lepton.cli.arguments import add_chip, natural
from lepton.cli.loading import chosen_chip, progress
from lepton.errors import InputError

if TYPE_CHECKING:
    from lepton.runtime.devices import DeviceOptions
    from lepton.runtime.split import Unit

__all__ = ["add_devices", "add_measuring", "device_names", "device_options", "pairs", "shown"]


def add_devices(parser: Any) -> None:
    """Add `--device`, `--chip` and what says how devices are made."""
    parser.add_argument(
        "--device", default="npu,cpu", metavar="npu,cpu,gpu",
        help="what there is, first the one that takes what it can in a greedy runtime; npu2=nano "
        "is one more chip; default npu,cpu",
    )  # fmt: skip
    add_chip(parser)
    add_measuring(parser)


def add_measuring(parser: Any) -> None:
    """Add `--assume`, `--threads` and `--no-measure`."""
    parser.add_argument(
        "--assume", action="append", default=[], metavar="gpu=FILE.toml",
        help="plan for a device that is not there, by its description",
    )  # fmt: skip
    parser.add_argument("--threads", type=natural, default=1, help="of the CPU; default 1")
    parser.add_argument(
        "--no-measure", action="store_true",
        help="take the CPU's roofline for layers that have not been measured on this machine",
    )  # fmt: skip


def device_names(options: argparse.Namespace) -> list[str]:
    """Return the names of `--device`."""
    return [name.strip() for name in options.device.split(",") if name.strip()]


def device_options(options: argparse.Namespace) -> DeviceOptions:
    """Return what devices are made from.

    Raises:
        InputError: an option is at fault.
    """
    from lepton.runtime.devices import DeviceOptions

    if not options.threads:
        raise InputError("--threads must be at least 1, not 0")
    return DeviceOptions(
        chip=chosen_chip(options.chip or "edge"),
        assume=pairs("--assume", options.assume),
        threads=options.threads,
        is_measuring=not options.no_measure,
    )


def pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Return the values of `NAME=VALUE` options; a name may hold an equals sign."""
    made: dict[str, str] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        if not name or not value:
            raise InputError(f"{option} must look like NAME=VALUE, not '{text}'")
        made[name] = value
    return made


def shown(units: Sequence[Unit], label: str) -> Iterable[Unit]:
    """Show a progress bar."""
    return progress(units, len(units), label)
