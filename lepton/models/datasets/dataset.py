"""Samples and their labels as arrays, and splitting them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError

__all__ = ["Dataset", "hold_out", "image_dataset"]


@dataclass(frozen=True)
class Dataset:
    """Samples with labels.

    Attributes:
        inputs: one array [n, ...] for each input of a network, float32 or int64. Images are
            channels first and may be uint8: a network gets them divided by 255 as float32.
        labels: [n] int64.
        classes: names of the labels; empty where labels are no classes.

    Raises:
        InputError: the arrays differ in length, or a label is no class.
    """

    inputs: tuple[NDArray[Any], ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(array.ndim for array in (*self.inputs, self.labels)):
            raise InputError("inputs and labels must be arrays [n, ...]: one is a single number")
        lengths = [len(array) for array in (*self.inputs, self.labels)]
        if len(set(lengths)) != 1:
            raise InputError(f"inputs and labels must have one length, not {lengths}")
        if self.classes and self.labels.size:
            low, high = int(self.labels.min()), int(self.labels.max())
            if low < 0 or high >= len(self.classes):
                raise InputError(
                    f"labels must be 0 to {len(self.classes) - 1}, not {low} to {high}"
                )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, samples: NDArray[np.int64] | slice) -> Dataset:
        """Return the samples of some indices, in their order."""
        chosen = tuple(array[samples] for array in self.inputs)
        return Dataset(chosen, self.labels[samples], self.classes)

    def batch(self, samples: NDArray[np.int64] | slice) -> tuple[NDArray[Any], ...]:
        """Return some samples as a network takes them: bytes become float32 0..1."""
        return tuple(
            array[samples].astype(np.float32) / np.float32(255)
            if array.dtype == np.uint8
            else array[samples]
            for array in self.inputs
        )


def image_dataset(
    images: NDArray[np.uint8], labels: Sequence[int] | NDArray[Any], classes: Sequence[str]
) -> Dataset:
    """Return a data set of images [n, c, h, w] uint8."""
    return Dataset((images,), np.asarray(labels, np.int64), tuple(classes))


def hold_out(dataset: Dataset, samples: int, seed: int) -> tuple[Dataset, Dataset]:
    """Split off some samples, drawn by the seed, each class in proportion where there are classes.

    A class's share is rounded down, and the largest remainders get one more.

    Returns:
        What remains, and the samples split off; both keep the order of the data set.

    Raises:
        InputError: `samples` is not from 1 to one less than there are.
    """
    if not 0 < samples < len(dataset):
        raise InputError(f"samples held out must be 1 to {len(dataset) - 1}, not {samples}")
    rng = np.random.default_rng(seed)
    groups = dataset.labels if dataset.classes else np.zeros(len(dataset), np.int64)
    counts = np.bincount(groups)
    exact = counts * (samples / len(dataset))
    shares = np.floor(exact).astype(np.int64)
    missing = samples - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[:missing]] += 1
    is_held = np.zeros(len(dataset), np.bool_)
    for group, share in enumerate(shares):
        is_held[rng.permutation(np.flatnonzero(groups == group))[:share]] = True
    return dataset.take(np.flatnonzero(~is_held)), dataset.take(np.flatnonzero(is_held))
