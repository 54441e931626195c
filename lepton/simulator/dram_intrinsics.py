"""Operations on bit masks and on the gates of the DRAM controller that Numba has no words for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from lepton.simulator.dram_timing import MAX_GROUPS

__all__ = ["FEW_GROUPS", "LANES", "delay_all", "delay_banks", "delay_few", "first_of_banks"]
__all__ += ["lowest", "renew_banks", "rotated", "set_bank"]

I64 = NDArray[np.int64]
Delay = Callable[[I64, int, I64, int, int], None]

WORD = 64
FEW_GROUPS = 4
"""Bank groups of most DRAMs: their gates fit in one vector."""
LANES = 16
"""Banks that are looked at together."""
_I32, _I64 = ir.IntType(32), ir.IntType(WORD)


def _lowest(typingcontext: Any, mask: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


def _rotated(typingcontext: Any, mask: Any, by: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        right = builder.and_(args[1], _I64(WORD - 1))
        left = builder.and_(builder.neg(right), _I64(WORD - 1))
        return builder.or_(builder.lshr(args[0], right), builder.shl(args[0], left))

    return types.int64(types.int64, types.int64), codegen


def _splat(builder: Any, scalar: Any, count: int) -> Any:
    """Return a vector of `count` times the same."""
    unset = ir.Constant(ir.VectorType(scalar.type, count), ir.Undefined)
    zeros = ir.Constant(ir.VectorType(_I32, count), None)
    return builder.shuffle_vector(builder.insert_element(unset, scalar, _I32(0)), unset, zeros)


def _vector_at(context: Any, builder: Any, array: Any, value: Any, first: Any, count: int) -> Any:
    """Return a pointer to `count` elements of an array, of a type and value, from `first` on."""
    struct = context.make_array(array)(context, builder, value)
    address = builder.gep(struct.data, [first])
    return builder.bitcast(address, ir.VectorType(_I64, count).as_pointer())


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _smaller(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _lanes_of(builder: Any, mask: Any, count: int) -> Any:
    """Return one bit per lane: the low bits of a mask."""
    bits = builder.trunc(mask, ir.IntType(count)) if count < WORD else mask
    return builder.bitcast(bits, ir.VectorType(ir.IntType(1), count))


def _iota(count: int) -> Any:
    return ir.Constant(ir.VectorType(_I64, count), list(range(count)))


def _delay(count: int) -> Delay:
    """Return a kernel that delays `count` gates from `gate` on to `t` plus the gaps there."""

    def delay(typingcontext: Any, m: Any, gate: Any, c: Any, gaps: Any, t: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            target = _vector_at(context, builder, m, args[0], args[1], count)
            gap = builder.load(_vector_at(context, builder, c, args[2], args[3], count), align=8)
            new = builder.add(gap, _splat(builder, args[4], count))
            builder.store(_larger(builder, builder.load(target, align=8), new), target, align=8)
            return context.get_dummy_value()

        return types.none(m, types.int64, c, types.int64, types.int64), codegen

    return cast(Delay, intrinsic(delay))


def _delay_banks(count):
  def delay_banks(
    typingcontext: Any, m: Any, first: Any, banks: Any, c: Any, gaps: Any, t: Any
) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = _vector_at(context, builder, m, args[0], args[1], count)
        gap = builder.load(_vector_at(context, builder, c, args[3], args[4], count), align=8)
        old = builder.load(target, align=8)
        new = _larger(builder, old, builder.add(gap, _splat(builder, args[5], count)))
        builder.store(builder.select(_lanes_of(builder, args[2], count), new, old), target, align=8)
        return context.get_dummy_value()

    return types.none(m, types.int64, types.int64, c, types.int64, types.int64), codegen
  return intrinsic(delay_banks)


def _renew_banks(count):
  def renew_banks(
    typingcontext: Any, m: Any, first: Any, banks: Any, c: Any, gaps: Any, t: Any, bank: Any, at: Any
) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = _vector_at(context, builder, m, args[0], args[1], count)
        gap = builder.load(_vector_at(context, builder, c, args[3], args[4], count), align=8)
        old = builder.load(target, align=8)
        new = _larger(builder, old, builder.add(gap, _splat(builder, args[5], count)))
        new = builder.select(_lanes_of(builder, args[2], count), new, old)
        chosen = builder.icmp_signed("==", _splat(builder, args[6], count), _iota(count))
        new = builder.select(chosen, _splat(builder, args[7], count), new)
        builder.store(new, target, align=8)
        return context.get_dummy_value()

    i = types.int64
    return types.none(m, i, i, c, i, i, i, i), codegen
  return intrinsic(renew_banks)


def _set_bank(typingcontext: Any, m: Any, first: Any, bank: Any, at: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = _vector_at(context, builder, m, args[0], args[1], LANES)
        chosen = builder.icmp_signed("==", _splat(builder, args[2], LANES), _iota(LANES))
        old = builder.load(target, align=8)
        new = builder.select(chosen, _splat(builder, args[3], LANES), old)
        builder.store(new, target, align=8)
        return context.get_dummy_value()

    return types.none(m, types.int64, types.int64, types.int64), codegen


def _first_of_banks(count):
  def first_of_banks(
    typingcontext: Any, m: Any, first: Any, banks: Any, after: Any, t: Any, bits: Any
) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = builder.load(_vector_at(context, builder, m, args[0], args[1], count), align=8)
        at = _larger(builder, at, _splat(builder, args[4], count))
        turn = builder.sub(_iota(count), _splat(builder, args[3], count))
        turn = builder.and_(turn, _splat(builder, _I64(WORD - 1), count))
        key = builder.or_(builder.shl(at, _splat(builder, args[5], count)), turn)
        never = _splat(builder, _I64((1 << 63) - 1), count)
        key = builder.select(_lanes_of(builder, args[2], count), key, never)
        least = builder.module.declare_intrinsic(f"llvm.vector.reduce.smin.v{count}i64", (), ir.FunctionType(_I64, [key.type]))
        return builder.call(least, [key])

    signature = types.int64(m, types.int64, types.int64, types.int64, types.int64, types.int64)
    return signature, codegen
  return intrinsic(first_of_banks)


lowest = cast("Callable[[int], int]", intrinsic(_lowest))
"""Index of the lowest bit of a mask that is not zero."""

rotated = cast("Callable[[int, int], int]", intrinsic(_rotated))
"""A mask with the bit at the second argument (1 to 64) moved to 0 and the others after it."""

delay_all, delay_few = _delay(MAX_GROUPS), _delay(FEW_GROUPS)

delay_banks = _delay_banks(LANES)
delay_banks2 = _delay_banks(2*LANES)
renew_banks = _renew_banks(LANES)
renew_banks2 = _renew_banks(2*LANES)
first_of_banks = _first_of_banks(LANES)
first_of_banks2 = _first_of_banks(2*LANES)
set_bank = cast("Callable[[I64, int, int, int], None]", intrinsic(_set_bank))
"""Set one of `LANES` banks; read together later, they must be written together."""
