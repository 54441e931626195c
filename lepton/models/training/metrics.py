"""How good a classifier is: accuracy, precision, recall, F1 and the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton.errors import InputError

__all__ = ["Scores", "confusion_matrix", "scores"]


@dataclass(frozen=True)
class Scores:
    """What a confusion matrix says; all but the matrix in 0..1, per class [classes] float64.

    Attributes:
        confusion: [actual, predicted] counts.
        precision: right among those predicted, TP / (TP + FP); 0 for a class never predicted.
        recall: right among those that are, TP / (TP + FN); 0 for a class that never occurs.
        f1: their harmonic mean, 2 TP / (2 TP + FP + FN); 0 where all three are 0.
        accuracy: right among all.
    """

    confusion: NDArray[np.int64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    accuracy: float

    @property
    def macro_f1(self) -> float:
        """The plain mean of the classes' F1."""
        return float(self.f1.mean())


def confusion_matrix(
    labels: NDArray[Any], predicted: NDArray[Any], classes: int
) -> NDArray[np.int64]:
    """Count [actual, predicted] pairs.

    Raises:
        InputError: the arrays differ in length, are empty, or hold a number that is no class.
    """
    if labels.shape != predicted.shape or labels.ndim != 1 or not labels.size:
        raise InputError(
            "labels and predictions must be two arrays [n] of one length, not "
            f"{list(labels.shape)} and {list(predicted.shape)}"
        )
    both = np.concatenate([labels, predicted])
    if both.min() < 0 or both.max() >= classes:
        raise InputError(f"classes must be 0 to {classes - 1}, not {both.min()} to {both.max()}")
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def scores(labels: NDArray[Any], predicted: NDArray[Any], classes: int) -> Scores:
    """Return all scores of predictions [n] against labels [n]; see `confusion_matrix`."""
    confusion = confusion_matrix(labels, predicted, classes)
    right = np.diag(confusion).astype(np.float64)
    said, actual = confusion.sum(axis=0), confusion.sum(axis=1)
    return Scores(
        confusion,
        right / np.maximum(said, 1),
        right / np.maximum(actual, 1),
        2 * right / np.maximum(said + actual, 1),
        float(right.sum() / confusion.sum()),
    )
