"""Compare a program with its golden library, operator by operator, to the first that differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.errors import InputError
from lepton.isa.footprints import Space, footprints
from lepton.program import Program, ProgramTensor
from lepton.runtime.execute import HostRegions, compile_kernels
from lepton.runtime.golden import GoldenModel, random_inputs
from lepton.runtime.origin import Origin, Sum
from lepton.simulator import check, run_values

__all__ = ["Difference", "Sum", "VerifyReport", "verify", "verify_program"]

Arrays = dict[str, NDArray[Any]]
FLOAT_TOLERANCE = 1e-6
"""Relative difference allowed of float tensors, which host regions compute."""


@dataclass(frozen=True)
class Difference:
    """The first operator that differs, and its first element that does.

    Attributes:
        index: of the element, in the golden's shape.
        different: how many of `elements` differ.
        instruction: text of the instruction that made the element, "" on the host.
        sum: what it requantized, if it is a requantization.
        operands: codes that it read, if it is a function of one or two elements.
    """

    operator: str
    kind: str
    tensor: str
    index: tuple[int, ...]
    ours: float
    golden: float
    different: int
    elements: int
    instruction: str
    sum: Sum | None
    operands: tuple[int, ...]

    def text(self) -> str:
        """Return the difference as lines for the user."""
        tensor = "" if self.tensor == self.operator else f"tensor '{self.tensor}': "
        lines = [
            f"first difference: {self.kind} '{' '.join(self.operator.split())}'",
            f"  {tensor}{self.different} of {self.elements} elements differ",
            f"  element {list(self.index)}: {self.ours:g}, the golden library says {self.golden:g}",
        ]
        if self.sum is not None:
            total = self.sum
            lines.append(f"  accumulator {total.accumulator} + bias {total.bias}")
            exact = f" (multiplier {total.multiplier:.0f} x 2^{total.shift - 31})"
            lines.append(
                f"  times scale {total.scale:.9g}{exact if total.mode == 'q31' else ''}, "
                f"zero point {total.zero_point}, mode {total.mode}"
            )
        if self.operands:
            lines.append(f"  made from {' and '.join(map(str, self.operands))}")
        if self.instruction:
            lines.append(f"  by {self.instruction}")
        return "\n".join(lines)


@dataclass(frozen=True)
class VerifyReport:
    """What was compared, up to the first operator that differs.

    Attributes:
        compared: `(operator, tensor, elements)` of every equal tensor, in the order of operators.
        skipped: tensors that the golden library does not give, with the reason.
    """

    model: str
    chip: str
    golden: str
    compared: tuple[tuple[str, str, int], ...]
    skipped: tuple[tuple[str, str], ...]
    difference: Difference | None

    @property
    def is_equal(self) -> bool:
        return self.difference is None

    def text(self) -> str:
        """Return the report for the user."""
        library = "LiteRT's reference kernels" if self.golden == "tflite" else "ONNX Runtime"
        elements = sum(count for _, _, count in self.compared)
        equal = (
            f"{len(self.compared)} tensors ({elements} elements) of {self.model} on chip "
            f"{self.chip} equal {library}"
        )
        lines = [equal if self.is_equal else f"{equal}, then"]
        lines += [f"not compared: '{tensor}': {reason}" for tensor, reason in self.skipped]
        if self.difference is not None:
            lines.append(self.difference.text())
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON types."""
        verdict: dict[str, object] = {"equal": self.is_equal}
        return verdict | asdict(self)


def verify(
    model: str | Path,
    chip: Chip,
    inputs: Mapping[str, NDArray[Any]] | None = None,
    *,
    seed: int = 0,
) -> VerifyReport:
    """Compile a model with every tensor kept, and compare each with the golden library's.

    Args:
        model: `.onnx` or `.tflite` file, quantized.
        chip: the chip to compile for.
        inputs: by name (or one unnamed, under ""); None draws random ones.
        seed: of the random inputs.

    Raises:
        InputError: the model or an input is at fault.
        CompileError: the chip cannot hold the model with all its tensors.
    """
    from lepton.compiler.isolate import compile_file
    from lepton.compiler.options import CompileOptions

    program = compile_file(model, chip, CompileOptions(keep_all=True))
    return verify_program(program, model, inputs, seed=seed)


