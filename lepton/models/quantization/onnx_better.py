"""Equalized channels and corrected biases of a float ONNX graph, before it becomes int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton.models.quantization.onnx_ranges import Arrays, Reader, session_of

if TYPE_CHECKING:
    import onnx

__all__ = ["correct_graph", "equalized"]


class _Layer(NamedTuple):
    """A layer with a bias.

    Attributes:
        node: what adds the bias and makes the layer's result.
        place: of the bias among its inputs.
        axis: of the result's channels.
        factor: what the node multiplies the bias by.
    """

    node: Any
    place: int
    axis: int
    factor: float


def equalized(model: onnx.ModelProto, samples: Arrays) -> onnx.ModelProto:
    """Return a model whose layers' channels have equal ranges (`equalization.equalize`).

    Raises:
        LeptonError: PyTorch is not installed.
        ImportFailure: an operator has no trainable form.
    """
    from lepton.models.onnx_module import from_onnx, to_onnx
    from lepton.models.quantization.equalization import equalize

    module = from_onnx(model)
    import torch

    equalize(module, [torch.from_numpy(array[0]) for array in samples.values()])
    return to_onnx(module)


def correct_graph(plain: onnx.ModelProto, rounded: onnx.ModelProto, samples: Arrays) -> None:
    """Take from each bias the mean error of its layer that rounded weights cause, in place.

    b'_c = b_c - (E[y'_c] - E[y_c]) over samples and positions, layer after layer, each with the
    layers before it corrected. Convolutions and Gemms without a bias get one; a product (MatMul)
    has one where a sum with constants follows it, and else stays as it is.

    Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction,
    ICCV 2019, section 4.2; E is measured, as in its appendix D.

    Args:
        plain: float.
        rounded: the same with rounded weights; its biases are corrected.
        samples: as `fitting_samples` returns them.
    """
    from onnx import numpy_helper

    layers = _layers(rounded.graph)
    wanted = _means(plain, layers, samples)
    for layer in layers:
        found = _means(rounded, [layer], samples)
        name = layer.node.output[0]
        bias = next(
            item for item in rounded.graph.initializer if item.name == layer.node.input[layer.place]
        )
        values = numpy_helper.to_array(bias)
        error = (found[name] - wanted[name]) / layer.factor
        fixed = (values.astype(np.float64) - error.reshape(values.shape)).astype(np.float32)
        bias.CopyFrom(numpy_helper.from_array(fixed, bias.name))


def _layers(graph: Any) -> list[_Layer]:
    """Return the layers of a graph with a bias of their own each, which they get if need be."""
    constants = {item.name: item for item in graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    made: list[_Layer] = []
    for node in graph.node:
        layer = _layer(node, constants, readers)
        if layer is not None:
            _own_bias(graph, layer, constants, readers)
            made.append(layer)
    return made


def _layer(node: Any, constants: dict[str, Any], readers: dict[str, list[Any]]) -> _Layer | None:
    """Return the layer that a node is; None if it is none with a bias."""
    attributes = {item.name: item for item in node.attribute}
    if len(node.input) < 2 or node.input[1] not in constants:
        return None
    if node.op_type == "Conv":
        return _Layer(node, 2, 1, 1.0)
    if node.op_type == "Gemm":
        beta = attributes["beta"].f if "beta" in attributes else 1.0
        return _Layer(node, 2, -1, beta) if beta else None
    after = readers.get(node.output[0], [])
    if node.op_type != "MatMul" or len(after) != 1 or after[0].op_type != "Add":
        return None
    place = int(after[0].input[0] == node.output[0])
    columns = list(constants[node.input[1]].dims)[-1:]
    bias = constants.get(after[0].input[place])
    is_row = bias is not None and list(bias.dims) == columns
    return _Layer(after[0], place, -1, 1.0) if is_row else None


def _own_bias(
    graph: Any, layer: _Layer, constants: dict[str, Any], readers: dict[str, list[Any]]
) -> None:
    """Give a layer a bias that nothing else reads and that has a number for each channel."""
    from onnx import numpy_helper

    node, place = layer.node, layer.place
    weight = constants[node.input[1]] if node.op_type in ("Conv", "Gemm") else None
    name = node.input[place] if len(node.input) > place else ""
    values: NDArray[Any] = np.zeros(1, np.float32)
    if name:
        if name not in constants:
            return
        values = numpy_helper.to_array(constants[name])
    if weight is not None:
        is_turned = any(item.name == "transB" and item.i for item in node.attribute)
        channels = weight.dims[0 if node.op_type == "Conv" or is_turned else 1]
        values = np.broadcast_to(values.reshape(-1), (channels,))
    if name and len(readers[name]) == 1 and values.size == np.prod(constants[name].dims):
        return
    own = f"{node.output[0]} corrected bias"
    graph.initializer.append(numpy_helper.from_array(np.array(values, np.float32), own))
    constants[own] = graph.initializer[-1]
    while len(node.input) <= place:
        node.input.append("")
    node.input[place] = own


def _means(
    model: onnx.ModelProto, layers: list[_Layer], samples: Arrays
) -> dict[str, NDArray[np.float64]]:
    """Return the mean of each channel that layers make."""
    names = [layer.node.output[0] for layer in layers]
    if not names:
        return {}
    session = session_of(model, names)
    sums: dict[str, Any] = {}
    reader, count = Reader(samples), 0
    while (sample := reader.get_next()) is not None:
        for layer, made in zip(layers, session.run(names, sample), strict=True):
            rows = np.moveaxis(made.astype(np.float64), layer.axis, -1)
            mean = rows.reshape(-1, rows.shape[-1]).mean(axis=0)
            sums[layer.node.output[0]] = sums.get(layer.node.output[0], 0.0) + mean
        count += 1
    return {name: total / count for name, total in sums.items()}
