"""Accuracy of a compiled model on labelled data, beside its golden library's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.chip import Chip
from lepton.errors import InputError
from lepton.program import Program, as_array, as_batch, only_input
from lepton.runtime.execute import HostRegions, compile_kernels
from lepton.runtime.golden import GoldenModel
from lepton.simulator import check, run_values

__all__ = ["EvalReport", "evaluate", "evaluate_program"]

Progress = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True)
class EvalReport:
    """How many samples were classified rightly, and how often both libraries agree.

    Attributes:
        right: samples whose largest output is the label's.
        golden_right: the same of the golden library.
        same_class: samples that both put into the same class.
        same_bytes: samples whose outputs are equal to the byte.
    """

    model: str
    chip: str
    golden: str
    samples: int
    right: int
    golden_right: int
    same_class: int
    same_bytes: int

    @property
    def accuracy(self) -> float:
        return self.right / self.samples

    @property
    def golden_accuracy(self) -> float:
        return self.golden_right / self.samples

    def text(self) -> str:
        """Return the report for the user."""
        library = "LiteRT's reference kernels" if self.golden == "tflite" else "ONNX Runtime"
        return (
            f"{self.model} on chip {self.chip}, {self.samples} samples: "
            f"top-1 {self.accuracy:.2%} ({self.right} right); "
            f"{library} {self.golden_accuracy:.2%} ({self.golden_right} right); "
            f"same class {self.same_class}, equal bytes {self.same_bytes}"
        )

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON types."""
        rates: dict[str, object] = {
            "accuracy": self.accuracy,
            "golden_accuracy": self.golden_accuracy,
        }
        return rates | asdict(self)


def evaluate(
    model: str | Path,
    chip: Chip,
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    limit: int = 0,
    progress: Progress | None = None,
) -> EvalReport:
    """Compile a classifier and run it, and its golden library, on labelled samples.

    Args:
        model: `.onnx` or `.tflite` file, quantized, with one input.
        chip: the chip to compile for.
        x: `[samples, ...]`, each of the input's shape and of a type that it can hold exactly.
        y: `[samples]` class numbers.
        limit: first samples only; 0 takes all.
        progress: wraps the sample numbers as they are run, for a progress bar.

    Raises:
        InputError: the model or the data are at fault.
        CompileError: the chip cannot hold the model.
    """
    from lepton.compiler.isolate import compile_file

    return evaluate_program(compile_file(model, chip), model, x, y, limit=limit, progress=progress)


def evaluate_program(
    program: Program,
    model: str | Path,
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    limit: int = 0,
    progress: Progress | None = None,
) -> EvalReport:
    """Run a compiled classifier, and its model's golden library, on labelled samples."""
    samples, labels = _samples(program, x, y, limit)
    compile_kernels(program, "check", "values")
    check(program)
    host, golden = HostRegions(program), GoldenModel(model)
    name, output = program.inputs[0], program.outputs[0]
    counts = np.zeros(4, np.int64)
    numbers: Iterable[int] = range(len(samples))
    for number in progress(numbers) if progress is not None else numbers:
        inputs = {name: samples[number]}
        ours = np.asarray(run_values(program, inputs, host)[output])
        theirs = golden.run(inputs)[output]
        classes = int(ours.argmax()), int(theirs.argmax())
        label = int(labels[number])
        same = ours.tobytes() == theirs.tobytes()
        counts += [classes[0] == label, classes[1] == label, classes[0] == classes[1], same]
    return EvalReport(
        Path(model).name, program.chip.name, program.golden, len(samples),
        *(int(count) for count in counts),
    )  # fmt: skip


def _samples(
    program: Program, x: NDArray[Any], y: NDArray[Any], limit: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the samples in the input's shape and type, and their labels."""
    name, shape = only_input(program)
    tensor = program.tensor_by_name[name]
    x = as_array(x, "x")
    labels = np.asarray(y).reshape(-1)
    if labels.dtype.kind not in "iu":
        raise InputError(f"y must hold class numbers, not {labels.dtype}")
    samples = as_batch(x, shape, "x")
    if len(labels) != len(samples):
        raise InputError(f"x holds {len(samples)} samples and y {len(labels)} labels")
    count = min(limit, len(samples)) if limit > 0 else len(samples)
    if not np.can_cast(x.dtype, tensor.dtype, "safe"):
        raise InputError(f"x must be {tensor.dtype}, which {x.dtype} does not fit exactly")
    return samples[:count].astype(tensor.dtype), labels[:count]
