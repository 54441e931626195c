"""Files that a user names: read with a bound, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from lepton.errors import InputError, ProgramError

__all__ = ["atomic_write", "made_folder", "read_file", "refuse_special", "temporary_folder"]


def _special(path: Path) -> str:
    """Return what a path is instead of a file, "" for a file or nothing."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return ""
    if stat.S_ISREG(mode):
        return ""
    return "a folder" if stat.S_ISDIR(mode) else "not a file"


def refuse_special(path: Path) -> None:
    """Raise InputError for a folder, a device or a pipe; what is missing is left to its reader."""
    kind = _special(path)
    if kind:
        raise InputError(f"{path}: cannot be read: it is {kind}")


def read_file(path: Path, maximum_bytes: int, kind: str) -> bytes:
    """Return the bytes of a regular file.

    Args:
        path: the file.
        maximum_bytes: its greatest size, whole GiB.
        kind: what it is, for the error.

    Raises:
        InputError: it is no such file, cannot be read, or is too large.
    """
    refuse_special(path)
    try:
        if path.stat().st_size > maximum_bytes:
            raise InputError(f"{path}: {kind} must not exceed {maximum_bytes >> 30} GiB")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read: {reason}") from None


def made_folder(folder: Path) -> Path:
    """Make a folder and those above it, and return it.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from None
    return folder


@contextmanager
def temporary_folder() -> Generator[Path]:
    """Make a folder for one block; it goes with all it holds, whatever ends the block.

    Its name is known before it is made, so that a signal that arrives meanwhile leaves nothing, as
    it can with the standard library's.
    """
    folder = Path(tempfile.gettempdir()) / f"lepton-{secrets.token_hex(8)}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        except BaseException:  # a signal: first the rest of what is inside
            shutil.rmtree(folder, ignore_errors=True)
            raise


def atomic_write(path: Path, content: bytes) -> None:
    """Write `content` to `path` through a neighbouring temporary file.

    Raises:
        ProgramError: naming the path and the system's reason; nothing is left behind.
    """
    kind = _special(path)
    if kind:  # a device would be replaced by a file
        raise ProgramError(f"{path}: cannot be written: it is {kind}")
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".lepton-{secrets.token_hex(8)}"
    try:
        with temporary.open("xb") as file:
            file.write(content)
        os.replace(temporary, target)
    except OSError as error:
        raise ProgramError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):  # it has been renamed, or was never made
            temporary.unlink()
