"""Other grids for a network's weights than the uniform one, and how int8 codes hold them.

The chip multiplies by int8 codes times one scale for each channel, zero being code 0. Weights are
first rounded by a quantizer; what it makes is then stored exactly where it is multiples of one step
within -127 .. 127, else as the nearest int8 codes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.quantization.calibration import Scheme
from lepton.models.quantization.integer_weights import WEIGHT_BITS, IntegerWeights
from lepton.models.quantization.quantizers import (
    Floats,
    PowersOfTwo,
    Quantizer,
    RangeGrid,
    Standardized,
    Uniform,
    code_limits,
    dynamic_grid,
)

if TYPE_CHECKING:
    import onnx

__all__ = [
    "GRIDS",
    "UNIFORM",
    "GridRule",
    "WeightGrid",
    "WeightRounding",
    "keep_report",
    "weight_report",
]

GridRule: TypeAlias = Callable[[Floats, int], Quantizer]
"""The quantizer for some numbers `[n]` and bits."""

UNIFORM, CODEBOOK = "uniform", "codebook"
_REPORT = "lepton.weights"
_HIGHEST = 2 ** (WEIGHT_BITS - 1) - 1


def _range(values: Floats, bits: int) -> RangeGrid:
    low, high = code_limits(bits, symmetric=False)
    return RangeGrid(values.min(), values.max(), low, high)


GRIDS: Mapping[str, GridRule] = {
    "affine": lambda values, bits: Scheme(bits, symmetric=False).fit(values),
    "range": _range,
    "dynamic": dynamic_grid,
    "standardized": Standardized.of_values,
    "powers of two": PowersOfTwo.of_values,
}
"""Name -> the rule for one channel; beside them there are `uniform` and `codebook`."""


@dataclass(frozen=True)
class WeightRounding:
    """What became of a weight.

    Attributes:
        name: of the constant.
        grid: of the first rounding.
        bits: of its codes.
        is_exact: whether the int8 codes stand for just what the grid has, to the last bit.
        rounding_error: root mean square of weight - grid value, in the weights' unit.
        added_error: root mean square of grid value - stored value; 0 if it is exact.
    """

    name: str
    grid: str
    bits: int
    is_exact: bool
    rounding_error: float
    added_error: float


@dataclass(frozen=True)
class WeightGrid:
    """How weights are rounded.

    Attributes:
        grid: `uniform` (symmetric), a name of `GRIDS`, `codebook`, or a function of the numbers
            `[n]` of a channel (or tensor) and bits that returns a quantizer.
        per_channel: whether each output channel has a quantizer and a scale of its own; a codebook
            always is of the whole tensor, so that the chip's palette holds it.
    """

    grid: str | GridRule = UNIFORM
    per_channel: bool = True

    def __post_init__(self) -> None:
        names = (UNIFORM, *GRIDS, CODEBOOK)
        if isinstance(self.grid, str) and self.grid not in names:
            raise InputError(f"a grid is one of {', '.join(names)}, not {self.grid!r}")

    @property
    def label(self) -> str:
        """What a report calls the grid."""
        return self.grid if isinstance(self.grid, str) else getattr(self.grid, "__name__", "own")

    def store(
        self, values: Floats, bits: int, axis: int | None, name: str
    ) -> tuple[IntegerWeights, WeightRounding]:
        """Return a weight's codes, and what they cost.

        Args:
            values: `[out, in, …]` or of any shape.
            bits: 1 to 8, of the grid's codes.
            axis: of the channels.
            name: for the report.

        The uniform grid needs none of this: its codes are `IntegerWeights.of_values`.

        Raises:
            InputError: bits that the grid cannot have.
        """
        if not 1 <= bits <= WEIGHT_BITS:
            raise InputError(f"weights have 1 to {WEIGHT_BITS} bits, not {bits}")
        own = axis if self.per_channel else None
        if self.grid == CODEBOOK:
            rounded = _shared(values, bits)
            stored = IntegerWeights.of_levels(rounded)
        else:
            rounded, stored = self._by_rows(values, bits, own)
        added = _root(rounded, stored.values)
        return stored, WeightRounding(
            name, self.label, bits, added == 0, _root(values, rounded), added
        )

    def _by_rows(
        self, values: Floats, bits: int, axis: int | None
    ) -> tuple[Floats, IntegerWeights]:
        """Round each channel by a quantizer of its own; return that and its codes."""
        rule = GRIDS[self.grid] if isinstance(self.grid, str) else self.grid
        front = values[np.newaxis] if axis is None else np.moveaxis(values, axis, 0)
        rounded, codes = np.empty_like(front), np.empty(front.shape, np.int8)
        scales = np.empty(len(front), np.float32)
        for place, row in enumerate(front):
            quantizer = rule(row.reshape(-1), bits)
            rounded[place] = quantizer.dequantize(quantizer.quantize(row))
            codes[place], scales[place] = _int8(rounded[place], quantizer)
        if axis is None:
            return rounded[0], IntegerWeights(codes[0], scales[0], None)
        made = np.ascontiguousarray(np.moveaxis(codes, 0, axis))
        return np.moveaxis(rounded, 0, axis), IntegerWeights(made, scales, axis)


def _root(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the root of the mean squared difference."""
    return float(np.sqrt(np.square(one.astype(np.float64) - other).mean()))


def _shared(values: Floats, bits: int) -> Floats:
    """Return weights with 2^bits values of least squared error; zeros stay zeros."""
    from lepton.models.sharing import MOST_CLUSTERS, share

    return share(values, min(2**bits, MOST_CLUSTERS)).values


def _step(quantizer: Quantizer) -> float:
    """Return what a quantizer's levels may be multiples of; 0 if that is not known."""
    if isinstance(quantizer, Uniform):
        return float(quantizer.scale)
    if isinstance(quantizer, PowersOfTwo):
        return float(np.exp2(quantizer.exponent - quantizer.high + 1))
    if isinstance(quantizer, Standardized):
        return float(quantizer.deviation)
    if isinstance(quantizer, RangeGrid):
        return float(quantizer.greatest - quantizer.least) / (quantizer.high - quantizer.low)
    return 0.0


def _int8(values: Floats, quantizer: Quantizer) -> tuple[NDArray[np.int8], np.float32]:
    """Return int8 codes and the scale with which they are nearest to a quantizer's levels."""
    nearest = IntegerWeights.of_values(values, WEIGHT_BITS, None)
    step = np.float32(_step(quantizer))
    if step > 0:
        codes = np.rint(values / step)
        is_closer = _root(values, codes * step) <= _root(values, nearest.values)
        if np.abs(codes).max() <= _HIGHEST and is_closer:
            return codes.astype(np.int8), step
    return nearest.codes, np.float32(nearest.scale)


def keep_report(model: onnx.ModelProto, rows: Sequence[WeightRounding]) -> None:
    """Write what became of weights into a file's metadata."""
    from onnx import helper

    helper.set_model_props(
        model,
        {item.key: item.value for item in model.metadata_props}
        | {_REPORT: json.dumps([asdict(row) for row in rows])},
    )


def weight_report(model: onnx.ModelProto) -> tuple[WeightRounding, ...]:
    """Return what `quantize_model` did to each weight; nothing of plain uniform weights."""
    found = {item.key: item.value for item in model.metadata_props}
    return tuple(WeightRounding(**row) for row in json.loads(found.get(_REPORT, "[]")))
