"""Numbers of the entropy-coded weight streams; the manual has the rules (`weights`)."""

from __future__ import annotations

__all__ = [
    "BUCKETS",
    "EXTRA_BITS",
    "FIELD_BITS",
    "FIRST_SYMBOLS",
    "LEVEL_BITS",
    "LEVEL_COUNTS",
    "SLOT_BITS",
    "STATE_BITS",
]

EXTRA_BITS = (0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6)
"""Bits that tell the symbols of a bucket apart."""
BUCKETS = len(EXTRA_BITS)
FIRST_SYMBOLS = (0, 1, 3, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193)
"""The first symbol of each bucket."""
LEVEL_BITS = 4
LEVEL_COUNTS = (0, 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""The count that each level stands for."""
SLOT_BITS = 10
"""The counts of all buckets add up to two to the power of this."""
STATE_BITS = 12
"""A state is two to the power of this and so many bits."""
FIELD_BITS = SLOT_BITS + max(EXTRA_BITS)
"""Bits of an element in the stream, at most."""
