"""A device that is not there, planned for from a written description."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from lepton.errors import InputError
from lepton.program import read_file
from lepton.runtime.devices.protocol import Clock, Port, Prepared, Progress, silent
from lepton.runtime.devices.rates import Rates
from lepton.runtime.split import Network

__all__ = ["DescribedDevice", "Description", "load_description"]

_MAXIMUM_BYTES = 1 << 30


@dataclass(frozen=True)
class Description:
    """The keys of a description file.

    Attributes:
        float_gmacs: 10^9 float MACs per second.
        integer_gmacs: the same of 8-bit integers.
        bandwidth_gbps: 10^9 bytes per second of its memory.
        launch_us: from the host's call until a region has started.
        link_gbps: 10^9 bytes per second to and from the host.
        link_latency_us: of a transfer.
        memory_gib: for weights; without it there is no limit.
        watts: while it works.
        source: where the figures are from.
    """

    name: str
    float_gmacs: float
    integer_gmacs: float
    bandwidth_gbps: float
    launch_us: float
    link_gbps: float
    link_latency_us: float
    source: str
    memory_gib: float | None = None
    watts: float | None = None


def load_description(path: Path) -> Description:
    """Return a description file.

    Raises:
        InputError: it cannot be read, or keys are unknown, missing or no positive numbers.
    """
    try:
        table: dict[str, Any] = tomllib.loads(read_file(path, _MAXIMUM_BYTES, "a device").decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not TOML: {error}") from None
    keys = {item.name: item for item in fields(Description)}
    bad = [f"{key} is unknown" for key in table if key not in keys]
    for key, item in keys.items():
        if key not in table:
            if item.default is MISSING:
                bad.append(f"{key} is missing")
            continue
        value, is_text = table[key], key in ("name", "source")
        if is_text and not isinstance(value, str):
            bad.append(f"{key} must be a text, not {value!r}")
        if not is_text and not _is_positive(value):
            bad.append(f"{key} must be a positive number, not {value!r}")
    if bad:
        raise InputError(f"{path}: {'; '.join(bad)}")
    return Description(**table)


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e12


@dataclass(frozen=True)
class DescribedDevice:
    """A described device: every unit at the roofline of its rates."""

    name: str
    description: Description
    clock: Clock = field(default=Clock.DESCRIBED, init=False)

    @property
    def port(self) -> Port:
        """Its link to the host."""
        return Port(round(self.description.link_latency_us * 1000), self.description.link_gbps)

    @property
    def memory_bytes(self) -> int | None:
        """What it has for weights."""
        size = self.description.memory_gib
        return None if size is None else round(size * (1 << 30))

    def launch_ns(self, network: Network) -> int:
        """Return the described launch."""
        del network
        return round(self.description.launch_us * 1000)

    def power_mw(self, network: Network) -> int | None:
        """Return the described power."""
        del network
        watts = self.description.watts
        return None if watts is None else round(watts * 1000)

    def supports(self, network: Network) -> tuple[str, ...]:
        """Return that it runs everything."""
        return ("",) * len(network.units)

    def cost(self, network: Network, progress: Progress = silent) -> tuple[int, ...]:
        """Return the roofline's times."""
        del progress
        d = self.description
        rates = Rates(0, d.float_gmacs, d.integer_gmacs, d.bandwidth_gbps)
        return tuple(
            rates.roofline_ns(
                unit, sum(network.tensors[n].size_bytes for n in (*unit.inputs, *unit.outputs))
            )
            for unit in network.units
        )

    def prepare(self, network: Network, units: Sequence[int]) -> Prepared:
        """Refuse: there is nothing to run on.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{self.name} is described, not there: a placement on it can be planned, not run"
        )
