"""Options of a compilation."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from lepton.compiler.activations import INT8, Activations
from lepton.errors import InputError
from lepton.program import Objective

if TYPE_CHECKING:
    from lepton.compiler.judge import Evaluate

__all__ = ["CompileOptions", "plain_shapes"]

_LONGEST = (1 << 31) - 1


MOST_EFFORT = 3


@dataclass(frozen=True)
class CompileOptions:
    """Options of a compilation.

    Attributes:
        shapes: input name -> shape, for models with dynamic dimensions.
        calibration: samples of a float `.onnx` file, `[samples, ...]` by input name or one array
            for the only input, to quantize it.
        activations: their bits when a model is calibrated.
        keep_all: make every tensor of the source model an output, to compare layer by layer.
        float_on_host: take a float model, all of whose MACs run on the host.
        effort: 0 to 3, how long to search for better tiles (about 0, 0.3, 3 and 30 seconds).
        dump: folder for every form of the model on its way, pass by pass.
        explain: also say which schedules there were to choose from.
        optimize: what is minimized, `latency`, `energy` or `size`.
        evaluate: measures programs whose estimates are close to the best one's: their cycles, or
            joules where energy is minimized; without it the estimate decides.
        progress: is told the share of the search that is done, 0 to 1.
    """

    shapes: Mapping[str, Sequence[int]] | None = None
    keep_all: bool = False
    calibration: Mapping[str, NDArray[np.generic]] | NDArray[np.generic] | None = None
    effort: int = 1
    dump: Path | None = None
    explain: bool = False
    float_on_host: bool = False
    optimize: str = Objective.LATENCY
    evaluate: Evaluate | None = None
    progress: Callable[[float], None] | None = None
    activations: Activations = INT8

    @property
    def objective(self) -> Objective:
        """What is minimized."""
        return _objective_of(self.optimize)

    def __post_init__(self) -> None:
        if self.effort not in range(MOST_EFFORT + 1):
            raise InputError(f"effort must be 0 to {MOST_EFFORT}, not {self.effort!r}")
        _ = self.objective
        if self.activations.kind != "int8" and self.calibration is None:
            raise InputError(
                f"activations {self.activations.kind} are for float models that are calibrated "
                "(--calibrate DATA.npz): a quantized model has its types"
            )


def _objective_of(name: object) -> Objective:
    """Return the objective of a name.

    Raises:
        InputError: there is none.
    """
    try:
        return Objective(str(name))
    except ValueError:
        known = ", ".join(objective.value for objective in Objective)
        raise InputError(f"optimize must be one of {known}, not {name!r}") from None


def plain_shapes(shapes: object) -> dict[str, list[int]]:
    """Return shapes by input name as JSON types; None is no shapes.

    Raises:
        InputError: not such a mapping, or extents that are no whole numbers from 1 to 2^31 - 1.
    """
    if shapes is None:
        return {}
    try:
        named = cast(Mapping[str, Sequence[int]], shapes).items()
        made = {str(name): [operator.index(extent) for extent in shape] for name, shape in named}
    except (AttributeError, TypeError, ValueError):
        raise InputError(f"shapes must be whole numbers by input name, not {shapes!r}") from None
    for name, shape in made.items():
        if not all(1 <= extent <= _LONGEST for extent in shape):
            raise InputError(
                f"every dimension of the shape of input '{name}' must lie in 1..{_LONGEST}, "
                f"not {shape}"
            )
    return made
