"""The front half: a partitioned module becomes steps, NPU graphs and host graphs, in order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import tvm
from tvm import relax

from lepton.chip import Chip
from lepton.compiler.dump import Dump, no_dump
from lepton.compiler.host import HostWriter
from lepton.compiler.host_macs import host_macs
from lepton.compiler.importers import ImportedModel, source_of, tensor_name
from lepton.compiler.importers.onnx_verbatim import read_verbatim
from lepton.compiler.importers.rewriting import operator_name
from lepton.compiler.nodes import Region, add_operation
from lepton.compiler.operation import read_operation
from lepton.compiler.partition import Reasons, golden_of, partition
from lepton.compiler.reasons import is_between, unmatched_reasons
from lepton.compiler.steps import Crossing, FrontModel, HostOperator, HostStep, NpuStep
from lepton.errors import CompileError

__all__ = ["front_model"]


def front_model(imported: ImportedModel, chip: Chip, dump: Dump = no_dump) -> FrontModel:
    """Partition an imported model for a chip and build its steps."""
    made = partition(imported.module, imported.golden, chip, dump)
    front = _Front(imported, made.module, made.reasons).build()
    return replace(front, verdicts=tuple(made.verdicts))


def _shape_and_type(expr: Any) -> tuple[tuple[int, ...], str]:
    """Return shape and element type of a tensor expression."""
    try:
        shape = tuple(int(extent) for extent in expr.ty.shape.values)
    except (AttributeError, TypeError, ValueError):
        raise CompileError(
            "a tensor has a shape that is not known before it runs; fix it with --shape"
        ) from None
    return shape, str(expr.ty.dtype.dtype)


class _Front:
    """Walks main in order, collecting host operators until an NPU region comes."""

    def __init__(self, imported: ImportedModel, module: tvm.IRModule, reasons: Reasons) -> None:
        self._imported = imported
        self._module = module
        self._reasons = reasons
        self._names: dict[Any, str] = {}
        self._crossings: dict[str, Crossing] = {}
        self._steps: list[NpuStep | HostStep] = []
        self._host: list[Any] = []
        self._aliases: dict[Any, Any] = {}
        self._items: dict[tuple[Any, int], Any] = {}
        self._tuples: dict[Any, list[str]] = {}
        self._wanted: dict[Any, str] = {}
        self._used: list[tuple[Any, set[Any]]] = []
        self._unmatched: dict[Any, str] = {}
        self._bindings: list[Any] = []

    def build(self) -> FrontModel:
        """Return the steps of main."""
        main = self._module["main"]
        bindings = [binding for block in main.body.blocks for binding in block.bindings]
        self._bindings = bindings
        for parameter, name in zip(main.params, self._imported.inputs, strict=True):
            self._cross(parameter, name)
        self._used = [(b.var, set(relax.analysis.free_vars(b.value))) for b in bindings]
        self._unmatched = unmatched_reasons(bindings)
        self._used.append((None, set(relax.analysis.free_vars(main.body.body))))
        for binding in bindings:
            if isinstance(binding.value, relax.Var):
                self._aliases[binding.var] = binding.value
            elif isinstance(binding.value, relax.TupleGetItem):
                item = binding.value
                self._items[self._resolve(item.tuple_value), int(item.index)] = binding.var
        results = self._results(main.body.body, bindings)
        for variable, name in zip(results, self._imported.outputs, strict=True):
            self._wanted.setdefault(variable, name)
        for binding in bindings:
            is_result = binding.var.same_as(main.body.body)
            if not (is_result and isinstance(binding.value, relax.Tuple)):
                self._visit(binding)
        self._flush(results)
        self._copy_outputs(results)
        outputs = self._imported.outputs
        return FrontModel(
            self._imported.name,
            self._imported.golden,
            tuple(self._steps),
            self._crossings,
            self._imported.inputs,
            outputs,
        )

    def _used_outside(self, group: set[Any]) -> set[Any]:
        """Return the variables that anything but the bindings of a group reads."""
        return {
            self._resolve(variable)
            for user, variables in self._used
            if user is None or user not in group
            for variable in variables
        }

    def _region(self, value: Any) -> Any:
        """Return the region function that a call calls, or None."""
        if isinstance(value, tvm.ir.Call) and isinstance(value.op, tvm.ir.GlobalVar):
            function = self._module[value.op]
            if isinstance(function, relax.Function) and "Codegen" in function.attrs:
                return function
        return None

    def _resolve(self, variable: Any) -> Any:
        while variable in self._aliases:
            variable = self._aliases[variable]
        return variable

    def _visit(self, binding: Any) -> None:
        """Take one binding of main."""
        value = binding.value
        if isinstance(value, relax.Var) or binding.var in self._names:
            return
        if isinstance(value, relax.TupleGetItem):
            whole = self._resolve(value.tuple_value)
            if whole in self._tuples:
                self._names[binding.var] = self._tuples[whole][value.index]
                return
        function = self._region(value)
        if read_verbatim(value) is not None:
            self._verbatim(binding)
            return
        if function is None:
            self._host.append(binding)
            return
        arguments = [self._resolve(argument) for argument in binding.value.args]
        self._flush(arguments)
        self._npu(binding, function, arguments)

    # --- names ---------------------------------------------------------------------------------

    def _cross(self, variable: Any, wanted: str) -> str:
        """Give a variable a unique crossing name."""
        name = self._free_name(variable, wanted or variable.name)
        shape, dtype = _shape_and_type(variable)
        self._names[variable] = name
        self._crossings[name] = Crossing(name, shape, dtype)
        return name

    def _free_name(self, variable: Any, hint: str) -> str:
        """Return the file's name of a result, or a name that no other tensor has or will have."""
        name = self._wanted.get(variable, "")
        if name and name not in self._crossings:
            return name
        while hint in self._crossings or hint in self._imported.outputs:
            if hint in self._imported.inputs and hint not in self._crossings:
                break
            hint += "'"
        return hint

    def _results(self, body: Any, bindings: list[Any]) -> list[Any]:
        """Return the variables that main returns."""
        resolved = self._resolve(body) if isinstance(body, relax.Var) else body
        for binding in bindings:
            if binding.var.same_as(resolved) and isinstance(binding.value, relax.Tuple):
                resolved = binding.value
                break
        if isinstance(resolved, relax.Tuple):
            return [self._resolve(item) for item in resolved.fields]
        return [resolved]

    def _copy_outputs(self, results: list[Any]) -> None:
        """Copy on the host what the file calls by two names: an input, or one result twice."""
        copies: list[tuple[Any, str]] = []
        writer = HostWriter(self._imported.name)
        for variable, name in zip(results, self._imported.outputs, strict=True):
            if variable not in self._names:
                raise CompileError(f"output '{name}' is a constant: nothing depends on the input")
            source = self._names[variable]
            if source == name:
                continue
            shape, dtype = _shape_and_type(variable)
            if not writer.knows(variable):
                writer.bind_input(variable, source, shape, dtype)
            self._crossings[name] = Crossing(name, shape, dtype)
            copies.append((variable, name))
        if copies:
            inputs = list(dict.fromkeys(self._names[variable] for variable, _ in copies))
            self._steps.append(HostStep(writer.finish(inputs, copies), ()))

    # --- steps ---------------------------------------------------------------------------------

    def _flush(self, wanted: list[Any]) -> None:
        """Turn the host operators collected so far into a step."""
        if not self._host:
            return
        writer = HostWriter(self._imported.name)
        made: dict[Any, Any] = {}
        for binding in self._host:
            made[binding.var] = binding
        inputs: list[str] = []
        for binding in self._host:
            for variable in relax.analysis.free_vars(binding.value):
                source = self._resolve(variable)
                if source not in made and not writer.knows(source):
                    name = self._names[source]
                    crossing = self._crossings[name]
                    writer.bind_input(source, name, crossing.shape, crossing.dtype)
                    inputs.append(name)
        for variable, source in self._aliases.items():
            writer.alias(variable, self._resolve(source))
        operators: list[HostOperator] = []
        for binding in self._host:
            writer.add(binding)
            operators += self._operator(binding)
        keep = self._used_outside(set(made)) | {self._resolve(item) for item in wanted}
        outputs = [
            (binding.var, self._cross(binding.var, self._tensor_name(binding)))
            for binding in self._host
            if binding.var in keep and not isinstance(binding.value, relax.Tuple)
        ]
        graph = writer.finish(inputs, outputs)
        self._steps.append(HostStep(graph, tuple(operators)))
        self._host = []

    def _verbatim(self, binding: Any) -> None:
        """Turn a node that is called as it is into a step of its own: it has its own opset.

        All its results cross, and are so checked to have the shapes that were inferred. Weights
        that only it reads come along: dequantized ones would cross too, and take four times as
        much.
        """
        weights = [item for item in self._host if self._is_weight(item, binding)]
        self._host = [item for item in self._host if item not in weights]
        self._flush([])
        items = [item for item in self._bindings if _item_of(item.value) == binding.var]
        self._host = [*weights, binding, *items]
        self._flush([])

    def _is_weight(self, item: Any, reader: Any) -> bool:
        """Return whether a binding dequantizes a constant that only one other binding reads."""
        if operator_name(item.value) != "relax.dequantize" or relax.analysis.free_vars(item.value):
            return False
        return all(user == reader.var for user, found in self._used if item.var in found)

    def _tensor_name(self, binding: Any) -> str:
        """Return the source tensor that a binding's value is, or ""."""
        source = source_of(binding.value)
        return source.tensor if source is not None else ""

    def _operator(self, binding: Any) -> list[HostOperator]:
        """Return the report line of a host operator; dressing goes without."""
        verbatim = read_verbatim(binding.value)
        kind = operator_name(binding.value).removeprefix("relax.")
        kind = kind if verbatim is None else verbatim.node.op_type
        if not kind:
            return []
        source = source_of(binding.value)
        name = source.operator if source is not None else binding.var.name
        rule, unmatched = self._reasons.get(name, ""), self._unmatched[binding.var]
        # a rule is about the operator that it names, what that was rewritten into and what dresses
        # it between 8-bit tensors, but not about a quantize elsewhere that bears its name
        is_elsewhere = kind in ("quantize", "dequantize") and not is_between(unmatched)
        is_ruled = rule.startswith(f"{kind}: ") or not is_elsewhere
        reason = rule if rule and is_ruled else unmatched
        return [HostOperator(name, kind, host_macs(binding.value), reason)]

    def _npu(self, binding: Any, function: Any, arguments: list[Any]) -> None:
        """Turn a call of a region into a step."""
        builder = Region(golden_of(self._imported.golden), f"t{len(self._steps)}")
        inputs: list[str] = []
        for parameter, argument in zip(function.params, arguments, strict=True):
            name = self._names[argument]
            shape, dtype = _shape_and_type(parameter)
            builder.bind_input(parameter, name, shape, dtype)
            inputs.append(name)
        results = _walk_region(builder, function)
        names = self._result_names(binding, function, results)
        graph = builder.finish([variable for variable, _ in results], names)
        self._steps.append(NpuStep(graph, tuple(inputs), tuple(names)))

    def _result_names(
        self, binding: Any, function: Any, results: list[tuple[Any, str]]
    ) -> list[str]:
        """Give the results of a region their crossing names."""
        if not isinstance(function.body.body, relax.Tuple) and len(results) == 1:
            kind = binding.var.ty
            if not isinstance(kind, relax.TupleType):
                return [self._cross(binding.var, results[0][1])]
        names: list[str] = []
        for variable, wanted in results:
            shape, dtype = _shape_and_type(variable)
            item = self._items.get((binding.var, len(names)), variable)
            name = self._free_name(item, wanted or f"{binding.var.name}.{len(names)}")
            self._crossings[name] = Crossing(name, shape, dtype)
            names.append(name)
        self._tuples[binding.var] = names
        return names


