"""A device beside the CPU for tests: it computes as the CPU, on a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lepton.runtime.devices import Arrays, Clock, CpuDevice, Port, Prepared, Progress, Ran, silent
from lepton.runtime.devices.library import piece_runner
from lepton.runtime.devices.profile import Profile
from lepton.runtime.devices.rates import Rates
from lepton.runtime.split import Network

__all__ = ["TwinDevice", "unmeasured_cpu"]


def _nothing(_inputs: Arrays) -> None:
    """Do nothing."""


@dataclass
class TwinDevice:
    """A device that costs nothing, computes as the CPU, and calls a hook before each region."""

    hook: Callable[[Arrays], object] = _nothing
    name: str = "other"
    clock: Clock = field(default=Clock.SIMULATED, init=False)
    port: Port = field(default=Port(10, 1.0), init=False)
    memory_bytes: int | None = field(default=None, init=False)

    def launch_ns(self, network: Network) -> int:
        return 50

    def power_mw(self, network: Network) -> int | None:
        return 1

    def supports(self, network: Network) -> tuple[str, ...]:
        return ("",) * len(network.units)

    def cost(self, network: Network, progress: Progress = silent) -> tuple[int, ...]:
        return (1,) * len(network.units)

    def prepare(self, network: Network, units: Sequence[int]) -> Prepared:
        run = piece_runner(network.format, network.piece(units), 1)
        hook = self.hook

        class Region:
            def run(self, inputs: Arrays) -> Ran:
                hook(inputs)
                return Ran(run(inputs), 1000)

        return Region()


def unmeasured_cpu(name: str = "cpu") -> CpuDevice:
    """Return the CPU with made-up rates."""
    profile = Profile(1, rates={"onnx": Rates(100, 1.0, 1.0, 1.0)})
    return CpuDevice(profile, name, is_measuring=False)
