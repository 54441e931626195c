"""Parameter records: how the vector unit's constants lie in the scratchpad.

A record is a NamedTuple of int and float32 fields, nested ones flattened, packed as 32-bit
little-endian words in the order of declaration; int32 and float32 arrays of a fixed length may
take the first place.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from lepton.arith.onnx import SoftmaxParams
from lepton.arith.onnx_float import Quantization

__all__ = ["RequantizeTable", "pack", "pack_linear", "pack_requantize", "pack_softmax_table"]
__all__ += ["unpack", "unpack_linear", "unpack_requantize", "unpack_softmax_table"]


def _words(value: object) -> bytes:
    """Return the words of one field."""
    if isinstance(value, tuple):
        return b"".join(_words(item) for item in cast(tuple[object, ...], value))
    if isinstance(value, np.floating | float):
        return struct.pack("<f", float(value))
    return struct.pack("<i", int(cast(int, value)))


def pack(record: tuple[Any, ...], size_bytes: int) -> NDArray[np.uint8]:
    """Return the words of a NamedTuple, zero-filled to `size_bytes`."""
    words = _words(record)
    return np.frombuffer(words.ljust(size_bytes, b"\0"), np.uint8)


def _take(kind: Any, words: list[bytes]) -> Any:
    """Take the fields of type `kind` off the front of `words`."""
    if hasattr(kind, "__annotations__") and issubclass(kind, tuple):
        import typing

        hints = typing.get_type_hints(kind)
        return kind(*(_take(hint, words) for hint in hints.values()))
    word = words.pop(0)
    if kind is int or kind is bool:
        return kind(struct.unpack("<i", word)[0])
    return np.float32(struct.unpack("<f", word)[0])


def unpack(kind: type[Any], content: NDArray[np.uint8]) -> Any:
    """Return the NamedTuple `kind` that `pack` laid into `content`."""
    raw = content.tobytes()
    return _take(kind, [raw[start : start + 4] for start in range(0, len(raw), 4)])


class RequantizeTable(NamedTuple):
    """Per-channel parameters of `requantize`: all `[channels]`; shift is empty but for Q31."""

    bias: NDArray[np.int32]
    multiplier: NDArray[np.int32] | NDArray[np.float32] | NDArray[np.float64]
    shift: NDArray[np.int8]

    def part(self, start: int, stop: int) -> RequantizeTable:
        """Return the parameters of channels [start, stop)."""
        return RequantizeTable(
            self.bias[start:stop], self.multiplier[start:stop], self.shift[start:stop]
        )


_MULTIPLIERS: tuple[type[Any], ...] = (np.int32, np.float32, np.float64)
"""Type of the multiplier by requantize mode: Q31, FLOAT32, FLOAT64."""


def pack_requantize(table: RequantizeTable) -> NDArray[np.uint8]:
    """Return bias, multiplier, shift as bytes, one array behind the other."""
    parts = [table.bias.tobytes(), table.multiplier.tobytes(), table.shift.tobytes()]
    return np.frombuffer(b"".join(parts), np.uint8)


def unpack_requantize(content: NDArray[np.uint8], channels: int, mode: int) -> RequantizeTable:
    """Return the table that `pack_requantize` laid into `content` for a requantize mode."""
    raw = content.tobytes()
    kind = _MULTIPLIERS[mode]
    shifts = channels if mode == 0 else 0
    behind = (4 + np.dtype(kind).itemsize) * channels
    return RequantizeTable(
        np.frombuffer(raw, np.int32, channels),
        np.frombuffer(raw[4 * channels : behind], kind, channels),
        np.frombuffer(raw[behind:], np.int8, shifts),
    )


def pack_softmax_table(params: SoftmaxParams, size_bytes: int) -> NDArray[np.uint8]:
    """Return the 256 exponentials and the scalars behind them."""
    scalars = pack(tuple(params)[1:], size_bytes - 1024)
    return np.concatenate([params.table.astype(np.float32).view(np.uint8), scalars])


def unpack_softmax_table(content: NDArray[np.uint8]) -> SoftmaxParams:
    """Return the record that `pack_softmax_table` laid into `content`."""
    table = np.frombuffer(content[:1024].tobytes(), np.float32)
    inverse = np.frombuffer(content[1024:1028].tobytes(), np.float32)[0]
    zero_point, lo, hi = np.frombuffer(content[1028:1040].tobytes(), np.int32)
    return SoftmaxParams(table, inverse, int(zero_point), int(lo), int(hi))


Taps = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
"""Lower and upper source index (int32), lower and upper weight (int32 or float32) per output."""


def pack_linear(
    quantizations: tuple[Quantization, Quantization] | None, rows: Taps, columns: Taps
) -> NDArray[np.uint8]:
    """Return the parameters of a linear resize: two quantizations, then rows, then columns."""
    header = b"\0" * 32 if quantizations is None else _words(quantizations)
    arrays = [np.ascontiguousarray(array).tobytes() for array in (*rows, *columns)]
    return np.frombuffer(header + b"".join(arrays), np.uint8)


def unpack_linear(
    content: NDArray[np.uint8], height: int, width: int, is_float: bool
) -> tuple[tuple[Quantization, Quantization], Taps, Taps]:
    """Return the quantizations, row taps and column taps that `pack_linear` laid down."""
    raw = content.tobytes()
    words = [raw[start : start + 4] for start in range(0, 32, 4)]
    quantizations = (_take(Quantization, words), _take(Quantization, words))
    kind = np.float32 if is_float else np.int32
    taps: list[Taps] = []
    offset = 32
    for steps in (height, width):
        ends = [
            np.frombuffer(raw, dtype, steps, offset + 4 * steps * index)
            for index, dtype in enumerate((np.int32, np.int32, kind, kind))
        ]
        taps.append(cast(Taps, tuple(ends)))
        offset += 16 * steps
    return quantizations, taps[0], taps[1]
