"""TVM's torch.export importer, extended by PT2E's quantization operators and source names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax
from tvm.relax.frontend.torch import exported_program_translator

from lepton.compiler.importers.names import Source
from lepton.compiler.importers.recording import SourceRecorder
from lepton.errors import ImportFailure

op: Any = relax.op
Array = npt.NDArray[Any]


class TorchImporter(exported_program_translator.ExportedProgramImporter):
    """Converts one exported (and decomposed) program."""

    def __init__(self, program: Any) -> None:
        super().__init__()
        self._program = program
        self._named: dict[str, Source] = {}
        signature = program.graph_signature
        self._tensors: Mapping[str, str] = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }

    def convert(self) -> Any:
        """Build the Relax module with all parameters bound as constants."""
        table: dict[str, Callable[[Any, Any], Any]] = {
            "quantize_per_tensor.default": self._quantize_tensor,
            "quantize_per_tensor.tensor": self._quantize_tensor,
            "dequantize_per_tensor.default": self._dequantize_tensor,
            "dequantize_per_tensor.tensor": self._dequantize_tensor,
            "quantize_per_channel.default": self._quantize_channel,
            "dequantize_per_channel.default": self._dequantize_channel,
        }
        return self.from_exported_program(self._program, False, True, False, table)

    def sources(self, module: Any) -> dict[Any, Source]:
        """Return the source of each variable of the converted `main`."""
        # Binding the parameters makes new variables; their names stay.
        return {
            binding.var: self._named[binding.var.name]
            for block in module["main"].body.blocks
            for binding in block.bindings
            if binding.var.name in self._named
        }

    def _translate_fx_graph(
        self,
        graph_module: Any,
        nodes: Any,
        inputs_vars: dict[str, Any],
        custom_ops: set[str] | None = None,
    ) -> Any:
        """Convert the graph, then record what each node became."""
        result = super()._translate_fx_graph(graph_module, nodes, inputs_vars, custom_ops)
        recorder = SourceRecorder(self.block_builder)
        for variable in inputs_vars.values():
            recorder.know(variable, Source("", variable.name, -1))
        for index, node in enumerate(nodes):
            value = self.env.get(node)
            if node.op == "call_function" and isinstance(value, relax.Expr):
                recorder.record(value, Source(str(node.name), str(node.name), index))
        self._named = {variable.name: source for variable, source in recorder.sources.items()}
        return result

    def _array(self, argument: Any) -> Array:
        """Return the value of a scale or zero point: a number or a constant tensor."""
        if isinstance(argument, int | float):
            return np.asarray(argument)
        name = self._tensors.get(argument.name)
        if name is None:
            raise ImportFailure(f"{argument.name!r}: quantization parameters must be constants")
        value = self._program.state_dict.get(name)
        value = self._program.constants[name] if value is None else value
        return np.asarray(value.detach().cpu().numpy())

    def _parameters(self, scale: Any, zero_point: Any) -> tuple[Any, Any]:
        """Return scale and zero point as constants."""
        scales = self._array(scale).astype(np.float32)
        points = np.zeros(scales.shape) if zero_point is None else self._array(zero_point)
        points = points.astype(np.int32).reshape(scales.shape)
        return relax.const(scales), relax.const(points)

    def _quantize_tensor(self, node: Any, _importer: Any) -> Any:
        """quantized_decomposed.quantize_per_tensor(x, scale, zp, qmin, qmax, dtype)."""
        data, scale, zero_point, low, high, kind = node.args[:6]
        return self._quantize(data, self._parameters(scale, zero_point), 0, (low, high), kind)

    def _quantize_channel(self, node: Any, _importer: Any) -> Any:
        """quantized_decomposed.quantize_per_channel(x, scales, zps, axis, qmin, qmax, dtype)."""
        data, scale, zero_point, axis, low, high, kind = node.args[:7]
        return self._quantize(data, self._parameters(scale, zero_point), axis, (low, high), kind)

    def _quantize(
        self, data: Any, parameters: tuple[Any, Any], axis: int, limits: tuple[int, int], kind: Any
    ) -> Any:
        """Emit a quantize, and a clip to a range narrower than the type's."""
        dtype = str(kind).removeprefix("torch.")
        quantized = relax.op.quantize(self.env[data], *parameters, axis=axis, out_dtype=dtype)
        result = self.block_builder.emit(quantized)
        full = np.iinfo(dtype)
        if limits[0] > full.min or limits[1] < full.max:
            result = self.block_builder.emit(op.clip(result, *map(float, limits)))
        return result

    def _dequantize_tensor(self, node: Any, _importer: Any) -> Any:
        """quantized_decomposed.dequantize_per_tensor(q, scale, zp, qmin, qmax, dtype)."""
        return self._dequantize(node.args[0], self._parameters(*node.args[1:3]), 0)

    def _dequantize_channel(self, node: Any, _importer: Any) -> Any:
        """quantized_decomposed.dequantize_per_channel(q, scales, zps, axis, qmin, qmax, dtype)."""
        return self._dequantize(node.args[0], self._parameters(*node.args[1:3]), node.args[3])

    def _dequantize(self, data: Any, parameters: tuple[Any, Any], axis: int) -> Any:
        """Emit a dequantize."""
        value = relax.op.dequantize(self.env[data], *parameters, axis=axis)
        return self.block_builder.emit(value)
