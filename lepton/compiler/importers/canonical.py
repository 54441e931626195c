"""The canonical quantized form, and the chain of small passes that leads to it.

After `canonicalize`, `main` is one dataflow block of flat bindings in which

* a quantized operator is `R.quantize(op(R.dequantize(x, sx, zx), ...), sy, zy)`;
* every scale is a float32 constant and every zero point an int32 constant, both of rank 0 (per
  tensor, `axis=0`) or both of shape `[channels]` (per channel, `axis` >= 0);
* every user of a dequantized tensor owns its own `R.dequantize`;
* weights are `R.dequantize(constant)` in the layout that the operator's attributes state;
* the constant operand of an addition or multiplication is the second, except in an addition of
  two quantized tensors;
* a bias is `R.add(op, R.dequantize(int32 constant))` whose shape broadcasts to the result:
  `[1, o, 1, 1]` for NCHW, `[o]` for NHWC and matmul; its scale is the file's;
* a transposed convolution of one image is a convolution whose pixels are interleaved;
* data movement (reshape, transpose, slice, concatenation of equal parameters, max pooling, nearest
  resize ...) is done on the quantized tensor itself;
* a clip that clips nothing, an alias or an unused value does not occur;
* each call carries its source (`names`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tvm
from tvm import relax

from lepton.compiler.dump import Dump, dump_module, no_dump
from lepton.compiler.importers import constants, movement, ranks, transposed
from lepton.compiler.importers.names import Source
from lepton.compiler.importers.rewriting import (
    Rewriter,
    dtype_of,
    is_call,
    replace_main,
    rewrite,
    with_source,
)

Pass = Callable[[tvm.IRModule], tvm.IRModule]
_LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}


def canonicalize(
    module: tvm.IRModule, sources: Mapping[Any, Source] | None = None, dump: Dump = no_dump
) -> tvm.IRModule:
    """Bring an imported module into the canonical form and check that it is well formed.

    Args:
        module: Module as an importer made it; it is not changed.
        sources: Variable of `main` -> where its value is from.
        dump: Takes the module as it comes and after each pass.
    """
    dump_module(dump, "imported", module)
    module = annotate(module, sources or {})
    chain: tuple[Pass, ...] = (
        drop_dropouts,
        simplify_tuples,
        constants.fold_constants,
        constants.normalize_parameters,
        order_operands,
        movement.reshape_units,
        movement.slice_splits,
        movement.move_quantized,
        movement.quantize_before_movement,
        ranks.merge_dimensions,
        movement.clamp_codes,
        constants.quantize_float_bias,
        transposed.split_phases,
        drop_identity_clips,
        duplicate_dequantize,
        drop_dead_code,
    )
    for step in chain:
        module = step(module)
        dump_module(dump, step.__name__, module)
    relax.analysis.check_well_formed(module)
    return module


def annotate(module: tvm.IRModule, sources: Mapping[Any, Source]) -> tvm.IRModule:
    """Write the sources that an importer recorded into the spans, and drop aliases.

    before: lv = R.nn.conv2d(x, w)      sources = {lv: Source("conv1", "y", 4)}
    after:  y = R.nn.conv2d(x, w)       span "conv1 US y", line 4
    """

    def rule(_rewriter: Rewriter, variable: Any, value: Any) -> Any:
        return with_source(value, sources.get(variable))

    return rewrite(module, rule)


def drop_dropouts(module: tvm.IRModule) -> tvm.IRModule:
    """Remove dropouts, which do nothing but in training.

    before: d = R.nn.dropout(x, rate=0.5); y = d[0]; use(y)
    after:  use(x)
    """

    def rule(rewriter: Rewriter, _variable: Any, value: Any) -> Any:
        if not isinstance(value, relax.TupleGetItem) or value.index:
            return None
        call = rewriter.call(value.tuple_value, "relax.nn.dropout")
        return None if call is None else call.args[0]

    return rewrite(module, rule)


def simplify_tuples(module: tvm.IRModule) -> tvm.IRModule:
    """Take items of known tuples directly.

    before: t = (a, b); c = t[1]; d = R.nn.relu(c)
    after:  d = R.nn.relu(b)
    """

    def rule(rewriter: Rewriter, _variable: Any, value: Any) -> Any:
        if isinstance(value, relax.TupleGetItem):
            whole = rewriter.value(value.tuple_value)
            if isinstance(whole, relax.Tuple):
                return whole.fields[value.index]
        return None

    return rewrite(module, rule)


def order_operands(module: tvm.IRModule) -> tvm.IRModule:
    """Put the constant operand of a commutative operator second.

    before: R.add(R.dequantize(b_const), conv)
    after:  R.add(conv, R.dequantize(b_const))

    Two quantized operands of an addition stay as they are: the golden's fused sum rounds by order.
    """

    def rule(rewriter: Rewriter, _variable: Any, value: Any) -> Any:
        if not is_call(value, "relax.add", "relax.multiply"):
            return None
        left, right = value.args
        if is_call(value, "relax.add") and rewriter.call(right, "relax.dequantize") is not None:
            return None
        if constants.is_fixed(rewriter, left) and not constants.is_fixed(rewriter, right):
            return tvm.ir.Call(value.op, [right, left], value.attrs, [], value.span)
        return None

    return rewrite(module, rule)


def drop_identity_clips(module: tvm.IRModule) -> tvm.IRModule:
    """Remove clips that change nothing.

    before: y = R.quantize(..., out_dtype="int8"); z = R.clip(y, -128, 127); use(z)
    after:  y = R.quantize(..., out_dtype="int8"); use(y)

    The quantized value takes the clip's source tensor name: it is what the file calls the result.
    """

    def rule(rewriter: Rewriter, _variable: Any, value: Any) -> Any:
        if not is_call(value, "relax.clip"):
            return None
        low, high = (float(bound.value) for bound in value.args[1:])
        limits = _LIMITS.get(dtype_of(value.args[0]), (float("-inf"), float("inf")))
        if low > limits[0] or high < limits[1]:
            return None
        return movement.renamed(rewriter, value.args[0], value)

    return rewrite(module, rule)


def duplicate_dequantize(module: tvm.IRModule) -> tvm.IRModule:
    """Give every user its own dequantize, else regions would exchange float tensors.

    before: d = R.dequantize(x); a = f(d); b = g(d)
    after:  d0 = R.dequantize(x); a = f(d0); d1 = R.dequantize(x); b = g(d1)
    """

    def rule(rewriter: Rewriter, variable: Any, value: Any) -> Any:
        del variable
        if is_call(value, "relax.dequantize"):
            return None
        return _with_operands(value, lambda operand: _own_copy(rewriter, operand))

    return rewrite(module, rule)


def _own_copy(rewriter: Rewriter, operand: Any) -> Any:
    """Return a fresh dequantize if the operand is one, recursing into nothing."""
    call = rewriter.call(operand, "relax.dequantize")
    if call is None or not isinstance(operand, relax.DataflowVar):
        return operand
    return rewriter.emit(
        tvm.ir.Call(call.op, list(call.args), call.attrs, list(call.ty_args), call.span)
    )


def _with_operands(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a call or tuple with its variable operands changed, None if nothing changed."""
    if isinstance(value, tvm.ir.Call):
        old = list(value.args)
    elif isinstance(value, relax.Tuple):
        old = list(value.fields)
    else:
        return None
    new = [_changed(item, change) for item in old]
    if all(after is before for after, before in zip(new, old, strict=True)):
        return None
    if isinstance(value, tvm.ir.Call):
        return tvm.ir.Call(value.op, new, value.attrs, list(value.ty_args), value.span)
    return relax.Tuple(new, value.span)


