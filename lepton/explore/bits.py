"""Bits of each layer's weights under a budget of bytes or cycles of programs for a chip."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton.chip import Chip, load_chip
from lepton.compiler.compile import compile_model
from lepton.compiler.options import CompileOptions
from lepton.errors import InputError
from lepton.jit_ahead import helpers
from lepton.models.onnx_module.reading import runtime_inputs
from lepton.models.quantization.chip_budget import Chosen, CostNotes, choose_bits
from lepton.models.quantization.integer_weights import IntegerWeights
from lepton.models.quantization.mixed_precision import Layer
from lepton.models.quantization.onnx_file import prepared_model, quantize_model
from lepton.models.quantization.onnx_ranges import fitting_samples
from lepton.models.quantization.onnx_weights import stored_codes, weight_axes, weight_values
from lepton.models.quantization.output_noise import measure_output_noise
from lepton.program.files import atomic_write
from lepton.report.traffic import weight_stream_bytes
from lepton.runtime.execute import simulate

if TYPE_CHECKING:
    import onnx

# onnx is typed in part only, and tqdm has no types:
# pyright: reportUnknownMemberType=false, reportMissingModuleSource=false

__all__ = ["CHOICES", "ChipBudget", "Unit", "bits_for_chip"]

CHOICES = (2, 3, 4, 5, 6, 8)
"""Of bits, where a caller names none."""
_SAMPLES = 64
"""That sensitivity is measured with."""


class Unit(StrEnum):
    """What a budget counts."""

    BYTES = "bytes"
    """Of the weight streams that a program stores."""
    CYCLES = "cycles"
    """Of one inference, simulated."""


@dataclass(frozen=True)
class ChipBudget:
    """How much of a chip a network may take.

    Attributes:
        chip: that programs are compiled for.
        limit: in the unit.
        unit: bytes or cycles.
        effort: of the compiler, 0 to 3.
    """

    chip: Chip
    limit: int
    unit: Unit
    effort: int = 1

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise InputError(f"a budget must be at least 1, not {self.limit}")

    @property
    def label(self) -> str:
        """What messages call the unit."""
        return f"{self.unit} on {self.chip.name}"

    def cost(self, model: onnx.ModelProto) -> int:
        """Return what the program of an int8 model takes of the chip, for one sample."""
        options = CompileOptions(effort=self.effort, shapes=_one_sample(model))
        with helpers("compile"):
            program = compile_model(model, self.chip, options)
        if self.unit is Unit.BYTES:
            return int(weight_stream_bytes(program).sum())
        # what the compiler writes is sound: it is checked where it is used
        trace = simulate(program, checked=True).trace
        assert trace is not None
        return trace.cycles


def bits_for_chip(
    model: str | Path | onnx.ModelProto,
    chip: str | Path | Chip,
    calibration: object,
    *,
    budget_bytes: int | None = None,
    budget_cycles: int | None = None,
    choices: Sequence[int] = CHOICES,
    effort: int = 1,
) -> dict[str, int]:
    """Choose the bits of each layer's weights under a budget that programs for a chip must meet.

    Sensitivity is the noise in the output with one layer rounded at a time
    (`measure_output_noise`); the cost of an assignment is that of the program which the compiler
    makes of it: the stored bytes of its weight streams, entropy coding and tile headers included,
    or its simulated cycles. `choose_bits` says how few of them are tried. Where weights move faster
    than they are multiplied, or do not leave the chip, fewer bits save no cycles: cycles fall where
    weight bandwidth or the decoder bounds a layer, as in fully connected layers of one inference.

    Args:
        model: float ONNX, a file or itself.
        chip: preset, path of a chip file, or `Chip`.
        calibration: inputs `[samples, ...]` by name, or one array for the only input.
        budget_bytes: most bytes of weight streams; or
        budget_cycles: most cycles of one inference.
        choices: of bits, 1 to 8.
        effort: of the compiler, 0 to 3; the budget is met by its programs, and others may differ.

    Returns:
        Bits by the names that `quantize_model(model, calibration, bits=...)` takes.

    Raises:
        InputError: not just one budget, one that cannot be met, or a model that is not float ONNX.
    """
    chosen = chip if isinstance(chip, Chip) else load_chip(chip)
    if (budget_bytes is None) == (budget_cycles is None):
        raise InputError("give one of budget_bytes and budget_cycles")
    if budget_cycles is not None:
        budget = ChipBudget(chosen, budget_cycles, Unit.CYCLES, effort)
    else:
        budget = ChipBudget(chosen, budget_bytes or 0, Unit.BYTES, effort)
    return choose_for(budget, model, calibration, choices).bits


def choose_for(
    budget: ChipBudget,
    model: str | Path | onnx.ModelProto,
    calibration: object,
    choices: Sequence[int] = CHOICES,
    folder: Path | None = None,
) -> Chosen:
    """Choose bits as `bits_for_chip` does; a folder keeps what is measured, for a run that goes on.

    Raises:
        InputError: see there; or a file in the folder is damaged.
    """
    from tqdm import tqdm

    prepared = prepared_model(model)
    samples = fitting_samples(calibration, prepared.graph)
    few = {name: array[:_SAMPLES] for name, array in samples.items()}
    layers = _layers(prepared, few, choices, folder)
    whole = quantize_model(prepared, samples)
    values = weight_values(prepared.graph, layers)
    axes = weight_axes(prepared.graph)
    with tqdm(desc=f"bits for {budget.chip.name}", unit="program", disable=None) as bar:

        def evaluate(bits: Mapping[str, int]) -> int:
            bar.update()
            codes = {
                name: IntegerWeights.of_values(values[name], count, axes[name])
                for name, count in bits.items()
            }
            return budget.cost(_with_codes(whole, codes))

        path = None if folder is None else folder / "costs.json"
        return choose_bits(layers, budget.limit, CostNotes(evaluate, path, budget.label))


def _one_sample(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of inputs whose batch, and nothing else, is open, with a batch of 1."""
    shapes: dict[str, tuple[int, ...]] = {}
    for item in runtime_inputs(model.graph):
        sizes = [extent.dim_value for extent in item.type.tensor_type.shape.dim]
        if sizes and sizes[0] == 0 and all(sizes[1:]):
            shapes[item.name] = (1, *sizes[1:])
    return shapes