def verify_program(
    program: Program,
    model: str | Path,
    inputs: Mapping[str, NDArray[Any]] | None = None,
    *,
    seed: int = 0,
) -> VerifyReport:
    """Compare a program that was compiled with `keep_all` with its model's golden library."""
    arrays = _inputs(program, inputs, seed)
    compile_kernels(program, "check", "values")
    check(program)
    names = tuple(tensor.name for tensor in program.tensors)
    ours = run_values(program, arrays, HostRegions(program), keep=names)
    golden = GoldenModel(model, keep_all=True).run(arrays)
    # keeping every tensor may change what the library fuses: the plain outputs are the standard
    golden |= GoldenModel(model).run(arrays)
    compared: list[tuple[str, str, int]] = []
    skipped: list[tuple[str, str]] = []
    difference: Difference | None = None
    for made in _in_order(program):
        match = _matched(program, made.tensor, ours[made.tensor.name], golden)
        if isinstance(match, str):
            skipped.append((made.tensor.name, match))
            continue
        if match.wrong.any():
            difference = _difference(program, made, match, ours)
            break
        compared.append((made.operator, made.tensor.name, match.ours.size))
    source = Path(model).name
    return VerifyReport(
        source, program.chip.name, program.golden, tuple(compared), tuple(skipped), difference
    )


def _inputs(program: Program, inputs: Mapping[str, NDArray[Any]] | None, seed: int) -> Arrays:
    """Return the inputs by name, in the program's order."""
    if inputs is None:
        return random_inputs(program, seed)
    if list(inputs) == [""]:
        if len(program.inputs) != 1:
            raise InputError(f"the model has inputs {', '.join(program.inputs)}: name them")
        return {program.inputs[0]: inputs[""]}
    for name in program.inputs:
        if name not in inputs:
            raise InputError(f"input '{name}' is missing")
    rest = {name: array for name, array in inputs.items() if name not in program.inputs}
    return {name: inputs[name] for name in program.inputs} | rest


# --- which operator made a tensor ----------------------------------------------------------------


class _Made(NamedTuple):
    """A tensor, the region that makes it and, on the NPU, its last writer.

    `number` is the operator's, -1 on the host.
    """

    tensor: ProgramTensor
    region: int
    instruction: int
    number: int
    operator: str
    kind: str


def _in_order(program: Program) -> list[_Made]:
    """Return the tensors that regions make, in the order of their operators."""
    made: list[_Made] = []
    host = _host_operators(program)
    for number, region in enumerate(program.regions):
        boxes = footprints(program.table[region.start : region.stop])
        for name in region.outputs:
            tensor = program.tensor_by_name[name]
            if region.device == "host":
                made.append(_Made(tensor, number, -1, -1, host[number], "host"))
                continue
            index = region.start + _last_write(boxes, tensor)
            at = int(program.operator_of[index])
            operator = program.operators[at]
            made.append(_Made(tensor, number, index, at, operator.name, operator.kind))
    # not in program order: the stream of core 0 comes before that of core 1
    return sorted(made, key=lambda item: (item.region, item.number, item.instruction))


def _last_write(boxes: NDArray[np.int64], tensor: ProgramTensor) -> int:
    """Return the last instruction of a region that writes into a tensor."""
    end = tensor.address + tensor.size_bytes
    is_store = (boxes[:, 2] == 1) & (boxes[:, 1] == Space.MEMORY + tensor.memory)
    inside = is_store & (boxes[:, 3] >= tensor.address) & (boxes[:, 3] < end)
    return int(boxes[inside, 0].max(initial=0))


