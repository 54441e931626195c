"""TVM's ONNX graph importer, extended: our converters first, source names, clear errors."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from lepton.compiler.host import HOST_OPERATORS
from lepton.compiler.importers.names import Source
from lepton.compiler.importers.onnx_bodies import has_body
from lepton.compiler.importers.onnx_converters import CONVERTERS, UPSTREAM
from lepton.compiler.importers.onnx_types import DTYPES, TensorType, declared_types
from lepton.compiler.importers.onnx_verbatim import (
    as_verbatim,
    host_opset,
    is_known_version,
    refusal,
)
from lepton.compiler.importers.onnx_wide import rounds_otherwise, wide_values
from lepton.compiler.importers.recording import SourceRecorder, abandoned_on_error
from lepton.compiler.importers.rewriting import dtype_of, is_constant, operator_name, shape_of
from lepton.errors import ImportFailure

DOMAINS = frozenset(("", "ai.onnx", "com.microsoft"))

_EXPRESSED = frozenset((*HOST_OPERATORS, "split"))
"""Relax operators that a device runs, or that canonicalization turns into such."""


class NeedsBody(ImportFailure):
    """A node runs nowhere, but what the standard defines its operator by may."""

    def __init__(self, node: Any, reason: str) -> None:
        super().__init__(f"{node.op_type} {node_name(node)!r} cannot be imported: {reason}")
        self.kind: str = node.op_type


class _NotExpressed(ValueError):
    """A node is not what Relax operators make of it."""


class OnnxImporter(onnx_frontend.ONNXGraphImporter):
    """Builds `main` from an ONNX graph; TVM's tables are read and never changed."""

    def __init__(self) -> None:
        super().__init__({}, {}, sanitize=False)
        self._table = UPSTREAM()
        self.recorder = SourceRecorder(self.bb)
        self._types: dict[str, TensorType] = {}
        self._revised: set[str] = set()
        self._wide: frozenset[str] = frozenset()

    def convert(self, graph: Any, opset: int) -> Any:
        """Return the module of a checked and folded graph whose types have been inferred."""
        self._types = declared_types(graph)
        # TVM reads an extent of 0 as an unknown one
        self._shape = {value.name: self._types[value.name].shape for value in graph.input}
        self._wide = wide_values(graph, self._types)
        self.opset = opset
        self._check_kinds(graph)
        with abandoned_on_error(self.bb):
            return self.from_onnx(graph, opset)

    def _check_for_unsupported_ops(self, graph: Any) -> None:
        """Do nothing: `convert` has checked, before any block was opened."""

    def _check_kinds(self, graph: Any) -> None:
        """Name the first operator of each kind that cannot be brought in."""
        missing: dict[str, str] = {}
        for node in graph.node:
            if self._has_converter(node):
                continue
            reason = refusal(node, self.opset, self._types)
            if reason and not has_body(node, self.opset):
                missing.setdefault(node.op_type, f"{node.op_type} ({node_name(node)!r}): {reason}")
        if missing:
            raise ImportFailure(
                "the model uses operators that are not supported: " + "; ".join(missing.values())
            )

    def _has_converter(self, node: Any) -> bool:
        """Return whether TVM or we express a node in Relax operators."""
        if node.domain == "com.microsoft":
            return node.op_type in CONVERTERS or node.op_type in self._table
        is_known = node.op_type in CONVERTERS or node.op_type in self._table
        return node.domain in DOMAINS and is_known and is_known_version(node, self.opset)

    def _construct_nodes(self, graph: Any) -> None:
        """Convert every node in order, recording what it became."""
        for variable in self._inputs.values():
            if not is_constant(variable):
                self.recorder.know(variable, Source("", variable.name, -1))
        for index, node in enumerate(graph.node):
            self._forget_types(node)
            for name, value in self._node_values(node):
                self.recorder.record(value, Source(node_name(node), name, index))
                self._nodes[name] = value
                self._revise_type(name, value)

    def _forget_types(self, node: Any) -> None:
        """Forget the types that were inferred from one that proved to be another."""
        if self._revised.intersection(node.input):
            for name in node.output:
                self._types.pop(name, None)
            self._revised.update(node.output)

    def _revise_type(self, name: str, value: Any) -> None:
        """Note a type that is unknown, or not what ONNX infers (a size that it rounds otherwise).

        What a pass of ours has inserted has no type yet: that revises nothing behind it.
        """
        shape, stated = shape_of(value), self._types.get(name)
        if shape is None or stated == (dtype_of(value), shape):
            return
        self._types[name] = TensorType(dtype_of(value), shape)
        if stated is not None:
            self._revised.add(name)

    def _node_values(self, node: Any) -> list[tuple[str, Any]]:
        """Return name and expression of each output: Relax operators', or the node as it is."""
        inputs = onnx_frontend.onnx_input(
            self._nodes[name] if name else None for name in node.input
        )
        names = list(node.output)
        try:
            values = self._expressed(node, inputs, names)
        except ImportFailure:
            raise
        except Exception as error:
            reason = refusal(node, self.opset, self._types)
            lacks_kernel = not is_known_version(node, self.opset)
            version = self.opset
            if not reason:
                version, reason = host_opset(node, self.opset, self._types)
                lacks_kernel = bool(reason)
            if lacks_kernel and has_body(node, self.opset):
                raise NeedsBody(node, reason) from error
            if reason:
                if not isinstance(error, _NotExpressed) and "the operator" in reason:
                    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                raise ImportFailure(
                    f"{node.op_type} {node_name(node)!r} cannot be imported: {reason}"
                ) from error
            values = as_verbatim(self.bb, node, version, inputs, self._types)
        return [pair for pair in zip(names, values, strict=False) if pair[0]]

    def _expressed(self, node: Any, inputs: Any, names: list[str]) -> list[Any]:
        """Return the outputs as Relax operators make them.

        Raises:
            _NotExpressed: They do not, or not what the standard says.
        """
        shapes = (self._types[name].shape for name in node.input if name in self._types)
        if not self._has_converter(node) or any(0 in (shape or ()) for shape in shapes):
            raise _NotExpressed("no converter, or of an empty tensor")
        if rounds_otherwise(node, self._types, self._wide):
            raise _NotExpressed("its order of operations shows in 16 bits")
        attributes = self._parse_attr(node.attribute)
        attributes["tvm_custom"] = {"name": node.name, "num_outputs": len(names)}
        values = self._results(self._convert(node.op_type, inputs, attributes), names)
        self._refuse_mismatch(names, values, node.op_type in CONVERTERS)
        return values

    def _refuse_mismatch(self, names: list[str], values: list[Any], is_ours: bool) -> None:
        """Raise if the converted values have not the file's types, or the host cannot run them.

        Our own converters are trusted to know sizes better than ONNX does.
        """
        for name, value in zip(names, values, strict=False):
            if not name:
                continue
            if not isinstance(value.ty, relax.TensorType):
                raise _NotExpressed(f"output {name!r} is no tensor")
            if dtype_of(value) not in DTYPES:
                raise _NotExpressed(f"output {name!r} is of type {dtype_of(value)}")
            if shape_of(value) is None:
                raise _NotExpressed(f"the size of its output {name!r} depends on computed values")
            found = TensorType(dtype_of(value), shape_of(value))
            wanted = self._types.get(name, found)
            if wanted.dtype != found.dtype or (
                not is_ours and wanted.shape not in (None, found.shape)
            ):
                raise _NotExpressed(f"output {name!r} is {value.ty} instead of {wanted}")
        for call in self.recorder.new_calls(values):
            kind = operator_name(call).removeprefix("relax.")
            if kind not in _EXPRESSED:
                raise _NotExpressed(f"operator {kind or 'call_tir'} runs nowhere")
            if kind in ("quantize", "dequantize") and not all(map(is_constant, call.args[1:])):
                raise _NotExpressed("its scale and zero point are computed")

    def _convert(self, kind: str, inputs: Any, attributes: dict[str, Any]) -> Any:
        """Convert with our converter if there is one, else with TVM's."""
        converter = CONVERTERS.get(kind)
        if converter is not None:
            result = converter(self.bb, inputs, attributes, self.opset)
        else:
            upstream = self._table[kind].get_converter(self.opset)
            result = upstream(self.bb, inputs, attributes, [self._nodes, self._params])
        return self._bound(result)

    def _bound(self, value: Any) -> Any:
        """Bind a computed value to a variable: unbound, each user would compute it again."""
        if isinstance(value, relax.Tuple):
            return relax.Tuple([self._bound(field) for field in value.fields])
        if isinstance(value, tvm.ir.Call | relax.TupleGetItem):
            return self.bb.emit(value)
        return value

    def _results(self, result: Any, names: list[str]) -> list[Any]:
        """Return one expression per output of a node."""
        if isinstance(result, relax.Tuple):
            values = list(result.fields)
        elif isinstance(getattr(result, "ty", None), relax.TupleType):
            count = len(result.ty.fields)
            values = [self.bb.emit(relax.TupleGetItem(result, item)) for item in range(count)]
        else:
            values = [result]
        wanted = max((position + 1 for position, name in enumerate(names) if name), default=0)
        if len(values) < wanted:
            raise ValueError(f"it has {wanted} outputs of which only {len(values)} are supported")
        return values


def node_name(node: Any) -> str:
    """Return a node's name, its first output's name if it has none."""
    return str(node.name or (node.output[0] if node.output else node.op_type))