def _layers(
    model: onnx.ModelProto,
    samples: Mapping[str, Any],
    choices: Sequence[int],
    folder: Path | None,
) -> dict[str, Layer]:
    """Return the sensitivity of each layer, from the folder if it is there."""
    path = None if folder is None else folder / "sensitivity.json"
    if path is not None and path.exists():
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))
            return {
                name: Layer(row["weights"], {int(b): x for b, x in row["losses"].items()})
                for name, row in rows.items()
            }
        except (ValueError, TypeError, KeyError, AttributeError, OSError):
            raise InputError(f"{path}: damaged; remove it, and it is made again") from None
    layers = measure_output_noise(model, samples, choices)
    if path is not None:
        rows = {name: asdict(layer) for name, layer in layers.items()}
        atomic_write(path, json.dumps(rows).encode())
    return layers


def _with_codes(model: onnx.ModelProto, codes: Mapping[str, IntegerWeights]) -> onnx.ModelProto:
    """Return an int8 model with other codes of its weights.

    The scales stay: neither what is stored of the codes nor the cycles depend on them.
    """
    import onnx
    from onnx import numpy_helper

    made = onnx.ModelProto()
    made.CopyFrom(model)
    stored = {f"{name}_quantized": weights.codes for name, weights in codes.items()}
    for name in codes:
        assert stored_codes(model.graph, name).shape == codes[name].codes.shape
    for item in made.graph.initializer:
        if item.name in stored:
            item.CopyFrom(numpy_helper.from_array(stored[item.name], item.name))
    return made
