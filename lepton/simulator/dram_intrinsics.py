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

__all__ = ["CYCLE_SHIFT", "FEW_BANKS", "FEW_GROUPS", "KIND_BITS", "KIND_MASK", "TURN_MASK"]
__all__ += [
    "count_of",
    "delay_all",
    "delay_few",
    "key_at",
    "length_of",
    "likely",
    "unlikely",
    "lowest",
    "put_few",
]
__all__ += ["put_many", "renew_few", "renew_many", "rotated", "search_few", "search_many"]

I64 = NDArray[np.int64]
Delay = Callable[[I64, int, I64, int, int], None]
Put = Callable[[I64, int, int, int], None]
Search = Callable[[I64, int, int, int], int]
Renew = Callable[[I64, int, I64, int, int, int, int, int, int, int], int]

WORD = 64
TURN_BITS = 6
"""Bits of a bank's place in the order of turns, or of its number."""
TURN_MASK = (1 << TURN_BITS) - 1
KIND_BITS = 3
"""Bits of a kind of command, the lowest of a key: cycle, turn, kind."""
KIND_MASK = (1 << KIND_BITS) - 1
CYCLE_SHIFT = TURN_BITS + KIND_BITS
"""Where the cycle is in a key."""
FEW_GROUPS = 8
"""Bank groups of most DRAMs' channels: their gates fit in one vector."""
FEW_BANKS = 16
"""Banks of most DRAMs' channels."""
_I32, _I64 = ir.IntType(32), ir.IntType(WORD)


