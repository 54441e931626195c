"""Write an imported model as one ONNX model: what a quantizer and the golden library read.

A `torch.export` program or a Relax module has no golden library of its own. Its canonical form,
written as ONNX, is what ONNX Runtime quantizes with calibration samples, and, if it is quantized
already, what ONNX Runtime's integer kernels run as its golden.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lepton.compiler.host import HostGraph, HostWriter
from lepton.compiler.importers import ImportedModel, source_of
from lepton.errors import InputError

__all__ = ["onnx_bytes", "write_onnx"]


class _ModelWriter(HostWriter):
    """Writes nodes as quantizers and integer kernels know them.

    Each is named after the operator of the source model that it is of, and a quantized bias belongs
    to its product: ONNX Runtime computes a sum behind it in float.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._source = ""
        self._shape: tuple[int, ...] = ()
        self._taken: set[str] = set()

    def add(self, binding: Any) -> None:
        from tvm import relax

        from lepton.compiler.importers.rewriting import shape_of

        if isinstance(binding.value, relax.Var):
            self.alias(binding.var, binding.value)
            return
        source = source_of(binding.value)
        self._source = source.operator if source is not None else ""
        self._shape = shape_of(binding.var) or ()
        super().add(binding)

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        if kind == "Add":
            joined = self._joined(*inputs)
            if joined is not None:
                return joined
        name = self._source or kind
        while name in self._taken:
            name += f"/{kind}"
        self._taken.add(name)
        return super().node(kind, inputs, **attributes, name=name)

    def _joined(self, product_name: str, bias_name: str) -> str | None:
        """Write a product and its quantized bias as one node; None if the sum is something else.

        before: p = Conv(x, w); b = DequantizeLinear(int32 [1, o, 1, 1], ...); y = Add(p, b)
        after:  b = DequantizeLinear(int32 [o], ...); y = Conv(x, w, b)
        """
        from onnx import helper

        made = {node.output[0]: node for node in self._nodes}
        product, bias = made.get(product_name), made.get(bias_name)
        if product is None or bias is None or bias.op_type != "DequantizeLinear":
            return None
        kind = {"Conv": "Conv", "MatMul": "Gemm"}.get(product.op_type)
        values, scale = self._array(bias.input[0]), self._array(bias.input[1])
        if kind is None or len(product.input) != 2 or values is None or scale is None:
            return None
        if not _is_bias(kind, values.shape, self._shape):
            return None
        axis = {"axis": 0} if scale.ndim else {}
        operands = [self.constant(values.reshape(-1)), *bias.input[1:]]
        row = self.node("DequantizeLinear", operands, **axis)
        attributes = {item.name: helper.get_attribute_value(item) for item in product.attribute}
        return self.node(kind, [*product.input, row], **attributes)

    def finish(self, inputs: Sequence[str], outputs: Sequence[tuple[Any, str]]) -> HostGraph:
        read = {self.value(variable) for variable, _ in outputs}
        kept: list[Any] = []
        for node in reversed(self._nodes):
            if read.intersection(node.output):
                read.update(node.input)
                kept.append(node)
        self._nodes = kept[::-1]
        return super().finish(inputs, outputs)

    def _array(self, name: str) -> NDArray[Any] | None:
        """Return a constant by its name, None of another value."""
        from onnx import numpy_helper

        found = next((item for item in self._constants if item.name == name), None)
        return None if found is None else numpy_helper.to_array(found)


def _is_bias(kind: str, values: tuple[int, ...], result: tuple[int, ...]) -> bool:
    """Return whether values of a shape are one for each channel of a product."""
    if kind == "Conv":
        return len(result) == 4 and values == (1, result[1], 1, 1)
    return len(result) == 2 and values in ((result[1],), (1, result[1]))


def onnx_bytes(imported: ImportedModel) -> bytes:
    """Return a model in canonical form as ONNX, quantization as QuantizeLinear/DequantizeLinear.

    Args:
        imported: From `lepton.compiler.importers`; not from `.tflite`, whose arithmetic ONNX
            Runtime does not have.

    Raises:
        CompileError: An operator has no ONNX form.
        InputError: An input's shape is not fixed, or two outputs are one tensor.
    """
    from lepton.compiler.importers.rewriting import dtype_of, shape_of

    if len(set(imported.outputs)) < len(imported.outputs):
        raise InputError(f"'{imported.name}' returns one tensor twice, which ONNX cannot say")
    main = imported.module["main"]
    writer = _ModelWriter(imported.name)
    for parameter, name in zip(main.params, imported.inputs, strict=True):
        shape = shape_of(parameter)
        if shape is None:
            raise InputError(f"input '{name}' of '{imported.name}' has a shape that is not fixed")
        writer.bind_input(parameter, name, shape, dtype_of(parameter))
    bindings = [binding for block in main.body.blocks for binding in block.bindings]
    for binding in bindings:
        writer.add(binding)
    results = _results(main.body.body, {binding.var: binding.value for binding in bindings})
    return writer.finish(imported.inputs, list(zip(results, imported.outputs, strict=True))).model


def write_onnx(model: object, path: Path) -> None:
    """Write a `torch.export` program, a Relax module or an `onnx.ModelProto` as an ONNX file.

    Raises:
        ImportFailure: The model cannot be read.
        CompileError: An operator has no ONNX form.
    """
    from lepton.compiler.importers import import_model

    serialize: Any = getattr(model, "SerializeToString", None)
    content = onnx_bytes(import_model(model)) if serialize is None else serialize()
    path.write_bytes(content)


def _results(body: Any, values: dict[Any, Any]) -> list[Any]:
    """Return the variables that main returns."""
    whole = values.get(body, body)
    return list(whole.fields) if hasattr(whole, "fields") else [body]
