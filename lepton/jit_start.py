"""Numba's start without SciPy.

The first kernel that a process loads makes Numba import its functions on arrays, and these import
`scipy.linalg`, an eighth of the time of a cold start, only to know whether it is there.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

__all__ = ["import_array_functions"]


def import_array_functions() -> None:
    """Let Numba import its functions on arrays, with SciPy looked for and not loaded.

    A kernel that calls a function of SciPy still makes Numba load it. A Numba that asks in another
    way is not hindered.
    """
    linalg = vars(import_module("numba.np.linalg"))
    if not find_spec("scipy") or "ensure_blas" not in linalg:
        return
    load = linalg["ensure_blas"]
    linalg["ensure_blas"] = lambda: None
    try:
        import_module("numba.np.arraymath")
    finally:
        linalg["ensure_blas"] = load
