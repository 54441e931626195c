"""TVM's ONNX graph importer, extended: our converters first, source names, clear errors."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from lepton.compiler.importers.names import Source
from lepton.compiler.importers.onnx_converters import CONVERTERS, UPSTREAM
from lepton.compiler.importers.recording import SourceRecorder, abandoned_on_error
from lepton.compiler.importers.rewriting import is_constant
from lepton.errors import ImportFailure

DOMAINS = frozenset(("", "ai.onnx", "com.microsoft"))


class OnnxImporter(onnx_frontend.ONNXGraphImporter):
    """Builds `main` from an ONNX graph; TVM's tables are read and never changed."""

    def __init__(self) -> None:
        super().__init__({}, {}, sanitize=False)
        self._table = UPSTREAM()
        self.recorder = SourceRecorder(self.bb)

    def convert(self, graph: Any, opset: int) -> Any:
        """Return the module of a checked and folded graph."""
        self._check_kinds(graph)
        with abandoned_on_error(self.bb):
            return self.from_onnx(graph, opset)

    def _check_for_unsupported_ops(self, graph: Any) -> None:
        """Do nothing: `convert` has checked, before any block was opened."""

    def _check_kinds(self, graph: Any) -> None:
        """Name the first operator of each kind that neither we nor TVM can convert."""
        missing = {
            node.op_type: node
            for node in reversed(graph.node)
            if (
                node.op_type not in CONVERTERS
                and node.op_type not in self._table
                and node.op_type not in ("Constant", "If")
            )
            or node.domain not in DOMAINS
        }
        if missing:
            raise ImportFailure(
                "the model uses operators that are not supported: "
                + ", ".join(f"{kind} ({node_name(node)!r})" for kind, node in missing.items())
            )

    def _construct_nodes(self, graph: Any) -> None:
        """Convert every node in order, recording what it became."""
        for variable in self._inputs.values():
            if not is_constant(variable):
                self.recorder.know(variable, Source("", variable.name, -1))
        for index, node in enumerate(graph.node):
            try:
                self._construct_node(node, index)
            except ImportFailure:
                raise
            except Exception as error:
                reason = str(error).strip().splitlines() or [type(error).__name__]
                raise ImportFailure(
                    f"{node.op_type} {node_name(node)!r} cannot be imported: {reason[-1]}"
                ) from error

    def _construct_node(self, node: Any, index: int) -> None:
        """Convert one node."""
        if node.op_type == "If":
            raise ImportFailure(
                f"If {node_name(node)!r}: control flow is not supported; export the model with "
                "fixed branches"
            )
        attributes = self._parse_attr(node.attribute)
        attributes["tvm_custom"] = {"name": node.name, "num_outputs": len(node.output)}
        inputs = onnx_frontend.onnx_input(
            self._nodes[name] if name else None for name in node.input
        )
        result = self._convert(node.op_type, inputs, attributes)
        names = list(node.output)
        results = self._results(result, names)
        for position, (name, value) in enumerate(zip(names, results, strict=False)):
            source = Source(node_name(node), name, index)
            self.recorder.record(value, source)
            if name:
                self._nodes[name] = results[position]

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
