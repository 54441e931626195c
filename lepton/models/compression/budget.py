"""Bits under the budget of a chip, as the last step of a compression takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.compression.files import loaded
from lepton.models.compression.recipe import CompressionRecipe
from lepton.models.quantization.chip_budget import Chosen
from lepton.models.quantization.onnx_weights import weight_axes, weight_values
from lepton.program.files import atomic_write

if TYPE_CHECKING:
    import onnx
    import torch

# torch and onnx are typed in part only, and extras:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

__all__ = ["Budgeted", "Chooser", "bits_by_parameter"]

Samples: TypeAlias = "Mapping[str, NDArray[Any]]"
Chooser: TypeAlias = "Callable[[onnx.ModelProto, Samples, int, Path], Chosen]"
"""Float model, samples by input name, a limit and a folder for what is measured -> bits."""

_ATTEMPTS = 4
"""Trainings with the bits of one limit each; what they overshoot is taken off the next limit."""


@dataclass(frozen=True)
class Budgeted:
    """What the last step may cost; `models` knows no compiler, so both functions are given.

    Attributes:
        key: tells this budget from any other.
        limit: in the unit of the cost.
        unit: of it, for messages: `cycles on nano`.
        choose: bits for a limit, by the weights' initializers.
        cost: of an int8 model.
    """

    key: str
    limit: int
    unit: str
    choose: Chooser
    cost: Callable[[onnx.ModelProto], int]

    def check(self, recipe: CompressionRecipe) -> None:
        """Raise InputError if a recipe chooses the bits itself."""
        itself = (recipe.share, recipe.entropy_bits, recipe.edge_bits, recipe.bits)
        if itself != (None, None, None, 8):
            raise InputError("bits come from a budget or from bits, edge_bits or share: give one")
        if recipe.mirrored:
            raise InputError("a budget is not evaluated with mirrored answers: leave out one")
        if recipe.quantize_epochs == 0:
            raise InputError("bits of a budget are trained: quantize_epochs must be at least 1")

    def fitted(
        self,
        model: onnx.ModelProto,
        samples: Samples,
        folder: Path,
        train: Callable[[Mapping[str, int], str], onnx.ModelProto],
    ) -> onnx.ModelProto:
        """Return a model trained with bits such that its own program is within the budget.

        Bits are chosen with the weights as they are; trained ones are other codes, and may take
        more bytes. Then they are chosen for less, by as much as that was too much, and trained
        again.

        Args:
            model: float, with folded batch norms.
            samples: by input name.
            folder: keeps costs and trained models, for a run that goes on.
            train: of bits by initializer and the name of its checkpoint -> the int8 model.

        Raises:
            InputError: the budget cannot be met.
        """
        limit, least = self.limit, None
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                chosen = self.choose(model, samples, limit, folder)
            except InputError:
                if least is None:
                    raise
                break
            name = f"quantize{attempt}"
            file = folder / f"{name}.onnx"
            if not file.exists():
                atomic_write(file, train(chosen.bits, name).SerializeToString())
            made = loaded(file)
            cost = self.cost(made)
            if cost <= self.limit:
                return made
            least = cost if least is None else min(cost, least)
            limit = min(limit - (cost - self.limit), chosen.cost - 1)
        raise InputError(
            f"a budget of {self.limit:,} {self.unit} cannot be met: the least that was reached, "
            f"with trained weights, is {least:,}"
        )


def bits_by_parameter(
    module: torch.nn.Module, model: onnx.ModelProto, bits: Mapping[str, int]
) -> dict[str, int]:
    """Return bits by the path of a module's parameter, which has an initializer's values.

    Args:
        module: read from the model.
        model: float.
        bits: by initializer.
    """
    from lepton.models.quantization.torch_weights import weights_of

    values = weight_values(model.graph, weight_axes(model.graph))
    made: dict[str, int] = {}
    for weight in weights_of(module):
        array = weight.value.detach().cpu().numpy()
        for name, count in bits.items():
            known = values.get(name)
            if known is not None and (_same(known, array) or _same(known.T, array)):
                made[weight.name] = count
    return made


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and bool(np.array_equal(one, other))
