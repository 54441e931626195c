"""Options of a compilation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["CompileOptions"]


@dataclass(frozen=True)
class CompileOptions:
    """Options of a compilation.

    Attributes:
        shapes: input name -> shape, for models with dynamic dimensions.
        keep_all: make every tensor of the source model an output, to compare layer by layer.
    """

    shapes: Mapping[str, Sequence[int]] | None = None
    keep_all: bool = False
