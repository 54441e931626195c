"""int8 QDQ files from float ONNX files, and running them on ONNX Runtime's integer kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

# onnxruntime is typed in part only:
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["golden_session", "quantize_int8", "run_each"]

Arrays = Mapping[str, NDArray[Any]]


def quantize_int8(
    source: Path, target: Path, calibration: Arrays, floats: Sequence[str] = ()
) -> None:
    """Quantize a float ONNX file: int8 QDQ, biases int32.

    Weights are symmetric per output channel. Activations have a zero point, so that a Relu is the
    clamp at -128 and vanishes; the extremes on the samples set their ranges.

    Args:
        source: float ONNX for a batch of 1; it is replaced by itself with inferred shapes.
        target: the file to write.
        calibration: samples [n, ...] by input name.
        floats: nodes that stay in float.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    feeds = _feeds(calibration)

    class Reader(CalibrationDataReader):
        """Hands the calibration samples over one by one."""

        def get_next(self) -> dict[str, NDArray[Any]]:
            return next(feeds, {})

    quant_pre_process(source, source, skip_optimization=True, skip_symbolic_shape=True)
    int8 = QuantType.QInt8
    quantize_static(
        source, target, Reader(), per_channel=True, weight_type=int8, activation_type=int8,
        nodes_to_exclude=list(floats),
    )  # fmt: skip


def golden_session(
    model: Path | bytes, optimized: Path | None = None
) -> onnxruntime.InferenceSession:
    """Open a model on ONNX Runtime's integer kernels; `optimized` gets the graph that runs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # it warns that a saved optimized graph fits this machine only
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    # Without this entry x86 turns int8 activations to uint8, and some fusions are lost.
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_each(session: onnxruntime.InferenceSession, samples: Arrays) -> NDArray[np.float32]:
    """Run samples [n, ...] by input name one by one, giving the first output [n, ...]."""
    rows = [session.run(None, feed)[0] for feed in _feeds(samples)]
    return np.concatenate([np.asarray(row, dtype=np.float32) for row in rows])


def _feeds(samples: Arrays) -> Any:
    """Yield each sample with a batch of 1, by input name."""
    count = len(next(iter(samples.values())))
    for number in range(count):
        yield {name: array[number : number + 1] for name, array in samples.items()}
