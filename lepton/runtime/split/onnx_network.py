"""ONNX files in units."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.runtime.golden import drawn, onnx_session, reason_of
from lepton.runtime.split.grouping import GraphNode, grouped
from lepton.runtime.split.network import Network, Unit, UnitTensor

__all__ = ["onnx_network"]

_SMALL = 64
_WEIGHTED = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}
_PRODUCTS = {"Gemm": 1, "MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3}
"""Operator -> which operand its weights are."""


def onnx_network(content: bytes, name: str, shapes: Mapping[str, Sequence[int]]) -> Network:
    """Split an ONNX model.

    Args:
        content: of the file.
        name: how messages call it.
        shapes: of inputs that have unknown dimensions.

    Raises:
        InputError: it is no model, ONNX Runtime refuses it, or an input has no shape.
    """
    import onnx

    from lepton.compiler.importers.onnx_pairs import merge_pairs

    try:
        model = onnx.load_from_string(content)
    except Exception:
        raise InputError(f"{name} is not an ONNX model") from None
    # a graph that it accepts is sound, and may be taken apart
    onnx_session(content)
    merge_pairs(model.graph)
    _fix_shapes(model, name, shapes)
    _name_nodes(model.graph)
    return _Splitter(model, name).network()


def _fix_shapes(model: Any, name: str, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give every input its shape; what the file says of other tensors may depend on it."""
    constants = {item.name for item in model.graph.initializer}
    known = [value.name for value in model.graph.input if value.name not in constants]
    for key in shapes:
        if key not in known:
            raise InputError(f"{name} has no input '{key}', only {', '.join(known)}")
    for value in model.graph.input:
        if value.name in constants:
            continue
        dims = value.type.tensor_type.shape.dim
        given = shapes.get(value.name)
        if given is not None:
            if len(dims) != len(given):
                raise InputError(f"input '{value.name}' of {name} has {len(dims)} dimensions")
            for dim, extent in zip(dims, given, strict=True):
                dim.dim_value = extent
        elif not all(dim.dim_value > 0 for dim in dims):
            raise InputError(
                f"input '{value.name}' of {name} has unknown dimensions; give its shape"
            )
    del model.graph.value_info[:]


def _name_nodes(graph: Any) -> None:
    """Give every node a name of its own."""
    used: set[str] = set()
    for number, node in enumerate(graph.node):
        name = node.name or (node.output[0] if node.output else node.op_type)
        node.name = name if name not in used else f"{name}#{number}"
        used.add(node.name)


def _operands(node: Any) -> list[str]:
    """Return what a node reads, inside of its branches too."""
    found = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            made = {item.name for item in (*graph.input, *graph.initializer)}
            made.update(name for inner in graph.node for name in inner.output)
            found += [n for inner in graph.node for n in _operands(inner) if n not in made]
            found += [item.name for item in graph.output if item.name not in made]
    return list(dict.fromkeys(found))


