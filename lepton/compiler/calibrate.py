"""Quantize a float ONNX model on the way, with ONNX Runtime's quantizer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lepton.compiler.activations import INT8, Activations, Precision
from lepton.compiler.fidelity import Reference, each_sample
from lepton.compiler.raise_activations import choose_wide, precision_of
from lepton.errors import InputError, LeptonError
from lepton.program import as_array, as_batch

__all__ = ["plain_samples", "quantize_model"]

Arrays = dict[str, NDArray[Any]]

ONLY_INPUT = ""
"""Name of samples that were given without one, of the model's only input."""

OPSET = 13
"""The first whose scales may be per channel."""

OPSET_OF_16_BITS = 21
"""The first whose changes of scale know 16 bits."""

_TFLITE_MARK = b"TFL3"


def plain_samples(calibration: object) -> Arrays:
    """Return calibration samples as float32 or int64 arrays by input name.

    Args:
        calibration: arrays by input name, or one array for the only input.

    Raises:
        InputError: neither of these, or values that are no finite numbers.
    """
    if isinstance(calibration, np.ndarray):
        calibration = {ONLY_INPUT: calibration}
    if not isinstance(calibration, Mapping):
        raise InputError(
            "calibration must be an array or arrays by input name, not "
            f"{type(calibration).__name__}"
        )
    made: Arrays = {}
    for name, value in cast(Mapping[object, object], calibration).items():
        label = f"calibration of input '{name}'" if name else "calibration"
        array = as_array(value, label)
        is_whole = array.dtype.kind == "i" and array.dtype.itemsize >= 4
        with np.errstate(over="ignore"):
            samples = np.array(array, np.int64 if is_whole else np.float32, order="C")
        if not np.isfinite(samples).all():
            raise InputError(
                f"{label} holds NaN or infinite values, or such as float32 cannot hold"
            )
        made[str(name)] = samples
    return made


class _Reader:
    """Feeds samples one at a time, as the quantizer asks for them."""

    def __init__(self, samples: Arrays) -> None:
        self._items = each_sample(samples)

    def get_next(self) -> Arrays | None:
        """Return the next sample, None behind the last."""
        return next(self._items, None)


def quantize_model(
    path: Path,
    samples: Arrays,
    target: Path,
    shapes: Mapping[str, Sequence[int]] | None = None,
    activations: Activations = INT8,
) -> Precision | None:
    """Write a quantized copy of a float model (QDQ, int8 weights per channel).

    Args:
        path: float `.onnx` model.
        samples: as `plain_samples` gives them.
        target: where the copy goes; files beside it may be overwritten.
        shapes: input name -> shape, for dynamic dimensions.
        activations: their bits.

    Returns:
        What was chosen and measured; None for int8 activations, which are not measured.

    Raises:
        InputError: not a float ONNX model, or samples that do not fit.
    """
    import onnx

    model = _float_model(path, shapes or {})
    fitting = _fitting(samples, model, path.name)
    prepared = target.with_name("float.onnx")
    logging.getLogger().setLevel(logging.ERROR)
    try:
        onnx.save(_modern(model, activations), str(prepared))
        return _quantize(prepared, target, fitting, activations)
    except LeptonError as error:
        raise InputError(f"{path.name}: cannot be quantized: {error}") from None
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{path.name}: cannot be quantized: {lines[-1]}") from error


def _float_model(path: Path, shapes: Mapping[str, Sequence[int]]) -> Any:
    """Return a checked float model whose inputs have static shapes."""
    from lepton.compiler.importers.onnx import read_onnx

    data = path.read_bytes()
    if data[4:8] == _TFLITE_MARK or path.suffix == ".tflite":
        raise InputError(f"{path.name}: only a float .onnx model can be calibrated")
    model, _ = read_onnx(data, path.stem, shapes)
    kinds = {node.op_type for node in model.graph.node}
    if any(kind.endswith("Integer") or "Quant" in kind or "QLinear" in kind for kind in kinds):
        raise InputError(f"{path.name} is quantized already: compile it without calibration")
    return model


