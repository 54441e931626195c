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

__all__ = ["FEW_GROUPS", "delay_all", "delay_few", "lowest", "rotated"]

I64 = NDArray[np.int64]
Delay = Callable[[I64, int, I64, int, int], None]

WORD = 64
FEW_GROUPS = 4
"""Bank groups of most DRAMs: their gates fit in one vector."""
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


def _delay(count: int) -> Delay:
    """Return a kernel that delays `count` gates from `gate` on to `t` plus the gaps there."""

    def delay(typingcontext: Any, m: Any, gate: Any, c: Any, gaps: Any, t: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def vector_at(array: int, first: int) -> Any:
                struct = context.make_array(signature.args[array])(context, builder, args[array])
                address = builder.gep(struct.data, [args[first]])
                return builder.bitcast(address, vector.as_pointer())

            vector = ir.VectorType(_I64, count)
            unset = ir.Constant(vector, ir.Undefined)
            zeros = ir.Constant(ir.VectorType(_I32, count), None)
            one = builder.insert_element(unset, args[4], _I32(0))
            times = builder.shuffle_vector(one, unset, zeros)
            target = vector_at(0, 1)
            old = builder.load(target, align=8)
            new = builder.add(builder.load(vector_at(2, 3), align=8), times)
            later = builder.select(builder.icmp_signed(">", old, new), old, new)
            builder.store(later, target, align=8)
            return context.get_dummy_value()

        return types.none(m, types.int64, c, types.int64, types.int64), codegen

    return cast(Delay, intrinsic(delay))


lowest = cast("Callable[[int], int]", intrinsic(_lowest))
"""Index of the lowest bit of a mask that is not zero."""

rotated = cast("Callable[[int, int], int]", intrinsic(_rotated))
"""A mask with the bit at the second argument (1 to 64) moved to 0 and the others after it."""

delay_all, delay_few = _delay(MAX_GROUPS), _delay(FEW_GROUPS)
