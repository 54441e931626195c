"""Packed instruction streams: each word as what differs from an earlier one of the same opcode.

The manual (docs/isa.md) has the format. A word that would not get shorter stays as it is, so an
instruction never takes more than `WORD_BYTES`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lepton.errors import EncodingError
from lepton.isa.declaration import BY_MNEMONIC, OPCODE_BITS, WORD_BYTES

__all__ = ["REFERENCES", "pack", "unpack"]

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]

REFERENCES = 3
"""Earlier words of each opcode that an instruction can refer to."""
_GROUPS = WORD_BYTES // 8
_MASKS = 2 + _GROUPS
"""Bytes of an instruction before those that differ, at most."""
_BITS = tuple(tuple(bit for bit in range(8) if mask >> bit & 1) for mask in range(256))


def pack(words: bytes) -> tuple[bytes, I64]:
    """Return the packed stream of whole words, and where each instruction ends in it.

    Args:
        words: `[n, WORD_BYTES]` bytes; opcodes are below 64.
    """
    word = np.frombuffer(words, np.uint8).reshape(-1, WORD_BYTES)
    least = np.full(len(word), WORD_BYTES)
    out = np.zeros((len(word), _MASKS + WORD_BYTES), np.uint8)
    out[:, _MASKS:] = word
    kept = np.zeros(out.shape, bool)
    kept[:, _MASKS:] = True
    for reference in range(1, REFERENCES + 1):
        differs = word != _earlier(word, reference)
        groups = differs.reshape(-1, _GROUPS, 8)
        changed = groups.any(2)
        size = 2 + changed.sum(1) + differs.sum(1)
        better = size < least
        least[better] = size[better]
        out[better, 0] = word[better, 0] | reference << OPCODE_BITS
        out[better, 1] = np.packbits(changed[better], 1, "little")[:, 0]
        out[better, 2:_MASKS] = np.packbits(groups[better], 2, "little")[:, :, 0]
        kept[better, :2] = True
        kept[better, 2:_MASKS] = changed[better]
        kept[better, _MASKS:] = differs[better]
    return out[kept].tobytes(), np.cumsum(least)


def _earlier(word: U8, reference: int) -> U8:
    """Return for each word the one of its opcode that many before it in its core's stream."""
    opcode = word[:, 0].astype(np.int64)
    ends = opcode == BY_MNEMONIC["halt"].opcode
    key = (np.cumsum(ends) - ends << 8) | opcode
    order = np.argsort(key, kind="stable")
    made = np.zeros_like(word)
    made[:, 0] = word[:, 0]
    same = key[order[reference:]] == key[order[:-reference]]
    made[order[reference:][same]] = word[order[:-reference][same]]
    return made


def unpack(stream: bytes) -> bytes:
    """Return the words of a packed stream.

    Raises:
        EncodingError: it ends inside an instruction, or is not as `pack` writes it.
    """
    made: list[bytes] = []
    earlier: dict[int, list[bytes]] = {}
    halt = BY_MNEMONIC["halt"].opcode
    at = 0
    while at < len(stream):
        opcode, reference = stream[at] & ((1 << OPCODE_BITS) - 1), stream[at] >> OPCODE_BITS
        known = earlier.setdefault(opcode, [bytes([opcode]) + bytes(WORD_BYTES - 1)] * REFERENCES)
        if reference:
            word, at = _patched(stream, at + 1, known[-reference])
        else:
            word, at = stream[at : at + WORD_BYTES], at + WORD_BYTES
        if at > len(stream):
            raise EncodingError("the packed instruction stream ends inside an instruction")
        made.append(word)
        if opcode == halt:
            earlier.clear()
        else:
            known.append(word)
            del known[0]
    words = b"".join(made)
    if pack(words)[0] != stream:
        raise EncodingError("the packed instruction stream is not in its shortest form")
    return words


def _patched(stream: bytes, at: int, word: bytes) -> tuple[bytes, int]:
    """Return the word that differs from `word` as the masks at `at` say, and where they end."""
    groups = _BITS[stream[at]] if at < len(stream) else ()
    masks = stream[at + 1 : at + 1 + len(groups)]
    at += 1 + len(groups)
    patched = bytearray(word)
    for group, mask in zip(groups, masks, strict=False):
        for bit in _BITS[mask]:
            if at < len(stream):
                patched[8 * group + bit] = stream[at]
            at += 1
    return bytes(patched), at