def _host_operators(program: Program) -> dict[int, str]:
    """Return the names of the operators of each host region."""
    names: dict[int, str] = {}
    position = 0
    for number, region in enumerate(program.regions):
        taken: list[str] = []
        while position < len(program.operators):
            operator = program.operators[position]
            if operator.device != region.device:
                break
            position += 1
            taken.append(operator.name)
            if operator.kind == "halt":
                break
        if region.device == "host":
            names[number] = ", ".join(dict.fromkeys(taken)) or f"host region {number}"
    return names


# --- comparing -----------------------------------------------------------------------------------


class _Match(NamedTuple):
    """A tensor beside the golden's, both in our order; `positions` in the golden's, flat."""

    ours: NDArray[Any]
    golden: NDArray[Any]
    wrong: NDArray[np.bool_]
    positions: NDArray[np.int64]
    shape: tuple[int, ...]


def _matched(
    program: Program, tensor: ProgramTensor, ours: NDArray[Any], golden: Arrays
) -> _Match | str:
    """Return a tensor beside the golden's, or why they cannot be compared."""
    theirs = golden.get(tensor.name)
    if theirs is None:
        theirs = golden.get(tensor.name.rstrip("'"))
    if theirs is None:
        return "the golden library does not give it"
    if theirs.dtype != ours.dtype:
        return f"it is {ours.dtype} here and {theirs.dtype} in the golden library"
    if theirs.size != ours.size:
        return f"it has shape {list(ours.shape)} here and {list(theirs.shape)} in the golden"
    read = {name for region in program.regions for name in region.inputs}
    is_crossing = tensor.name in read and theirs.shape == ours.shape
    best: _Match | None = None
    for moved, positions in _layouts(theirs, ours.shape, is_crossing):
        match = _Match(ours, moved, _wrong(ours, moved), positions, theirs.shape)
        if best is None or match.wrong.sum() < best.wrong.sum():
            best = match
        if not match.wrong.any():
            break
    assert best is not None
    return best


def _layouts(
    golden: NDArray[Any], shape: tuple[int, ...], is_crossing: bool
) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    """Yield the golden's values, and their flat positions, in every layout that has our shape.

    A tensor inside a region lies `[n, h, w, c]`, or in whatever order its makers chose, while the
    golden's has the model's order.
    """
    positions = np.arange(golden.size).reshape(golden.shape)
    if golden.ndim <= 4 and len(shape) == 4 and not is_crossing:
        four = (1,) * (4 - golden.ndim) + golden.shape
        for order in permutations(range(4)):
            if tuple(four[axis] for axis in order) == shape:
                yield (
                    golden.reshape(four).transpose(order),
                    positions.reshape(four).transpose(order),
                )
    yield golden.reshape(shape), positions.reshape(shape)


def _wrong(ours: NDArray[Any], golden: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where two tensors differ; floats may by `FLOAT_TOLERANCE`."""
    if ours.dtype.kind == "f":
        return ~np.isclose(ours, golden, rtol=FLOAT_TOLERANCE, atol=0, equal_nan=True)
    return np.asarray(ours != golden)


def _difference(program: Program, made: _Made, match: _Match, values: Arrays) -> Difference:
    """Return what is known of the first element that differs."""
    wrong = np.flatnonzero(match.wrong)
    position = match.positions.reshape(-1)[wrong]
    offset = int(wrong[position.argmin()])
    index = np.unravel_index(int(position.min()), match.shape)
    total, operands, text = None, (), ""
    if made.instruction >= 0 and match.ours.dtype.itemsize == 1:
        origin = Origin(program, made.region, made.instruction, values)
        total, operands, text = origin.explain(made.tensor, offset)
    return Difference(
        made.operator,
        made.kind,
        made.tensor.name,
        tuple(int(item) for item in index),
        float(match.ours.reshape(-1)[offset]),
        float(match.golden.reshape(-1)[offset]),
        len(wrong),
        match.ours.size,
        text,
        total,
        operands,
    )
