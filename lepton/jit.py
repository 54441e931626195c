"""`njit` with an on-disk cache that can be trusted.

Numba keys its cache by the file of the compiled function only, not by what that function calls or
reads in other files, so an edit elsewhere would still hit the stale machine code. Here the kernels
of a module are cached in a folder named by a hash of its source and of every module of the package
that it imports, directly or through others.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import numba
from numba.core import config
from numba.extending import register_jitable

from lepton.jit_cache import compile_in_turns
from lepton.jit_parts import is_tried, part_options
from lepton.jit_start import import_array_functions

__all__ = ["cache_folder", "folder_of", "imported_files", "module_file", "njit", "shares_cache"]
__all__ += ["sources_hash"]

F = TypeVar("F", bound=Callable[..., Any])
ErrorModel = Literal["python", "numpy"]

import_array_functions()

_PACKAGE = Path(__file__).parent
_IMPORT = re.compile(
    r"^\s*from (lepton[\w.]*) import (\([^)]*\)|[^\n]*)|^\s*import (lepton[\w.]*)", re.M
)


def sources_hash(files: Iterable[Path] | None = None) -> str:
    """Return the SHA-256 of sources, by default the whole package's, 16 hexadecimal digits."""
    sha = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py") if files is None else files):
        sha.update(str(path.relative_to(_PACKAGE.parent)).encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()[:16]


def module_file(module: str) -> Path | None:
    """Return the file of a module of the package, or None if there is no such module."""
    path = _PACKAGE.parent.joinpath(*module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


@cache
def _imports(file: Path) -> frozenset[Path]:
    """Return the files of the package that a file names in its imports, late ones included."""
    found: set[Path | None] = set()
    for module, names, plain in _IMPORT.findall(file.read_text(encoding="utf-8")):
        found.add(module_file(module or plain))
        found.update(module_file(f"{module}.{name}") for name in re.findall(r"\w+", names))
    return frozenset(path for path in found if path)


def imported_files(file: Path) -> frozenset[Path]:
    """Return a file of the package and all those that it imports, directly or through others."""
    known = {file}
    waiting = [file]
    while waiting:
        new = _imports(waiting.pop()) - known
        known |= new
        waiting += new
    return frozenset(known)


@cache
def cache_folder() -> Path:
    """Return the folder of compiled kernels: in the user's cache, or temporary if unwritable."""
    folder = Path(os.path.expanduser("~")) / ".cache" / "lepton" / f"numba-{numba.__version__}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        fallback = Path(tempfile.gettempdir()) / f"lepton-{os.getuid()}-{numba.__version__}"
        fallback.mkdir(mode=0o700, parents=True, exist_ok=True)
        return fallback


@cache
def folder_of(name: str) -> str:
    """Return the folder of the kernels of the file called `name`."""
    file = Path(name)
    if not file.is_relative_to(_PACKAGE):
        return str(cache_folder() / f"{file.stem}-{sources_hash()}")
    return str(cache_folder() / f"{file.stem}-{sources_hash(imported_files(file))}")


def shares_cache() -> bool:
    """Return whether processes that compile the same kernels wait for each other."""
    return is_tried() and not config.DISABLE_JIT  # pyright: ignore[reportAttributeAccessIssue]


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
    One that is `inlined` becomes part of its callers; Python itself runs it as it is written.
    """
    options: dict[str, Any] = {} if allocates else {"_nrt": False}
    # set either way: a function takes over from its first caller what it does not say itself
    options |= {"error_model": error_model, "forceinline": inlined}
    if inlined:
        return register_jitable(**options, **part_options())

    def compiled(python: Callable[..., Any]) -> Any:
        # Numba makes the attributes of its configuration at run time.
        config.CACHE_DIR = folder_of(python.__code__.co_filename)  # pyright: ignore[reportAttributeAccessIssue]
        if not shares_cache():
            return numba.njit(cache=True, nogil=True, **options)(python)
        return compile_in_turns(numba.njit(nogil=True, **options)(python), python)

    return compiled if function is None else compiled(function)