def _item_of(value: Any) -> Any:
    """Return the tuple of which a value is an item, None of another value."""
    return value.tuple_value if isinstance(value, relax.TupleGetItem) else None


def _walk_region(builder: Region, function: Any) -> list[tuple[Any, str]]:
    """Add every composite call of a region; return its result variables and tensor names."""
    composites: dict[Any, Any] = {}
    tensors: dict[Any, str] = {}
    tuples: dict[Any, list[Any]] = {}
    for block in function.body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.Function):
                composites[binding.var] = value
            elif isinstance(value, relax.Var):
                builder.alias(binding.var, value)
                tensors[binding.var] = tensors.get(value, "")
            elif isinstance(value, relax.Tuple):
                tuples[binding.var] = list(value.fields)
            else:
                composite = composites[value.op]
                _add_composite(builder, binding.var, composite, list(value.args))
                tensors[binding.var] = tensor_name(composite)
    body = function.body.body
    fields = list(body.fields) if isinstance(body, relax.Tuple) else tuples.get(body, [body])
    return [(field, tensors.get(field, "")) for field in fields]


def _add_composite(builder: Region, variable: Any, composite: Any, arguments: list[Any]) -> None:
    """Add the operation of one composite function."""
    bindings: dict[Any, Any] = {}
    for block in composite.body.blocks:
        for binding in block.bindings:
            bindings[binding.var] = binding.value
    for parameter, argument in zip(composite.params, arguments, strict=True):
        builder.alias(parameter, argument)
    operation = read_operation(bindings, composite.body.body, composite)
    add_operation(builder, variable, operation)
