"""The float network of a TFLite file, as ONNX: to learn from, to start a compression with.

An int8 file is a float network whose numbers were rounded. Weights and biases become the numbers
that their codes stand for; activations are not rounded any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton.errors import InputError
from lepton.models.onnx_float import float_onnx
from lepton.models.onnx_writer import GraphWriter
from lepton.models.tflite_file import TfliteFile, TfliteOperator, read_tflite
from lepton.program import read_file

if TYPE_CHECKING:
    import onnx

__all__ = ["float_network", "float_tflite"]

_MAXIMUM_BYTES = 2 << 30
_SAME = 0
"""Of the schema's Padding; the other is VALID."""
_NONE, _RELU, _RELU6 = 0, 1, 3
"""Of the schema's ActivationFunctionType."""


def float_network(path: str | Path) -> onnx.ModelProto:
    """Return the float network of an `.onnx` or a `.tflite` file, float or int8.

    Raises:
        InputError: the file cannot be read, or holds what `float_tflite` or `float_onnx` does not
            take.
        ImportFailure: it is no ONNX model, is damaged, or keeps its weights in other files.
    """
    try:
        with open(path, "rb") as file:
            is_tflite = file.read(8)[4:] == b"TFL3"
    except (OSError, ValueError):
        is_tflite = False
    is_tflite = is_tflite or Path(path).suffix == ".tflite"
    return float_tflite(path) if is_tflite else float_onnx(path)


def float_tflite(source: str | Path | bytes) -> onnx.ModelProto:
    """Return the float network of a quantized or float TFLite file, for a batch of 1.

    Images are [1, c, h, w] where the file has [n, h, w, c]. Inputs and outputs are the real numbers
    that the file's codes stand for. `from_onnx` runs it on batches of any size.

    Args:
        source: the file, or its content.

    Raises:
        InputError: it cannot be read, is damaged, or has an operator without a float form here.
    """
    name = "the model"
    if not isinstance(source, bytes):
        name = Path(source).name
        source = read_file(Path(source), _MAXIMUM_BYTES, "a TFLite model")
    return _Writer(read_tflite(source, name)).model()


