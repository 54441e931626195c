"""Tiles of exact int8 products, four to a lane and step.

A step adds to each of 16 int32 lanes four products of an unsigned and a signed byte. A CPU with
AVX-512 VNNI does it in one instruction (VPDPBUSD, without saturation); for another it is written
with products of 16-bit halves, which LLVM turns into what the CPU has. Numba has no words for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import binding, ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic

__all__ = ["DEPTH", "LANES", "MOST_VECTORS", "TILE_ROWS", "dot_16", "dot_32", "dot_64"]
__all__ += ["dot_tile", "has_dot", "pack_panel"]

Tile = Callable[[int, int, int, int, int, int], None]

LANES = 16
"""Columns of one vector of sums."""

DEPTH = 4
"""Products that one instruction adds to a sum."""

TILE_ROWS = 6
"""Rows of a tile."""

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_SUMS = ir.VectorType(_I32, LANES)
_NAME = "llvm.x86.avx512.vpdpbusd.512"


def has_dot() -> bool:
    """Return whether the CPU that Numba compiles for, if it is this one, has the instruction."""
    if config.CPU_NAME is not None or config.CPU_FEATURES is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return False
    features = binding.get_host_cpu_features()
    return bool(features.get("avx512f")) and bool(features.get("avx512vnni"))


_IS_NATIVE = has_dot()

MOST_VECTORS = 4 if _IS_NATIVE else 1
"""Vectors of columns of the widest tile whose sums stay in registers: 24 of 32, or of half size."""


def _vector(builder: Any, base: Any, *offsets: Any) -> Any:
    """Return a pointer to a vector of sums, some bytes behind an address."""
    for offset in offsets:
        base = builder.add(base, offset)
    return builder.inttoptr(base, _SUMS.as_pointer())


def _broadcast(builder: Any, address: Any) -> Any:
    """Return the four bytes at an address in every lane."""
    return _broadcast_word(
        builder, builder.load(builder.inttoptr(address, _I32.as_pointer()), align=1)
    )


def _broadcast_word(builder: Any, word: Any) -> Any:
    """Return a word in every lane."""
    unset = ir.Constant(_SUMS, ir.Undefined)
    first = builder.insert_element(unset, word, _I32(0))
    return builder.shuffle_vector(first, unset, ir.Constant(_SUMS, None))


def _halves(builder: Any, words: Any, shift: Any) -> list[Any]:
    """Return the even and the odd bytes of each word, widened to 16 bits by a right shift."""
    halves = ir.VectorType(ir.IntType(16), 2 * LANES)
    eight = ir.Constant(halves, [8] * 2 * LANES)
    whole = builder.bitcast(words, halves)
    return [shift(builder.shl(whole, eight), eight), shift(whole, eight)]


def _paired(builder: Any, a: Any, b: Any) -> Any:
    """Return the sums of two products each of 16-bit numbers."""
    wide = ir.VectorType(_I32, 2 * LANES)
    products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    parts = [
        builder.shuffle_vector(
            products, products, ir.Constant(_SUMS, list(range(first, 2 * LANES, 2)))
        )
        for first in (0, 1)
    ]
    return builder.add(*parts)


def _step(builder: Any, is_native: bool, total: Any, x: Any, w: Any) -> Any:
    """Return a total and four products per lane of unsigned bytes `x` and signed bytes `w`."""
    if is_native:
        kind = ir.FunctionType(_SUMS, [_SUMS] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, _NAME)
        return builder.call(function, [total, x, w])
    unsigned = _halves(builder, x, builder.lshr)
    signed = _halves(builder, w, builder.ashr)
    for pair in zip(unsigned, signed, strict=True):
        total = builder.add(total, _paired(builder, *pair))
    return total


def dot_tile(vectors: int, is_native: bool) -> Tile:
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
                        parts = (builder.load(total), operand, weights[vector])
                        builder.store(_step(builder, is_native, *parts), total)
            for number, place in enumerate(places):
                target = _vector(builder, out, _I64(number * LANES * 4))
                builder.store(builder.load(totals[place]), target, align=1)
            return context.get_dummy_value()

        return types.none(*[types.int64] * 6), codegen

    return cast(Tile, intrinsic(dot))


def _interleaved(builder: Any, rows: list[Any]) -> Any:
    """Return a vector of four rows of bytes, column by column."""

    def joined(a: Any, b: Any, order: list[int]) -> Any:
        mask = ir.Constant(ir.VectorType(_I32, len(order)), order)
        return builder.shuffle_vector(a, b, mask)

    both = list(range(2 * LANES))
    upper, lower = joined(rows[0], rows[1], both), joined(rows[2], rows[3], both)
    return joined(upper, lower, [row * LANES + n for n in range(LANES) for row in range(DEPTH)])


def _pack_panel(
    typingcontext: Any, rows: Any, row_pitch: Any, steps: Any, flip: Any, panel: Any, sums: Any
) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, pitch, count, turned, target, out = args
        bytes_ = ir.VectorType(ir.IntType(8), LANES)
        total = cgutils.alloca_once(builder, _SUMS)
        builder.store(ir.Constant(_SUMS, None), total)
        ones = ir.Constant(_SUMS, [0x01010101] * LANES)
        flips = _broadcast_word(builder, builder.mul(builder.trunc(turned, _I32), _I32(0x01010101)))
        with cgutils.for_range(builder, count) as loop:
            first = builder.add(source, builder.mul(pitch, builder.mul(loop.index, _I64(DEPTH))))
            places = [builder.add(first, builder.mul(pitch, _I64(row))) for row in range(DEPTH)]
            raw = [builder.inttoptr(place, bytes_.as_pointer()) for place in places]
            rows = _interleaved(builder, [builder.load(row, align=1) for row in raw])
            values = builder.xor(builder.bitcast(rows, _SUMS), flips)
            step = builder.mul(loop.index, _I64(LANES * DEPTH))
            builder.store(values, _vector(builder, target, step), align=1)
            builder.store(_step(builder, _IS_NATIVE, builder.load(total), ones, values), total)
        builder.store(builder.load(total), _vector(builder, out), align=1)
        return context.get_dummy_value()

    return types.none(*[types.int64] * 6), codegen


pack_panel = cast(Tile, intrinsic(_pack_panel))
"""Write a panel `[steps, LANES, DEPTH]` of rows of bytes, and the sums of its columns.

The arguments are the address of `[steps * DEPTH, LANES]` bytes and the pitch of its rows, steps,
what each byte is flipped by to be signed, the address of the panel, the address of the sums.
"""

dot_16, dot_32, dot_64 = (dot_tile(vectors, _IS_NATIVE) for vectors in (1, 2, 4))
