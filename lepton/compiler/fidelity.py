"""Run a calibration's samples through models, and compare what comes out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.compiler.activations import Fidelity
from lepton.errors import InputError
from lepton.models.int8 import golden_session

__all__ = ["Reference", "Runner", "each_sample"]

Arrays = dict[str, NDArray[Any]]
Inputs = Mapping[str, NDArray[Any]]
Results = list[NDArray[np.float64]]


def each_sample(samples: Inputs) -> Iterator[Arrays]:
    """Yield the samples of arrays `[n, *shape]` one by one."""
    count = min(len(array) for array in samples.values())
    for index in range(count):
        yield {name: array[index] for name, array in samples.items()}


class Runner:
    """A model that gives its float outputs, on ONNX Runtime's integer kernels.

    Args:
        model: `onnx.ModelProto`.

    Raises:
        InputError: it has no float output to compare.
    """

    def __init__(self, model: Any) -> None:
        self._session: Any = golden_session(model.SerializeToString())
        outputs = self._session.get_outputs()
        self._names = [item.name for item in outputs if item.type == "tensor(float)"]
        if not self._names:
            raise InputError("the model has no float output to compare precisions by")

    def run(self, sample: Inputs) -> Results:
        """Return the float outputs for one sample."""
        made = self._session.run(self._names, dict(sample))
        return [np.asarray(array, np.float64) for array in made]


class Reference:
    """The float model's outputs on the samples, which others are compared with.

    Args:
        model: float `onnx.ModelProto`.
        samples: arrays `[n, *shape]` by input name.
    """

    def __init__(self, model: Any, samples: Inputs) -> None:
        runner = Runner(model)
        self._samples = samples
        self._wanted = [runner.run(sample) for sample in each_sample(samples)]

    def fidelity(self, runner: Runner, more: Inputs | None = None) -> Fidelity:
        """Compare a model on all samples, with more inputs that are the same for each."""
        made = [runner.run({**sample, **(more or {})}) for sample in each_sample(self._samples)]
        return self._compared(made)

    def noise(self, runner: Runner, limit: int, more: Inputs) -> float:
        """Return the greatest power of an output's noise over its signal's, on `limit` samples."""
        few = zip(range(limit), each_sample(self._samples), strict=False)
        return self._ratio([runner.run({**sample, **more}) for _, sample in few])

    def _compared(self, results: list[Results]) -> Fidelity:
        ratio = self._ratio(results)
        equal = [
            np.equal(_classes(a[0]), _classes(b[0]))
            for a, b in zip(results, self._wanted, strict=True)
        ]
        agreement = float(np.concatenate([item.reshape(-1) for item in equal]).mean())
        return Fidelity(None if ratio == 0 else -10 * math.log10(ratio), agreement)

    def _ratio(self, made: list[Results]) -> float:
        """Return noise over signal of the worst output; an output of zeros counts as 1."""
        ratios: list[float] = []
        for place in range(len(made[0])):
            pairs = [(a[place], b[place]) for a, b in zip(made, self._wanted, strict=False)]
            noise = sum(float(np.square(a - b).sum()) for a, b in pairs)
            signal = sum(float(np.square(b).sum()) for _, b in pairs)
            ratios.append(noise / (signal or 1.0))
        return max(ratios)


def _classes(array: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the place of the largest element along the last axis."""
    return np.atleast_1d(array).argmax(axis=-1)