def _changed(item: Any, change: Callable[[Any], Any]) -> Any:
    """Return one operand changed, looking into a tuple."""
    if not isinstance(item, relax.Tuple):
        return change(item)
    inner = _with_operands(item, change)
    return item if inner is None else inner


def drop_dead_code(module: tvm.IRModule) -> tvm.IRModule:
    """Remove bindings that no result depends on.

    before: a = f(x); b = g(x); return a
    after:  a = f(x); return a
    """
    function = module["main"]
    if len(function.body.blocks) != 1:
        return relax.transform.DeadCodeElimination()(module)
    used: set[Any] = set(relax.analysis.free_vars(function.body.body))
    kept: list[Any] = []
    for binding in reversed(function.body.blocks[0].bindings):
        is_output = not isinstance(binding.var, relax.DataflowVar)
        if is_output or binding.var in used:
            kept.append(binding)
            used.update(_variables(binding.value))
    body = relax.SeqExpr([relax.DataflowBlock(kept[::-1])], function.body.body)
    body = relax.BlockBuilder().normalize(body)
    new = relax.Function(function.params, body, body.ty, attrs=function.attrs)
    return _drop_unused_functions(replace_main(module, new))


def _variables(value: Any) -> list[Any]:
    """List the variables that a flat expression uses."""
    if isinstance(value, relax.Var):
        return [value]
    if isinstance(value, tvm.ir.Call):
        return [variable for argument in value.args for variable in _variables(argument)]
    if isinstance(value, relax.Tuple):
        return [variable for field in value.fields for variable in _variables(field)]
    if isinstance(value, relax.TupleGetItem):
        return _variables(value.tuple_value)
    return list(relax.analysis.free_vars(value)) if isinstance(value, relax.Function) else []


def _drop_unused_functions(module: tvm.IRModule) -> tvm.IRModule:
    """Remove private functions (call_tir bodies) that nothing calls any more."""
    functions: Any = module
    if len(functions.functions) == 1:
        return module
    return relax.transform.DeadCodeElimination(["main"])(module)
