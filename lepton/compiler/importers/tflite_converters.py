"""What Lepton adds to TVM's TFLite converter.

TVM's converter knows some quantized operators, refuses others, and truncates average pooling. We
use only its *float* conversions, through two views of the file:

* the **float view** for operators that compute: every quantized tensor looks like a float one,
  reading it gives its dequantize, and the result is quantized (and clipped) afterwards;
* the **raw view** for operators that only move data: tensors look unquantized and keep their type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.frontend.tflite import tflite_frontend

from lepton.compiler.importers.names import Source
from lepton.compiler.importers.recording import SourceRecorder
from lepton.compiler.importers.rewriting import dtype_of
from lepton.compiler.importers.tflite_quantization import (
    QUANTIZED,
    Quantization,
    activation_range,
    quantization_of,
)
from lepton.compiler.importers.tflite_tables import (
    BIASED,
    CONTROL,
    PRODUCT,
    RAW,
    RAW_IF_EQUAL,
    TensorView,
)
from lepton.compiler.importers.tflite_weights import quantization_as_computed
from lepton.errors import ImportFailure

# TVM's annotations promise less than its functions take (numbers, plain shapes).
op: Any = relax.op


class TfliteConverter(tflite_frontend.OperatorConverter):
    """Converts the operators of one subgraph; expressions are kept by tensor index."""

    def __init__(self, model: Any, subgraph: Any, builder: Any) -> None:
        super().__init__(model, subgraph, tflite_frontend.ExprTable(), builder)
        self.recorder = SourceRecorder(builder)
        self._exprs: dict[int, Any] = {}
        self._float = False
        self._activation = "NONE"
        self._defers = False
        # What the kernel of the current operator takes instead of what the file states.
        self._in_place: dict[int, Quantization] = {}
        # Filled by the subclass: converters to use instead of TVM's.
        self._own: dict[str, Callable[[Any], Any]] = {}

    # What the conversion of one operator sees -------------------------------------------------

    def name(self, index: int) -> str:
        """Return the file's name of a tensor, its number if it has none."""
        name = self.subgraph.Tensors(index).Name()
        return name.decode("utf-8", "replace") if name else f"tensor{index}"

    def kind(self, index: int) -> str:
        """Return the element type of a tensor."""
        return str(self.get_tensor_type_str(self.subgraph.Tensors(index).Type()))

    def quantization(self, index: int) -> Quantization | None:
        """Return the quantization of an int8, uint8, int16 or (bias) int32 tensor."""
        if index < 0:
            return None
        kind = self.kind(index)
        if kind not in QUANTIZED and kind not in ("int32", "int64"):
            return None
        if index in self._in_place:
            return self._in_place[index]
        return quantization_of(self.subgraph.Tensors(index), self.name(index), kind)

    def get_tensors(self, tensors_idx_list: Any) -> list[Any]:
        """Wrap tensors without their quantization, as floats in the float view."""
        from tflite.TensorType import TensorType

        wrappers: list[Any] = []
        for item in self._indices_or_empty(tensors_idx_list):
            index = int(item)
            if index < 0:
                wrappers.append(tflite_frontend.TensorWrapper(index, 0, 0))
                continue
            tensor = self.subgraph.Tensors(index)
            buffer = self.model.Buffers(tensor.Buffer())
            if self._float and self.quantization(index) is not None:
                tensor = TensorView(tensor, TensorType.FLOAT32)
            wrappers.append(tflite_frontend.TensorWrapper(index, tensor, buffer))
        return wrappers

    def has_expr(self, input_tensor_idx: int) -> bool:
        """Return whether a tensor has an expression: computed, or a dequantized constant."""
        if input_tensor_idx in self._exprs:
            return True
        return self._float and self.quantization(input_tensor_idx) is not None

    def get_expr(self, input_tensor_idx: int) -> Any:
        """Return a tensor's value in the current view."""
        value = self.raw(input_tensor_idx)
        quantization = self.quantization(input_tensor_idx) if self._float else None
        return value if quantization is None else self._dequantized(value, quantization)

    def get_input_tensors(self, op: Any) -> list[Any]:
        """Return an operator's inputs; one left out at the end is not one."""
        found = list(super().get_input_tensors(op))
        while found and found[-1].tensor_idx < 0:
            found.pop()
        return found

    def get_tensor_expr(self, tensor: Any, is_sparse: bool = False) -> Any:
        """Return a wrapped tensor's value in the current view."""
        if is_sparse:
            return super().get_tensor_expr(tensor, is_sparse)
        return self.get_expr(tensor.tensor_idx)

    def raw(self, index: int) -> Any:
        """Return a tensor's value as the file stores it."""
        if index in self._exprs:
            return self._exprs[index]
        tensor = self.subgraph.Tensors(index)
        buffer = self.model.Buffers(tensor.Buffer())
        if buffer.DataLength() == 0 and int(np.prod(self._shape(tensor))) != 0:
            raise ImportFailure(f"tensor {self.name(index)!r} is read before it is computed")
        if tensor.Sparsity() is not None:
            raise ImportFailure(
                f"tensor {self.name(index)!r} is stored sparsely; convert the model without it"
            )
        wrapper = tflite_frontend.TensorWrapper(index, tensor, buffer)
        self._exprs[index] = relax.const(self.get_tensor_value(wrapper))
        return self._exprs[index]

    def convert_fused_activation_function(self, in_expr: Any, fused_activation_fn: int) -> Any:
        """Apply a float activation; before a quantized result, remember it for later."""
        if not self._defers:
            return super().convert_fused_activation_function(in_expr, fused_activation_fn)
        self._activation = str(self.activation_fn_type[fused_activation_fn])
        return in_expr

    # The walk over the operators ----------------------------------------------------------------

    def bind_input(self, index: int, variable: Any) -> None:
        """Make a graph input known."""
        self._exprs[index] = variable
        self.recorder.know(variable, Source("", self.name(index), -1))

    def convert_op_to_relax(self) -> None:
        """Convert all operators in order."""
        self._check_kinds()
        for position in range(self.subgraph.OperatorsLength()):
            operator = self.subgraph.Operators(position)
            kind = self.get_op_code_str(operator)
            outputs = [int(index) for index in self._indices_or_empty(operator.OutputsAsNumpy())]
            label = self.name(outputs[0]) if outputs else kind
            try:
                results = self._convert(operator, kind, outputs)
            except ImportFailure as error:
                raise ImportFailure(f"{kind} {label!r} (operator {position}): {error}") from error
            except Exception as error:
                lines = [line for line in str(error).splitlines() if line.strip()]
                reason = lines[-1].strip() if lines else type(error).__name__
                raise ImportFailure(
                    f"{kind} {label!r} (operator {position}) cannot be imported: {reason}"
                ) from error
            for index, value in zip(outputs, results, strict=True):
                self._exprs[index] = value
                self.recorder.record(value, Source(label, self.name(index), position))

    def _check_kinds(self) -> None:
        """Refuse operators that nobody can convert, all at once."""
        missing: dict[str, int] = {}
        for position in range(self.subgraph.OperatorsLength()):
            kind = self.get_op_code_str(self.subgraph.Operators(position))
            if kind not in self.convert_map or kind in CONTROL:
                missing.setdefault(str(kind), position)
        if missing:
            text = ", ".join(f"{kind} (operator {index})" for kind, index in missing.items())
            raise ImportFailure(f"the model uses operators that are not supported: {text}")

    def _convert(self, operator: Any, kind: str, outputs: Sequence[int]) -> list[Any]:
        """Convert one operator and return one bound expression per output."""
        inputs = [int(index) for index in self._indices_or_empty(operator.InputsAsNumpy())]
        is_raw = self._is_raw(kind, inputs, outputs)
        self._activation = "NONE"
        self._in_place = self._weight_points(kind, inputs)
        self._in_place |= self._product_scale(kind, inputs)
        quantized_output = any(self._is_activation(index) for index in outputs)
        self._float = not is_raw and (quantized_output or self._reads_quantized(inputs))
        self._defers = quantized_output
        if kind in ("QUANTIZE", "DEQUANTIZE", "PAD", "PADV2"):
            self._float = False
        try:
            own = self._own.get(kind)
            result = own(operator) if own is not None else self.convert_map[kind](op=operator)
            values = self._results(result, outputs)
            if quantized_output and kind not in ("QUANTIZE", "DEQUANTIZE"):
                pairs = zip(outputs, values, strict=True)
                values = [self._finished(index, value) for index, value in pairs]
        finally:
            self._float = self._defers = False
            self._in_place = {}
        return values

    def _results(self, result: Any, outputs: Sequence[int]) -> list[Any]:
        """Bind an operator's result and return one expression per output."""
        result = self.bb.normalize(result)
        if isinstance(result, relax.Tuple):
            values = list(result.fields)
        elif isinstance(getattr(result, "ty", None), relax.TupleType):
            whole = self.bb.emit(result)
            values = [relax.TupleGetItem(whole, item) for item in range(len(result.ty.fields))]
        else:
            values = [result]
        if len(values) < len(outputs):
            raise ImportFailure(f"it has {len(outputs)} outputs, of which {len(values)} are known")
        return [
            self._bound(self._typed(value, index))
            for value, index in zip(values, outputs, strict=False)
        ]

    def _typed(self, value: Any, index: int) -> Any:
        """Cast an integer result (ARG_MAX) to the type that the file states."""
        value, kind = self.bb.normalize(value), self.kind(index)
        is_index = dtype_of(value) == "int64" and kind == "int32"
        return op.astype(value, kind) if is_index else value

    def _bound(self, value: Any) -> Any:
        """Bind a computed value to a variable."""
        value = self.bb.normalize(value)
        is_leaf = isinstance(value, relax.Var) or hasattr(value, "value")
        return value if is_leaf else self.bb.emit(value)

    def _finished(self, index: int, value: Any) -> Any:
        """Quantize a float result and apply the pending activation."""
        quantization = self.quantization(index)
        kind = self.kind(index)
        if quantization is None or kind not in QUANTIZED:
            return value
        if self._float and dtype_of(value) not in QUANTIZED:
            value = self._quantized(value, quantization, kind)
        low, high = activation_range(self._activation, kind, quantization)
        clipped = op.clip(value, float(low), float(high)) if self._activation != "NONE" else value
        return self._bound(clipped)

    def _is_raw(self, kind: str, inputs: Sequence[int], outputs: Sequence[int]) -> bool:
        """Return whether an operator only moves data."""
        if kind in RAW:
            return True
        if kind not in RAW_IF_EQUAL:
            return False
        found = [self.quantization(index) for index in (*inputs, *outputs)]
        first = found[0]
        return first is not None and all(first.equals(other) for other in found[1:])

    def _is_activation(self, index: int) -> bool:
        """Return whether a tensor is quantized to 8 or 16 bits."""
        return index >= 0 and self.kind(index) in QUANTIZED and self.quantization(index) is not None

    def _reads_quantized(self, inputs: Sequence[int]) -> bool:
        """Return whether an operator has a quantized input."""
        return any(self._is_activation(index) for index in inputs)

    def _weight_points(self, kind: str, inputs: Sequence[int]) -> dict[int, Quantization]:
        """Return the parameters that a product's kernel gives int8 weights with a zero point."""
        if kind not in PRODUCT or len(inputs) <= PRODUCT[kind][1]:
            return {}
        index = inputs[PRODUCT[kind][1]]
        weights = self.quantization(index)
        if weights is None or self.kind(index) != "int8" or not self._reads_quantized(inputs):
            return {}
        return {index: quantization_as_computed(kind, weights)}

    def _product_scale(self, kind: str, inputs: Sequence[int]) -> dict[int, Quantization]:
        """Return the scale sx * sw (float32) of an int32 bias that states none itself."""
        position = BIASED.get(kind)
        if position is None or len(inputs) <= position or inputs[position] < 0:
            return {}
        index = inputs[position]
        if self.kind(index) not in ("int32", "int64") or self.quantization(index) is not None:
            return {}
        data, weights = (self.quantization(inputs[item]) for item in PRODUCT[kind])
        if data is None or weights is None:
            return {}
        scale = (data.scale * weights.scale).astype(np.float32)
        return {index: Quantization(scale, np.zeros(scale.shape, np.int32), 0)}

    def _dequantized(self, value: Any, quantization: Quantization) -> Any:
        """Emit a dequantize."""
        scale, zero_point = relax.const(quantization.scale), relax.const(quantization.zero_point)
        return self.bb.emit(op.dequantize(value, scale, zero_point, axis=quantization.axis))

    def _quantized(self, value: Any, quantization: Quantization, kind: str) -> Any:
        """Emit a quantize."""
        scale, zero_point = relax.const(quantization.scale), relax.const(quantization.zero_point)
        value = self.bb.normalize(value)
        return self.bb.emit(op.quantize(value, scale, zero_point, quantization.axis, kind))

    @staticmethod
    def _shape(tensor: Any) -> tuple[int, ...]:
        """Return a tensor's shape in the file."""
        return tuple(int(tensor.Shape(axis)) for axis in range(tensor.ShapeLength()))