class _Splitter:
    """Splits one model."""

    def __init__(self, model: Any, name: str) -> None:
        self._model, self._graph, self._name = model, model.graph, name
        self._initializers = {item.name: item for item in self._graph.initializer}
        self._inputs = tuple(
            value.name for value in self._graph.input if value.name not in self._initializers
        )
        self._outputs = tuple(value.name for value in self._graph.output)
        self._maker = {o: n for n, node in enumerate(self._graph.node) for o in node.output if o}
        self._constant: set[int] = set()
        self._repeated: dict[str, int] = {}
        self._sort_nodes()

    def _sort_nodes(self) -> None:
        """Find the nodes that depend on no input, and the DequantizeLinear that are repeated."""
        fixed = set(self._initializers)
        for number, node in enumerate(self._graph.node):
            if all(name in fixed for name in _operands(node)) and not _is_random(node):
                self._constant.add(number)
                fixed.update(node.output)
            elif node.op_type == "DequantizeLinear" and node.output[0] not in self._outputs:
                self._repeated[node.output[0]] = number

    def _is_constant(self, name: str) -> bool:
        return name in self._initializers or self._maker.get(name, -1) in self._constant

    def _reads(self, number: int) -> list[str]:
        """Return what a node reads that is not constant."""
        return [name for name in _operands(self._graph.node[number]) if not self._is_constant(name)]

    def network(self) -> Network:
        """Return the network."""
        again = set(self._repeated.values())
        numbers = [
            n for n in range(len(self._graph.node)) if n not in again and n not in self._constant
        ]
        if not numbers or not set(self._outputs) <= {
            name for number in numbers for name in self._graph.node[number].output
        }:
            raise InputError(f"{self._name} has an output that no operator makes from its inputs")
        nodes = [
            GraphNode(
                self._graph.node[number].op_type,
                tuple(self._reads(number)),
                tuple(name for name in self._graph.node[number].output if name),
            )
            for number in numbers
        ]
        sources = {name: self._source(name) for name in self._repeated}
        groups = grouped(nodes, set(self._outputs), sources)
        units = [[numbers[at] for at in group] for group in groups]
        crossing = self._crossing(units)
        counted = {
            self._graph.node[number].output[0]
            for number in numbers
            if self._graph.node[number].op_type in (*_WEIGHTED, *_PRODUCTS)
        }
        tensors = self._measured(sorted(counted | {n for i, o in crossing for n in (*i, *o)}))
        made = tuple(
            self._unit(unit, *edges, tensors) for unit, edges in zip(units, crossing, strict=True)
        )
        return Network(
            self._name, "onnx", made, tensors, self._inputs, self._outputs,
            lambda nodes, inputs, outputs: self._piece(nodes, inputs, outputs, tensors),
        )  # fmt: skip

    def _source(self, name: str) -> str:
        """Return the tensor behind a repeated DequantizeLinear."""
        while name in self._repeated:
            name = self._graph.node[self._repeated[name]].input[0]
        return name

    def _crossing(self, units: list[list[int]]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        """Return what each unit reads from elsewhere, and what is read of it elsewhere."""
        reads: list[dict[str, None]] = []
        for unit in units:
            made = {name for number in unit for name in self._graph.node[number].output}
            read = (self._source(name) for number in unit for name in self._reads(number))
            reads.append({name: None for name in read if name not in made})
        wanted = {name for read in reads for name in read} | set(self._outputs)
        return [
            (
                tuple(read),
                tuple(n for number in unit for n in self._graph.node[number].output if n in wanted),
            )
            for unit, read in zip(units, reads, strict=True)
        ]

    def _measured(self, names: Sequence[str]) -> dict[str, UnitTensor]:
        """Return shapes and types of tensors, from a run of the model."""
        import onnx
        import onnxruntime as ort

        copy = onnx.ModelProto()
        copy.CopyFrom(self._model)
        have = {*self._inputs, *self._outputs}
        extra = [name for name in names if name not in have]
        copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
        options: Any = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        wanted = [*self._outputs, *extra]
        try:
            session: Any = ort.InferenceSession(
                copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            feeds = self._drawn()
            arrays = dict(zip(wanted, session.run(wanted, feeds), strict=True)) | feeds
        except Exception as error:
            raise InputError(f"ONNX Runtime refuses {self._name}: {reason_of(error)}") from None
        strange = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
        if strange:
            raise InputError(f"'{strange[0]}' of {self._name} is no tensor")
        return {n: UnitTensor(n, tuple(a.shape), str(a.dtype)) for n, a in arrays.items()}

    def _drawn(self) -> dict[str, NDArray[Any]]:
        """Return inputs that only serve to learn shapes."""
        from onnx import helper

        rng = np.random.default_rng(0)
        made: dict[str, NDArray[Any]] = {}
        for value in self._graph.input:
            if value.name in self._inputs:
                tensor = value.type.tensor_type
                dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
                shape = tuple(int(dim.dim_value) for dim in tensor.shape.dim)
                made[value.name] = drawn(rng, shape, dtype)
        return made

    def _unit(
        self,
        numbers: list[int],
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        tensors: Mapping[str, UnitTensor],
    ) -> Unit:
        """Return a unit with what is known of it."""
        nodes = [self._graph.node[number] for number in numbers]
        macs = {number: self._macs(number, tensors) for number in numbers}
        main = self._graph.node[max(numbers, key=lambda number: (macs[number], -number))]
        whole = self._with_repeated(numbers)
        weights = self._constants_of(whole)
        types = [tensors[name].dtype for name in inputs]
        is_integer = bool(types) and all(t in ("int8", "uint8") for t in types)
        return Unit(
            main.name, main.op_type, tuple(numbers), tuple(node.name for node in nodes),
            inputs, outputs, sum(macs.values()),
            sum(_size(self._initializers[name]) for name in weights), is_integer,
            self._signature(whole, inputs, outputs, tensors),
        )  # fmt: skip

    def _macs(self, number: int, tensors: Mapping[str, UnitTensor]) -> int:
        """Return the MACs of a convolution or a product."""
        node = self._graph.node[number]
        if node.op_type not in (*_WEIGHTED, *_PRODUCTS):
            return 0
        made = math.prod(tensors[node.output[0]].shape)
        if node.op_type in _WEIGHTED:
            return made * math.prod(self._dims(node.input[_WEIGHTED[node.op_type]])[1:])
        turned = any(item.name == "transB" and item.i for item in node.attribute)
        weights = self._dims(node.input[_PRODUCTS[node.op_type]])
        if weights:
            return made * weights[1 if turned else max(len(weights) - 2, 0)]
        known = [tensors[n].shape for n in map(self._source, node.input[:1]) if n in tensors]
        return made * known[0][-1] if known and known[0] else made

    def _dims(self, name: str) -> tuple[int, ...]:
        """Return the shape of a weight, behind its DequantizeLinear; () if it is none."""
        while name not in self._initializers and self._maker.get(name, -1) in self._constant:
            name = self._graph.node[self._maker[name]].input[0]
        item = self._initializers.get(name)
        return tuple(item.dims) if item is not None else ()

    def _with_repeated(self, numbers: Sequence[int]) -> list[int]:
        """Return nodes, and the repeated and constant ones that they need, in order."""
        found: set[int] = set()
        waiting = list(numbers)
        while waiting:
            number = waiting.pop()
            if number in found:
                continue
            found.add(number)
            for name in _operands(self._graph.node[number]):
                source = self._maker.get(name, -1)
                if source in self._constant or name in self._repeated:
                    waiting.append(source)
        return sorted(found)

    def _constants_of(self, numbers: Sequence[int]) -> list[str]:
        read = (name for number in numbers for name in _operands(self._graph.node[number]))
        return [name for name in dict.fromkeys(read) if name in self._initializers]

    def _signature(
        self,
        numbers: Sequence[int],
        inputs: Sequence[str],
        outputs: Sequence[str],
        tensors: Mapping[str, UnitTensor],
    ) -> str:
        """Return a digest of operators, shapes and types, and of small whole-number constants."""
        digest = hashlib.sha256()
        short: dict[str, str] = {}

        def call(name: str) -> str:
            return short.setdefault(name, f"t{len(short)}") if name else ""

        for name in (*inputs, *outputs):
            digest.update(f"{call(name)}{tensors[name].shape}{tensors[name].dtype}".encode())
        for name in self._constants_of(numbers):
            item = self._initializers[name]
            digest.update(f"{call(name)}{tuple(item.dims)}{item.data_type}".encode())
            if item.data_type in (6, 7) and math.prod(item.dims) <= _SMALL:
                digest.update(item.raw_data + repr(item.int64_data).encode())
        for number in numbers:
            node = self._graph.node[number]
            ends = [*map(call, node.input), "->", *map(call, node.output)]
            digest.update(" ".join([node.op_type, *ends]).encode())
            for attribute in sorted(node.attribute, key=lambda item: item.name):
                digest.update(attribute.SerializeToString(deterministic=True))
        return digest.hexdigest()

    def _piece(
        self,
        numbers: Sequence[int],
        inputs: Sequence[str],
        outputs: Sequence[str],
        tensors: Mapping[str, UnitTensor],
    ) -> bytes:
        """Return a model of some nodes."""
        import onnx
        from onnx import helper

        nodes = self._with_repeated(numbers)

        def infos(names: Sequence[str]) -> list[Any]:
            return [
                helper.make_tensor_value_info(
                    name,
                    helper.np_dtype_to_tensor_dtype(np.dtype(tensors[name].dtype)),
                    list(tensors[name].shape),
                )
                for name in names
            ]

        made = onnx.ModelProto()
        # before version 4 every initializer had to be an input as well
        made.ir_version = max(self._model.ir_version, 4)
        made.opset_import.extend(self._model.opset_import)
        made.functions.extend(self._model.functions)
        made.graph.name = Path(self._name).stem or "piece"
        made.graph.node.extend(self._graph.node[number] for number in nodes)
        made.graph.input.extend(infos(inputs))
        made.graph.output.extend(infos(outputs))
        made.graph.initializer.extend(self._initializers[n] for n in self._constants_of(nodes))
        return made.SerializeToString()


def _is_random(node: Any) -> bool:
    return node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial")


def _size(item: Any) -> int:
    """Return the bytes of an initializer."""
    from onnx import helper

    return math.prod(item.dims) * np.dtype(helper.tensor_dtype_to_np_dtype(item.data_type)).itemsize
