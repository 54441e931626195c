"""Layer tables of SCALE-Sim (`.csv`) as networks of independent int8 layers.

A row is a convolution without padding (`name, input height, input width, filter height, filter
width, channels, filters, stride`) or a product (`name, M, N, K`). Each becomes an ONNX operator
with an input and an output of its own; weights are seeded random numbers, as a table has none.

Source: https://github.com/scalesim-project/scale-sim-v3, "topologies".
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton.errors import ImportFailure

__all__ = ["TableLayer", "read_layer_table", "table_model"]

_CONVOLUTION = 8
_PRODUCT = 4
_LARGEST = 1 << 16
_SCALE = 0.02


@dataclass(frozen=True)
class TableLayer:
    """One row; a product of M x K by K x N is a 1x1 convolution of M pixels in a row.

    Attributes:
        ifm: height and width of the input.
        kernel: height and width of the filter.
        filters: output channels.
    """

    name: str
    ifm: tuple[int, int]
    kernel: tuple[int, int]
    channels: int
    filters: int
    stride: int
    is_product: bool

    @property
    def ofm(self) -> tuple[int, int]:
        """Height and width of the output."""
        height, width = (
            (size - taps) // self.stride + 1
            for size, taps in zip(self.ifm, self.kernel, strict=True)
        )
        return height, width


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the cells of every row that names a layer, behind the header."""
    for number, cells in enumerate(csv.reader(text.splitlines()), 1):
        stripped = [cell.strip() for cell in cells]
        if number > 1 and any(stripped):
            yield number, stripped


def _columns(name: str, text: str) -> int:
    """Return how many columns the header says that a row has."""
    header = text.splitlines()[0].lower() if text.strip() else ""
    if "filter" in header:
        return _CONVOLUTION
    if [cell.strip() for cell in header.split(",")[1:4]] == ["m", "n", "k"]:
        return _PRODUCT
    raise ImportFailure(
        f"{name} is not a layer table: its first line must be 'Layer name, IFMAP Height, ...' or "
        "'Layer, M, N, K'"
    )


def _layer(place: str, cells: list[str], columns: int) -> TableLayer:
    """Return the layer of one row."""
    if len(cells) < columns or not cells[0]:
        raise ImportFailure(f"{place}: a layer has {columns} columns, found {len(cells)}")
    numbers: list[int] = []
    for cell in cells[1:columns]:
        if not cell.isascii() or not cell.isdigit() or not 0 < int(cell) <= _LARGEST:
            raise ImportFailure(
                f"{place}: a size must be a whole number from 1 to {_LARGEST}, not '{cell[:40]}'"
            )
        numbers.append(int(cell))
    if columns == _PRODUCT:
        m, n, k = numbers
        return TableLayer(cells[0], (1, m), (1, 1), k, n, 1, True)
    height, width, kernel_height, kernel_width, channels, filters, stride = numbers
    if kernel_height > height or kernel_width > width:
        raise ImportFailure(
            f"{place}: the filter of {kernel_height} x {kernel_width} is larger than the input of "
            f"{height} x {width}"
        )
    return TableLayer(
        cells[0], (height, width), (kernel_height, kernel_width), channels, filters, stride, False
    )


def read_layer_table(data: bytes, name: str) -> list[TableLayer]:
    """Return the layers of a table.

    Args:
        data: the file.
        name: of the file, for errors.

    Raises:
        ImportFailure: it is no table, or one with an impossible layer.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ImportFailure(f"{name} is not a layer table: it is not text") from None
    columns = _columns(name, text)
    layers = [_layer(f"{name}:{number}", cells, columns) for number, cells in _rows(text)]
    if not layers:
        raise ImportFailure(f"{name} has no layers")
    return layers


def table_model(data: bytes, name: str) -> bytes:
    """Return the ONNX model of a table; inputs and outputs are channels-last.

    Raises:
        ImportFailure: as `read_layer_table`.
    """
    from onnx import helper, numpy_helper

    generator = np.random.default_rng(0)
    scale = numpy_helper.from_array(np.array(_SCALE, np.float32), "scale")
    zero = numpy_helper.from_array(np.array(0, np.int8), "zero")
    constants: list[Any] = [scale, zero]
    nodes: list[Any] = []
    inputs: list[Any] = []
    outputs: list[Any] = []
    for index, layer in enumerate(read_layer_table(data, name)):
        label = f"{index:03d}_{layer.name}"
        shape = (layer.filters, layer.channels, *layer.kernel)
        weights = generator.integers(-127, 128, shape, np.int8)
        # keeps the sums of products of random codes within the range of the result
        result = np.array(_SCALE * _SCALE * 64 * np.prod(shape[1:]) ** 0.5, np.float32)
        constants.append(numpy_helper.from_array(weights, f"{label}/weights"))
        constants.append(numpy_helper.from_array(result, f"{label}/scale"))
        nodes += _nodes(label, layer.stride)
        inputs.append(_value(f"{label}/in", layer.ifm, layer.channels))
        outputs.append(_value(f"{label}/out", layer.ofm, layer.filters))
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    return bytes(model.SerializeToString())


def _value(label: str, size: tuple[int, int], channels: int) -> Any:
    """Return the declaration of an int8 input or output."""
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(label, TensorProto.INT8, [1, *size, channels])


def _nodes(label: str, stride: int) -> list[Any]:
    """Return a convolution between channels-last tensors; ONNX's own is channels-first."""
    from onnx import helper

    x, y = f"{label}/x", f"{label}/y"
    operands = [x, "scale", "zero", f"{label}/weights", "scale", "zero", f"{label}/scale", "zero"]
    return [
        helper.make_node("Transpose", [f"{label}/in"], [x], perm=[0, 3, 1, 2]),
        helper.make_node("QLinearConv", operands, [y], name=label, strides=[stride, stride]),
        helper.make_node("Transpose", [y], [f"{label}/out"], perm=[0, 2, 3, 1]),
    ]
