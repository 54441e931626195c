"""Names from files: a chip, a model or a tensor may be called anything."""

from __future__ import annotations

__all__ = ["one_line"]


def one_line(text: str) -> str:
    """Return a text fit for a terminal: white space as single spaces, what is no glyph as `?`."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split()))