class _Writer:
    """Writes the float network of one file.

    Attributes:
        file: what is read.
        graph: what is written.
    """

    def __init__(self, file: TfliteFile) -> None:
        self.file = file
        self.graph = GraphWriter("float", 0)
        self._used: set[str] = set()
        self._names: dict[int, str] = {}
        self._same: dict[int, int] = {}
        self._images: dict[int, tuple[int, ...]] = {}

    def model(self) -> onnx.ModelProto:
        """Return the network.

        Raises:
            InputError: the file holds what has no float form here.
        """
        import onnx

        for number in self.file.inputs:
            self._feed(number)
        for operator in self.file.operators:
            convert = _CONVERTERS.get(operator.kind)
            if convert is None:
                raise InputError(f"{operator.place} has no float form here")
            if any(len(self.file.shape(number)) not in (2, 4) for number in operator.outputs):
                raise InputError(f"{operator.place} makes neither images nor rows of numbers")
            convert(self, operator)
        outputs = [self._output(number) for number in self.file.outputs]
        try:
            made = self.graph.finish(outputs)
            onnx.checker.check_model(made)
        except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{self.file.name} has layers that do not fit: {reason}") from None
        return made

    def fresh(self, wanted: str) -> str:
        """Return a name that nothing has."""
        while wanted in self._used:
            wanted += "'"
        self._used.add(wanted)
        return wanted

    def name_made(self, operator: TfliteOperator) -> str:
        """Return the name of what an operator makes."""
        number = operator.outputs[0]
        self._names[number] = self.fresh(self.file.label(number))
        return self._names[number]

    def pass_on(self, operator: TfliteOperator) -> None:
        """Let what an operator makes be what it reads."""
        number, made = operator.read(0), operator.outputs[0]
        self._same[made] = self._same.get(number, number)
        if number in self._names:
            self._names[made] = self._names[number]
        if number in self._images:
            self._images[made] = self._images[number]

    def flatten(self, operator: TfliteOperator) -> None:
        """Make rows of images; what reads them finds out that each is [c, h, w], not [h, w, c]."""
        image = self.file.shape(operator.read(0))[1:]
        value = self.value(operator, operator.read(0))
        self.graph.add("Flatten", self.name_made(operator), value, axis=1)
        if image[0] * image[1] > 1 and image[2] > 1:
            self._images[operator.outputs[0]] = image

    def value(self, operator: TfliteOperator, number: int) -> str:
        """Return the name of what an operator reads."""
        if number in self._images:
            raise InputError(
                f"{operator.place} reads flattened images, as only FULLY_CONNECTED may"
            )
        return self._made(operator, number)

    def row(self, operator: TfliteOperator) -> tuple[str, tuple[int, ...] | None]:
        """Return the rows that a product reads, and [h, w, c] where each is a flat [c, h, w]."""
        number = operator.read(0)
        value, image = self._made(operator, number), self._images.get(number)
        if len(self.file.shape(number)) == 4:
            image = self.file.shape(number)[1:]
            value = self.graph.add("Flatten", self.fresh(f"{value}/rows"), value, axis=1)
        return value, image

    def stored(self, operator: TfliteOperator, position: int) -> int | None:
        """Return the number of the constant that an operator reads; None if it is left out."""
        number = operator.read(position)
        if number < 0:
            return None
        number = self._same.get(number, number)
        if not self.file.is_constant(number):
            raise InputError(f"{operator.place} has weights that are computed")
        return number

    def constant(self, number: int, value: Any) -> str:
        """Add a constant of the file, changed as ONNX wants it."""
        name = self.fresh(self.file.label(number))
        return self.graph.constant(name, np.ascontiguousarray(value))

    def add(self, operator: TfliteOperator, kind: str, *inputs: str, **attributes: Any) -> None:
        """Add a node and the activation that the operator has inside."""
        activation = operator.option("fusedActivationFunction")
        if activation not in (_NONE, _RELU, _RELU6):
            raise InputError(f"{operator.place} has an activation inside other than RELU and RELU6")
        name = self.name_made(operator)
        if activation == _NONE:
            self.graph.add(kind, name, *inputs, **attributes)
            return
        linear = self.graph.add(kind, self.fresh(f"{name}/linear"), *inputs, **attributes)
        self.rectify(name, linear, activation)

    def rectify(self, name: str, value: str, activation: int) -> None:
        """Add max(x, 0), or min(max(x, 0), 6)."""
        if activation == _RELU:
            self.graph.add("Relu", name, value)
            return
        limits = [
            self.graph.constant(self.fresh(f"{name}/{limit}"), np.array(limit, np.float32))
            for limit in (0, 6)
        ]
        self.graph.add("Clip", name, value, *limits)

    def _feed(self, number: int) -> None:
        shape = self.file.shape(number)
        label = self.file.label(number)
        if len(shape) not in (2, 4) or not self.file.is_float(number):
            raise InputError(
                f"input '{label}' of {self.file.name} is neither images nor rows of real numbers"
            )
        extents = (shape[3], *shape[1:3]) if len(shape) == 4 else shape[1:]
        self._names[number] = self.graph.feed(self.fresh(label), (1, *extents))

    def _made(self, operator: TfliteOperator, number: int) -> str:
        if number not in self._names:
            raise InputError(f"{operator.place} reads a constant or what no operator made before")
        return self._names[number]

    def _output(self, number: int) -> str:
        label = self.file.label(number)
        fed = {self._names[each] for each in self.file.inputs}
        if self._names.get(number) is None or self._names[number] in fed:
            raise InputError(f"output '{label}' of {self.file.name} is made by no layer")
        if number in self._images:
            raise InputError(f"output '{label}' of {self.file.name} is flattened images")
        return self._names[number]


