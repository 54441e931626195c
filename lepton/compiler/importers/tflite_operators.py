"""TFLite operators that Lepton converts itself."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from tvm import relax

from lepton.compiler.importers.rewriting import scalar, shape_of
from lepton.compiler.importers.tflite_converters import TfliteConverter
from lepton.compiler.importers.tflite_movement import MOVEMENT
from lepton.errors import ImportFailure

# TVM's annotations promise less than its functions take (numbers, plain shapes).
op: Any = relax.op


class TfliteOperators(TfliteConverter):
    """The converter with Lepton's own operators in place of TVM's."""

    def __init__(self, model: Any, subgraph: Any, builder: Any) -> None:
        super().__init__(model, subgraph, builder)
        self._own = {
            "BATCH_MATMUL": self._batch_matmul,
            "DEQUANTIZE": self._dequantize,
            "EXPAND_DIMS": self._expand_dims,
            "FULLY_CONNECTED": self._fully_connected,
            "GELU": self._gelu,
            "PAD": self._pad,
            "PADV2": self._pad,
            "PRELU": self._prelu,
            "QUANTIZE": self._quantize,
            "RESHAPE": self._reshape,
            "RESIZE_NEAREST_NEIGHBOR": self._resize_nearest,
            "SOFTMAX": self._softmax,
            **{kind: partial(convert, self) for kind, convert in MOVEMENT.items()},
        }

    def _quantize(self, operator: Any) -> Any:
        """QUANTIZE, of a float tensor or from other parameters."""
        source, target = int(operator.Inputs(0)), int(operator.Outputs(0))
        wanted, given = self.quantization(target), self.quantization(source)
        if wanted is None:
            raise ImportFailure("its result has no quantization parameters")
        value = self.raw(source)
        if given is not None:
            value = self._dequantized(value, given)
        return self._quantized(value, wanted, self.kind(target))

    def _dequantize(self, operator: Any) -> Any:
        """DEQUANTIZE, of a quantized tensor or from float16."""
        source = int(operator.Inputs(0))
        given = self.quantization(source)
        if given is not None:
            return self._dequantized(self.raw(source), given)
        return op.astype(self.raw(source), "float32")

    def _pad(self, operator: Any) -> Any:
        """PAD and PADV2; a quantized tensor is padded by its zero point unless a value is given."""
        inputs = [int(index) for index in operator.InputsAsNumpy()]
        data, widths = self.raw(inputs[0]), self.raw(inputs[1])
        quantization = self.quantization(inputs[0])
        value = 0.0 if quantization is None else float(quantization.zero_point)
        if len(inputs) == 3:
            value = float(self.raw(inputs[2]).value.numpy().reshape(()))
        flat = [int(width) for width in widths.value.numpy().reshape(-1)]
        return op.nn.pad(data, flat, "constant", value)

    def _expand_dims(self, operator: Any) -> Any:
        """EXPAND_DIMS by a constant axis."""
        axis = int(self.raw(int(operator.Inputs(1))).value.numpy().reshape(()))
        return op.expand_dims(self.raw(int(operator.Inputs(0))), axis)

    def _prelu(self, operator: Any) -> Any:
        """PRELU, as where(x < 0, alpha * x, x) if alpha varies along several axes."""
        data, alpha = (self.get_expr(int(operator.Inputs(item))) for item in (0, 1))
        shape, whole = shape_of(alpha) or (), shape_of(data) or ()
        varying = [axis for axis, extent in enumerate(shape) if extent != 1]
        if len(varying) == 1:
            flat = self.bb.emit(op.reshape(alpha, (shape[varying[0]],)))
            return op.nn.prelu(data, flat, len(whole) - len(shape) + varying[0])
        if not varying and whole:
            return op.nn.prelu(data, self._repeated(int(operator.Inputs(1)), whole[-1]), -1)
        negative = self.bb.emit(op.less(data, scalar(0.0)))
        return op.where(negative, self.bb.emit(op.multiply(data, alpha)), data)

    def _repeated(self, index: int, count: int) -> Any:
        """Return a constant of one value as a vector, in the current view."""
        value = relax.const(np.repeat(self.raw(index).value.numpy().reshape(-1), count))
        quantization = self.quantization(index)
        return value if quantization is None else self._dequantized(value, quantization)

    def _gelu(self, operator: Any) -> Any:
        """GELU, exact or by its tanh approximation."""
        from tflite.GeluOptions import GeluOptions

        options = GeluOptions()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        make = op.nn.gelu_tanh if options.Approximate() else op.nn.gelu
        return make(self.get_expr(int(operator.Inputs(0))))

    def _reshape(self, operator: Any) -> Any:
        """RESHAPE to the output tensor's shape, which the file states without a -1."""
        shape = self._shape(self.subgraph.Tensors(int(operator.Outputs(0))))
        return op.reshape(self.raw(int(operator.Inputs(0))), shape)

    def _resize_nearest(self, operator: Any) -> Any:
        """RESIZE_NEAREST_NEIGHBOR; aligned corners round halves up, else coordinates are floored.

        Source: TensorFlow Lite's reference kernel (resize_nearest_neighbor.h).
        """
        from tflite.ResizeNearestNeighborOptions import ResizeNearestNeighborOptions

        options = ResizeNearestNeighborOptions()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        size = [int(item) for item in self.raw(int(operator.Inputs(1))).value.numpy()]
        mode, rounding = "asymmetric", "floor"
        if options.AlignCorners():
            mode, rounding = "align_corners", "round_prefer_ceil"
        elif options.HalfPixelCenters():
            mode, rounding = "half_pixel", "round_prefer_ceil"
        data = self.raw(int(operator.Inputs(0)))
        return op.image.resize2d(data, size, None, "NHWC", "nearest_neighbor", mode, rounding)

    def _softmax(self, operator: Any) -> Any:
        """SOFTMAX of beta * x over the last axis; TVM forgets beta."""
        from tflite.SoftmaxOptions import SoftmaxOptions

        options = SoftmaxOptions()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        data = self.get_expr(int(operator.Inputs(0)))
        if options.Beta() != 1.0:
            data = self.bb.emit(op.multiply(data, scalar(options.Beta())))
        return op.nn.softmax(data, axis=-1)

    def _fully_connected(self, operator: Any) -> Any:
        """FULLY_CONNECTED: the input is flattened to [-1, depth], the output may keep its rank."""
        from tflite.FullyConnectedOptions import FullyConnectedOptions

        options = FullyConnectedOptions()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        if options.WeightsFormat() != 0:
            raise ImportFailure("shuffled weights are not supported")
        inputs = [int(index) for index in operator.InputsAsNumpy()]
        units, depth = self._shape(self.subgraph.Tensors(inputs[1]))
        data = self.get_expr(inputs[0])
        if len(shape_of(data) or ()) != 2 or (shape_of(data) or (0, 0))[1] != depth:
            data = self.bb.emit(op.reshape(data, (-1, depth)))
        weights = self.bb.emit(op.permute_dims(self.get_expr(inputs[1]), [1, 0]))
        result = self.bb.emit(op.matmul(data, weights))
        if len(inputs) > 2 and inputs[2] >= 0:
            result = self.bb.emit(op.add(result, self.get_expr(inputs[2])))
        result = self.convert_fused_activation_function(result, options.FusedActivationFunction())
        output = self._shape(self.subgraph.Tensors(int(operator.Outputs(0))))
        if output and output != shape_of(result) and output[-1] == units:
            result = op.reshape(self.bb.normalize(result), output)
        return result

    def _batch_matmul(self, operator: Any) -> Any:
        """BATCH_MATMUL; Relax broadcasts batch dimensions itself."""
        from tflite.BatchMatMulOptions import BatchMatMulOptions

        options = BatchMatMulOptions()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        sides: list[Any] = []
        for position, adjoint in ((0, options.AdjX()), (1, options.AdjY())):
            value = self.get_expr(int(operator.Inputs(position)))
            if adjoint:
                rank = len(shape_of(value) or ())
                axes = [*range(rank - 2), rank - 1, rank - 2]
                value = self.bb.emit(op.permute_dims(value, axes))
            sides.append(value)
        return op.matmul(*sides)
