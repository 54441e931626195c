"""Packed instruction streams in plain loops: docs/isa.md, "Packed streams", written out."""

from __future__ import annotations

from lepton.program import Program

__all__ = ["naive_pack", "stored_lengths"]


def naive_pack(words: list[bytes]) -> list[bytes]:
    """Return what each word is in a packed stream."""
    made: list[bytes] = []
    region: list[bytes] = []
    for word in words:
        same = [earlier for earlier in region if earlier[0] == word[0]]
        choices = [word]
        for reference in (3, 2, 1):
            base = same[-reference] if reference <= len(same) else word[:1] + bytes(63)
            choices.append(_patch(word, base, reference))
        # the nearest reference of the shortest
        fewest = min(len(choice) for choice in choices)
        made.append(word if fewest == 64 else next(c for c in choices[::-1] if len(c) == fewest))
        region = [] if word[0] == 1 else [*region, word]
    return made


def _patch(word: bytes, base: bytes, reference: int) -> bytes:
    groups, masks, changed = 0, list[int](), list[int]()
    for group in range(8):
        differs = [8 * group + k for k in range(8) if word[8 * group + k] != base[8 * group + k]]
        if differs:
            groups += 2**group
            masks.append(sum(2 ** (byte % 8) for byte in differs))
            changed += [word[byte] for byte in differs]
    return bytes([word[0] + 64 * reference, groups, *masks, *changed])


def stored_lengths(program: Program) -> list[int]:
    """Return the bytes that each instruction takes in memory."""
    code = program.instructions
    words = [code[at : at + 64] for at in range(0, len(code), 64)]
    return [len(stored) for stored in (naive_pack(words) if program.chip.control.packed else words)]
