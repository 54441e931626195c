"""Operations on bit masks and on the gates of the DRAM controller that Numba has no words for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from lepton.simulator.dram_timing import MAX_GROUPS, NEVER

__all__ = ["FEW_BANKS", "FEW_GROUPS", "TURN_BITS", "delay_all", "delay_few", "lowest", "renew_few"]
__all__ += ["renew_many", "rotated"]

I64 = NDArray[np.int64]
Delay = Callable[[I64, int, I64, int, int], None]
Renew = Callable[[I64, int, int, I64, int, int, int, int, int, int], int]

WORD = 64
TURN_BITS = 6
"""Bits of a bank's place in the order of turns."""
FEW_GROUPS = 4
"""Bank groups of most DRAMs: their gates fit in one vector."""
FEW_BANKS = 16
"""Banks of most DRAMs' channels."""
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


def _later(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _sooner(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def _lanes_of(builder: Any, mask: Any, count: int) -> Any:
    """Return the low bits of a mask, one per lane."""
    bits = builder.trunc(mask, ir.IntType(count))
    return builder.bitcast(bits, ir.VectorType(ir.IntType(1), count))


def _least(builder: Any, vector: Any, count: int) -> Any:
    """Return the least element; halves are compared, as wide as they are."""
    while count > 1:
        count //= 2
        unset, half = ir.Constant(vector.type, ir.Undefined), ir.VectorType(_I32, count)
        low, high = (
            builder.shuffle_vector(
                vector, unset, ir.Constant(half, list(range(first, first + count)))
            )
            for first in (0, count)
        )
        vector = _sooner(builder, low, high)
    return builder.extract_element(vector, _I32(0))


def _delay(count: int) -> Delay:
    """Return a kernel that delays `count` gates from `gate` on to `t` plus the gaps there."""

    def delay(typingcontext: Any, m: Any, gate: Any, c: Any, gaps: Any, t: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            target = _vector_at(context, builder, m, args[0], args[1], count)
            gap = builder.load(_vector_at(context, builder, c, args[2], args[3], count), align=8)
            new = builder.add(gap, _splat(builder, args[4], count))
            builder.store(_later(builder, builder.load(target, align=8), new), target, align=8)
            return context.get_dummy_value()

        return types.none(m, types.int64, c, types.int64, types.int64), codegen

    return cast(Delay, intrinsic(delay))


def _first_key(builder: Any, cycles: Any, bank: Any, banks: Any, then: Any, count: int) -> Any:
    """Return the least of cycle, `then` at least, and turn after `bank`, in one number."""
    turns = builder.sub(ir.Constant(cycles.type, list(range(-1, count - 1))), bank)
    turns = builder.and_(turns, _splat(builder, _I64((1 << TURN_BITS) - 1), count))
    cycles = _later(builder, cycles, _splat(builder, then, count))
    keys = builder.or_(builder.shl(cycles, _splat(builder, _I64(TURN_BITS), count)), turns)
    none = _splat(builder, _I64((1 << (WORD - 1)) - 1), count)
    return _least(builder, builder.select(banks, keys, none), count)


def _renew(count: int) -> Renew:
    """Return a kernel that delays `count` banks, sets one of them and finds the first other.

    Their cycles are loaded and stored whole: a store of one would hold up the next load of all.
    """

    def renew(
        typingcontext: Any, m: Any, first: Any, banks: Any, c: Any, gaps: Any, t: Any,
        bank: Any, at: Any, allowed: Any, then: Any,
    ) -> Any:  # fmt: skip
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values, first, banks, gap_values, gaps, t, bank, at, allowed, then = args
            target = _vector_at(context, builder, m, values, first, count)
            gap = builder.load(_vector_at(context, builder, c, gap_values, gaps, count), align=8)
            delayed = builder.add(gap, _splat(builder, t, count))
            never = _splat(builder, _I64(NEVER), count)
            delayed = builder.select(_lanes_of(builder, banks, count), delayed, never)
            cycles = _later(builder, builder.load(target, align=8), delayed)
            lanes = ir.Constant(cycles.type, list(range(count)))
            bank = _splat(builder, bank, count)
            own = builder.icmp_signed("==", bank, lanes)
            builder.store(builder.select(own, _splat(builder, at, count), cycles), target, align=8)
            others = builder.and_(_lanes_of(builder, allowed, count), builder.not_(own))
            return _first_key(builder, cycles, bank, others, then, count)

        return types.int64(m, *[types.int64] * 2, c, *[types.int64] * 6), codegen

    return cast(Renew, intrinsic(renew))


lowest = cast("Callable[[int], int]", intrinsic(_lowest))
"""Index of the lowest bit of a mask that is not zero."""

rotated = cast("Callable[[int, int], int]", intrinsic(_rotated))
"""A mask with the bit at the second argument (1 to 64) moved to 0 and the others after it."""

delay_all, delay_few = _delay(MAX_GROUPS), _delay(FEW_GROUPS)

renew_few, renew_many = _renew(FEW_BANKS), _renew(2 * FEW_BANKS)
"""Renew the earliest cycles of `FEW_BANKS` banks, or twice as many, from `first` on.

Delay those of a mask to `t` plus the gaps there, set that of `bank`, counted from `first`, to `at`,
and return the least of cycle, `then` at least, and turn after `bank`, in one number, of the others
that are allowed.
"""
