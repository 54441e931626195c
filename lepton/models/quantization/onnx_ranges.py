"""Ranges of the activations of a float ONNX model, seen on calibration samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.quantization.calibration import Calibration, Grid
from lepton.program import as_array, as_batch

__all__ = ["Arrays", "Reader", "activation_ranges", "fitting_samples", "session_of"]

Arrays = dict[str, NDArray[Any]]

ACTIVATIONS = Grid(8, symmetric=False)
SEEN_PER_TENSOR = 2**18
"""Numbers of a tensor that a calibration looks at; more are thinned out evenly."""


class Reader:
    """Feeds samples one at a time, as ONNX Runtime's quantizer asks for them."""

    def __init__(self, samples: Arrays) -> None:
        count = min(len(array) for array in samples.values())
        self._items = iter(
            {name: array[index] for name, array in samples.items()} for index in range(count)
        )

    def get_next(self) -> Arrays | None:
        """Return the next sample, None behind the last."""
        return next(self._items, None)


def fitting_samples(calibration: object, graph: Any) -> Arrays:
    """Return samples `[n, *shape]` of every input of a graph, in the input's type.

    A dynamic first extent is 1.

    Args:
        calibration: arrays by input name, or one array for the only input.
        graph: `onnx.GraphProto`.

    Raises:
        InputError: an input without samples, or samples that do not fit it.
    """
    constants = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in constants]
    given: Mapping[Any, object]
    if isinstance(calibration, Mapping):
        given = calibration
    elif len(inputs) == 1:
        given = {inputs[0].name: calibration}
    else:
        names = ", ".join(item.name for item in inputs)
        raise InputError(f"calibration must be arrays by input name ({names})")
    made: Arrays = {}
    for item in inputs:
        label = f"calibration of input '{item.name}'"
        if item.name not in given:
            raise InputError(f"calibration has no samples of input '{item.name}'")
        extents = [int(extent.dim_value) for extent in item.type.tensor_type.shape.dim]
        shape = (extents[0] or 1, *extents[1:]) if extents else ()
        batch = as_batch(as_array(given[item.name], label), shape, label)
        made[item.name] = np.array(batch, _dtype(item), order="C")
        if not np.isfinite(made[item.name]).all():
            raise InputError(f"{label} holds NaN or infinite values")
    return made


def _dtype(item: Any) -> Any:
    """Return the type of an input's numbers."""
    from onnx import helper

    return helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type)


def activation_ranges(
    path: Path, samples: Arrays, calibration: Calibration
) -> dict[str, tuple[float, float]]:
    """Return the range of every float tensor of a model, inputs included.

    Args:
        path: a float model with inferred shapes.
        samples: as `fitting_samples` returns them.
        calibration: for affine codes of 8 bits.
    """
    seen: dict[str, list[NDArray[Any]]] = {}
    names, session = _session(path)
    reader = Reader(samples)
    count = min(len(array) for array in samples.values())
    while (sample := reader.get_next()) is not None:
        made = dict(zip(names, session.run(names, sample), strict=True))
        for name, array in {**made, **sample}.items():
            if array.dtype == np.float32 and array.size:
                stride = -(-array.size * count // SEEN_PER_TENSOR)
                seen.setdefault(name, []).append(array.reshape(-1)[::stride])
    return {
        name: calibration.limits(np.concatenate(parts).astype(np.float64), ACTIVATIONS)
        for name, parts in seen.items()
    }


def _session(path: Path) -> tuple[list[str], Any]:
    """Return a model that gives out all its tensors, and their names."""
    import onnx

    model = onnx.load(str(path))
    names = [name for node in model.graph.node for name in node.output if name]
    return names, session_of(model, names)


def session_of(model: Any, names: Sequence[str]) -> Any:
    """Return ONNX Runtime's session of a model that gives out some of its tensors."""
    import onnx
    import onnxruntime

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
