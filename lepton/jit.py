"""`njit` with an on-disk cache that can be trusted.

Numba keys its cache by the file of the compiled function only, not by what that function calls or
reads in other files, so an edit elsewhere would still hit the stale machine code. The cache folder
here is named by a hash of all of the package's sources.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast, overload

import numba

__all__ = ["cache_folder", "njit", "njit_borrowing", "sources_hash"]

F = TypeVar("F", bound=Callable[..., Any])


@cache
def sources_hash() -> str:
    """Return the SHA-256 of the package's Python sources, 16 hexadecimal digits."""
    root = Path(__file__).parent
    sha = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        sha.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()[:16]


@cache
def cache_folder() -> Path:
    """Return the folder of compiled kernels: in the user's cache, or temporary if unwritable."""
    base = Path(os.path.expanduser("~")) / ".cache" / "lepton"
    folder = base / f"numba-{numba.__version__}-{sources_hash()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        fallback = Path(tempfile.gettempdir()) / f"lepton-{os.getuid()}-{sources_hash()}"
        fallback.mkdir(mode=0o700, parents=True, exist_ok=True)
        return fallback


@overload
def njit(function: F) -> F: ...
@overload
def njit(*, error_model: str) -> Callable[[F], F]: ...
def njit(function: F | None = None, *, error_model: str = "python") -> Any:
    """Compile a function with Numba, cached on disk, without the interpreter lock.

    Used bare (`@njit`) or with `error_model="numpy"`, where a division by zero gives inf or NaN.
    """
    numba.config.CACHE_DIR = str(cache_folder())  # pyright: ignore[reportAttributeAccessIssue]
    compiler: Any = numba.njit(cache=True, nogil=True, error_model=error_model)  # pyright: ignore
    return compiler if function is None else cast(F, compiler(function))


def njit_borrowing(function: F) -> F:
    """Compile as `njit` does, inlined into its callers, a function that makes and keeps no array.

    Numba then counts no references to arrays: in kernels of many small functions those atomic
    updates, and the passing of arrays between functions, cost several times the work itself.
    """
    numba.config.CACHE_DIR = str(cache_folder())  # pyright: ignore[reportAttributeAccessIssue]
    compiler: Any = numba.njit(  # pyright: ignore
        cache=True, nogil=True, forceinline=True, _nrt=False
    )
    return cast(F, compiler(function))
