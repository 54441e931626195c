"""Programs that another framework runs as parts of its own: `torch.compile`, TVM.

The framework sees values only; what the last program cost is asked for here.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from numpy.typing import NDArray

from lepton.api import RunResult
from lepton.program import Program
from lepton.runtime.execute import HostRegions

__all__ = ["EmbeddedProgram", "last_result", "recorded"]

_LAST: ContextVar[RunResult | None] = ContextVar("last", default=None)
_RECORD: ContextVar[list[RunResult] | None] = ContextVar("record", default=None)


def last_result() -> RunResult | None:
    """Return program, outputs and trace of the program that ran last, None before the first."""
    return _LAST.get()


@contextmanager
def recorded() -> Generator[list[RunResult]]:
    """Collect the results of all programs that run inside, in order."""
    results: list[RunResult] = []
    token = _RECORD.set(results)
    try:
        yield results
    finally:
        _RECORD.reset(token)


class EmbeddedProgram:
    """A program that is checked and timed once and runs often: its cycles never change.

    Args:
        program: what to run.
        timing: False computes values only.

    Raises:
        CheckError: the program has undefined behaviour.
    """

    def __init__(self, program: Program, timing: bool = True) -> None:
        from lepton.simulator import check, simulate_timing

        check(program)
        self.program = program
        self._host = HostRegions(program)
        self._trace = simulate_timing(program) if timing else None

    def __call__(self, inputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs by name for inputs in the program's order."""
        from lepton.simulator import run_values

        feed = dict(zip(self.program.inputs, inputs, strict=True))
        outputs = run_values(self.program, feed, self._host)
        result = RunResult(self.program, outputs, self._trace)
        _LAST.set(result)
        record = _RECORD.get()
        if record is not None:
            record.append(result)
        return outputs