def _fitting(samples: Arrays, model: Any, name: str) -> Arrays:
    """Return the samples `[n, *shape]` of every input, in the inputs' names and types."""
    from onnx import helper

    constants = {item.name for item in model.graph.initializer}
    feeds = {item.name: item.type for item in model.graph.input if item.name not in constants}
    shapes = {
        wanted: tuple(int(extent.dim_value) for extent in kind.tensor_type.shape.dim)
        for wanted, kind in feeds.items()
    }
    if not shapes:
        raise InputError(f"{name} has no input to calibrate")
    if list(samples) == [ONLY_INPUT] and len(shapes) == 1:
        samples = {next(iter(shapes)): samples[ONLY_INPUT]}
    missing = [wanted for wanted in shapes if wanted not in samples]
    if missing:
        given = ", ".join(f"'{found}'" for found in samples if found) or "none by name"
        raise InputError(f"calibration has no samples of input '{missing[0]}' (it has {given})")
    return {
        wanted: as_batch(
            samples[wanted].astype(
                helper.tensor_dtype_to_np_dtype(feeds[wanted].tensor_type.elem_type)
            ),
            shape,
            f"calibration of input '{wanted}'",
        )
        for wanted, shape in shapes.items()
    }


def _modern(model: Any, activations: Activations) -> Any:
    """Return a model of an opset that has what is needed, whose constants are no inputs."""
    from onnx import version_converter

    for item in model.opset_import:
        if item.domain == "ai.onnx":
            item.domain = ""
    opset = next((item.version for item in model.opset_import if not item.domain), 1)
    needed = OPSET if activations == INT8 else OPSET_OF_16_BITS
    if opset < needed:
        model = version_converter.convert_version(model, needed)
    model.ir_version = max(model.ir_version, 8)
    constants = {item.name for item in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


def _simplified(path: Path) -> list[str]:
    """Rewrite a prepared model's graph; return the names of the nodes that stay in float."""
    import onnx
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    from lepton.compiler.float_graph import in_float, simplify

    model = onnx.load(str(path))
    _flatten_biases(model.graph)
    simplify(model.graph)
    onnx.save(model, str(path))
    return in_float(model.graph, {*QDQRegistry, *QLinearOpsRegistry})


def _flatten_biases(graph: Any) -> None:
    """Make biases `[1, n]` of Gemm `[n]`: ONNX Runtime's quantizer fails on a row."""
    readers: dict[str, set[tuple[str, int]]] = {}
    for node in graph.node:
        for position, item in enumerate(node.input):
            readers.setdefault(item, set()).add((node.op_type, position))
    for tensor in graph.initializer:
        if readers.get(tensor.name) == {("Gemm", 2)} and list(tensor.dims[:-1]) == [1]:
            del tensor.dims[0]


def _quantize(
    prepared: Path, target: Path, samples: Arrays, activations: Activations
) -> Precision | None:
    """Run ONNX Runtime's preparation, in place, and its quantizer."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepare: Any = quant_pre_process
    prepare(str(prepared), str(prepared), skip_symbolic_shape=True)
    quantizer = _Quantizer(prepared, target, samples, _simplified(prepared))
    if activations == INT8:
        quantizer.write(())
        return None
    reference = Reference(onnx.load(str(prepared)), samples)
    if activations.kind == "int16":
        return precision_of(quantizer.made(None), reference, activations)
    model, int8, int16 = choose_wide(quantizer.made, reference, activations)
    onnx.save(model, str(target))
    return precision_of(model, reference, activations, (int8, int16))


@dataclass(frozen=True)
class _Quantizer:
    """ONNX Runtime's quantizer of a prepared model; ranges are measured once.

    Attributes:
        prepared: the float model.
        target: where the quantized one goes.
        samples: of every input.
        left: nodes that stay in float.
    """

    prepared: Path
    target: Path
    samples: Arrays
    left: list[str]

    def made(self, wide: Sequence[str] | None) -> Any:
        """Write the model, and return it."""
        import onnx

        self.write(wide)
        return onnx.load(str(self.target))

    def write(self, wide: Sequence[str] | None) -> None:
        """Write the model with 8-bit activations but for these, or, without any, of 16 bits."""
        from onnxruntime import quantization

        library: Any = quantization
        kinds = library.QuantType
        overrides = {name: [{"quant_type": kinds.QInt16}] for name in wide or ()}
        library.quantize_static(
            str(self.prepared),
            str(self.target),
            _Reader(self.samples),
            quant_format=library.QuantFormat.QDQ,
            per_channel=True,
            activation_type=kinds.QInt16 if wide is None else kinds.QInt8,
            weight_type=kinds.QInt8,
            nodes_to_exclude=self.left,
            extra_options={"TensorQuantOverrides": overrides} if overrides else None,
            calibration_cache_path=self.target.with_name("ranges.json"),
        )
