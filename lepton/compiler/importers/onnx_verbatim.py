"""ONNX nodes that no Relax operator expresses: `main` calls them as they are, the host runs them.

Such a node keeps its own opset, attributes and optional inputs, so what it computes is what the
golden library computes. In `main` it is `lepton.onnx_node(node, opset, *inputs)`, an operator that
is registered here: `node` is a constant of the node's bytes and `opset` one of its version.
(A call of a packed function would do, but TVM's MergeCompositeFunctions refuses those.)
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.ir import _ffi_api  # pyright: ignore[reportPrivateUsage]

from lepton.compiler.importers.constants import array_of
from lepton.compiler.importers.onnx_types import DTYPES, TensorType
from lepton.compiler.importers.onnx_versions import means_the_same
from lepton.compiler.importers.rewriting import is_call

__all__ = ["NEWEST_OPSET", "VERBATIM", "Verbatim", "as_verbatim", "is_known_version"]
__all__ += ["host_opset", "read_verbatim", "refusal"]

VERBATIM = "lepton.onnx_node"

NEWEST_OPSET = 26
"""The newest opset that ONNX Runtime 1.31 runs."""

_DOMAINS = ("", "ai.onnx")
_NORMAL = ("RandomNormal", "RandomNormalLike")
_UNIFORM = ("RandomUniform", "RandomUniformLike")
_RANDOM = frozenset(("Bernoulli", "Multinomial", *_NORMAL, *_UNIFORM))
_REWORDED = frozenset(["Mod", "Range"])
"""Operators whose newest text says more clearly what their version of `NEWEST_OPSET` computes, or
adds what ONNX Runtime then refuses by its type."""


class Verbatim(NamedTuple):
    """A node as it is, the opset that it is of, and the expressions of its present inputs."""

    node: onnx.NodeProto
    opset: int
    inputs: list[Any]


def refusal(node: onnx.NodeProto, opset: int, types: Mapping[str, TensorType]) -> str:
    """Return why a node cannot be called as it is, "" if it can."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return "the operator is not supported"
    if node.domain not in _DOMAINS:
        return f"the operator of domain {node.domain} is not supported"
    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        return "control flow is not supported; export the model with fixed branches"
    if node.op_type == "Mod" and _is_floored_float(node, types):
        return "the remainder of floats towards the divisor is not supported; set fmod to 1"
    if node.op_type in _RANDOM:
        return "random numbers are not supported: no two runs would give the same"
    if node.op_type == "Dropout" and any(node.input[2:]):
        return "training mode is not supported"
    if not is_known_version(node, opset):
        return (
            f"its version of opset {schema.since_version} is not supported, that of opset "
            f"{NEWEST_OPSET} is the newest"
        )
    return _type_refusal(node, types)


def _is_floored_float(node: onnx.NodeProto, types: Mapping[str, TensorType]) -> bool:
    """Return whether a Mod is the one of floats that ONNX Runtime has not."""
    found = types.get(node.input[0])
    is_truncated = any(attribute.name == "fmod" and attribute.i for attribute in node.attribute)
    return found is not None and found.dtype.startswith("float") and not is_truncated


def is_known_version(node: onnx.NodeProto, opset: int) -> bool:
    """Return whether the version of a node's operator means what that of `NEWEST_OPSET` means."""
    if node.op_type in _REWORDED:
        return True
    return means_the_same(node, opset, min(opset, NEWEST_OPSET))


def _type_refusal(node: onnx.NodeProto, types: Mapping[str, TensorType]) -> str:
    """Return why the types of a node's tensors are not supported, "" if they are."""
    for name in (*node.input, *node.output):
        found = types.get(name)
        if found is not None and found.dtype not in DTYPES:
            return f"tensors of type {found.dtype} are not supported (tensor {name!r})"
    for name in filter(None, node.output):
        if name not in types:
            return f"the type of its output {name!r} is not known"
        if types[name].shape is None:
            return f"the size of its output {name!r} depends on values that are computed"
    return ""


