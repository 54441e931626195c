"""The CPU: each region in the library that is its golden, ONNX Runtime or LiteRT."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from lepton.runtime.devices.library import Run, piece_runner
from lepton.runtime.devices.profile import Profile
from lepton.runtime.devices.protocol import Arrays, Clock, Port, Progress, Ran, silent
from lepton.runtime.split import Network

__all__ = ["CpuDevice"]


@dataclass(frozen=True)
class CpuDevice:
    """The CPU.

    Attributes:
        profile: what is known of this machine.
        is_measuring: whether units that the profile lacks are measured.
        watts: what a working CPU draws, if known.
    """

    profile: Profile
    name: str = "cpu"
    is_measuring: bool = True
    watts: float | None = None
    clock: Clock = field(default=Clock.MEASURED, init=False)
    port: Port = field(default=Port(), init=False)
    memory_bytes: int | None = field(default=None, init=False)

    def launch_ns(self, network: Network) -> int:
        """Return what a call of the library takes beside its kernels."""
        return self.profile.rates_of(network).launch_ns

    def power_mw(self, network: Network) -> int | None:
        """Return what the user said."""
        del network
        return None if self.watts is None else round(self.watts * 1000)

    def supports(self, network: Network) -> tuple[str, ...]:
        """Return that it runs everything."""
        return ("",) * len(network.units)

    def cost(self, network: Network, progress: Progress = silent) -> tuple[int, ...]:
        """Return the measured times, or the roofline's of what is not to be measured."""
        if self.is_measuring:
            every = range(len(network.units))
            self.profile.measure_missing(network, every, progress, "measuring the CPU")
        return tuple(self.profile.cost_ns(network, unit) for unit in network.units)

    def prepare(self, network: Network, units: Sequence[int]) -> _Region:
        """Return the region in its library."""
        threads = self.profile.threads
        return _Region(piece_runner(network.format, network.piece(units), threads), threads)


@dataclass(frozen=True)
class _Region:
    """A region on the CPU."""

    call: Run
    threads: int

    def run(self, inputs: Arrays) -> Ran:
        """Run and measure; one thread by its processor time, as the profile does."""
        clock = time.thread_time_ns if self.threads == 1 else time.perf_counter_ns
        began = clock()
        outputs = self.call(inputs)
        return Ran(outputs, clock() - began)
