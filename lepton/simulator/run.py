"""Run a program: values, cycles, or both from the same instructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton.errors import CheckError, InputError, ProgramError
from lepton.isa.footprints import cores_of, footprints
from lepton.program import Program, ProgramTensor, Region, as_array
from lepton.simulator.check import check, execution_order, place
from lepton.simulator.functional import execute
from lepton.simulator.machine import Machine, machines_for
from lepton.simulator.timing import simulate_timing
from lepton.trace import Trace

__all__ = ["Arrays", "HostRunner", "Result", "run_values", "simulate_program"]

Arrays = dict[str, NDArray[np.generic]]
HostRunner = Callable[[int, Arrays], Arrays]
"""Runs host model `index` on named arrays; returns the named outputs."""


@dataclass(frozen=True)
class Result:
    """What a simulation returned.

    Attributes:
        outputs: by name, in the model's shape and type; empty without values.
        trace: None without timing.
    """

    outputs: Arrays
    trace: Trace | None


def simulate_program(
    program: Program,
    inputs: Mapping[str, NDArray[np.generic]] | None,
    run_host: HostRunner | None = None,
    *,
    timing: bool = True,
    checked: bool = False,
) -> Result:
    """Run a program; without `inputs` only its timing.

    Args:
        program: what runs.
        inputs: by name, exactly the model's shapes and types, or None for no values.
        run_host: runs the host regions; needed only where there are some and values are asked for.
        timing: whether to run the timing kernel.
        checked: True if `check` has already accepted this program.

    Raises:
        CheckError: undefined behaviour.
        InputError: a missing, unknown or wrongly shaped input.
    """
    if not checked:
        check(program)
    outputs = {} if inputs is None else run_values(program, inputs, run_host)
    return Result(outputs, simulate_timing(program) if timing else None)


def run_values(
    program: Program,
    inputs: Mapping[str, NDArray[np.generic]],
    run_host: HostRunner | None = None,
    keep: tuple[str, ...] | None = None,
) -> Arrays:
    """Return the outputs (or the tensors of `keep`) of a checked program, without timing."""
    checked_inputs = check_inputs(program, inputs)
    machines = machines_for(program, footprints(program.table, program.chip.cores))
    machine = machines[0]
    host: Arrays = {}
    for name, array in checked_inputs.items():
        _place(machine, program.tensor_by_name[name], array, host)
    for region in program.regions:
        if region.device == "npu":
            _run_npu(machines, program, region)
        else:
            _run_host(machine, program, region, run_host, host)
    names = program.outputs if keep is None else keep
    return {name: _fetch(machine, program.tensor_by_name[name], host) for name in names}


def check_inputs(program: Program, inputs: Mapping[str, NDArray[np.generic]]) -> Arrays:
    """Return the inputs after checking names, shapes, types and, where an NPU works, NaN.

    No integer stands for NaN; the host's own operators may ask for it.
    """
    is_quantizing = any(region.device == "npu" for region in program.regions)
    unknown = [name for name in inputs if name not in program.inputs]
    if unknown:
        raise InputError(
            f"input '{unknown[0]}' does not exist; the program takes {', '.join(program.inputs)}"
        )
    checked: Arrays = {}
    for name in program.inputs:
        if name not in inputs:
            raise InputError(f"input '{name}' is missing")
        tensor = program.tensor_by_name[name]
        array = as_array(inputs[name], f"input '{name}'")
        if tuple(array.shape) != tensor.shape:
            raise InputError(
                f"input '{name}' must have shape {list(tensor.shape)}, not {list(array.shape)}"
            )
        if array.dtype != np.dtype(tensor.dtype):
            raise InputError(f"input '{name}' must be {tensor.dtype}, not {array.dtype}")
        if is_quantizing and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"input '{name}' holds NaN or infinite values")
        checked[name] = array
    return checked


def _place(
    machine: Machine, tensor: ProgramTensor, array: NDArray[np.generic], host: Arrays
) -> None:
    """Put a tensor where its readers look."""
    host[tensor.name] = array
    if tensor.memory >= 0:
        raw = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        machine.write(tensor.memory, tensor.address, raw)


def _fetch(machine: Machine, tensor: ProgramTensor, host: Arrays) -> NDArray[np.generic]:
    """Return a tensor from its memory, or from the host."""
    if tensor.memory < 0:
        return host[tensor.name]
    raw = machine.read(tensor.memory, tensor.address, tensor.size_bytes)
    return raw.view(np.dtype(tensor.dtype)).reshape(tensor.shape)


def _run_npu(machines: list[Machine], program: Program, region: Region) -> None:
    """Execute a region's instructions in an order that its queues and semaphores allow."""
    core_of = cores_of(program.table, len(machines)).tolist()
    for index in execution_order(program, region):
        try:
            execute(machines[core_of[index]], program.decoded[index])
        except CheckError as error:
            raise CheckError(f"{place(program, index)}: {error}") from None


def _run_host(
    machine: Machine, program: Program, region: Region, run_host: HostRunner | None, host: Arrays
) -> None:
    """Run a host region on arrays and put its outputs back."""
    if run_host is None:
        raise InputError("this program has host regions, and no host runner was given")
    arrays = {name: _fetch(machine, program.tensor_by_name[name], host) for name in region.inputs}
    made = run_host(region.host_model, arrays)
    for name in region.outputs:
        tensor = program.tensor_by_name[name]
        array = np.asarray(made[name]) if name in made else None
        if array is None or array.shape != tensor.shape or array.dtype != tensor.dtype:
            found = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
            raise ProgramError(
                f"host region {region.host_model} must give '{name}' as {tensor.dtype} "
                f"{list(tensor.shape)}, not {found}"
            )
        _place(machine, tensor, array, host)
