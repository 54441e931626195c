"""A simulated NPU: regions are compiled for its chip and run on the simulator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.errors import CompileError, ImportFailure
from lepton.program import Program
from lepton.program.files import temporary_folder
from lepton.runtime.devices.protocol import Arrays, Clock, Port, Progress, Ran, silent
from lepton.runtime.split import Network

__all__ = ["NpuDevice", "NpuRegion"]

_LAUNCH_NS = 1000
"""From the host's write of a command until the NPU has fetched it, or from the NPU's signal until
the host has seen it: about a round trip over PCIe, 0.9 us for 128 bytes.

Source: Neugebauer et al., "Understanding PCIe performance for end host networking", SIGCOMM 2018.
"""


_HALVINGS = 3
"""How often a network that the chip cannot hold is halved, to learn which of its layers fit."""


@dataclass
class NpuDevice:
    """A simulated NPU beside the host.

    Attributes:
        chip: what it is.
        effort: 0 to 3, how long to search for better tiles.
    """

    chip: Chip
    name: str = "npu"
    effort: int = 1
    clock: Clock = field(default=Clock.SIMULATED, init=False)
    memory_bytes: int | None = field(default=None, init=False)
    _survey: _Survey | None = field(default=None, init=False, repr=False)

    @property
    def port(self) -> Port:
        """Its external memory, into which the host writes and from which it reads."""
        memory = self.chip.memories[self.chip.memory_index(self.chip.placement.activations[0])]
        return Port(_LAUNCH_NS, float(memory.bytes_per_second) / 1e9)

    def launch_ns(self, network: Network) -> int:
        """Return what a start takes."""
        del network
        return _LAUNCH_NS

    def power_mw(self, network: Network) -> int | None:
        """Return the mean power of the estimate of all that it supports."""
        return self._surveyed(network).power_mw

    def supports(self, network: Network) -> tuple[str, ...]:
        """Return the compiler's reasons, from a compilation of the whole network or its parts."""
        return self._surveyed(network).reasons

    def cost(self, network: Network, progress: Progress = silent) -> tuple[int, ...]:
        """Return each unit's share of the estimated cycles."""
        del progress
        return self._surveyed(network).cost_ns

    def _surveyed(self, network: Network) -> _Survey:
        if self._survey is None or self._survey.network is not network:
            self._survey = _survey(network, self.chip, self.effort)
        return self._survey

    def prepare(self, network: Network, units: Sequence[int]) -> NpuRegion:
        """Compile a region.

        Raises:
            CompileError: the chip cannot hold it, or part of it would run on the host.
        """
        program = _compiled(network, units, self.chip, self.effort)
        if any(region.device == "host" for region in program.regions):
            first = next(o for o in program.operators if o.device == "host")
            raise CompileError(
                f"'{first.name}' runs on the host if it starts or ends a region of the NPU"
            )
        return NpuRegion(program)


@dataclass(frozen=True)
class _Survey:
    """What compilations of a network, or of its parts, say of its units."""

    network: Network
    reasons: tuple[str, ...]
    cost_ns: tuple[int, ...]
    power_mw: int


def _compiled(network: Network, units: Sequence[int], chip: Chip, effort: int) -> Program:
    """Return the program of some units.

    Raises:
        CompileError: the compiler cannot read them, or the chip cannot hold them.
    """
    from lepton.compiler.isolate import compile_file
    from lepton.compiler.options import CompileOptions

    with temporary_folder() as folder:
        path = folder / f"{Path(network.name).stem or 'model'}.{network.format}"
        path.write_bytes(network.piece(units))
        try:
            return compile_file(path, chip, CompileOptions(effort=effort, float_on_host=True))
        except ImportFailure as error:
            # the library that is the golden has accepted the file, so others can run it
            raise CompileError(str(error)) from None


def _survey(network: Network, chip: Chip, effort: int) -> _Survey:
    """Share the cycles and reasons of compiled parts of a network among its units."""
    from lepton.cost.estimate import estimate_program

    count = len(network.units)
    unit_of = {name: number for number, unit in enumerate(network.units) for name in unit.names}
    cycles, reasons = np.zeros(count), [""] * count
    each = 1e9 / chip.cycles_per_second
    spent_pj = taken_ns = 0.0
    for units, made in _parts(network, range(count), chip, effort):
        if isinstance(made, CompileError):
            reasons[units.start : units.stop] = [str(made)] * len(units)
            continue
        estimate = estimate_program(made)
        spent_pj += _energy_pj(made)
        taken_ns += estimate.cycles * each
        shares = _shares(made, estimate.times)
        for operator, share in zip(made.operators, shares.tolist(), strict=True):
            number = _unit(operator.name, unit_of)
            if number is None:
                continue
            cycles[number] += share
            if operator.device == "host" and not reasons[number]:
                reasons[number] = operator.reason or "the compiler keeps it on the host"
    return _Survey(
        network,
        tuple(reasons),
        tuple(round(cycle * each) for cycle in cycles.tolist()),
        round(spent_pj / taken_ns) if taken_ns else 0,
    )


def _unit(name: str, unit_of: Mapping[str, int]) -> int | None:
    """Return the unit of an operator's name, or of what it is an unrolled part of: `NAME/part`."""
    while name not in unit_of and "/" in name:
        name = name.rpartition("/")[0]
    return unit_of.get(name)


def _parts(
    network: Network, units: range, chip: Chip, effort: int, halvings: int = _HALVINGS
) -> Iterator[tuple[range, Program | CompileError]]:
    """Yield compiled parts of a network: the whole, else the halves of what the chip cannot hold.

    Args:
        network: whose units are compiled.
        units: of the part.
        chip: to compile for.
        effort: of the compiler.
        halvings: how often a part may be halved.
    """
    try:
        yield units, _compiled(network, units, chip, effort)
    except CompileError as error:
        middle = (units.start + units.stop) // 2
        if not halvings or middle == units.start:
            yield units, error
            return
        for half in (range(units.start, middle), range(middle, units.stop)):
            yield from _parts(network, half, chip, effort, halvings - 1)


def _shares(program: Program, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cycles of each operator: those by which its instructions move the end on."""
    from lepton.cost.schedule_state import RETIRE

    shares = np.zeros(len(program.operators))
    if len(times):
        order = np.argsort(times[:, RETIRE], kind="stable")
        steps = np.diff(times[order, RETIRE], prepend=0.0)
        np.add.at(shares, program.operator_of[order].astype(np.intp), steps)
    return shares


def _energy_pj(program: Program) -> float:
    """Return the estimated energy, none without instructions."""
    from lepton.cost.energy_estimate import estimate_energy

    return estimate_energy(program) * 1e12 if len(program.table) else 0.0


class NpuRegion:
    """A region on the NPU: checked, and timed by one simulation, which no input changes.

    Attributes:
        program: its instructions.
        trace: of that simulation.
    """

    def __init__(self, program: Program) -> None:
        from lepton.runtime.execute import compile_kernels
        from lepton.simulator import check, simulate_timing

        compile_kernels(program, "check", "values", "timing")
        check(program)
        self.program = program
        self.trace = simulate_timing(program)
        self._duration_ns = round(self.trace.cycles * 1e9 / program.chip.cycles_per_second)

    def run(self, inputs: Arrays) -> Ran:
        """Return the simulated NPU's values and its time."""
        from lepton.simulator import run_values

        return Ran(dict(run_values(self.program, inputs)), self._duration_ns)
