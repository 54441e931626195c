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


def _lanes_of(builder: Any, mask: Any) -> Any:
    """Return one bit per lane: the low bits of a mask."""
    bits = builder.trunc(mask, ir.IntType(LANES))
    return builder.bitcast(bits, ir.VectorType(ir.IntType(1), LANES))


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


def _delay_banks(
    typingcontext: Any, m: Any, first: Any, banks: Any, c: Any, gaps: Any, t: Any
) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = _vector_at(context, builder, m, args[0], args[1], LANES)
        gap = builder.load(_vector_at(context, builder, c, args[3], args[4], LANES), align=8)
        old = builder.load(target, align=8)
        new = _larger(builder, old, builder.add(gap, _splat(builder, args[5], LANES)))
        builder.store(builder.select(_lanes_of(builder, args[2]), new, old), target, align=8)
        return context.get_dummy_value()

    return types.none(m, types.int64, types.int64, c, types.int64, types.int64), codegen


def _renew_banks(
    typingcontext: Any,
    m: Any,
    first: Any,
    banks: Any,
    c: Any,
    gaps: Any,
    t: Any,
    bank: Any,
    at: Any,
) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = _vector_at(context, builder, m, args[0], args[1], LANES)
        gap = builder.load(_vector_at(context, builder, c, args[3], args[4], LANES), align=8)
        old = builder.load(target, align=8)
        new = _larger(builder, old, builder.add(gap, _splat(builder, args[5], LANES)))
        new = builder.select(_lanes_of(builder, args[2]), new, old)
        chosen = builder.icmp_signed("==", _splat(builder, args[6], LANES), _iota(LANES))
        new = builder.select(chosen, _splat(builder, args[7], LANES), new)
        builder.store(new, target, align=8)
        return context.get_dummy_value()

    i = types.int64
    return types.none(m, i, i, c, i, i, i, i), codegen


def _set_bank(typingcontext: Any, m: Any, first: Any, bank: Any, at: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target = _vector_at(context, builder, m, args[0], args[1], LANES)
        chosen = builder.icmp_signed("==", _splat(builder, args[2], LANES), _iota(LANES))
        old = builder.load(target, align=8)
        new = builder.select(chosen, _splat(builder, args[3], LANES), old)
        builder.store(new, target, align=8)
        return context.get_dummy_value()

    return types.none(m, types.int64, types.int64, types.int64), codegen


def _first_of_banks(
    typingcontext: Any, m: Any, first: Any, banks: Any, after: Any, t: Any, bits: Any
) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at = builder.load(_vector_at(context, builder, m, args[0], args[1], LANES), align=8)
        at = _larger(builder, at, _splat(builder, args[4], LANES))
        turn = builder.sub(_iota(LANES), _splat(builder, args[3], LANES))
        turn = builder.and_(turn, _splat(builder, _I64(WORD - 1), LANES))
        key = builder.or_(builder.shl(at, _splat(builder, args[5], LANES)), turn)
        never = _splat(builder, _I64((1 << 63) - 1), LANES)
        key = builder.select(_lanes_of(builder, args[2]), key, never)
        count = LANES
        while count > 1:
            count //= 2
            unset = ir.Constant(key.type, ir.Undefined)
            low, high = (
                ir.Constant(ir.VectorType(_I32, count), list(range(begin, begin + count)))
                for begin in (0, count)
            )
            key = _smaller(
                builder,
                builder.shuffle_vector(key, unset, low),
                builder.shuffle_vector(key, unset, high),
            )
        return builder.extract_element(key, _I32(0))

    signature = types.int64(m, types.int64, types.int64, types.int64, types.int64, types.int64)
    return signature, codegen


lowest = cast("Callable[[int], int]", intrinsic(_lowest))
"""Index of the lowest bit of a mask that is not zero."""

rotated = cast("Callable[[int, int], int]", intrinsic(_rotated))
"""A mask with the bit at the second argument (1 to 64) moved to 0 and the others after it."""

delay_all, delay_few = _delay(MAX_GROUPS), _delay(FEW_GROUPS)

delay_banks = cast("Callable[[I64, int, int, I64, int, int], None]", intrinsic(_delay_banks))
"""Delay those of `LANES` banks that a mask names to `t` plus the gaps."""

renew_banks = cast(
    "Callable[[I64, int, int, I64, int, int, int, int], None]", intrinsic(_renew_banks)
)
"""Both in one: delay those of `LANES` banks that a mask names, and set one."""

set_bank = cast("Callable[[I64, int, int, int], None]", intrinsic(_set_bank))
"""Set one of `LANES` banks; read together later, they must be written together."""

first_of_banks = cast("Callable[[I64, int, int, int, int, int], int]", intrinsic(_first_of_banks))
"""The least of cycle, `t` at least, and turn, in one number, of the banks that a mask names."""
