"""Write an imported model as one ONNX model: what a quantizer and the golden library read.

A `torch.export` program or a Relax module has no golden library of its own. Its canonical form,
written as ONNX, is what ONNX Runtime quantizes with calibration samples, and, if it is quantized
already, what ONNX Runtime's integer kernels run as its golden.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lepton.compiler.host import HostWriter
from lepton.compiler.importers import ImportedModel, source_of
from lepton.errors import InputError

__all__ = ["onnx_bytes", "write_onnx"]


class _NamingWriter(HostWriter):
    """Names each node after the operator of the source model that it is of."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._source = ""
        self._taken: set[str] = set()

    def add(self, binding: Any) -> None:
        from tvm import relax

        if isinstance(binding.value, relax.Var):
            self.alias(binding.var, binding.value)
            return
        source = source_of(binding.value)
        self._source = source.operator if source is not None else ""
        super().add(binding)

    def node(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = self._source
        while name in self._taken:
            name += f"/{kind}"
        self._taken.add(name)
        return super().node(kind, inputs, **attributes, **({"name": name} if name else {}))


def onnx_bytes(imported: ImportedModel) -> bytes:
    """Return a model in canonical form as ONNX, quantization as QuantizeLinear/DequantizeLinear.

    Args:
        imported: From `lepton.compiler.importers`; not from `.tflite`, whose arithmetic ONNX
            Runtime does not have.

    Raises:
        CompileError: An operator has no ONNX form.
        InputError: Two outputs are one tensor of the same name.
    """
    if len(set(imported.outputs)) < len(imported.outputs):
        raise InputError(f"'{imported.name}' returns one tensor twice, which ONNX cannot say")
    main = imported.module["main"]
    writer = _NamingWriter(imported.name)
    for parameter, name in zip(main.params, imported.inputs, strict=True):
        shape = [int(extent) for extent in parameter.ty.shape.values]
        writer.bind_input(parameter, name, shape, str(parameter.ty.dtype.dtype))
    bindings = [binding for block in main.body.blocks for binding in block.bindings]
    for binding in bindings:
        writer.add(binding)
    results = _results(main.body.body, {binding.var: binding.value for binding in bindings})
    return writer.finish(
        imported.inputs, list(zip(results, imported.outputs, strict=True))
    ).model


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
