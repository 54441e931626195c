"""Texts of reports: operator names that fit, sizes, energies, what was optimized for."""

from __future__ import annotations

from collections.abc import Sequence

from lepton.program import Arena, Objective, one_line

__all__ = ["arena_text", "joules_text", "optimized_text", "queue_kind", "shorten", "size_text"]
__all__ += ["tidy_names"]

_GENERIC = (
    "fusedbatchnorm",
    "batch_norm",
    "batchnorm",
    "biasadd",
    "relu",
    "conv2d1",
    "readvariable",
)
"""Starts of path components that say how, not which; dropped first, from the end."""


def _head(name: str) -> str:
    """Return the first of the names that a fused operator carries, on one line."""
    flat = " ".join(name.split())
    return flat.split(";", 1)[0].strip() or flat


def tidy_names(names: Sequence[str]) -> list[str]:
    """Return the first name of every fused one, without the path that most of them share."""
    heads = [_head(name) for name in names]
    paths = [head.split("/") for head in heads if "/" in head]
    firsts = {path[0] for path in paths}
    if len(paths) > 1 and len(firsts) == 1:
        root = f"{firsts.pop()}/"
        heads = [head.removeprefix(root) or head for head in heads]
    return heads


def shorten(name: str, width: int) -> str:
    """Return `name` in at most `width` characters.

    Generic path components go first, from the end; then the left, because models number their
    blocks and name the function at the right.
    """
    parts = name.split("/")
    while len(name) > width and len(parts) > 1 and parts[-1].lower().startswith(_GENERIC):
        parts.pop()
        name = "/".join(parts)
    return name if len(name) <= width else f"…{name[len(name) - max(width, 1) + 1 :]}"


def queue_kind(queue: str) -> str:
    """Return a queue's name without its core and the number of its channel."""
    return queue.rpartition(".")[2].rstrip("0123456789")


def size_text(size: int) -> str:
    """Return bytes as text with a unit that keeps small numbers exact."""
    return f"{size:,} B" if size < 1024 else f"{size / 1024:,.1f} KiB"


def arena_text(arena: Arena) -> str:
    """Return what activations take of a memory and what they need at least."""
    taken, bound = size_text(arena.peak_bytes), size_text(arena.bound_bytes)
    return f"{one_line(arena.memory)} {taken} of at least {bound}"


def joules_text(joules: float) -> str:
    """Return an energy with the unit that keeps it between 1 and 1,000 where one does."""
    for unit, size in (("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9)):
        if joules >= size:
            return f"{joules / size:,.4g} {unit}"
    return f"{joules * 1e12:,.4g} pJ"


def optimized_text(objective: str) -> str:
    """Return what a program was optimized for as the end of a line, "" for the default."""
    return "" if objective == Objective.LATENCY else f", optimized for {objective}"
