"""TFLite files in units: every operator is one, for LiteRT's reference kernels fuse none."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np

from lepton.errors import InputError
from lepton.runtime.golden import tflite_interpreter
from lepton.runtime.split.network import Network, Unit, UnitTensor

__all__ = ["tflite_network"]

_DTYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool"} | {
    7: "int16", 9: "int8", 10: "float64", 15: "uint32", 16: "uint16",
}  # fmt: skip
"""NumPy's names of element types. Source: TensorFlow Lite's schema, TensorType."""

_DEPTHWISE = "DEPTHWISE_CONV_2D"
_WEIGHTED = ("CONV_2D", _DEPTHWISE, "FULLY_CONNECTED", "TRANSPOSE_CONV")


def tflite_network(content: bytes, name: str, shapes: Mapping[str, Sequence[int]]) -> Network:
    """Split a TFLite model.

    Raises:
        InputError: it is no model, has several subgraphs, or types that nothing here computes.
    """
    from ai_edge_litert.schema_py_generated import ModelT

    # a file that it accepts is sound, and may be taken apart
    tflite_interpreter(content)
    model: Any = ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    if len(model.subgraphs) > 1:
        raise InputError(f"{name} has several subgraphs, which are not placed")
    splitter = _Splitter(model, graph, name)
    network = splitter.network()
    for key, shape in shapes.items():
        if key not in network.inputs:
            raise InputError(f"{name} has no input '{key}', only {', '.join(network.inputs)}")
        if tuple(shape) != network.tensors[key].shape:
            found = list(network.tensors[key].shape)
            raise InputError(f"input '{key}' of {name} has shape {found}, not {list(shape)}")
    return network


class _Splitter:
    """Splits one model."""

    def __init__(self, model: Any, graph: Any, name: str) -> None:
        self._model, self._graph, self._name = model, graph, name
        used: set[str] = set()
        self._names: list[str] = []
        for number, tensor in enumerate(graph.tensors):
            found = tensor.name.decode() if tensor.name else ""
            found = found if found and found not in used else f"{found}#{number}"
            tensor.name = found.encode()
            used.add(found)
            self._names.append(found)

    def _is_constant(self, number: int) -> bool:
        data = self._model.buffers[self._graph.tensors[number].buffer].data
        return data is not None and len(data) > 0

    @cached_property
    def _kinds(self) -> dict[int, str]:
        from ai_edge_litert.schema_py_generated import BuiltinOperator

        return {value: key for key, value in vars(BuiltinOperator).items() if key.isupper()}

    def _kind(self, operator: Any) -> str:
        code = self._model.operatorCodes[operator.opcodeIndex]
        return self._kinds.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")

    def network(self) -> Network:
        """Return the network."""
        graph = self._graph
        live = [
            sorted({int(t) for t in operator.inputs if t >= 0 and not self._is_constant(int(t))})
            for operator in graph.operators
        ]
        crossing = sorted({*graph.inputs, *graph.outputs, *(t for read in live for t in read)})
        tensors = {self._names[number]: self._tensor(int(number)) for number in crossing}
        units = tuple(
            self._unit(number, read, set(map(int, crossing))) for number, read in enumerate(live)
        )
        return Network(
            self._name, "tflite", units, tensors,
            tuple(self._names[int(number)] for number in graph.inputs),
            tuple(self._names[int(number)] for number in graph.outputs),
            self._piece,
        )  # fmt: skip

    def _tensor(self, number: int) -> UnitTensor:
        tensor = self._graph.tensors[number]
        dtype = _DTYPES.get(tensor.type)
        if dtype is None:
            raise InputError(f"'{self._names[number]}' of {self._name} has an unknown type")
        shape = () if tensor.shape is None else tuple(int(extent) for extent in tensor.shape)
        return UnitTensor(self._names[number], shape, dtype)

    def _unit(self, number: int, read: list[int], crossing: set[int]) -> Unit:
        """Return the unit of an operator."""
        operator, tensors = self._graph.operators[number], self._graph.tensors
        made = [int(t) for t in operator.outputs]
        name = self._names[made[0]]
        constants = [int(t) for t in operator.inputs if t >= 0 and self._is_constant(int(t))]
        weights = sum(len(self._model.buffers[tensors[t].buffer].data) for t in constants)
        is_integer = bool(read) and all(tensors[t].type in (3, 9) for t in read)
        return Unit(
            name, self._kind(operator), (number,), (name,),
            tuple(self._names[t] for t in read),
            tuple(self._names[t] for t in made if t in crossing),
            self._macs(operator), weights, is_integer, self._signature(operator),
        )  # fmt: skip

    def _macs(self, operator: Any) -> int:
        """Return the MACs of an operator with weights."""
        kind = self._kind(operator)
        if kind not in _WEIGHTED:
            return 0
        weights = [int(extent) for extent in self._graph.tensors[operator.inputs[1]].shape]
        made = math.prod(int(e) for e in self._graph.tensors[operator.outputs[0]].shape)
        if kind == _DEPTHWISE:
            return made * weights[1] * weights[2]
        if kind == "TRANSPOSE_CONV":
            read = math.prod(int(e) for e in self._graph.tensors[operator.inputs[2]].shape)
            return read * math.prod(weights[:3])
        return made * math.prod(weights[1:])

    def _signature(self, operator: Any) -> str:
        """Return a digest of an operator, its options, and shapes and types of its tensors."""
        ends = [int(t) for t in (*operator.inputs, *operator.outputs)]
        text = [self._kind(operator)]
        if operator.builtinOptions is not None:
            text.append(repr(sorted(vars(operator.builtinOptions).items())))
        for number in ends:
            if number < 0:
                text.append("none")
                continue
            tensor = self._graph.tensors[number]
            shape = [] if tensor.shape is None else [int(extent) for extent in tensor.shape]
            text.append(f"{shape}{tensor.type}{self._is_constant(number)}")
        return hashlib.sha256(" ".join(text).encode()).hexdigest()

    def _piece(self, nodes: Sequence[int], inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
        """Return a model of some operators."""
        import flatbuffers

        place = {name: number for number, name in enumerate(self._names)}
        operators = [copy(self._graph.operators[number]) for number in nodes]
        used = {int(t) for o in operators for t in (*o.inputs, *o.outputs) if t >= 0}
        kept = sorted(used | {place[name] for name in (*inputs, *outputs)})
        new = {number: at for at, number in enumerate(kept)} | {-1: -1}
        tensors = [copy(self._graph.tensors[number]) for number in kept]
        buffers = [copy(self._model.buffers[tensor.buffer]) for tensor in tensors]
        for at, tensor in enumerate(tensors):
            tensor.buffer = at + 1
        for operator in operators:
            operator.inputs = np.array([new[int(t)] for t in operator.inputs], np.int32)
            operator.outputs = np.array([new[int(t)] for t in operator.outputs], np.int32)
            operator.intermediates = None
        graph, model = copy(self._graph), copy(self._model)
        graph.tensors, graph.operators = tensors, operators
        graph.inputs = np.array([new[place[name]] for name in inputs], np.int32)
        graph.outputs = np.array([new[place[name]] for name in outputs], np.int32)
        model.subgraphs, model.buffers = [graph], [self._model.buffers[0], *buffers]
        model.metadata = model.metadataBuffer = model.signatureDefs = None
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
