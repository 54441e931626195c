"""A weight stream expanded bit by bit, from the manual's section about `weights`."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["elements_with_bits", "expanded"]


class _Bits:
    """Bits of bytes, each byte's lowest first."""

    def __init__(self, content: Sequence[int]) -> None:
        self._bits = [byte >> k & 1 for byte in content for k in range(8)]
        self._at = 0

    def take(self, count: int) -> int:
        assert self._at + count <= len(self._bits), "the stream ends early"
        self._at += count
        return sum(bit << k for k, bit in enumerate(self._bits[self._at - count : self._at]))

    def end(self) -> None:
        assert len(self._bits) - self._at < 8
        assert not any(self._bits[self._at :])


def _symbols(bits: _Bits, size: int) -> list[int]:
    """Return the symbols of a group."""
    code = bits.take(4)
    if code <= 8:
        return [bits.take(code) for _ in range(size)]
    mask = [bits.take(1) for _ in range(size)]
    return [bits.take(code - 7) + 1 if present else 0 for present in mask]


FIRST = [0, 1, 3, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193]
EXTRA = [0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
COUNTS = [0, 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]


def _counts(bits: _Bits, symbols: int) -> list[int]:
    """Return the counts of the buckets of a stream with so many symbols."""
    buckets = [b for b in range(15) if FIRST[b] < symbols]
    most = bits.take(4)
    counts = [COUNTS[bits.take(4)] if b != most else 0 for b in buckets]
    counts[most] = 1024 - sum(counts)
    assert counts[most] >= 1
    return counts


def _entropy_symbols(bits: _Bits, lanes: int, tail: int, symbols: int, size: int) -> list[int]:
    """Return the symbols of an entropy-coded stream behind its header."""
    counts = _counts(bits, symbols)
    states = [4096 + bits.take(12) for _ in range(lanes)]
    found: list[int] = []
    for i in range(size):
        x = states[i % lanes]
        bucket, start = 0, 0
        while x % 1024 >= start + counts[bucket]:
            start += counts[bucket]
            bucket += 1
        x = counts[bucket] * (x // 1024) + x % 1024 - start
        width = 0
        while i < size - tail * lanes and x * 2**width < 4096:
            width += 1
        states[i % lanes] = x * 2**width + bits.take(width)
        found.append(FIRST[bucket] + bits.take(EXTRA[bucket]))
    return found


def expanded(content: Sequence[int], format: int, size: int) -> list[int]:
    """Return the bytes of a block."""
    if format == 0:
        return list(content)
    bits = _Bits(content)
    level, rest = bits.take(3), bits.take(5)
    is_palette = format in (2, 4)
    palette = [bits.take(8) for _ in range(rest + 1 if is_palette else 1)]
    has_gap = format == 3 and rest % 2 == 1
    gap = bits.take(8) if has_gap else 0
    assert is_palette or format == 3 or rest == 0
    assert not has_gap or 1 <= gap <= 127
    symbols: list[int] = []
    if format > 2:
        count = len(palette) if is_palette else 256 - 2 * gap
        tail = 1 if is_palette else rest // 2 + 1
        symbols = _entropy_symbols(bits, 1 << level, tail, count, size)
    while len(symbols) < size:
        symbols += _symbols(bits, min(8 << level, size - len(symbols)))
    bits.end()
    if is_palette:
        return [palette[symbol] for symbol in symbols]
    wide = [symbol + 2 * gap if symbol else 0 for symbol in symbols]
    distances = [-(s + 1) // 2 if s % 2 else s // 2 for s in wide]
    return [(palette[0] + distance) % 256 for distance in distances]


def elements_with_bits(content: Sequence[int], format: int, size: int) -> int:
    """Return the elements of a `grouped` or `palette` block with a symbol of at least one bit."""
    bits = _Bits(content)
    level, rest = bits.take(3), bits.take(5)
    bits.take(8 * (rest + 1 if format == 2 else 1))
    left, found = size, 0
    while left > 0:
        group = min(8 << level, left)
        left -= group
        code = bits.take(4)
        coded = group if code <= 8 else sum(bits.take(1) for _ in range(group))
        width = code if code <= 8 else code - 7
        bits.take(coded * width)
        found += coded if width else 0
    bits.end()
    return found