def _lowest(typingcontext: Any, mask: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


def _length_of(typingcontext: Any, mask: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zeros = builder.ctlz(args[0], ir.Constant(ir.IntType(1), 0))
        return builder.sub(_I64(WORD), zeros)

    return types.int64(types.int64), codegen


def _count_of(typingcontext: Any, mask: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.int64), codegen


def _rotated(typingcontext: Any, mask: Any, by: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        right = builder.and_(args[1], _I64(WORD - 1))
        left = builder.and_(builder.neg(right), _I64(WORD - 1))
        return builder.or_(builder.lshr(args[0], right), builder.shl(args[0], left))

    return types.int64(types.int64, types.int64), codegen


def _expected(truth: int) -> Any:
    """Return a function that tells the compiler what a condition most often is."""

    def expected(typingcontext: Any, condition: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            bit = ir.IntType(1)
            expect = builder.module.declare_intrinsic(
                "llvm.expect", [bit], ir.FunctionType(bit, [bit, bit])
            )
            return builder.call(expect, [args[0], ir.Constant(bit, truth)])

        return types.boolean(types.boolean), codegen

    return intrinsic(expected)


def _splat(builder: Any, scalar: Any, count: int) -> Any:
    """Return a vector of `count` times the same."""
    unset = ir.Constant(ir.VectorType(scalar.type, count), ir.Undefined)
    zeros = ir.Constant(ir.VectorType(_I32, count), None)
    return builder.shuffle_vector(builder.insert_element(unset, scalar, _I32(0)), unset, zeros)


def _pointer(context: Any, builder: Any, array: Any, value: Any, first: Any, to: Any) -> Any:
    """Return a pointer to an element of an array, of a type and value, as one `to` a type."""
    struct = context.make_array(array)(context, builder, value)
    return builder.bitcast(builder.gep(struct.data, [first]), to.as_pointer())


def _later(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _sooner(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


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
    vector = ir.VectorType(_I64, count)

    def delay(typingcontext: Any, m: Any, gate: Any, c: Any, gaps: Any, t: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            target = _pointer(context, builder, m, args[0], args[1], vector)
            row = _pointer(context, builder, c, args[2], args[3], vector)
            new = builder.add(builder.load(row, align=8), _splat(builder, args[4], count))
            builder.store(_later(builder, builder.load(target, align=8), new), target, align=8)
            return context.get_dummy_value()

        return types.none(m, types.int64, c, types.int64, types.int64), codegen

    return cast(Delay, intrinsic(delay))


def _key_at(typingcontext: Any, m: Any, first: Any, bank: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        keys = _pointer(context, builder, m, args[0], args[1], _I32)
        return builder.sext(builder.load(builder.gep(keys, [args[2]]), align=4), _I64)

    return types.int64(m, types.int64, types.int64), codegen


class _Banks:
    """Code on the keys of `count` banks, 32 bits each, which are loaded and stored whole.

    A store of one would hold up the next load of all.
    """

    def __init__(self, context: Any, builder: Any, count: int) -> None:
        self.context, self.builder, self.count = context, builder, count
        self.vector = ir.VectorType(_I32, count)

    def at(self, array: Any, value: Any, first: Any) -> Any:
        """Return a pointer to the keys from an element of an array on."""
        return _pointer(self.context, self.builder, array, value, first, self.vector)

    def load(self, pointer: Any) -> Any:
        """Return the keys, or gaps, at a pointer."""
        return self.builder.load(pointer, align=4)

    def all(self, scalar: Any) -> Any:
        """Return as many of one number, of 64 bits or known now."""
        if isinstance(scalar, int):
            return ir.Constant(self.vector, [scalar] * self.count)
        return _splat(self.builder, self.builder.trunc(scalar, _I32), self.count)

    def own(self, bank: Any) -> Any:
        """Return which one is the bank of a number."""
        lanes = ir.Constant(self.vector, list(range(self.count)))
        return self.builder.icmp_signed("==", lanes, self.all(bank))

    def kinds(self, keys: Any) -> Any:
        """Return the kinds of command in keys."""
        return self.builder.and_(keys, self.all(KIND_MASK))

    def delayed(self, keys: Any, gaps: Any, by: Any) -> Any:
        """Return keys delayed to a command plus gaps, where they are of its kind."""
        then = self.all(by)
        same = self.builder.icmp_signed("==", self.kinds(keys), self.kinds(then))
        later = _later(self.builder, keys, self.builder.add(gaps, then))
        return self.builder.select(same, later, keys)

    def turns(self, bank: Any) -> Any:
        """Return each bank's place, in a key, in the order of turns after `bank`."""
        lanes = ir.Constant(self.vector, [lane << KIND_BITS for lane in range(-1, self.count - 1)])
        turns = self.builder.sub(lanes, self.all(self.builder.shl(bank, _I64(KIND_BITS))))
        return self.builder.and_(turns, self.all(TURN_MASK << KIND_BITS))

    def first(self, keys: Any, bank: Any, then: Any) -> Any:
        """Return the least key, of cycle `then` at least, with its turn after `bank`."""
        now = self.builder.or_(self.kinds(keys), self.all(then))
        keys = self.builder.or_(_later(self.builder, keys, now), self.turns(bank))
        return self.builder.sext(_least(self.builder, keys, self.count), _I64)

    def replaced(self, keys: Any, bank: Any, own: Any) -> Any:
        """Return keys, that of a bank replaced."""
        return self.builder.select(self.own(bank), self.all(own), keys)


def _put(count: int) -> Put:
    """Return a kernel that sets the key of one of `count` banks."""

    def put(typingcontext: Any, m: Any, first: Any, bank: Any, own: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            code = _Banks(context, builder, count)
            target = code.at(m, args[0], args[1])
            builder.store(code.replaced(code.load(target), args[2], args[3]), target, align=4)
            return context.get_dummy_value()

        return types.none(m, *[types.int64] * 3), codegen

    return cast(Put, intrinsic(put))


def _search(count: int) -> Search:
    """Return a kernel that finds the first of `count` banks."""

    def search(typingcontext: Any, m: Any, first: Any, bank: Any, then: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            code = _Banks(context, builder, count)
            keys = code.load(code.at(m, args[0], args[1]))
            return code.first(keys, args[2], args[3])

        return types.int64(m, *[types.int64] * 3), codegen

    return cast(Search, intrinsic(search))


def _renew(count: int) -> Renew:
    """Return a kernel that delays `count` banks, sets one of them and finds the first."""

    def renew(
        typingcontext: Any, m: Any, first: Any, c: Any, gaps: Any, command: Any,
        other_gaps: Any, other: Any, bank: Any, own: Any, then: Any,
    ) -> Any:  # fmt: skip
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values, first, gap_values, gaps, command, other_gaps, other, bank, own, then = args
            code = _Banks(context, builder, count)
            target = code.at(m, values, first)
            keys = code.load(target)
            for start, by in ((gaps, command), (other_gaps, other)):
                keys = code.delayed(keys, code.load(code.at(c, gap_values, start)), by)
            keys = code.replaced(keys, bank, own)
            builder.store(keys, target, align=4)
            return code.first(keys, bank, then)

        return types.int64(m, types.int64, c, *[types.int64] * 7), codegen

    return cast(Renew, intrinsic(renew))


likely = cast("Callable[[bool], bool]", _expected(1))
"""A condition that mostly holds: the code for it lies in a straight line."""

unlikely = cast("Callable[[bool], bool]", _expected(0))
"""A condition that seldom holds: the code for it lies out of the way."""

lowest = cast("Callable[[int], int]", intrinsic(_lowest))
"""Index of the lowest bit of a mask that is not zero."""

key_at = cast("Callable[[I64, int, int], int]", intrinsic(_key_at))
"""The key of a bank, counted from the first one's place."""

length_of = cast("Callable[[int], int]", intrinsic(_length_of))
"""Number of bits up to the highest that is set."""

count_of = cast("Callable[[int], int]", intrinsic(_count_of))
"""Number of bits of a mask that are set."""

rotated = cast("Callable[[int, int], int]", intrinsic(_rotated))
"""A mask with the bit at the second argument (1 to 64) moved to 0 and the others after it."""

delay_all, delay_few = _delay(MAX_GROUPS), _delay(FEW_GROUPS)

renew_few, renew_many = _renew(FEW_BANKS), _renew(2 * FEW_BANKS)
"""Renew `FEW_BANKS` banks, or twice as many, from `first` on, for a command that is issued.

Delay those of two kinds, each to a key of a command plus the gaps there; set that of `bank`,
counted from `first`, to `own`; return the least key, of cycle `then` at least, with its turn.
"""

put_few, put_many = _put(FEW_BANKS), _put(2 * FEW_BANKS)
"""Set the bank of a number, counted from the first."""

search_few, search_many = _search(FEW_BANKS), _search(2 * FEW_BANKS)
"""Return the least key, of a cycle at least, with its turn after a bank."""
