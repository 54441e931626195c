"""The int8 file form: a float ONNX model with weights of n bits becomes int8 QDQ ONNX."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton.errors import InputError, LeptonError
from lepton.models.quantization.calibration import Calibration, MinMax
from lepton.models.quantization.integer_weights import WEIGHT_BITS, IntegerWeights
from lepton.models.quantization.onnx_names import bits_by_initializer
from lepton.models.quantization.onnx_ranges import (
    Arrays,
    Reader,
    activation_ranges,
    fitting_samples,
)
from lepton.models.quantization.onnx_weights import (
    check_graph,
    matching_weights,
    replace_weights,
    stored_codes,
    weight_axes,
    weight_values,
)
from lepton.models.quantization.quantizers import check_range
from lepton.program.files import temporary_folder

if TYPE_CHECKING:
    import onnx

__all__ = ["FileOptions", "prepared_model", "quantize_model"]

OPSET = 13
"""The first whose scales may be per channel."""

EXTREMES = MinMax()


def _nothing(_graph: onnx.GraphProto) -> Collection[str]:
    """Leave a graph as it is, and no node in float."""
    return ()


@dataclass(frozen=True)
class FileOptions:
    """What else decides the file.

    Attributes:
        weight_calibration: of the range of each weight channel.
        activation_calibration: of the range of each activation.
        ranges: of activations, by tensor name, that are known already.
        prepare: rewrites the float graph in place, shapes inferred, before weights are looked for;
            returns the names of the nodes that stay in float.
    """

    weight_calibration: Calibration = EXTREMES
    activation_calibration: Calibration = EXTREMES
    ranges: Mapping[str, tuple[float, float]] = field(
        default_factory=dict[str, tuple[float, float]]
    )
    prepare: Callable[[onnx.GraphProto], Collection[str]] = _nothing

    def __post_init__(self) -> None:
        for name, limits in self.ranges.items():
            check_range(limits, f"the range of '{name}'")


def quantize_model(
    model: str | Path | onnx.ModelProto,
    calibration: object,
    *,
    bits: int | Mapping[str, int] = WEIGHT_BITS,
    weights: Mapping[str, IntegerWeights] | None = None,
    options: FileOptions | None = None,
) -> onnx.ModelProto:
    """Quantize a float model: activations of 8 bits, symmetric weights of n bits.

    Weights have a scale for each output channel and lie in int8 containers, in the narrow range of
    their bits. ONNX Runtime places QuantizeLinear and DequantizeLinear and quantizes activations
    (one scale and zero point for each tensor) and biases (32 bits); it sees the rounded weights, so
    the ranges of activations are those that they lead to.

    Args:
        model: float ONNX, a file or itself.
        calibration: inputs `[samples, ...]` by name, or one array for the only input.
        bits: of all weights, or of those named, 8 for the others: by initializer, or by the path of
            the parameter in the PyTorch module that the model was exported from, which the names of
            its nodes tell (`0.weight` is the weight of `/0/Conv`).
        weights: codes that are chosen already, by the initializer's name, or by any other if the
            model holds just what they stand for.
        options: what else decides.

    Raises:
        InputError: not a float ONNX model, weights or ranges of what it has not, weights that are
            NaN or infinite, or samples that do not fit.
    """
    import onnx

    options = options or FileOptions()
    float_model, label = _float_model(model)
    with temporary_folder() as folder, _quiet():
        source, target = folder / "float.onnx", folder / "int8.onnx"
        in_float = _prepare(float_model, source, options, label)
        prepared = onnx.load(str(source))
        samples = fitting_samples(calibration, prepared.graph)
        axes = weight_axes(prepared.graph, in_float)
        check_graph(prepared.graph, axes, options.ranges)
        given = matching_weights(weight_values(prepared.graph, axes), weights or {})
        chosen = _chosen(prepared.graph, bits, given, (options, axes))
        replace_weights(prepared.graph, chosen)
        onnx.save(prepared, str(source))
        overrides = _overrides(chosen) | _known_ranges(source, samples, options)
        try:
            _quantize(source, target, samples, (overrides, in_float))
        except Exception as error:
            raise InputError(f"{label}: cannot be quantized: {_last_line(error)}") from error
        made = onnx.load(str(target))
    _check_codes(made.graph, given)
    return made


def prepared_model(model: str | Path | onnx.ModelProto) -> onnx.ModelProto:
    """Return a float model as `quantize_model` takes it: the names of its weights are those there.

    Raises:
        InputError: not a float ONNX model.
    """
    import onnx

    float_model, label = _float_model(model)
    with temporary_folder() as folder, _quiet():
        _prepare(float_model, folder / "float.onnx", FileOptions(), label)
        return onnx.load(str(folder / "float.onnx"))


@contextmanager
def _quiet() -> Generator[None]:
    """Keep ONNX Runtime's advice to its own developers off the log."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _float_model(model: str | Path | onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """Return a copy of a model that is float, and what messages call it."""
    import onnx

    if isinstance(model, str | Path):
        path = Path(model)
        label = path.name
        try:
            copy = onnx.load(str(path))
        except Exception as error:
            raise InputError(f"{path}: cannot be read as ONNX: {_last_line(error)}") from error
    elif not hasattr(model, "graph"):
        kind = type(model).__name__
        raise InputError(f"quantize_model takes a float ONNX model, not {kind}: export it to ONNX")
    else:
        copy, label = onnx.ModelProto(), model.graph.name or "model"
        copy.CopyFrom(model)
    kinds = {node.op_type for node in copy.graph.node}
    if any(kind.endswith("Integer") or "Quant" in kind or "QLinear" in kind for kind in kinds):
        raise InputError(f"{label} is quantized already: give the float model")
    return copy, label


