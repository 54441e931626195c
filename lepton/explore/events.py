"""The event tier: a workload is compiled for the chip of a point, and the program simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lepton.chip import Chip
from lepton.compiler.cache import CompilerCache
from lepton.compiler.compile import compile_front
from lepton.compiler.dump import no_dump
from lepton.compiler.options import CompileOptions
from lepton.compiler.steps import FrontModel
from lepton.errors import CompileError
from lepton.explore.fronts import Fronts
from lepton.explore.space import Setting, Workload
from lepton.report.energy import energy_of
from lepton.simulator import simulate_timing

__all__ = ["EventTier", "Run"]


@dataclass(frozen=True)
class Run:
    """One inference of a workload on a chip.

    Attributes:
        cycles: of the NPU's clock; 0 where there is no program.
        joules: of the whole run.
        read_bytes: from external memories.
        written_bytes: to external memories.
        failure: why the chip cannot hold the workload, "" if it can.
    """

    cycles: int = 0
    joules: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0
    failure: str = ""


class EventTier:
    """Workloads, imported once; compilations share what does not depend on the chip."""

    def __init__(self, workloads: Sequence[Workload], fronts: Sequence[FrontModel]) -> None:
        """Take workloads and their fronts."""
        self._fronts = Fronts(workloads, fronts)
        self._cache = CompilerCache()

    def run(self, workload: int, chip: Chip, setting: Setting) -> Run:
        """Return the run of a workload, by its number, on a chip.

        The program is not checked for races and bounds; the compiler's own tests do that.
        """
        options = CompileOptions(effort=setting.effort, optimize=setting.optimize)
        try:
            front = self._fronts.of(workload, chip)
            program = compile_front(front, chip, options, no_dump, self._cache).program
        except CompileError as error:
            return Run(failure=" ".join(str(error).split()))
        trace = simulate_timing(program)
        return Run(
            cycles=trace.cycles,
            joules=energy_of(program, trace).joules,
            read_bytes=sum(memory.read_bytes for memory in trace.memories),
            written_bytes=sum(memory.write_bytes for memory in trace.memories),
        )
