"""Numbers and ranges that nothing can be quantized with, refused in one sentence."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lepton.errors import InputError

__all__ = ["check_finite", "check_range"]


def check_finite(values: ArrayLike, label: str) -> None:
    """Raise InputError, with what a message calls them, if numbers are NaN or infinite."""
    if not np.isfinite(np.asarray(values)).all():
        raise InputError(f"{label} hold NaN or infinite numbers")


def check_range(limits: tuple[ArrayLike, ArrayLike], label: str = "a range") -> None:
    """Raise InputError unless ranges, one or `[channels]`, are finite and not reversed."""
    low, high = (np.asarray(item, np.float64) for item in limits)
    wrong = ~(np.isfinite(low) & np.isfinite(high) & (low <= high))
    if wrong.any():
        low, high = (np.broadcast_to(item, wrong.shape)[wrong][0] for item in (low, high))
        raise InputError(f"{label} must be finite and go up, not from {low:g} to {high:g}")
