"""A network between the steps of a compression: quantized, scored, laid out for training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton.models.datasets import Dataset
from lepton.models.int8 import golden_session, run_each
from lepton.models.onnx_module.reading import runtime_inputs
from lepton.models.training.recipes import Split
from lepton.models.training.trainer import score_of
from lepton.models.zoo import Task
from lepton.program.files import temporary_folder

if TYPE_CHECKING:
    import onnx
    import torch

    from lepton.models.quantization import IntegerWeights

# torch and onnx are typed in part only:
# pyright: reportMissingImports=false, reportUnknownParameterType=false
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

__all__ = [
    "calibration_samples",
    "channels_last",
    "kept_weights",
    "observe",
    "outputs_of",
    "quantized",
    "score_model",
]

_CALIBRATION = 256
"""Samples that the ranges of activations are taken from."""


def quantized(
    model: onnx.ModelProto, split: Split, weights: Mapping[str, IntegerWeights] | None = None
) -> onnx.ModelProto:
    """Return a float network as int8 QDQ: weights of the given codes, or else of 8 bits."""
    from lepton.models.quantization import quantize_model

    return quantize_model(model, calibration_samples(model, split), weights=weights)


def calibration_samples(model: onnx.ModelProto, split: Split) -> dict[str, NDArray[Any]]:
    """Return the samples that ranges of activations are taken from, by the name of the input."""
    return _named(model, split.train.take(slice(0, _CALIBRATION)))


def score_model(model: onnx.ModelProto, task: Task, samples: Dataset) -> float:
    """Return how good a model, float or int8, is on some samples: see `Task`."""
    return score_of(outputs_of(model, samples), task, samples)


def outputs_of(model: onnx.ModelProto, samples: Dataset) -> NDArray[np.float32]:
    """Return a model's first output `[n, ...]` for some samples."""
    with temporary_folder() as folder:
        file = folder / "model.onnx"
        file.write_bytes(model.SerializeToString())
        return run_each(golden_session(file), _named(model, samples))


def _named(model: onnx.ModelProto, samples: Dataset) -> dict[str, NDArray[Any]]:
    """Return samples by the name of the input."""
    names = [item.name for item in runtime_inputs(model.graph)]
    return dict(zip(names, samples.batch(slice(None)), strict=True))


def channels_last(module: torch.nn.Module) -> torch.nn.Module:
    """Lay out a module's images and kernels channels last, in place: it trains faster so."""
    import torch

    untyped: Any = module
    return untyped.to(memory_format=torch.channels_last)


def observe(module: torch.nn.Module, samples: Dataset) -> None:
    """Show a module that rounds activations some samples, so that it knows their ranges."""
    import torch

    module.train()
    with torch.no_grad():
        module(*map(torch.from_numpy, samples.batch(slice(0, _CALIBRATION))))


def kept_weights(module: torch.nn.Module) -> dict[str, NDArray[np.bool_]]:
    """Return which weights of the layers that have zeros must not stay zero."""
    from lepton.models.pruning.holding import layer_weights

    arrays = {name: item.array() for name, item in layer_weights(module).items()}
    return {name: array != 0 for name, array in arrays.items() if not array.all()}
