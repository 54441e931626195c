"""Why an operator that no pattern takes runs on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax

from lepton.compiler.rules import SIXTEEN_BITS, is_not_of_16_bits, rule_text

__all__ = ["is_between", "unmatched_reasons"]

_EIGHT_BITS = ("int8", "uint8")
_UNKNOWN = "no NPU instruction computes it"
_BETWEEN = "no NPU instruction computes what lies between its dequantize and its quantize"
_OPERANDS = "its operands are not quantized to 8 bits"
_RESULT = "its result is not quantized to 8 bits"
_WIDE = rule_text(is_not_of_16_bits)


def unmatched_reasons(bindings: Sequence[Any]) -> dict[Any, str]:
    """Return for each variable of `main` why it would be the host's if no pattern takes it.

    What depends on a dequantized activation and leads to a quantize lies between the two; what
    leads to none lacks a quantized result, what depends on none lacks quantized operands.
    """
    uses = {binding.var: set(relax.analysis.free_vars(binding.value)) for binding in bindings}
    after: set[Any] = set()
    before: set[Any] = set()
    for binding in bindings:
        is_after = _is_dequantize(binding.value) or bool(uses[binding.var] & after)
        if is_after and not _is_8_bit(binding.var):
            after.add(binding.var)
    for binding in reversed(bindings):
        if _quantizes(binding.value) or binding.var in before:
            before.add(binding.var)
            before |= {variable for variable in uses[binding.var] if not _is_8_bit(variable)}
    return {binding.var: _reason(binding, after, before, uses[binding.var]) for binding in bindings}


def is_between(reason: str) -> bool:
    """Return whether a reason says that an operator lies between a dequantize and a quantize."""
    return reason == _BETWEEN


def _reason(binding: Any, after: set[Any], before: set[Any], operands: set[Any]) -> str:
    """Return the reason of one binding."""
    if any(map(_is_wide, (binding.var, *operands))):
        return _WIDE
    if _quantizes(binding.value) and not operands & after:
        return _OPERANDS
    if _name(binding.value) == "relax.dequantize":
        return _BETWEEN if binding.var in before else _RESULT
    if _is_8_bit(binding.var) and not _quantizes(binding.value):
        return _UNKNOWN
    if binding.var not in after and not _quantizes(binding.value):
        return _OPERANDS
    return _BETWEEN if binding.var in before else _RESULT


def _is_8_bit(variable: Any) -> bool:
    """Return whether a variable is an 8-bit tensor."""
    return _type(variable) in _EIGHT_BITS


def _is_wide(variable: Any) -> bool:
    """Return whether a variable is a 16-bit tensor."""
    return _type(variable) in SIXTEEN_BITS


def _type(variable: Any) -> str:
    dtype = getattr(variable.ty, "dtype", None)
    return str(getattr(dtype, "dtype", dtype))


def _name(value: Any) -> str:
    return str(getattr(getattr(value, "op", None), "name", ""))


def _is_dequantize(value: Any) -> bool:
    """Return whether a value is a dequantized activation."""
    return (
        _name(value) == "relax.dequantize"
        and isinstance(value.args[0], relax.Var)
        and _is_8_bit(value.args[0])
    )


def _quantizes(value: Any) -> bool:
    return _name(value) == "relax.quantize"
