"""Run whole programs: NPU regions on the simulator, host regions in the golden library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.jit_ahead import compile_ahead
from lepton.program import Program, only_input
from lepton.simulator import Result, check, run_values, simulate_program

__all__ = ["HostRegions", "compile_kernels", "simulate"]

Arrays = dict[str, NDArray[Any]]


class HostRegions:
    """The host regions of a program, one ONNX Runtime session each, made when first needed."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._sessions: dict[int, Any] = {}
        self._outputs = {
            region.host_model: region.outputs
            for region in program.regions
            if region.device == "host"
        }

    def __call__(self, index: int, inputs: Arrays) -> Arrays:
        """Run host model `index` on named arrays."""
        from lepton.runtime.golden import onnx_session

        if index not in self._sessions:
            self._sessions[index] = onnx_session(self._program.host_models[index])
        names = list(self._outputs[index])
        session = self._sessions[index]
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"host region {index} failed: {reason}") from None


def simulate(
    program: Program,
    inputs: Mapping[str, NDArray[Any]] | None = None,
    *,
    timing: bool = True,
    checked: bool = False,
) -> Result:
    """Run a program on the simulated NPU.

    Args:
        program: what to run.
        inputs: arrays by input name, the model's shapes and types; None simulates the cycles only.
        timing: False returns values only.
        checked: True if `lepton.check` has already accepted this program.

    Raises:
        CheckError: the program has undefined behaviour.
        InputError: an input is missing, unknown, or of the wrong shape or type.
    """
    steps = ("check",) * (not checked) + ("values",) * (inputs is not None) + ("timing",) * timing
    compile_kernels(program, *steps)
    return simulate_program(program, inputs, HostRegions(program), timing=timing, checked=checked)


def compile_kernels(program: Program, *steps: str) -> None:
    """Compile on all processors what a program's steps need and no earlier process has compiled.

    Args:
        program: what is to run.
        steps: of `check`, `values`, `timing`, and `report` for the table of `lepton run`.
    """
    groups = [f"values-{program.golden}" if step == "values" else step for step in steps]
    compile_ahead(*groups)


def predict(program: Program, batch: NDArray[np.generic]) -> list[Arrays]:
    """Return the outputs for each element of a batch of the only input, checking once.

    Args:
        program: what to run.
        batch: `[samples, *shape]` in the input's type.

    Raises:
        InputError: the program has not one input, or the elements do not fit.
    """
    name, _ = only_input(program)
    compile_kernels(program, "check", "values")
    check(program)
    host = HostRegions(program)
    return [run_values(program, {name: item}, host) for item in batch]