def _prepare(
    model: onnx.ModelProto, path: Path, options: FileOptions, label: str
) -> Collection[str]:
    """Write a model as the quantizer takes it; return the nodes that stay in float."""
    try:
        return _prepare_any(model, path, options)
    except LeptonError:
        raise
    except Exception as error:
        raise InputError(f"{label}: cannot be prepared: {_last_line(error)}") from error


def _prepare_any(model: onnx.ModelProto, path: Path, options: FileOptions) -> Collection[str]:
    """Do so for what may be none that it takes."""
    import onnx
    from onnx import version_converter
    from onnxruntime.quantization.shape_inference import quant_pre_process

    opset = next((item.version for item in model.opset_import if not item.domain), 1)
    if opset < OPSET:
        model = version_converter.convert_version(model, OPSET)
    model.ir_version = max(model.ir_version, 8)
    onnx.save(model, str(path))
    prepare: Any = quant_pre_process
    prepare(str(path), str(path), skip_symbolic_shape=True)
    prepared = onnx.load(str(path))
    _flatten_biases(prepared.graph)
    in_float = options.prepare(prepared.graph)
    onnx.save(prepared, str(path))
    return in_float


def _flatten_biases(graph: onnx.GraphProto) -> None:
    """Make biases `[1, n]` of Gemm `[n]`: ONNX Runtime's quantizer fails on a row."""
    readers = [
        (node.op_type, place, name) for node in graph.node for place, name in enumerate(node.input)
    ]
    for item in graph.initializer:
        reading = {(kind, place) for kind, place, name in readers if name == item.name}
        if reading == {("Gemm", 2)} and list(item.dims[:-1]) == [1]:
            del item.dims[0]


def _chosen(
    graph: onnx.GraphProto,
    bits: int | Mapping[str, int],
    given: Mapping[str, IntegerWeights],
    how: tuple[FileOptions, Mapping[str, int | None]],
) -> dict[str, IntegerWeights]:
    """Return the codes of all weights."""
    options, axes = how
    values = weight_values(graph, axes)
    named = {} if isinstance(bits, int) else bits_by_initializer(graph, bits, axes)
    default = bits if isinstance(bits, int) else WEIGHT_BITS
    chosen = {
        name: IntegerWeights.of_values(
            array, named.get(name, default), axes[name], options.weight_calibration
        )
        for name, array in values.items()
        if name not in given
    }
    return {**chosen, **given}


def _overrides(chosen: Mapping[str, IntegerWeights]) -> dict[str, list[dict[str, Any]]]:
    """Return the scales as ONNX Runtime's quantizer takes them."""
    from onnxruntime.quantization import QuantType

    made: dict[str, list[dict[str, Any]]] = {}
    for name, weights in chosen.items():
        common: dict[str, Any] = {"quant_type": QuantType.QInt8, "zero_point": 0}
        if weights.axis is not None:
            common["axis"] = weights.axis
        scales = np.atleast_1d(weights.scale).tolist()
        made[name] = [{**common, "scale": scale} for scale in scales]
    return made


def _known_ranges(
    path: Path, samples: Arrays, options: FileOptions
) -> dict[str, list[dict[str, Any]]]:
    """Return the ranges of activations that are not the extremes, which ONNX Runtime finds."""
    ranges: dict[str, tuple[float, float]] = {}
    if not isinstance(options.activation_calibration, MinMax):
        ranges |= activation_ranges(path, samples, options.activation_calibration)
    ranges |= options.ranges
    return {
        name: [{"rmin": np.array(low, np.float32), "rmax": np.array(high, np.float32)}]
        for name, (low, high) in ranges.items()
    }


def _quantize(
    source: Path,
    target: Path,
    samples: Arrays,
    how: tuple[dict[str, list[dict[str, Any]]], Collection[str]],
) -> None:
    """Run ONNX Runtime's quantizer."""
    from onnxruntime import quantization

    library: Any = quantization
    library.quantize_static(
        str(source),
        str(target),
        Reader(samples),
        quant_format=library.QuantFormat.QDQ,
        per_channel=True,
        activation_type=library.QuantType.QInt8,
        weight_type=library.QuantType.QInt8,
        nodes_to_exclude=list(how[1]),
        extra_options={"TensorQuantOverrides": how[0]},
    )


def _check_codes(graph: onnx.GraphProto, given: Mapping[str, IntegerWeights]) -> None:
    """Raise if the file does not hold the codes given.

    ONNX Runtime widens the scale of a channel whose weights are so small that its bias would not
    fit 32 bits; codes that were not given may shrink by that.
    """
    for name, weights in given.items():
        if not np.array_equal(stored_codes(graph, name), weights.codes):
            raise InputError(
                f"weights '{name}' have channels too small beside their bias to keep their codes: "
                "set such channels to zero"
            )
