"""Samples by a name on the command line, split into those to train, to choose and to measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError
from lepton.models.datasets import Dataset, hold_out, load_cifar10, load_digits, load_image_folder
from lepton.models.datasets.idx import GARMENT_NAMES
from lepton.models.training.recipes import RECIPES, SPLIT_SEED, VALIDATION_IMAGES, Split
from lepton.program import read_arrays

__all__ = ["named_split"]

_PARTS = 6
"""A sixth of samples that come without a test part measures, another validates."""
_MOST_CLASSES = 1 << 16
"""Each has a name; ImageNet's largest edition has 21,841."""


def named_split(text: str) -> Split:
    """Return the samples that a user names.

    Args:
        text: `digits`, `intents`, `clicks`, `next_item`; `mnist:` or `fashion:` and the folder of
            the IDX files, or `cifar10:` and that of the binary batches, as
            `lepton.models.datasets.download` leaves them; a folder with a folder of pictures for
            each class; one or two `.npz` files with `x` [n, ...] and `y` [n], the second to measure
            with.


    Raises:
        InputError: there are none of that name, or they cannot be read.
    """
    kind, _, place = text.partition(":")
    if text == "digits":
        return _thirds(load_digits())
    if text in ("intents", "clicks", "next_item"):
        return RECIPES[text].load(None)
    if kind in _FOLDERS and place:
        return _FOLDERS[kind](Path(place))
    if Path(text).is_dir():
        return _thirds(load_image_folder(text))
    if text.endswith(".npz"):
        return _of_arrays([Path(part) for part in text.split(",")])
    raise InputError(f"data '{text}': no such samples; see `lepton compress --help`")


def _mnist(folder: Path) -> Split:
    return RECIPES["mnist"].load(folder)


def _fashion(folder: Path) -> Split:
    return Split(*(replace(part, classes=GARMENT_NAMES) for part in _mnist(folder)))


def _cifar10(folder: Path) -> Split:
    rest = load_cifar10(folder)
    count = min(VALIDATION_IMAGES, max(len(rest) // _PARTS, 1))
    return Split(*hold_out(rest, count, SPLIT_SEED), load_cifar10(folder, "test"))


_FOLDERS: Mapping[str, Callable[[Path], Split]] = {
    "mnist": _mnist,
    "fashion": _fashion,
    "cifar10": _cifar10,
}


def _thirds(samples: Dataset) -> Split:
    """Split off a part to measure with, and one to validate."""
    if len(samples) < _PARTS:
        raise InputError(
            f"data: {len(samples)} samples are too few to train with, to choose by and to measure "
            f"with: give {_PARTS} or more"
        )
    rest, test = hold_out(samples, len(samples) // _PARTS, SPLIT_SEED)
    return Split(*hold_out(rest, len(samples) // _PARTS, SPLIT_SEED), test)


def _of_arrays(paths: list[Path]) -> Split:
    """Return the samples of one or two files of arrays."""
    if len(paths) > 2:
        raise InputError(f"data: at most a training and a test file, not {len(paths)}")
    parts = [_read(path) for path in paths]
    if len(parts) == 1:
        return _thirds(parts[0])
    count = max(len(parts[0]) // _PARTS, 1)
    return Split(*hold_out(parts[0], count, SPLIT_SEED), parts[1])


def _read(path: Path) -> Dataset:
    arrays: dict[str, NDArray[Any]] = read_arrays(path)
    if set(arrays) != {"x", "y"}:
        raise InputError(f"{path}: must hold the arrays x and y, not {', '.join(sorted(arrays))}")
    x, y = arrays["x"], arrays["y"]
    if not np.issubdtype(y.dtype, np.integer) or y.ndim != 1 or not len(y) or y.min() < 0:
        raise InputError(f"{path}: y must be class numbers [n], from 0 on")
    if y.max() >= _MOST_CLASSES:
        raise InputError(f"{path}: y must be class numbers below {_MOST_CLASSES:,}, not {y.max()}")
    if x.dtype.kind not in "biuf" or not x.ndim:
        raise InputError(f"{path}: x must be real numbers [n, ...], not {x.dtype} {list(x.shape)}")
    if x.dtype == np.uint8 and x.ndim == 4 and x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3):
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    if x.dtype != np.uint8:
        with np.errstate(over="ignore"):  # what is infinite then is refused with the other parts
            x = x.astype(np.int64 if np.issubdtype(x.dtype, np.integer) else np.float32)
    return Dataset((x,), y.astype(np.int64), tuple(str(k) for k in range(int(y.max()) + 1)))
