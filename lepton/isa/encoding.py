"""Bytes to instructions and back, and the record array that kernels read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lepton.errors import EncodingError
from lepton.isa.declaration import BY_MNEMONIC, REGISTRY, WORD_BYTES, Instruction

__all__ = [
    "COLUMNS",
    "decode",
    "decode_all",
    "encode_all",
    "encode_table",
    "records",
    "records_of",
    "with_semaphores",
]


def decode(word: bytes, offset: int = 0) -> Instruction:
    """Return the instruction that `word` encodes.

    Args:
        word: exactly `WORD_BYTES` bytes.
        offset: where the word starts in its file, for the error text.

    Raises:
        EncodingError: an unknown opcode, a field out of its range, or a bit set that no field owns.
    """
    if len(word) != WORD_BYTES:
        raise EncodingError(
            f"offset {offset:#x}: an instruction has {WORD_BYTES} bytes, not {len(word)}"
        )
    value = int.from_bytes(word, "little")
    cls = REGISTRY.get(value & 0xFF)
    if cls is None:
        raise EncodingError(f"offset {offset:#x}: no instruction has opcode {value & 0xFF:#04x}")
    last = cls.fields[-1]
    if value >> (last.offset + last.bits):
        raise EncodingError(f"offset {offset:#x}: {cls.mnemonic} has bits set beyond its fields")
    values: dict[str, int] = {}
    for field in cls.fields:
        raw = (value >> field.offset) & ((1 << field.bits) - 1)
        if field.signed and raw >> (field.bits - 1):
            raw -= 1 << field.bits
        values[field.name] = raw
    try:
        return cls(**values)
    except EncodingError as error:
        raise EncodingError(f"offset {offset:#x}: {error}") from None


def decode_all(stream: bytes) -> list[Instruction]:
    """Decode a whole stream; a trailing partial word is an error that names its offset."""
    return [
        decode(stream[start : start + WORD_BYTES], start)
        for start in range(0, len(stream), WORD_BYTES)
    ]


def encode_all(instructions: Iterable[Instruction]) -> bytes:
    """Return the bytes of a sequence of instructions."""
    return b"".join(instruction.encode() for instruction in instructions)


def with_semaphores(stream: bytes, waits: Sequence[int], signals: Sequence[int]) -> bytes:
    """Return a stream of instructions that neither wait nor signal with the semaphores put in."""
    words = np.frombuffer(stream, "<u8").reshape(-1, WORD_BYTES // 8).copy()
    # in all instructions these two come first
    header = BY_MNEMONIC["halt"].fields[:2]
    for field, values in zip(header, (waits, signals), strict=True):
        place, shift = divmod(field.offset, 64)
        words[:, place] |= np.array(values, np.uint64) << np.uint64(shift)
    return words.tobytes()


def _column_names() -> tuple[str, ...]:
    """Return the names of all fields of all instructions, each once, opcode first."""
    names = ["opcode"]
    for opcode in sorted(REGISTRY):
        for field in REGISTRY[opcode].fields:
            if field.name not in names:
                names.append(field.name)
    return tuple(names)


COLUMNS: dict[str, int] = {name: index for index, name in enumerate(_column_names())}
"""Column of each field in the array that `records` returns."""


def records(instructions: Iterable[Instruction]) -> NDArray[np.int64]:
    """Return what `records_of` returns for the bytes of some instructions."""
    return records_of(encode_all(instructions))


@cache
def _fields() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all fields as `lepton.isa.decode_kernel` takes them: offsets by opcode, and rows."""
    first = np.zeros(257, np.int64)
    rows: list[tuple[int, ...]] = []
    for opcode in range(256):
        cls = REGISTRY.get(opcode)
        for field in cls.fields if cls else ():
            mask = -1 if field.signed or field.bits == 64 else (1 << field.bits) - 1
            rows.append((COLUMNS[field.name], *divmod(field.offset, 64), field.bits, mask))
        first[opcode + 1] = len(rows)
    return first, np.array(rows, np.int64)


def records_of(stream: bytes) -> NDArray[np.int64]:
    """Return a legal stream as `[n, len(COLUMNS)] int64`.

    One row per instruction, 0 where it has no such field.
    """
    from lepton.isa.decode_kernel import fill_table

    words = np.frombuffer(stream, "<i8").reshape(-1, WORD_BYTES // 8)
    table = np.zeros((len(words), len(COLUMNS)), np.int64)
    fill_table(words, *_fields(), table)
    return table


def encode_table(table: NDArray[np.int64]) -> bytes:
    """Return the stream whose `records_of` are given; every field must be in its range."""
    words = np.zeros((len(table), WORD_BYTES // 8), np.uint64)
    words[:, 0] = table[:, 0]
    first, fields = _fields()
    for opcode in np.unique(table[:, 0]).tolist():
        rows = np.flatnonzero(table[:, 0] == opcode)
        for column, place, shift, bits, _ in fields[first[opcode] : first[opcode + 1]].tolist():
            value = table[rows, column].astype(np.uint64) & np.uint64((1 << bits) - 1)
            words[rows, place] |= value << np.uint64(shift)
            if shift + bits > 64:
                words[rows, place + 1] |= value >> np.uint64(64 - shift)
    return words.tobytes()
