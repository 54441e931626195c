"""Host regions of one ONNX node that Relax operators do not express."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lepton.errors import CompileError

if TYPE_CHECKING:
    from lepton.compiler.host import HostWriter

__all__ = ["write_verbatim"]


def write_verbatim(w: HostWriter, call: Any) -> str | list[str]:
    """Write a node as the file has it; the graph takes its opset."""
    from lepton.compiler.importers.onnx_verbatim import read_verbatim

    read = read_verbatim(call)
    if read is None:
        raise CompileError("a packed function runs neither on the NPU nor on the host")
    node, opset, arguments = read
    operands = iter(arguments)
    node.input[:] = [w.value(next(operands)) if name else "" for name in node.input]
    made = w.copy_node(node, opset)
    return made[0] if len(made) == 1 else made
