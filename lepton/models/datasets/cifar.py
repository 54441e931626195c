"""CIFAR-10 from its binary version or from `.npz` files; its pickled version is never read.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009;
https://www.cs.toronto.edu/~kriz/cifar.html : a record is the label and 3,072 bytes of pixels,
channel by channel, row by row.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.datasets.dataset import Dataset, image_dataset
from lepton.program import read_file, refuse_special

__all__ = ["CIFAR10_NAMES", "load_cifar10"]

CIFAR10_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_UNPACKED = "cifar-10-batches-bin"
"""Folder in the archive of the binary version."""
_PIXELS = 3 * 32 * 32
_RECORD = 1 + _PIXELS
_MAXIMUM_BYTES = 1 << 30
_BATCHES = {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test": ("test_batch.bin",)}


def load_cifar10(path: Path | str, part: str = "train") -> Dataset:
    """Load CIFAR-10.

    Args:
        path: folder of the binary version (`data_batch_1.bin` ...), or the one that its archive was
            unpacked in (`cifar-10-batches-bin`), one such file, or a `.npz` file
            with `x` [n, 32, 32, 3] uint8 and `y` [n].
        part: `train` or `test`, for a folder.

    Returns:
        Images [n, 3, 32, 32] uint8.

    Raises:
        InputError: a file is missing, damaged or pickled.
    """
    source = Path(path)
    if part not in _BATCHES:
        raise InputError(f"part must be train or test, not '{part}'")
    if source.suffix == ".npz":
        return _from_npz(source)
    if (source / _UNPACKED).is_dir():
        source /= _UNPACKED
    if (source / "data_batch_1").exists() or (source / "cifar-10-batches-py").is_dir():
        raise InputError(
            f"{source}: pickled batches are not read; fetch the binary version: python -m "
            "lepton.models.datasets.download cifar10 FOLDER"
        )
    files = [source / name for name in _BATCHES[part]] if source.is_dir() else [source]
    records = np.concatenate([_records(file) for file in files])
    images = records[:, 1:].reshape(-1, 3, 32, 32)
    return image_dataset(images, records[:, 0], CIFAR10_NAMES)


def _records(path: Path) -> NDArray[np.uint8]:
    """Return the records [n, 3073] of one file of the binary version."""
    content = read_file(path, _MAXIMUM_BYTES, "a CIFAR-10 batch")
    if not content or len(content) % _RECORD:
        raise InputError(
            f"{path}: a batch of the binary version has records of {_RECORD} bytes, and this has "
            f"{len(content)} bytes; pickled batches are not read"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    if int(records[:, 0].max()) >= len(CIFAR10_NAMES):
        raise InputError(f"{path}: labels must be 0 to 9, not {int(records[:, 0].max())}")
    return records


def _from_npz(path: Path) -> Dataset:
    refuse_special(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images: NDArray[Any] = arrays["x"]
            labels: NDArray[Any] = arrays["y"]
    except KeyError:
        raise InputError(f"{path}: must hold the arrays x and y") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise InputError(f"{path}: not a .npz file of plain arrays") from None
    if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3):
        raise InputError(
            f"{path}: x must be [n, 32, 32, 3] uint8, not {list(images.shape)} {images.dtype}"
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(f"{path}: y must be [n] integers, not {labels.dtype}")
    first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return image_dataset(first, labels, CIFAR10_NAMES)
