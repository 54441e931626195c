"""Tiles of exact int8 products by the CPU's dot-product instruction, where it has one.

One instruction (VPDPBUSD of AVX-512 VNNI) adds to each of 16 int32 lanes four products of an
unsigned and a signed byte, without saturation. Numba has no words for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

__all__ = ["DEPTH", "LANES", "TILE_ROWS", "dot_16", "dot_32", "dot_64", "has_dot"]

Tile = Callable[[int, int, int, int, int, int], None]

LANES = 16
"""Columns of one vector of sums."""

DEPTH = 4
"""Products that one instruction adds to a sum."""

TILE_ROWS = 6
"""Rows of a tile: with four vectors of columns its sums fill 24 of the 32 registers."""

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_SUMS = ir.VectorType(_I32, LANES)
_NAME = "llvm.x86.avx512.vpdpbusd.512"


@cache
def has_dot() -> bool:
    """Return whether this CPU has the instruction; without it the tiles do not compile."""
    features = binding.get_host_cpu_features()
    return bool(features.get("avx512f")) and bool(features.get("avx512vnni"))


def _vector(builder: Any, base: Any, *offsets: Any) -> Any:
    """Return a pointer to a vector of sums, some bytes behind an address."""
    for offset in offsets:
        base = builder.add(base, offset)
    return builder.inttoptr(base, _SUMS.as_pointer())


def _broadcast(builder: Any, address: Any) -> Any:
    """Return the four bytes at an address in every lane."""
    word = builder.load(builder.inttoptr(address, _I32.as_pointer()), align=1)
    unset = ir.Constant(_SUMS, ir.Undefined)
    first = builder.insert_element(unset, word, _I32(0))
    return builder.shuffle_vector(first, unset, ir.Constant(_SUMS, None))


def _dot(vectors: int) -> Tile:
    """Return a kernel that multiplies `TILE_ROWS` rows by `vectors` panels of columns.

    Its arguments are addresses and counts: rows of unsigned bytes and their pitch, panels
    `[steps, LANES, DEPTH] int8` and their pitch, steps, the sums
    `[TILE_ROWS, vectors * LANES] int32`.
    """

    def dot(
        typingcontext: Any, rows: Any, row_pitch: Any, panels: Any, panel_pitch: Any, steps: Any,
        sums: Any,
    ) -> Any:  # fmt: skip
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, x_pitch, w, w_pitch, count, out = args
            add = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_SUMS, [_SUMS] * 3), _NAME
            )
            places = [(row, vector) for row in range(TILE_ROWS) for vector in range(vectors)]
            totals = {place: cgutils.alloca_once(builder, _SUMS) for place in places}
            for total in totals.values():
                builder.store(ir.Constant(_SUMS, None), total)
            with cgutils.for_range(builder, count) as loop:
                step = builder.mul(loop.index, _I64(LANES * DEPTH))
                weights = [
                    builder.load(
                        _vector(builder, w, builder.mul(w_pitch, _I64(vector)), step), align=1
                    )
                    for vector in range(vectors)
                ]
                along = builder.add(x, builder.mul(loop.index, _I64(DEPTH)))
                for row in range(TILE_ROWS):
                    address = builder.add(along, builder.mul(x_pitch, _I64(row)))
                    operand = _broadcast(builder, address)
                    for vector in range(vectors):
                        total = totals[row, vector]
                        parts = [builder.load(total), operand, weights[vector]]
                        builder.store(builder.call(add, parts), total)
            for number, place in enumerate(places):
                target = _vector(builder, out, _I64(number * LANES * 4))
                builder.store(builder.load(totals[place]), target, align=1)
            return context.get_dummy_value()

        return types.none(*[types.int64] * 6), codegen

    return cast(Tile, intrinsic(dot))


dot_16, dot_32, dot_64 = _dot(1), _dot(2), _dot(4)
