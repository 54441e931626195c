"""What commands share: writing files, never over what they read."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError, ProgramError
from lepton.program import atomic_write

__all__ = ["refuse_overwrite", "refuse_unwritable", "write_arrays", "write_file"]


def write_file(path: Path, content: bytes) -> None:
    """Write a file through a temporary one; a failure leaves nothing under the final name."""
    try:
        atomic_write(path, content)
    except ProgramError as error:
        raise InputError(str(error)) from None


def refuse_overwrite(read: Iterable[Path | None], written: Iterable[Path | None]) -> None:
    """Raise InputError if a file to write is one that is read, or is to be written twice."""
    sources = {os.path.realpath(path) for path in read if path is not None}
    targets: set[str] = set()
    for path in written:
        if path is None:
            continue
        place = os.path.realpath(path)
        if place in sources:
            raise InputError(f"{path}: would overwrite what is read; choose another name")
        if place in targets:
            raise InputError(f"{path}: would be written twice; choose another name")
        targets.add(place)


def refuse_unwritable(path: Path) -> None:
    """Raise InputError if a file cannot be made at a place, before long work is done for it."""
    reason = ""
    if path.is_dir():
        reason = "it is a folder"
    elif not path.parent.is_dir():
        reason = f"there is no folder {path.parent}"
    elif not os.access(path.parent, os.W_OK):
        reason = f"nothing may be written in {path.parent}"
    if reason:
        raise InputError(f"{path}: cannot be written: {reason}")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as .npz, or the only one as .npy."""
    buffer = io.BytesIO()
    if path.suffix == ".npy":
        if len(arrays) != 1:
            raise InputError(f"{path}: there are {len(arrays)} outputs; use a .npz file")
        np.save(buffer, next(iter(arrays.values())))
    else:
        _write_archive(buffer, path, arrays)
    write_file(path, buffer.getvalue())


def _write_archive(buffer: io.BytesIO, path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write what `np.savez` writes, which takes no array called `file`."""
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            # a zip file ends a name at a zero, and keeps its length in 16 bits
            if "\0" in name or len(name.encode()) > 60_000:
                raise InputError(f"{path}: output '{name[:40]}' has a name no .npz file can hold")
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)
