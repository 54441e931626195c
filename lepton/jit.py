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
from typing import Any, Literal, TypeVar, overload

import numba
from numba.core import config

__all__ = ["cache_folder", "njit", "sources_hash"]

F = TypeVar("F", bound=Callable[..., Any])
ErrorModel = Literal["python", "numpy"]


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
def njit(
    *, error_model: ErrorModel = ..., allocates: bool = ..., inlined: bool = ...
) -> Callable[[F], F]: ...
def njit(
    function: Callable[..., Any] | None = None,
    *,
    error_model: ErrorModel = "python",
    allocates: bool = True,
    inlined: bool = False,
) -> Any:
    """Compile a function with Numba, cached on disk, without the interpreter lock.

    Used bare (`@njit`), with `error_model="numpy"`, where a division by zero gives no error,
    or with `allocates=False` for a function that makes no array, nor do those that it calls: it
    counts no references to arrays, which small functions of many spend most of their time with.
    One that is `inlined` becomes part of its callers.
    """
    # Numba makes the attributes of its configuration at run time.
    config.CACHE_DIR = str(cache_folder())  # pyright: ignore[reportAttributeAccessIssue]
    options: dict[str, Any] = {"forceinline": True} if inlined else {}
    if not allocates:
        options["_nrt"] = False
    compiler: Any = numba.njit(cache=True, nogil=True, error_model=error_model, **options)
    return compiler if function is None else compiler(function)
