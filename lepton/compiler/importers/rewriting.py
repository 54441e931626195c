"""Rebuild a Relax function binding by binding, keeping source names.

A pass of `canonical` is one *rule*: it sees each binding once, in order, with its operands
already replaced, and returns what to bind instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from lepton.compiler.importers.names import Source, make_span, source_of

Rule = Callable[["Rewriter", Any, Any], Any]


class Rewriter:
    """The state of one walk over the bindings of one function."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        """Begin a walk that gives no new variable a name of `taken`."""
        self._builder = relax.BlockBuilder()
        self._replaced: dict[Any, Any] = {}
        self._values: dict[Any, Any] = {}
        self._bindings: list[Any] = []
        self._names = dict.fromkeys(taken, 1)

    def value(self, expr: Any) -> Any:
        """Return what a variable is bound to, or the expression itself."""
        return self._values.get(expr, expr) if isinstance(expr, relax.Var) else expr

    def call(self, expr: Any, name: str) -> Any:
        """Return the call of operator `name` that an expression is bound to, or None."""
        value = self.value(expr)
        return value if is_call(value, name) else None

    def emit(self, value: Any, source: Source | None = None, output: Any = None) -> Any:
        """Bind a value to a new variable (to one like `output` if given) and return it."""
        source = source_of(value) or source
        value = self._builder.normalize(with_source(value, source))
        span = make_span(source) if source is not None else None
        if output is not None:
            variable = relax.Var(output.name, value.ty, span)
        else:
            hint = source.tensor if source is not None else ""
            variable = relax.DataflowVar(self._unique(hint), value.ty, span)
        self._values[variable] = value
        self._bindings.append(relax.VarBinding(variable, value))
        return variable

    def _unique(self, hint: str) -> str:
        """Return a variable name that no binding of this walk has yet."""
        base = hint or f"lv{len(self._bindings)}"
        count = self._names.get(base, 0)
        self._names[base] = count + 1
        return self._unique(f"{base}_{count}") if count else base

    def substitute(self, expr: Any) -> Any:
        """Replace the variables in a flat expression by what they became."""
        if isinstance(expr, relax.Var):
            return self._replaced.get(expr, expr)
        if isinstance(expr, tvm.ir.Call):
            arguments = [self.substitute(argument) for argument in expr.args]
            if all(new.same_as(old) for new, old in zip(arguments, expr.args, strict=True)):
                return expr
            return tvm.ir.Call(expr.op, arguments, expr.attrs, list(expr.ty_args), expr.span)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self.substitute(field) for field in expr.fields], expr.span)
        if isinstance(expr, relax.TupleGetItem):
            return relax.TupleGetItem(self.substitute(expr.tuple_value), expr.index, expr.span)
        return expr

    def visit(self, binding: Any, rule: Rule) -> None:
        """Rewrite one binding."""
        old = self.substitute(binding.value)
        if isinstance(old, tvm.ir.Call) and not old.same_as(binding.value):
            old = self._builder.normalize(old)  # rules read types
        if isinstance(binding, relax.MatchCast):
            self._bindings.append(relax.MatchCast(binding.var, old, binding.ty))
            return
        new = rule(self, binding.var, old)
        if new is None and old.same_as(binding.value) and _has_source(binding):
            self._values[binding.var] = old
            self._bindings.append(binding)
            return
        new = old if new is None else new
        is_output = not isinstance(binding.var, relax.DataflowVar)
        if not is_output and isinstance(new, relax.Var | tvm.ir.GenericConst):
            self._replaced[binding.var] = new
            return
        source = source_of(old) or source_of(binding.var)
        variable = self.emit(new, source, binding.var if is_output else None)
        self._replaced[binding.var] = variable

    def finish(self, function: Any) -> Any:
        """Return the rebuilt function."""
        block = relax.DataflowBlock(self._bindings)
        body = relax.SeqExpr([block], self.substitute(function.body.body))
        body = self._builder.normalize(body)
        return relax.Function(function.params, body, body.ty, attrs=function.attrs)


def _has_source(binding: Any) -> bool:
    """Return whether a value knows where it is from, as far as its variable does."""
    return source_of(binding.value) is not None or source_of(binding.var) is None


def rewrite(module: tvm.IRModule, rule: Rule) -> tvm.IRModule:
    """Apply a rule to every binding of `main` and return the new module.

    A `main` with control flow (more than one block) is left as it is.
    """
    function = module["main"]
    blocks = [block for block in function.body.blocks if len(block.bindings)]
    if len(blocks) != 1 or not isinstance(blocks[0], relax.DataflowBlock):
        return module
    bindings = list(blocks[0].bindings)
    rewriter = Rewriter(binding.var.name for binding in bindings)
    for binding in bindings:
        rewriter.visit(binding, rule)
    return replace_main(module, rewriter.finish(function))


def replace_main(module: tvm.IRModule, function: Any) -> tvm.IRModule:
    """Return a copy of a module with another `main`."""
    old: Any = module
    functions = dict(old.functions_items())
    functions[old.get_global_var("main")] = function
    return tvm.IRModule(functions, attrs=old.attrs, global_infos=old.global_infos)


def is_call(expr: Any, *names: str) -> bool:
    """Return whether an expression is a call of one of the named operators."""
    return operator_name(expr) in names


def operator_name(expr: Any) -> str:
    """Return the full name of the operator that an expression calls, or ""."""
    if not isinstance(expr, tvm.ir.Call) or not isinstance(expr.op, tvm.ir.Op):
        return ""
    operator: Any = expr.op
    return str(operator.name)


def is_constant(expr: Any) -> bool:
    """Return whether an expression is a constant tensor."""
    return isinstance(expr, tvm.ir.GenericConst)


def with_source(value: Any, source: Source | None) -> Any:
    """Return a call or tuple item with its span set, other values as they are."""
    if source is None or source_of(value) == source:
        return value
    if isinstance(value, tvm.ir.Call):
        arguments, types = list(value.args), list(value.ty_args)
        return tvm.ir.Call(value.op, arguments, value.attrs, types, make_span(source))
    if isinstance(value, relax.TupleGetItem):
        return relax.TupleGetItem(value.tuple_value, value.index, make_span(source))
    return value


def scalar(value: float) -> Any:
    """Return a float32 constant of rank 0."""
    return relax.const(np.asarray(value, np.float32))


def shape_of(expr: Any) -> tuple[int, ...] | None:
    """Return the static shape of a tensor expression, None if it has none."""
    shape = getattr(expr.ty, "shape", None)
    if shape is None or not isinstance(shape, relax.ShapeExpr):
        return None
    extents: list[Any] = list(shape.values)
    if not all(isinstance(extent, tvm.tirx.IntImm) for extent in extents):
        return None
    return tuple(int(extent) for extent in extents)


def dtype_of(expr: Any) -> str:
    """Return the element type of a tensor expression as text."""
    dtype = expr.ty.dtype
    return str(getattr(dtype, "dtype", dtype))
