"""How much of a float ONNX model's output is noise when one layer's weights are rounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.int8 import golden_session
from lepton.models.quantization.integer_weights import IntegerWeights
from lepton.models.quantization.mixed_precision import Layer
from lepton.models.quantization.onnx_weights import replace_weights, weight_axes, weight_values

if TYPE_CHECKING:
    import onnx

# tqdm and onnx are typed in part only:
# pyright: reportMissingModuleSource=false, reportUnknownMemberType=false

__all__ = ["measure_output_noise"]


def measure_output_noise(
    model: onnx.ModelProto, samples: Mapping[str, NDArray[Any]], choices: Sequence[int]
) -> dict[str, Layer]:
    """Measure the noise in a model's first output with one layer's weights rounded at a time.

    The loss of a layer at b bits is sum (y_b - y)^2 / sum y^2 over the samples, one over the ratio
    of signal to quantization noise: noise of layers that is not correlated adds up, and no labels
    are needed.

    Source: Pandey et al., A Practical Mixed Precision Algorithm for Post-Training Quantization,
    arXiv:2302.05397 (layers ranked by the SQNR of the network's output).

    Args:
        model: float, for a batch of 1, as `prepared_model` returns it.
        samples: `[n, 1, ...]` by input name, as `fitting_samples` returns them.
        choices: of bits, 1 to 8.

    Raises:
        InputError: no choice, bits that there are not, or a model without weights.
    """
    import onnx
    from tqdm import tqdm

    if not choices:
        raise InputError("choices must hold at least one number of bits, 1 to 8")
    axes = weight_axes(model.graph)
    values = weight_values(model.graph, axes)
    if not values:
        raise InputError("the model has no weights whose bits could be chosen")
    whole = _outputs(model, samples)
    power = max(float(np.square(whole).sum()), np.finfo(float).tiny)
    losses: dict[str, dict[int, float]] = {name: {} for name in values}
    tries = [(name, bits) for name in values for bits in choices]
    for name, bits in tqdm(tries, desc="sensitivity", unit="try", disable=None):
        trial = onnx.ModelProto()
        trial.CopyFrom(model)
        codes = IntegerWeights.of_values(values[name], bits, axes[name])
        replace_weights(trial.graph, {name: codes})
        made = _outputs(trial, samples)
        losses[name][bits] = float(np.square(made - whole).sum()) / power
    return {name: Layer(values[name].size, row) for name, row in losses.items()}


def _outputs(model: onnx.ModelProto, samples: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Return a model's first output for each sample."""
    session = golden_session(model.SerializeToString())
    count = min(len(array) for array in samples.values())
    rows: list[Any] = [
        session.run(None, {name: array[number] for name, array in samples.items()})[0]
        for number in range(count)
    ]
    return np.stack([np.asarray(row, np.float64) for row in rows])
