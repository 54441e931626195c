"""Files of NumPy arrays."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.program.files import refuse_special

__all__ = ["read_arrays"]


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a .npz file, or the one of a .npy file under the name "".

    Raises:
        InputError: not such a file; object arrays are never read.
    """
    refuse_special(path)
    try:
        loaded: Any = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        reason = error.strerror or "not a .npy or .npz file"
        raise InputError(f"{path}: cannot be read: {reason}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError, MemoryError, SyntaxError):
        raise InputError(f"{path}: not a .npy or .npz file of plain arrays") from None