def host_opset(
    node: onnx.NodeProto, opset: int, types: Mapping[str, TensorType]
) -> tuple[int, str]:
    """Return the opset that ONNX Runtime runs a node in, or why it cannot.

    Where it has no kernel of the newest version, one of an older version of the same meaning does.
    The node is one that `refusal` lets pass.
    """
    version = min(opset, NEWEST_OPSET)
    reason = first = _unrunnable(node, version, types)
    while reason:
        older = onnx.defs.get_schema(node.op_type, version, node.domain).since_version - 1
        if older < 1 or not means_the_same(node, version, older):
            return version, first
        version = older
        reason = _unrunnable(node, version, types)
    return version, ""


def _unrunnable(node: onnx.NodeProto, opset: int, types: Mapping[str, TensorType]) -> str:
    """Return why ONNX Runtime cannot run a node in an opset, "" if it can."""
    import onnxruntime

    names = [dict.fromkeys(filter(None, part)) for part in (node.input, node.output)]
    inputs, outputs = ([_value(name, types[name]) for name in part] for part in names)
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "node", inputs, outputs),
        opset_imports=[onnx.helper.make_opsetid("", opset)],
        ir_version=8,
    )
    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        return f"ONNX Runtime refuses it: {_reason(error)}"
    return ""


def _value(name: str, kind: TensorType) -> onnx.ValueInfoProto:
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind.dtype))
    return onnx.helper.make_tensor_value_info(name, element, kind.shape)


def _reason(error: Exception) -> str:
    """Return what ONNX Runtime says, without its places in the source."""
    text = " ".join(str(error).split())
    for pattern in (r"Could not find an implementation.*", r"Unrecognized attribute.*"):
        found = re.search(pattern, text)
        if found:
            return found[0][:200]
    return re.sub(r"^.*(was false\. |: : )", "", text)[:200]


@functools.cache
def _operator() -> Any:
    """Return the operator of nodes as they are, registered with TVM at the first call."""
    # TVM registers operators from C++; from Python the function has no public name.
    ffi: Any = _ffi_api
    ffi.RegisterOp(VERBATIM, "a node of an ONNX graph, as the file has it")
    operator: Any = tvm.ir.Op.get(VERBATIM)
    operator.set_attr("FInferType", _stated_type)
    operator.set_attr("FPurity", True)
    operator.set_attr("TScriptPrinterName", VERBATIM)
    return operator


def _stated_type(call: Any, _builder: Any) -> Any:
    """Return the type that a call states of its result."""
    return call.ty_args[0]


def as_verbatim(
    builder: relax.BlockBuilder,
    node: onnx.NodeProto,
    opset: int,
    inputs: Sequence[Any],
    types: Mapping[str, TensorType],
) -> list[Any]:
    """Emit a call of a node as it is; return one expression per output, None for absent ones."""
    wanted = [types[name] for name in node.output if name]
    tensor_type: Any = relax.TensorType
    made = [tensor_type(item.shape, item.dtype) for item in wanted]
    content = np.frombuffer(node.SerializeToString(), np.uint8)
    version = np.array(opset, np.int64)
    arguments: list[Any] = [relax.const(content), relax.const(version)]
    arguments += [value for value in inputs if value is not None]
    kind = made[0] if len(made) == 1 else relax.TupleType(made)
    result = builder.emit(tvm.ir.Call(_operator(), arguments, None, [kind]))
    if len(made) == 1:
        results = iter([result])
    else:
        results = iter([builder.emit(relax.TupleGetItem(result, at)) for at in range(len(made))])
    return [next(results) if name else None for name in node.output]


def read_verbatim(value: Any) -> Verbatim | None:
    """Return the node that a value calls as it is, None if it is something else."""
    if not is_call(value, VERBATIM):
        return None
    arguments = value.args
    node = onnx.NodeProto.FromString(array_of(arguments[0]).tobytes())
    return Verbatim(node, int(array_of(arguments[1])), list(arguments[2:]))