def _window(
    operator: TfliteOperator, image: Sequence[int], kernel: Sequence[int], dilations: Sequence[int]
) -> dict[str, list[int]]:
    """Return strides and explicit padding.

    SAME is ceil(in / stride) outputs, with the odd row of padding at the end.
    Source: TensorFlow Lite, kernels/padding.h.
    """
    strides = [int(operator.option("strideH")), int(operator.option("strideW"))]
    starts, ends = [0, 0], [0, 0]
    if operator.option("padding") == _SAME:
        for axis in range(2):
            reach = (kernel[axis] - 1) * dilations[axis] + 1
            count = -(-image[axis] // strides[axis])
            missing = max((count - 1) * strides[axis] + reach - image[axis], 0)
            starts[axis], ends[axis] = missing // 2, missing - missing // 2
    return {"strides": strides, "pads": starts + ends}


def _convolution(writer: _Writer, operator: TfliteOperator) -> None:
    """CONV_2D [o, h, w, i] and DEPTHWISE_CONV_2D [1, h, w, o] as Conv [o, i, h, w]."""
    weights, bias = writer.stored(operator, 1), writer.stored(operator, 2)
    assert weights is not None
    image = writer.file.shape(operator.read(0))
    is_depthwise = operator.kind == "DEPTHWISE_CONV_2D"
    order = (3, 0, 1, 2) if is_depthwise else (0, 3, 1, 2)
    kernels = writer.file.values(weights).transpose(order)
    dilations = [int(operator.option(f"dilation{axis}Factor")) for axis in "HW"]
    inputs = [writer.value(operator, operator.read(0)), writer.constant(weights, kernels)]
    if bias is not None:
        inputs.append(writer.constant(bias, writer.file.values(bias)))
    kernel = list(kernels.shape[2:])
    writer.add(
        operator, "Conv", *inputs, dilations=dilations, kernel_shape=kernel,
        group=image[3] // kernels.shape[1], **_window(operator, image[1:3], kernel, dilations),
    )  # fmt: skip


def _product(writer: _Writer, operator: TfliteOperator) -> None:
    """FULLY_CONNECTED as Gemm; columns in the order of flattened images [c, h, w]."""
    weights, bias = writer.stored(operator, 1), writer.stored(operator, 2)
    assert weights is not None
    value, image = writer.row(operator)
    matrix = writer.file.values(weights)
    made = writer.file.shape(operator.outputs[0])
    rows = writer.file.shape(operator.read(0))[0]
    if made != (rows, matrix.shape[0]) or operator.option("weightsFormat"):
        raise InputError(f"{operator.place} has a form other than a row of numbers to another")
    if image is not None:
        blocks = matrix.reshape(len(matrix), *image)
        matrix = blocks.transpose(0, 3, 1, 2).reshape(matrix.shape)
    inputs = [value, writer.constant(weights, matrix)]
    if bias is not None:
        inputs.append(writer.constant(bias, writer.file.values(bias)))
    writer.add(operator, "Gemm", *inputs, transB=1)


def _addition(writer: _Writer, operator: TfliteOperator) -> None:
    first, second = operator.read(0), operator.read(1)
    if writer.file.shape(first) != writer.file.shape(second):
        raise InputError(f"{operator.place} adds tensors of different shapes")
    values = [writer.value(operator, number) for number in (first, second)]
    writer.add(operator, "Add", *values)


def _average(writer: _Writer, operator: TfliteOperator) -> None:
    image = writer.file.shape(operator.read(0))[1:3]
    value = writer.value(operator, operator.read(0))
    kernel = [int(operator.option("filterHeight")), int(operator.option("filterWidth"))]
    if tuple(kernel) == image and writer.file.shape(operator.outputs[0])[1:3] == (1, 1):
        writer.add(operator, "GlobalAveragePool", value)
        return
    window = _window(operator, image, kernel, (1, 1))
    writer.add(operator, "AveragePool", value, kernel_shape=kernel, **window)


def _mean(writer: _Writer, operator: TfliteOperator) -> None:
    shape, axes = writer.file.shape(operator.read(0)), writer.stored(operator, 1)
    over = () if axes is None else (writer.file.codes(axes).reshape(-1) % max(len(shape), 1))
    if len(shape) != 4 or sorted(int(axis) for axis in over) != [1, 2]:
        raise InputError(f"{operator.place} is no mean over height and width")
    value = writer.value(operator, operator.read(0))
    if operator.option("keepDims"):
        writer.graph.add("GlobalAveragePool", writer.name_made(operator), value)
        return
    name = writer.name_made(operator)
    pooled = writer.graph.add("GlobalAveragePool", writer.fresh(f"{name}/mean"), value)
    writer.graph.add("Flatten", name, pooled, axis=1)


def _reshape(writer: _Writer, operator: TfliteOperator) -> None:
    before = writer.file.shape(operator.read(0))
    after = writer.file.shape(operator.outputs[0])
    if before == after:
        writer.pass_on(operator)
    elif len(before) == 4 and len(after) == 2 and before[0] == after[0]:
        writer.flatten(operator)
    else:
        raise InputError(f"{operator.place} makes {list(after)} of {list(before)}, no flat images")


def _softmax(writer: _Writer, operator: TfliteOperator) -> None:
    if operator.option("beta") != 1.0:
        raise InputError(f"{operator.place} has a beta other than 1")
    value = writer.value(operator, operator.read(0))
    writer.graph.add("Softmax", writer.name_made(operator), value, axis=1)


def _rectified(writer: _Writer, operator: TfliteOperator) -> None:
    value = writer.value(operator, operator.read(0))
    activation = _RELU if operator.kind == "RELU" else _RELU6
    writer.rectify(writer.name_made(operator), value, activation)


_CONVERTERS: Mapping[str, Callable[[_Writer, TfliteOperator], None]] = {
    "ADD": _addition,
    "AVERAGE_POOL_2D": _average,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "DEQUANTIZE": _Writer.pass_on,
    "FULLY_CONNECTED": _product,
    "MEAN": _mean,
    "QUANTIZE": _Writer.pass_on,
    "RELU": _rectified,
    "RELU6": _rectified,
    "RESHAPE": _reshape,
    "SOFTMAX": _softmax,
}
"""Operator -> what writes its float form."""
