"""IDX files, the format of MNIST and Fashion-MNIST.

Source: http://yann.lecun.com/exdb/mnist/ : two zero bytes, the type (8 is unsigned byte), the
number of dimensions, each dimension as a big-endian 32-bit integer, then the values.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.datasets.dataset import Dataset, image_dataset
from lepton.program import refuse_special

__all__ = ["DIGIT_NAMES", "GARMENT_NAMES", "load_mnist", "read_idx"]

DIGIT_NAMES = tuple("0123456789")
GARMENT_NAMES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot",
)  # fmt: skip
_UNSIGNED_BYTE = 8
_MAXIMUM_BYTES = 1 << 30
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the values of an IDX file of bytes, compressed by gzip or not.

    Raises:
        InputError: the file is missing, damaged, or of another type; never more than the size that
            its header states is decompressed.
    """
    refuse_special(path)
    try:
        with path.open("rb") as stream:
            is_compressed = stream.read(2) == _GZIP_MAGIC
            stream.seek(0)
            if not is_compressed:
                return _values(stream, path)
            with gzip.GzipFile(fileobj=stream) as inner:
                return _values(inner, path)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path}: the gzip stream is damaged or cut off") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _values(stream: BinaryIO | gzip.GzipFile, path: Path) -> NDArray[np.uint8]:
    """Read header and values, and see that nothing is missing or left."""
    header = stream.read(4)
    if len(header) < 4 or header[:2] != b"\0\0" or not header[3]:
        raise InputError(f"{path}: not an IDX file")
    if header[2] != _UNSIGNED_BYTE:
        raise InputError(f"{path}: values must be unsigned bytes (type 8), not type {header[2]}")
    sizes = stream.read(4 * header[3])
    if len(sizes) < 4 * header[3]:
        raise InputError(f"{path}: the header is cut off")
    shape = struct.unpack(f">{header[3]}I", sizes)
    count = prod(shape)
    if count > _MAXIMUM_BYTES:
        raise InputError(f"{path}: an array of {list(shape)} exceeds {_MAXIMUM_BYTES >> 30} GiB")
    values = stream.read(count + 1)
    if len(values) != count:
        found = "more" if len(values) > count else str(len(values))
        raise InputError(f"{path}: {count} values are stated, and the file has {found}")
    return np.frombuffer(values, np.uint8).reshape(shape)


def load_mnist(
    folder: Path | str, part: str = "train", classes: Sequence[str] = DIGIT_NAMES
) -> Dataset:
    """Load MNIST, or a set of its format, from its two IDX files.

    Args:
        folder: with `train-images-idx3-ubyte` and so on, with or without `.gz`.
        part: `train` or `test`.
        classes: names of the labels; `GARMENT_NAMES` for Fashion-MNIST.

    Returns:
        Images [n, 1, h, w] uint8.

    Raises:
        InputError: a file is missing or damaged, or the two do not fit.
    """
    prefixes = {"train": "train", "test": "t10k"}
    if part not in prefixes:
        raise InputError(f"part must be train or test, not '{part}'")
    images_path, labels_path = (
        _found(Path(folder), f"{prefixes[part]}-{kind}-ubyte")
        for kind in ("images-idx3", "labels-idx1")
    )
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or labels.ndim != 1:
        raise InputError(
            f"{images_path}: images and labels must have 3 and 1 dimensions, "
            f"not {images.ndim} and {labels.ndim}"
        )
    return image_dataset(images[:, np.newaxis], labels, classes)


def _found(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise InputError(f"{folder}: no file {name} or {name}.gz")
