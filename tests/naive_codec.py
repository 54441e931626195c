"""A weight stream expanded bit by bit, from the manual's section about `weights`."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["expanded"]


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


def expanded(content: Sequence[int], format: int, size: int) -> list[int]:
    """Return the bytes of a block."""
    if format == 0:
        return list(content)
    bits = _Bits(content)
    group, rest = 8 << bits.take(3), bits.take(5)
    palette = [bits.take(8) for _ in range(rest + 1)]
    symbols: list[int] = []
    while len(symbols) < size:
        symbols += _symbols(bits, min(group, size - len(symbols)))
    bits.end()
    if format == 2:
        return [palette[symbol] for symbol in symbols]
    distances = [-(s + 1) // 2 if s % 2 else s // 2 for s in symbols]
    return [(palette[0] + distance) % 256 for distance in distances]
