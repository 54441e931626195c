"""Quantize a float ONNX model on the way, with ONNX Runtime's quantizer."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError

__all__ = ["quantized_copy"]

Samples = Mapping[str, NDArray[Any]] | NDArray[Any]


class _Reader:
    """Feeds samples one at a time, as the quantizer asks for them."""

    def __init__(self, samples: dict[str, NDArray[Any]], shapes: dict[str, list[int]]) -> None:
        count = min(len(array) for array in samples.values())
        self._items = iter(
            {
                name: array[index].reshape([1, *shapes[name][1:]]).astype(np.float32)
                for name, array in samples.items()
            }
            for index in range(count)
        )

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next sample, None behind the last."""
        return next(self._items, None)


def _by_name(samples: Samples, names: list[str]) -> dict[str, NDArray[Any]]:
    """Return the samples by input name."""
    if isinstance(samples, np.ndarray):
        if len(names) != 1:
            raise InputError(f"calibration must name the inputs {', '.join(names)}")
        return {names[0]: samples}
    missing = [name for name in names if name not in samples]
    if missing:
        raise InputError(f"calibration has no samples of input '{missing[0]}'")
    return {name: np.asarray(samples[name]) for name in names}


@contextlib.contextmanager
def quantized_copy(path: Path, samples: Samples) -> Generator[Path]:
    """Give the path of an int8 copy (QDQ, weights per channel) for the length of a block.

    Args:
        path: float `.onnx` model.
        samples: `[n, ...]` float by input name, or one array for the only input.

    Raises:
        InputError: not a float ONNX model, or samples that do not fit.
    """
    import onnx
    from onnxruntime import quantization as ort_quantization

    library: Any = ort_quantization
    try:
        graph = onnx.load(str(path)).graph
    except Exception:
        raise InputError(f"{path}: only a float .onnx model can be calibrated") from None
    constants = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in constants]
    shapes = {
        item.name: [d.dim_value or 1 for d in item.type.tensor_type.shape.dim] for item in inputs
    }
    arrays = _by_name(samples, list(shapes))
    with tempfile.TemporaryDirectory(prefix="lepton-") as folder:
        prepared, target = Path(folder) / "float.onnx", Path(folder) / path.name
        logging.getLogger().setLevel(logging.ERROR)
        try:
            from onnxruntime.quantization.shape_inference import quant_pre_process

            prepare: Any = quant_pre_process
            prepare(str(path), str(prepared), skip_symbolic_shape=True)
            library.quantize_static(
                str(prepared),
                str(target),
                _Reader(arrays, shapes),
                quant_format=library.QuantFormat.QDQ,
                per_channel=True,
                activation_type=library.QuantType.QInt8,
                weight_type=library.QuantType.QInt8,
            )
        except Exception as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
            raise InputError(f"{path}: cannot be quantized: {reason}") from None
        yield target
