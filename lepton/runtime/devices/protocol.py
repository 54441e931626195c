"""What placement and execution ask of a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from numpy.typing import NDArray

from lepton.runtime.split import Network, Unit

__all__ = ["Arrays", "Clock", "Port", "Prepared", "Progress", "Ran", "RuntimeDevice", "silent"]

Arrays = dict[str, NDArray[Any]]

Progress = Callable[[Sequence[Unit], str], Iterable[Unit]]
"""Yields units while it shows how far a labelled work on them is."""


def silent(units: Sequence[Unit], _label: str) -> Iterable[Unit]:
    """Show nothing."""
    return units


class Clock(StrEnum):
    """Where the times of a device come from; times of two clocks are never mixed in one bar."""

    MEASURED = "measured"
    """On this machine."""
    SIMULATED = "simulated"
    """Cycles of a simulated chip, by its clock."""
    DESCRIBED = "described"
    """Reckoned from a written description."""


@dataclass(frozen=True)
class Port:
    """How a device meets the host's memory, in which tensors lie between devices."""

    latency_ns: int = 0
    bytes_per_ns: float = float("inf")


@dataclass(frozen=True)
class Ran:
    """What a run of a region returned, and how long it took by its device's clock."""

    outputs: Arrays
    duration_ns: int


class Prepared(Protocol):
    """A region that is ready to run."""

    def run(self, inputs: Arrays) -> Ran:
        """Run the region once."""
        ...


class RuntimeDevice(Protocol):
    """A device."""

    @property
    def name(self) -> str:
        """What the user calls it."""
        ...

    @property
    def clock(self) -> Clock:
        """Where its times come from."""
        ...

    @property
    def port(self) -> Port:
        """How it meets the host's memory."""
        ...

    @property
    def memory_bytes(self) -> int | None:
        """What it has for weights; None is no limit."""
        ...

    def launch_ns(self, network: Network) -> int:
        """Return what it takes to start a region."""
        ...

    def power_mw(self, network: Network) -> int | None:
        """Return what it draws while it works; None if nobody said."""
        ...

    def supports(self, network: Network) -> tuple[str, ...]:
        """Return why it cannot run each unit, "" where it can."""
        ...

    def cost(self, network: Network, progress: Progress = silent) -> tuple[int, ...]:
        """Return the nanoseconds of each unit, of which only supported ones count."""
        ...

    def prepare(self, network: Network, units: Sequence[int]) -> Prepared:
        """Make a region ready to run.

        Raises:
            CompileError: the device cannot run these units together.
        """
        ...
